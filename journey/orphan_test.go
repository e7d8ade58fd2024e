package journey_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// TestAnOrphanIsOneThatTheSentLogWouldKnow: a group has a message that its source knows
// nothing of. That is a verdict only when the source's log is whole from the message on.
func TestAnOrphanIsOneThatTheSentLogWouldKnow(t *testing.T) {
	for name, c := range map[string]struct {
		untracked bool // the relay sent it without tracking
		keep      func(w *world)
		forged    bool // it never was in the outbox
		later     bool // the log was whole for a day before
		want      bool
	}{
		"forged while the log is whole":  {forged: true, keep: (*world).keep, want: true},
		"forged, and nobody kept a log":  {forged: true, keep: func(*world) {}},
		"sent without tracking":          {untracked: true, keep: (*world).keep},
		"tracking was switched off":      {untracked: true, later: true, keep: (*world).keep},
		"sent without tracking, no log":  {untracked: true, keep: func(*world) {}},
		"dropped by age":                 {keep: func(w *world) { w.keep(); time.Sleep(8 * 24 * time.Hour); w.keep() }},
		"sent before tracking was there": {untracked: true, keep: func(w *world) { time.Sleep(time.Second); w.keep() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if c.forged || c.later {
					c.keep(w)
					time.Sleep(24 * time.Hour)
				}
				row := &outlast.Row{Message: outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), EnqueuedAt: time.Now()}}}
				if !c.forged {
					row = w.publish("order.placed.v1", 1)[0]
					_, err := w.orders.Relay().Settle(t.Context(), &outlast.Settlement{Leases: w.leases, Sent: []*outlast.Row{row}, Untracked: c.untracked})
					w.must(err)
				}
				w.receive(row)
				if !c.forged {
					c.keep(w)
				}
				time.Sleep(time.Hour)
				a := &journey.Asker{Places: []journey.Place{{Name: "orders", Store: w.orders}, {Name: "billing", Store: w.billing}}}
				_, story, err := a.Message(t.Context(), row.ID)
				w.must(err)
				if story == nil || story.Send.State != journey.Unknown {
					t.Fatalf("the source knows of it: %+v", story)
				}
				is := slices.ContainsFunc(story.Verdicts, func(v journey.Verdict) bool { return v.Kind == journey.Orphan })
				if is != c.want {
					t.Errorf("an orphan: %t, want %t: %v", is, c.want, story.Verdicts)
				}
			})
		})
	}
}

func (w *world) keep() {
	w.t.Helper()
	_, err := w.orders.Journal().Keep(w.t.Context(), outlast.Retention{})
	w.must(err)
}
