package outlast_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
)

// settledCount is told how many rows a settlement deleted as sent.
type settledCount func(n int)

func (f settledCount) OnSettled(s *outlast.Settlement, _ []outlast.Lease) { f(len(s.Sent)) }

// TestRelaySettlesATrickleInFewBatches: messages that come one after another do not cost
// the database a commit each, and yet the last is settled soon.
func TestRelaySettlesATrickleInFewBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		var settlements, rows int
		g.start(func(c *outlast.RelayConfig) {
			c.Hooks = append(c.Hooks, settledCount(func(n int) { settlements, rows = settlements+1, rows+n }))
		})
		time.Sleep(time.Second)
		for i := range 200 {
			g.publish(message("a.b.v1", fmt.Sprintf("k%d", i), 0))
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(30 * time.Millisecond)
		synctest.Wait()
		if rows != 200 || settlements > 25 {
			t.Errorf("%d rows were settled in %d batches within 430 ms, want 200 in at most 25", rows, settlements)
		}
	})
}
