package journey_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
)

// world is two services in memory, in a bubble of its own time.
type world struct {
	t               *testing.T
	orders, billing *memory.Store
	leases          []outlast.Lease
	books           *journey.Books
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, orders: memory.NewStore(), billing: memory.NewStore()}
	w.must(w.orders.Relay().Identify(t.Context(), "orders"))
	w.must(w.billing.Relay().Identify(t.Context(), "billing"))
	g, err := w.orders.Leases().Lease(t.Context(), outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: "a", TTL: 1000 * time.Hour, Total: w.orders.Slots()})
	w.must(err)
	w.leases = g.Held
	w.books = &journey.Books{Service: "orders", Store: w.orders, Others: []journey.Place{{Name: "billing", Store: w.billing}}}
	w.must(w.billing.Journal().Hear(t.Context(), "billing", []string{"order.placed.v1"}))
	time.Sleep(time.Minute) // what is enqueued from now on is expected
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// send publishes and settles n messages of a type.
func (w *world) send(typ string, n int, fates ...outlast.Fate) []*outlast.Row {
	w.t.Helper()
	rows := w.publish(typ, n)
	_, err := w.orders.Relay().Settle(w.t.Context(), &outlast.Settlement{Leases: w.leases, Sent: rows, Fates: fates})
	w.must(err)
	return rows
}

func (w *world) publish(typ string, n int) []*outlast.Row {
	w.t.Helper()
	tx := w.orders.Begin()
	for range n {
		m := outlast.Message{Envelope: outlast.Envelope{Type: typ, Find: map[string]string{"order_id": "o-1"}}, Body: []byte("{}")}
		w.must(outlast.NewOutbox(w.orders).Publish(w.t.Context(), tx, m))
	}
	w.must(tx.Commit())
	rows, err := w.orders.Relay().Reader().Pick(w.t.Context(), w.leases, 100_000, 1<<30)
	w.must(err)
	return rows
}

func (w *world) receive(rows ...*outlast.Row) {
	w.t.Helper()
	for _, r := range rows {
		tx, err := w.billing.Inbox().Begin(w.t.Context(), "billing", []outlast.Mark{{Source: "orders", ID: r.ID, EnqueuedAt: r.EnqueuedAt}})
		w.must(err)
		w.must(tx.Commit(w.t.Context()))
	}
}

// TestForgottenIsNotMissing: what a group has handled and its inbox has forgotten is unknown
// when the books look at it late. What they named before stays named.
func TestForgottenIsNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		seen := w.send("order.placed.v1", 3)
		w.receive(seen...)
		time.Sleep(time.Hour)
		lost := w.send("order.placed.v1", 2)
		time.Sleep(time.Hour)
		later := seen[0].EnqueuedAt.UTC().Truncate(time.Minute)
		if c := w.close(); c.Balanced != 1 || c.Unbalanced != 1 {
			t.Fatalf("closed %v", c)
		}
		w.must(w.orders.Books().Write(t.Context(), outlast.BookMinute{Minute: later, State: outlast.MinuteOpen, Sent: 3}, nil))
		time.Sleep(8 * 24 * time.Hour)
		n, err := w.billing.Inbox().Purge(t.Context(), outlast.PurgeRequest{Group: "billing", Source: "orders", SettledBefore: time.Now(), Age: 7 * 24 * time.Hour, Limit: 100})
		w.must(err)
		if n != 3 {
			t.Fatalf("%d are forgotten", n)
		}
		if c := w.close(); c.Open != 1 || c.Unbalanced != 1 || c.Missing != 2 {
			t.Fatalf("closed %v: %+v", c, c)
		}
		lines, err := w.orders.Books().Lines(t.Context(), later)
		w.must(err)
		if len(lines) != 1 || lines[0].Received >= 0 || len(lines[0].Missing) != 0 {
			t.Errorf("what was forgotten is %+v", lines)
		}
		ids, err := w.books.Missing(t.Context(), lost[0].EnqueuedAt.UTC().Truncate(time.Minute))
		w.must(err)
		if len(ids) != 2 {
			t.Errorf("%q are missing, want 2", ids)
		}
	})
}

func (w *world) close() *journey.Closing {
	w.t.Helper()
	c, err := w.books.Close(w.t.Context())
	w.must(err)
	return c
}

