package linklog

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
)

func TestLogTellsOfChangesAndRemindsOfOutages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l Log
		for i, step := range []struct {
			after time.Duration
			state outlast.LinkState
			due   bool
		}{
			{0, outlast.LinkDown, true}, {time.Second, outlast.LinkDown, false}, {time.Second, outlast.LinkBlocked, true},
			{time.Second, outlast.LinkDown, true}, {59 * time.Second, outlast.LinkDown, false}, {time.Second, outlast.LinkDown, true},
			{time.Second, outlast.LinkUp, true}, {time.Hour, outlast.LinkUp, false}, {0, outlast.LinkDown, true},
		} {
			time.Sleep(step.after)
			if got := l.Due(step.state); got != step.due {
				t.Errorf("step %d: %s after %v is due: %v", i, step.state, step.after, got)
			}
		}
	})
}
