package journey_test

import (
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
)

// TestTrackingComesAndGoesUnderARunningRelay: the tables of tracking may be added to,
// and taken from, a database while relays run on it. Messages flow all the time, and
// are tracked while the tables are there.
func TestTrackingComesAndGoesUnderARunningRelay(t *testing.T) {
	t.Parallel()
	broker := servers.NewVHost(t).URL()
	ch := channel(t, broker)
	must(t, ch.ExchangeDeclare("outlast.events", "topic", true, false, false, false, nil))
	_, err := ch.QueueDeclare("sink.0", true, false, false, false, map[string]any{"x-queue-type": "quorum"})
	must(t, err)
	must(t, ch.QueueBind("sink.0", "order.placed.v1.*", "outlast.events", false, nil))
	s := open(t, "orders")
	must(t, s.store.Migrations().Down(t.Context(), 1))
	relay(t, s, broker, true)
	send := func(n int) {
		t.Helper()
		s.exec(t, `INSERT INTO outlast_outbox (type, body) SELECT 'order.placed.v1', '{}' FROM generate_series(1, $1)`, n)
		eventually(t, "all are sent", func() bool { return s.number(t, "SELECT count(*) FROM outlast_outbox") == 0 })
	}
	send(10)
	must(t, s.store.Migrations().Up(t.Context(), 0))
	sent := 0
	eventually(t, "what is sent is tracked", func() bool {
		send(1)
		sent++
		return s.number(t, "SELECT count(*) FROM outlast_sent") > 0
	})
	must(t, s.store.Migrations().Down(t.Context(), 1))
	if err := s.store.Journal().Tracking(t.Context()); outlast.CodeOf(err) != outlast.CodeSchema {
		t.Fatalf("tracking: %v", err)
	}
	send(10)
	q, err := ch.QueueDeclarePassive("sink.0", true, false, false, false, nil)
	must(t, err)
	if q.Messages < 20+sent {
		t.Errorf("%d messages came, %d were sent", q.Messages, 20+sent)
	}
}