// wantState closes the books and wants one minute, in that state, with these missing.
func (w *world) wantState(state outlast.MinuteState, missing ...*outlast.Row) time.Time {
	w.t.Helper()
	c := w.close()
	if len(c.Minutes) != 1 || c.Minutes[0].State != state {
		w.t.Fatalf("closed %+v, want one %s minute", c.Minutes, state)
	}
	got, err := w.books.Missing(w.t.Context(), c.Minutes[0].Minute)
	w.must(err)
	var want []string
	for _, r := range missing {
		want = append(want, r.ID)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Fatalf("%d are missing, want %d: %v", len(got), len(want), got)
	}
	return c.Minutes[0].Minute
}

func TestBooks(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(w *world){
		"what everybody has seen is balanced": func(w *world) {
			w.receive(w.send("order.placed.v1", 20)...)
			time.Sleep(2 * time.Minute)
			w.wantState(outlast.MinuteBalanced)
			if c := w.close(); len(c.Minutes) != 0 {
				w.t.Fatalf("closed twice: %+v", c.Minutes)
			}
		},
		"the present minute is not looked at": func(w *world) {
			w.send("order.placed.v1", 1)
			if c := w.close(); len(c.Minutes) != 0 {
				w.t.Fatalf("closed %+v", c.Minutes)
			}
		},
		"what is missing is on its way at first, and then missing": func(w *world) {
			rows := w.send("order.placed.v1", 20)
			w.receive(rows[3:]...)
			time.Sleep(2 * time.Minute)
			w.wantState(outlast.MinuteOpen, rows[:3]...)
			time.Sleep(10 * time.Minute)
			w.wantState(outlast.MinuteUnbalanced, rows[:3]...)
			w.receive(rows[:3]...)
			w.wantState(outlast.MinuteBalanced)
		},
		"a look says up to when all is known, and how many are missing": func(w *world) {
			began := time.Now().UTC().Truncate(time.Minute)
			rows := w.send("order.placed.v1", 4)
			time.Sleep(2 * time.Minute)
			if c := w.close(); !c.Judged.Equal(began) || c.Missing != 0 {
				w.t.Fatalf("while they are on their way: judged up to %v, %d missing", c.Judged, c.Missing)
			}
			w.receive(rows[1:]...)
			time.Sleep(10 * time.Minute)
			if c := w.close(); !c.Judged.Equal(began.Add(12*time.Minute)) || c.Missing != 1 {
				w.t.Fatalf("afterwards: judged up to %v, %d missing", c.Judged, c.Missing)
			}
			w.books.Limit = 1
			if c := w.close(); !c.Judged.Equal(began.Add(time.Minute)) {
				w.t.Fatalf("when there may be more minutes: judged up to %v", c.Judged)
			}
		},
		"more than a sketch can name": func(w *world) {
			rows := w.send("order.placed.v1", 3000)
			w.receive(rows[2500:]...)
			time.Sleep(10 * time.Minute)
			w.wantState(outlast.MinuteUnbalanced, rows[:2500]...)
		},
		"what was sent and nobody who is asked hears leaves its minute open": func(w *world) {
			w.send("order.shipped.v1", 5)
			time.Sleep(10 * time.Minute)
			w.wantState(outlast.MinuteOpen)
			if c := w.close(); !slices.Equal(c.Unasked, []string{"order.shipped.v1"}) {
				w.t.Fatalf("not asked for: %v", c.Unasked)
			}
			w.books.Elsewhere = []string{"order.shipped.v1"}
			w.wantState(outlast.MinuteBalanced)
		},
		"without its receiver nothing is balanced, and what is missing is found later": func(w *world) {
			rows := w.send("order.placed.v1", 5)
			w.receive(rows[1:]...)
			time.Sleep(10 * time.Minute)
			others := w.books.Others
			w.books.Others = nil
			w.wantState(outlast.MinuteOpen)
			w.books.Others = others
			w.wantState(outlast.MinuteUnbalanced, rows[0])
		},
		"what was never sent is expected of nobody": func(w *world) {
			w.send("order.placed.v1", 2, outlast.FateExpired, outlast.FateUnheard)
			time.Sleep(10 * time.Minute)
			w.wantState(outlast.MinuteBalanced)
		},
		"held messages keep their minute open": func(w *world) {
			rows := w.publish("order.placed.v1", 2)
			_, err := w.orders.Relay().Settle(w.t.Context(), &outlast.Settlement{Leases: w.leases, Sent: rows[:1],
				Hold: []outlast.Hold{{Row: rows[1], Reason: outlast.HeldRefused, Wait: -1}}})
			w.must(err)
			w.receive(rows[0])
			time.Sleep(10 * time.Minute)
			w.wantState(outlast.MinuteOpen)
			_, err = w.orders.Relay().Settle(w.t.Context(), &outlast.Settlement{Leases: w.leases, Sent: rows[1:]})
			w.must(err)
			w.wantState(outlast.MinuteUnbalanced, rows[1])
			w.receive(rows[1])
			w.wantState(outlast.MinuteBalanced)
		},
		"pending messages hold back every later minute": func(w *world) {
			w.publish("order.placed.v1", 1)
			time.Sleep(10 * time.Minute)
			if c := w.close(); len(c.Minutes) != 0 {
				w.t.Fatalf("closed %+v", c.Minutes)
			}
		},
		"a message that was sent again is seen in another minute": func(w *world) {
			rows := w.send("order.placed.v1", 3)
			w.receive(rows[1:]...)
			time.Sleep(10 * time.Minute)
			minute := w.wantState(outlast.MinuteUnbalanced, rows[0])
			r, err := w.orders.Books().Resend(w.t.Context(), []string{rows[0].ID}, outlast.Action{Who: "ann"})
			w.must(err)
			if len(r.Sent) != 1 {
				w.t.Fatalf("sent again: %+v", r)
			}
			again, err := w.orders.Relay().Reader().Pick(w.t.Context(), w.leases, 10, 1<<20)
			w.must(err)
			_, err = w.orders.Relay().Settle(w.t.Context(), &outlast.Settlement{Leases: w.leases, Sent: again})
			w.must(err)
			w.receive(again...)
			time.Sleep(2 * time.Minute)
			c := w.close()
			if c.Balanced != 2 || !c.Minutes[0].Minute.Equal(minute) {
				w.t.Fatalf("closed %+v", c)
			}
		},
		"a signed minute stays signed": func(w *world) {
			rows := w.send("order.placed.v1", 1)
			time.Sleep(10 * time.Minute)
			minute := w.wantState(outlast.MinuteUnbalanced, rows...)
			n, err := w.orders.Books().SignOff(w.t.Context(), []time.Time{minute}, outlast.Action{Who: "ann", Reason: "a test"})
			w.must(err)
			if c := w.close(); n != 1 || len(c.Minutes) != 0 {
				w.t.Fatalf("signed %d, closed %+v", n, c)
			}
		},
		"a database that cannot be asked leaves its minutes open": func(w *world) {
			w.receive(w.send("order.placed.v1", 5)...)
			time.Sleep(10 * time.Minute)
			w.books.Others = append(w.books.Others, journey.Place{Name: "stock", Err: fmt.Errorf("no route to host")})
			w.wantState(outlast.MinuteOpen)
			w.books.Others = w.books.Others[:1]
			w.wantState(outlast.MinuteBalanced)
		},
		"a group that ended is expected nothing of": func(w *world) {
			w.must(w.billing.Journal().Unhear(w.t.Context(), "billing", "order.placed.v1", outlast.Action{Who: "ann"}))
			time.Sleep(time.Minute)
			w.send("order.placed.v1", 5)
			time.Sleep(10 * time.Minute)
			w.wantState(outlast.MinuteBalanced)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(newWorld(t)) })
		})
	}
}

