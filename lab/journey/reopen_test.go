package journey_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/lab/servers"
)

// TestARestoredBackupIsFoundByTheBooks: a receiver's database is set back behind a balanced
// minute. The books do not look at it by themselves; reopened, they name exactly the ids that
// were lost, which are sent again and handled, and the minute balances.
func TestARestoredBackupIsFoundByTheBooks(t *testing.T) {
	t.Parallel()
	broker := servers.NewVHost(t).URL()
	orders, billing := open(t, "orders"), open(t, "billing")
	relay(t, orders, broker, true)
	consumer(t, billing, broker, outlast.Handle(orderPlaced, func(context.Context, outlast.Tx, outlast.Received[placed]) error { return nil }))
	eventually(t, "the group hears", func() bool { return billing.number(t, "SELECT count(*) FROM outlast_hearer") == 1 })
	billing.exec(t, "UPDATE outlast_hearer SET since = since - interval '1 hour'")
	minute := time.Now().UTC().Truncate(time.Minute).Add(-10 * time.Minute)
	orders.exec(t, `INSERT INTO outlast_outbox (type, body, enqueued_at)
		SELECT 'order.placed.v1', json_build_object('order_id', i::text)::text, $1::timestamptz + i * interval '1 second' FROM generate_series(1, 30) i`, minute)
	handled := func() int64 {
		return billing.number(t, "SELECT count(*) FROM outlast_inbox WHERE state = 'handled'")
	}
	eventually(t, "all are handled", func() bool { return handled() == 30 })

	books := &journey.Books{Service: "orders", Store: orders.store, Others: []journey.Place{{Name: "billing", Store: billing.store}}}
	state := func(want outlast.MinuteState) func() bool {
		return func() bool {
			_, err := books.Close(t.Context())
			must(t, err)
			list, err := orders.store.Books().Minutes(t.Context(), outlast.MinuteQuery{State: want})
			must(t, err)
			return len(list) == 1 && list[0].Minute.Equal(minute)
		}
	}
	eventually(t, "the minute is balanced", state(outlast.MinuteBalanced))

	var lost []string // what came after the backup
	rows, err := billing.db.QueryContext(t.Context(), "DELETE FROM outlast_inbox WHERE enqueued_at > $1 RETURNING id", minute.Add(20500*time.Millisecond))
	must(t, err)
	for rows.Next() {
		var id string
		must(t, rows.Scan(&id))
		lost = append(lost, id)
	}
	must(t, rows.Err())
	slices.Sort(lost)
	if len(lost) != 10 {
		t.Fatalf("%d are lost", len(lost))
	}
	if !state(outlast.MinuteBalanced)() {
		t.Error("a balanced minute was looked at by itself: say so in docs/journey.md")
	}
	n, err := orders.store.Books().Reopen(t.Context(), minute, time.Time{}, outlast.Action{Who: "ann", Reason: "billing was restored"})
	must(t, err)
	if n != 1 {
		t.Fatalf("opened %d minutes", n)
	}
	eventually(t, "the minute is unbalanced", state(outlast.MinuteUnbalanced))
	missing, err := books.Missing(t.Context(), minute)
	must(t, err)
	if !slices.Equal(missing, lost) {
		t.Fatalf("the books name %q, lost are %q", missing, lost)
	}
	resent, err := orders.store.Books().Resend(t.Context(), missing, outlast.Action{Who: "ann", Reason: "billing was restored"})
	must(t, err)
	if len(resent.Sent) != 10 {
		t.Fatalf("sent again: %+v", resent)
	}
	eventually(t, "the lost ones are handled", func() bool { return handled() == 30 })
	eventually(t, "the minute is balanced again", state(outlast.MinuteBalanced))
}
