package console_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// TestFindBeyondTheLimit: of a key with more messages than a page shows, what is on other
// pages is not held against what is shown.
func TestFindBeyondTheLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	g, err := f.orders.Leases().Lease(t.Context(), outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: "a", TTL: time.Hour, Total: f.orders.Slots()})
	f.must(err)
	for range 230 {
		m := message()
		m.Find, m.Within = map[string]string{"order": "o-7"}, time.Microsecond
		f.publish(m)
	}
	rows, err := f.orders.Relay().Reader().Pick(t.Context(), g.Held, 1000, 1<<30)
	f.must(err)
	slices.Reverse(rows) // the oldest is the last in the sent log
	_, err = f.orders.Relay().Settle(t.Context(), &outlast.Settlement{Leases: g.Held, Sent: rows})
	f.must(err)
	for _, r := range rows {
		m := outlast.Message{Envelope: r.Envelope}
		m.Source = "orders"
		f.must(f.mark(&m).Commit(t.Context()))
	}
	words := f.page("find?q=o-7", "Messages 1–100 of 230", "billing: handled").words()
	if n := strings.Count(words, "billing: handled"); n != 100 {
		t.Errorf("%d messages are shown as handled, want 100", n)
	}
	for _, bad := range []string{"OVERDUE", "LOST", "ORPHAN"} {
		if strings.Contains(words, bad) {
			t.Errorf("the page says %s", bad)
		}
	}
}
