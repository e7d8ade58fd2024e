package journey_test

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// scale is how many messages are stored: OUTLAST_JOURNEY_MESSAGES, by default few.
func scale(t testing.TB) int64 {
	text := os.Getenv("OUTLAST_JOURNEY_MESSAGES")
	if text == "" {
		return 20_000
	}
	n, err := strconv.ParseInt(text, 10, 64)
	must(t, err)
	return n
}

// store fills the sent log and the inbox of a service as settling and handling do, with
// a business key, an ordering key, and a flow of three messages each.
func (s *service) fill(t testing.TB, n int64) {
	t.Helper()
	const ids = "lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')"
	s.exec(t, `CREATE TABLE filled AS SELECT i, (`+ids+` || '7' || substr(md5(i::text), 1, 3) || 'a' || substr(md5(i::text), 5, 15))::uuid AS id FROM generate_series(1, $1::bigint) i`, n)
	s.exec(t, "ALTER TABLE filled ADD PRIMARY KEY (i)")
	s.exec(t, "ANALYZE filled")
	s.exec(t, `INSERT INTO outlast_sent (sent_at, enqueued_at, id, fate, unheard, type, ordering_key, correlation_id, find)
		SELECT clock_timestamp(), clock_timestamp(), id, 0, false, 'order.placed.v1', 'customer-' || i % 50000,
			CASE WHEN i % 3 > 0 THEN (SELECT f.id::text FROM filled f WHERE f.i = x.i - x.i % 3) END, json_build_object('order_id', 'order-' || i)
		FROM filled x ORDER BY i`)
	s.exec(t, `INSERT INTO outlast_sent_key (sent_at, id, value) SELECT s.sent_at, s.id, s.find ->> 'order_id' FROM outlast_sent s`)
	s.exec(t, `INSERT INTO outlast_inbox (grp, source, id, hash, enqueued_at) SELECT 'billing', 'orders', id::text, 1, clock_timestamp() FROM filled ORDER BY i`)
}

// TestFindIsQuick finds single messages by their business key among all that are stored.
// The measured median is in docs/journey.md. Of the time, only the proof's own run with a
// million messages asserts something: see within.
func TestFindIsQuick(t *testing.T) {
	orders := open(t, "orders")
	n := scale(t)
	orders.fill(t, n)
	a := &journey.Asker{Places: []journey.Place{{Name: "orders", Store: orders.store}}, Patience: time.Minute}
	var took []time.Duration
	was := usage(t)
	for i := range int64(51) {
		key := "order-" + strconv.FormatInt(1+i*(n-1)/50, 10)
		begin := time.Now()
		found, err := a.Find(t.Context(), key)
		must(t, err)
		took = append(took, time.Since(begin))
		if len(found.Stories) != 1 || found.Stories[0].Send.State != journey.Sent || len(found.Stories[0].Groups) != 1 {
			t.Fatalf("%s: found %+v", key, found)
		}
	}
	spent := usage(t).since(was)
	slices.Sort(took)
	t.Logf("%d messages: find by key takes %v at the median, %v at the worst of %d; processor time %v here and %v in PostgreSQL",
		n, took[len(took)/2], took[len(took)-1], len(took), spent.own/time.Duration(len(took)), spent.postgres/time.Duration(len(took)))
	within(t, n, "find by key", took[len(took)/2], 50*time.Millisecond)
}

// proved is the number of messages from which on times are asserted: the proof's own run,
// which has the machine to itself. With fewer they are only printed.
const proved = 1_000_000

// within asserts, in the proof, that what people do often is quick.
func within(t *testing.T, messages int64, what string, took, most time.Duration) {
	t.Helper()
	if messages >= proved && took > most {
		t.Errorf("%d messages: %s takes %v at the median, want at most %v", messages, what, took, most)
	}
}

// BenchmarkSettle settles batches of 1,000 keyed messages, with and without the sent log.
// It reports the bytes on disk and in the WAL of each message.
func BenchmarkSettle(b *testing.B) {
	for name, untracked := range map[string]bool{"tracked": false, "untracked": true} {
		b.Run(name, func(b *testing.B) {
			s := open(b, "orders")
			ctx := b.Context()
			g, err := s.store.Leases().Lease(ctx, outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: "a", TTL: time.Hour, Total: 256})
			must(b, err)
			s.exec(b, `INSERT INTO outlast_outbox (type, ordering_key, body)
				SELECT 'order.placed.v1', 'k' || g % 1000, repeat('x', 256) FROM generate_series(1, $1) g`, b.N)
			reader := s.store.Relay().Reader()
			wal := s.number(b, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
			if extra := os.Getenv("OUTLAST_BENCH_SQL"); extra != "" {
				s.exec(b, extra)
			}
			was := usage(b)
			b.ResetTimer()
			for left := b.N; left > 0; {
				rows, err := reader.Pick(ctx, g.Held, 1000, 8<<20)
				must(b, err)
				_, err = s.store.Relay().Settle(ctx, &outlast.Settlement{Leases: g.Held, Sent: rows, Untracked: untracked})
				must(b, err)
				reader.Forget(rows)
				left -= len(rows)
			}
			b.StopTimer()
			usage(b).since(was).report(b)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(float64(s.number(b, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")-wal)/float64(b.N), "WAL-bytes/message")
			for metric, parent := range map[string]string{"head-bytes/message": "outlast_sent", "body-bytes/message": "outlast_sent_body"} {
				bytes := s.number(b, `SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits WHERE inhparent = $1::text::regclass`, parent)
				b.ReportMetric(float64(bytes)/float64(b.N), metric)
			}
		})
	}
}
