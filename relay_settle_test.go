package outlast_test

import (
	"context"
	"fmt"
	"sync/atomic"
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

// noMoves is a store whose table of held rows takes nothing for a while.
type noMoves struct {
	outlast.Store
	refuses atomic.Bool
	refused atomic.Int32
}

func (s *noMoves) Relay() outlast.RelayStore { return noMovesRelay{s.Store.Relay(), s} }

type noMovesRelay struct {
	outlast.RelayStore
	s *noMoves
}

func (r noMovesRelay) Settle(ctx context.Context, set *outlast.Settlement) ([]outlast.Lease, error) {
	if r.s.refuses.Load() && len(set.Hold)+len(set.Release) > 0 {
		r.s.refused.Add(1)
		return nil, &outlast.Error{Op: "settle", Code: outlast.CodeUnavailable}
	}
	return r.RelayStore.Settle(ctx, set)
}

// While rows cannot be moved to the held, those that were sent leave the outbox all the
// same: otherwise the next relay would send all of them again.
func TestWhatWasSentIsSettledWithoutWhatCannotBeMoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRelayRig(t)
		store := &noMoves{Store: g.store}
		g.bind("billing", "order.placed.v1")
		store.refuses.Store(true)
		g.start(func(c *outlast.RelayConfig) { c.Store = store })
		g.publish(message("order.lost.v1", "", 1)) // nobody hears it
		for n := range 100 {
			g.publish(placed.Message(order{ID: fmt.Sprint(n)}))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if pending, held := g.left(); pending != 1 || held != 0 {
			t.Errorf("%d pending and %d held, want the one that cannot be moved", pending, held)
		}
		if n := store.refused.Load(); n < 3 || n > 400 {
			t.Errorf("the database refused %d times in twenty seconds", n)
		}
		store.refuses.Store(false)
		time.Sleep(10 * time.Second)
		if pending, held := g.left(); pending != 0 || held != 1 {
			t.Errorf("%d pending and %d held after it takes rows again", pending, held)
		}
		g.bind("billing", "order.placed.v1", "order.lost.v1")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		g.wantEmpty()
	})
}
