package postgres_test

import (
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// TestF05_LowWaterMarksAreStoredSeldom: every settlement looks at all versions of its slots' rows that
// the oldest transaction of the database can see, so that a mark is written only when it has
// moved far. Then all are, or a takeover would walk over everything that was ever deleted.
func TestF05_LowWaterMarksAreStoredSeldom(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	leases, reader := lease(t, store, "reader"), store.Relay().Reader()
	drain := func() {
		rows, err := reader.Pick(t.Context(), leases, 1000, 1<<20)
		must(t, err)
		for len(rows) > 0 {
			_, err = store.Relay().Settle(t.Context(), &outlast.Settlement{Leases: leases, Sent: rows})
			must(t, err)
			reader.Forget(rows)
			rows, err = reader.Pick(t.Context(), leases, 1000, 1<<20)
			must(t, err)
		}
	}
	stored := func() (slots int, lowest int64) {
		must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FILTER (WHERE low_seq > 0), min(low_seq) FROM outlast_slot WHERE scope = 'relay'").Scan(&slots, &lowest))
		return slots, lowest
	}
	for started := time.Now(); time.Since(started) < 7*time.Second; time.Sleep(100 * time.Millisecond) {
		backlog(t, db, 300, "'k' || g")
		drain()
	}
	if slots, _ := stored(); slots > 0 {
		t.Errorf("%d marks were written for some 20,000 rows", slots)
	}
	backlog(t, db, 120_000, "'k' || g % 1000")
	eventually(t, "the marks are written", func() bool {
		drain()
		slots, lowest := stored()
		return slots == len(leases) && lowest >= 100_000
	})
}
