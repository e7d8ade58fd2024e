package journey_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// TestLimit: an answer that a limit cut off holds no verdict on what was not read.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var rows []*outlast.Row
		for range 150 {
			rows = append(rows, w.send("order.placed.v1", 1)...)
			time.Sleep(time.Second)
		}
		for _, r := range slices.Backward(rows) {
			w.receive(r)
		}
		time.Sleep(time.Hour)
		for _, c := range []struct {
			limit int
			rest  journey.Rest
			words string
		}{
			{10, journey.Rest{More: true, Omitted: 90, AtLeast: true}, "at least 90 more not shown; these are the newest"},
			{20, journey.Rest{More: true, Omitted: 130}, "130 more not shown; these are the newest"},
			{150, journey.Rest{}, ""},
		} {
			a := &journey.Asker{Places: []journey.Place{{Name: "orders", Store: w.orders}, {Name: "billing", Store: w.billing}}, Limit: c.limit}
			found, err := a.Find(t.Context(), "o-1")
			w.must(err)
			if found.Rest != c.rest || found.RestText() != c.words {
				t.Errorf("limit %d leaves out %+v: %q", c.limit, found.Rest, found.RestText())
			}
			wantHandled(t, found.Stories, rows[150-c.limit:])
		}
	})
}

// wantHandled wants these messages, each of them sent and handled, and nothing wrong.
func wantHandled(t *testing.T, stories []*journey.Story, rows []*outlast.Row) {
	t.Helper()
	if len(stories) != len(rows) {
		t.Fatalf("%d messages are shown, want %d", len(stories), len(rows))
	}
	for i, s := range stories {
		if lines := fmt.Sprint(s.Lines()); s.ID != rows[i].ID || lines != "[orders: sent billing: handled]" {
			t.Errorf("message %d is %s %s, want %s handled", i, s.ID, lines, rows[i].ID)
		}
	}
}

// TestLimitOfAFlow keeps the message that was asked for, and leaves the rest of the
// older ones out: nothing of them is guessed.
func TestLimitOfAFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		root := w.send("order.placed.v1", 1)[0]
		w.receive(root)
		for range 30 {
			time.Sleep(time.Second)
			w.caused(root)
		}
		time.Sleep(time.Hour)
		a := &journey.Asker{Places: []journey.Place{{Name: "orders", Store: w.orders}, {Name: "billing", Store: w.billing}}, Limit: 10}
		flow, err := a.Flow(t.Context(), root.ID)
		w.must(err)
		if flow.Count != 10 || flow.Omitted != 21 || len(flow.Roots) != 1 || flow.Roots[0].ID != root.ID || len(flow.Roots[0].Caused) != 9 {
			t.Fatalf("the flow has %d messages, %d left out, roots %+v", flow.Count, flow.Omitted, flow.Roots)
		}
		last := flow.Roots[0].Caused[8].ID
		if flow, err = a.Flow(t.Context(), last); err != nil || flow.Count != 10 || len(flow.Roots) != 1 {
			t.Fatalf("the flow of its last message: %+v, %v", flow, err)
		}
		var text strings.Builder
		w.must(flow.WriteMermaid(&text))
		if !strings.Contains(text.String(), "it is older than what the limit shows") || !strings.Contains(text.String(), "21 more not shown") ||
			strings.Contains(text.String(), "LOST") || strings.Contains(text.String(), "ORPHAN") {
			t.Errorf("the flow is drawn as\n%s", text.String())
		}
	})
}

// caused sends and handles a message that the handling of another wrote.
func (w *world) caused(by *outlast.Row) {
	w.t.Helper()
	tx := w.orders.Begin()
	w.must(outlast.NewOutbox(w.orders).Publish(w.t.Context(), tx, outlast.Message{
		Envelope: outlast.Envelope{Type: "order.placed.v1", CorrelationID: by.ID, CausationID: by.ID}, Body: []byte("{}")}))
	w.must(tx.Commit())
	rows, err := w.orders.Relay().Reader().Pick(w.t.Context(), w.leases, 10, 1<<20)
	w.must(err)
	_, err = w.orders.Relay().Settle(w.t.Context(), &outlast.Settlement{Leases: w.leases, Sent: rows})
	w.must(err)
	w.receive(rows...)
}

// TestNotAsked: the sender of a message whose database nobody named is not asked, and
// unknown when a database that was named may be the sender's.
func TestNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		row := w.send("order.placed.v1", 1)[0]
		w.receive(row)
		time.Sleep(time.Hour)
		billing := journey.Place{Name: "billing", Store: w.billing}
		gone := journey.Place{Name: "gone", Err: fmt.Errorf("no route")}
		for _, c := range []struct {
			places []journey.Place
			want   string
		}{
			{[]journey.Place{billing}, "[orders: not asked, its database was not named billing: handled]"},
			{[]journey.Place{billing, gone}, "[orders: unknown billing: handled unknown: gone could not be asked]"},
			{[]journey.Place{billing, {Name: "orders", Store: w.orders}}, "[orders: sent billing: handled]"},
		} {
			_, s, err := (&journey.Asker{Places: c.places}).Message(t.Context(), row.ID)
			w.must(err)
			if got := fmt.Sprint(s.Lines()); got != c.want {
				t.Errorf("the message is %s, want %s", got, c.want)
			}
		}
	})
}
