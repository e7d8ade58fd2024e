package postgres_test

import (
	"testing"

	"github.com/outlastmq/outlast"
)

// BenchmarkPickAndSettle drains a backlog in batches of 1,000, without a broker.
func BenchmarkPickAndSettle(b *testing.B) {
	db, store := open(b)
	ctx := b.Context()
	leases, reader := lease(b, store, "reader"), store.Relay().Reader()
	_, err := db.ExecContext(ctx, `INSERT INTO outlast_outbox (type, ordering_key, body)
		SELECT 'order.placed.v1', 'k' || g % 1000, repeat('x', 300) FROM generate_series(1, $1) g`, b.N)
	must(b, err)
	b.ResetTimer()
	for left := b.N; left > 0; {
		rows, err := reader.Pick(ctx, leases, 1000, 8<<20)
		must(b, err)
		if len(rows) == 0 {
			b.Fatalf("%d rows are left, and none is picked", left)
		}
		_, err = store.Relay().Settle(ctx, &outlast.Settlement{Leases: leases, Sent: rows})
		must(b, err)
		reader.Forget(rows)
		left -= len(rows)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkIdlePick is a sweep that finds nothing.
func BenchmarkIdlePick(b *testing.B) {
	_, store := open(b)
	leases, reader := lease(b, store, "reader"), store.Relay().Reader()
	for b.Loop() {
		rows, err := reader.Pick(b.Context(), leases, 1000, 8<<20)
		must(b, err)
		if len(rows) > 0 {
			b.Fatal("picked something from an empty outbox")
		}
	}
}

// BenchmarkHandle is what one message costs besides the broker: the mark, one INSERT of the
// handler, COMMIT.
func BenchmarkHandle(b *testing.B) {
	db, store := open(b)
	must(b, exec(b.Context(), db, "CREATE TABLE charges (id text)"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			tx := begin(b, store)
			if _, err := tx.Tx().ExecContext(b.Context(), charge, "a"); err != nil {
				b.Error(err)
			}
			must(b, tx.Commit(b.Context()))
		}
	})
}