// TestAskDrawsGaps: a place that fails is unknown, and says so in every story.
func TestAskDrawsGaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		rows := w.send("order.placed.v1", 1)
		w.receive(rows...)
		a := &journey.Asker{Places: []journey.Place{{Name: "orders", Store: w.orders}, {Name: "billing", Store: w.billing}}}
		ask := func() (*journey.Found, *journey.Story) {
			found, err := a.Find(context.Background(), "o-1")
			w.must(err)
			if len(found.Stories) != 1 {
				t.Fatalf("found %d messages", len(found.Stories))
			}
			return found, found.Stories[0]
		}
		if found, s := ask(); len(found.Gaps()) != 0 || len(s.Groups) != 1 || s.Groups[0].State != journey.Handled {
			t.Fatalf("found %+v", s)
		}
		w.billing.Inject(memory.FailNext(memory.RoleJournal, 100))
		found, s := ask()
		if len(s.Gaps) != 1 || len(found.Gaps()) != 1 || len(s.Groups) != 0 || len(s.Verdicts) != 0 {
			t.Fatalf("a gap gives %+v", s)
		}
		w.orders.Inject(memory.FailNext(memory.RoleJournal, 100))
		w.billing.Inject(memory.FailNext(memory.RoleJournal, 0))
		flow, err := a.Flow(context.Background(), rows[0].ID)
		w.must(err)
		if flow.Count != 1 || flow.Roots[0].Send.State != journey.Unknown || flow.Roots[0].Groups[0].State != journey.Handled || len(flow.Roots[0].Verdicts) != 0 {
			t.Fatalf("without the sender's database the flow is %+v", flow.Roots[0].Story)
		}
	})
}
