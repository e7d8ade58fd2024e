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

type placed struct {
	OrderID string `json:"order_id" outlast:"find"`
}

var orderPlaced = outlast.Event[placed]("order.placed", 1)

// TestF46_DeletedQueueIsNamed deletes a queue with messages in it. The books name exactly
// the ids that were in it; they are sent again, handled, and the books balance.
func TestF46_DeletedQueueIsNamed(t *testing.T) {
	t.Parallel()
	broker := servers.NewVHost(t).URL()
	orders, billing := open(t, "orders"), open(t, "billing")
	stopRelay := relay(t, orders, broker, true)
	handle := outlast.Handle(orderPlaced, func(context.Context, outlast.Tx, outlast.Received[placed]) error { return nil })
	stopConsumer := consumer(t, billing, broker, handle)
	handled := func() int64 {
		return billing.number(t, "SELECT count(*) FROM outlast_inbox WHERE state = 'handled'")
	}
	eventually(t, "the group hears", func() bool { return billing.number(t, "SELECT count(*) FROM outlast_hearer") == 1 })
	billing.exec(t, "UPDATE outlast_hearer SET since = since - interval '1 hour'")
	// A minute that is over, written as a program of the past did.
	const enqueue = `INSERT INTO outlast_outbox (type, body, enqueued_at)
		SELECT 'order.placed.v1', json_build_object('order_id', $1::text || i)::text, $2::timestamptz + i * interval '1 second'
		FROM generate_series(1, 30) i`
	minute := time.Now().Truncate(time.Minute).Add(-10 * time.Minute)
	orders.exec(t, enqueue, "seen-", minute)
	eventually(t, "the first ones are handled", func() bool { return handled() == 30 })
	stopConsumer()

	orders.exec(t, enqueue, "lost-", minute)
	sent := func() int64 { return orders.number(t, "SELECT count(*) FROM outlast_sent") }
	eventually(t, "all are sent", func() bool { return sent() == 60 })
	if purged, err := channel(t, broker).QueueDelete("billing.0", false, false, false); err != nil || purged != 30 {
		t.Fatalf("deleted a queue with %d messages: %v", purged, err)
	}
	var lost []string
	rows, err := orders.db.QueryContext(t.Context(), "SELECT id::text FROM outlast_sent WHERE id IN (SELECT id FROM outlast_sent_body WHERE body LIKE '%lost-%')")
	must(t, err)
	for rows.Next() {
		var id string
		must(t, rows.Scan(&id))
		lost = append(lost, id)
	}
	must(t, rows.Err())
	slices.Sort(lost)

	books := &journey.Books{Service: "orders", Store: orders.store, Others: []journey.Place{{Name: "billing", Store: billing.store}}}
	var closing *journey.Closing
	eventually(t, "the minute is over", func() bool {
		closing, err = books.Close(t.Context())
		must(t, err)
		return len(closing.Minutes) > 0
	})
	if closing.Unbalanced != 1 || closing.Balanced != 0 || closing.Minutes[0].Sent != 60 {
		t.Fatalf("closed %+v", closing)
	}
	missing, err := books.Missing(t.Context(), closing.Minutes[0].Minute)
	must(t, err)
	if !slices.Equal(missing, lost) {
		t.Fatalf("the books name %d ids, %d were in the queue:\n%v\n%v", len(missing), len(lost), missing, lost)
	}

	consumer(t, billing, broker, handle)
	resent, err := orders.store.Books().Resend(t.Context(), missing, outlast.Action{Who: "ann", Reason: "the queue was deleted"})
	must(t, err)
	if len(resent.Sent) != 30 {
		t.Fatalf("sent again: %+v", resent)
	}
	eventually(t, "the lost ones are handled", func() bool { return handled() == 60 })
	eventually(t, "the books balance", func() bool {
		closing, err = books.Close(t.Context())
		must(t, err)
		list, err := orders.store.Books().Minutes(t.Context(), outlast.MinuteQuery{State: outlast.MinuteUnbalanced})
		must(t, err)
		return len(list) == 0
	})
	stopRelay()
}
