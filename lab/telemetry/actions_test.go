package telemetry_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// actions is what a scrape says of operators' actions.
func (s *shop) actions(action, result string) float64 {
	s.t.Helper()
	return s.scrape().sum("outlast_operator_actions_total", fmt.Sprintf(`action=%q`, action), fmt.Sprintf(`result=%q`, result))
}

// pause pauses or resumes a group or the relays.
func (s *shop) pause(group string, paused bool) {
	s.t.Helper()
	if err := s.store.Operator().SetPaused(s.t.Context(), group, paused, outlast.Action{Who: "a test"}); err != nil {
		s.t.Fatal(err)
	}
}

// nowhere is where no broker is.
const nowhere = "amqp://127.0.0.1:1/"

func TestOperatorActionsAreCounted(t *testing.T) {
	t.Parallel()

	t.Run("as the table has them", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, nowhere)
		s.pause("shop", true)
		s.observe()
		if now := s.scrape(); now.sum("outlast_operator_actions_total") != 0 || now.sum("outlast_sample_failures_total") != 0 {
			t.Error("what was done before counts, or the record could not be read")
		}
		if n, err := s.store.Operator().Dead().Replay(t.Context(), outlast.Filter{}, outlast.Action{Who: "a test"}); err != nil || n != 0 {
			t.Fatal(n, err)
		}
		for range 250 { // more than are read at once
			s.pause("shop", false)
		}
		eventually(t, "all resumptions are counted", func() bool { return s.actions("resume", "done") == 250 })
		if n := s.actions("dead replay", "nothing"); n != 1 {
			t.Errorf("%v replays of nothing", n)
		}
		if rows, n := s.number(`SELECT count(*) FROM outlast_action`), s.scrape().sum("outlast_operator_actions_total"); n != rows-1 {
			t.Errorf("counted %v of %v, one of which was before", n, rows)
		}
	})

	t.Run("one that commits after a later one", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, nowhere)
		s.observe()
		s.scrape()
		late, err := s.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer late.Rollback()
		if _, err := late.ExecContext(t.Context(), `INSERT INTO outlast_action (who, what, target, count) VALUES ('a slow test', 'dead discard', 'x', 1)`); err != nil {
			t.Fatal(err)
		}
		s.pause(outlast.RelaySwitch, true)
		eventually(t, "the second is counted", func() bool { return s.actions("pause", "done") == 1 })
		if err := late.Commit(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the first is counted", func() bool { return s.actions("dead discard", "done") == 1 })
		if n := s.actions("pause", "done"); n != 1 {
			t.Errorf("one pause was counted as %v", n)
		}
	})

	t.Run("by the same names on every store", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, nowhere)
		s.store = memory.NewStore()
		s.observe()
		s.scrape()
		s.pause("shop", true)
		eventually(t, "the pause is counted", func() bool { return s.actions("pause", "done") == 1 })
	})

	t.Run("and not asked for again where the login may not read them", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, nowhere)
		guarded := &guardedStore{Store: s.store}
		s.store = guarded
		s.observe()
		first := s.scrape().sum("outlast_sample_timestamp_seconds")
		eventually(t, "the gauges are read anew", func() bool { return s.scrape().sum("outlast_sample_timestamp_seconds") >= first+time.Second.Seconds() })
		if n := guarded.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if n := s.scrape().sum("outlast_sample_failures_total"); n != 0 {
			t.Errorf("%v reads failed", n)
		}
	})
}

// guardedStore shows nobody the record of actions.
type guardedStore struct {
	outlast.Store
	asked atomic.Int32
}

func (s *guardedStore) Operator() outlast.OperatorStore {
	return guardedOperator{s.Store.Operator(), s}
}

type guardedOperator struct {
	outlast.OperatorStore
	s *guardedStore
}

func (o guardedOperator) Actions(context.Context, outlast.ActionQuery) ([]outlast.ActionRecord, error) {
	o.s.asked.Add(1)
	return nil, &outlast.Error{Op: "read actions", Code: outlast.CodeDenied}
}
