package postgres_test

import (
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/postgres"
)

// TestF05_LowWaterMarksAreStoredSeldom: every settlement looks at all versions of its slots' rows
// that the oldest transaction of the database can see. So marks are written ever more seldom,
// as long as they do not move far; and a relay that begins above one misses nothing.
func TestF05_LowWaterMarksAreStoredSeldom(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	leases, reader := lease(t, store, "reader"), store.Relay().Reader()
	drain := func(store outlast.Store, reader outlast.OutboxReader) (ids map[string]bool) {
		ids = map[string]bool{}
		for {
			rows, err := reader.Pick(t.Context(), leases, 1000, 1<<20)
			must(t, err)
			if len(rows) == 0 {
				return ids
			}
			for _, r := range rows {
				ids[r.ID] = true
			}
			_, err = store.Relay().Settle(t.Context(), &outlast.Settlement{Leases: leases, Sent: rows})
			must(t, err)
			reader.Forget(rows)
		}
	}
	stored := func() (lowest, highest int) {
		must(t, db.QueryRowContext(t.Context(), "SELECT min(low_seq), max(low_seq) FROM outlast_slot WHERE scope = 'relay'").Scan(&lowest, &highest))
		return lowest, highest
	}
	writes, last := 0, 0
	for started := time.Now(); time.Since(started) < 22*time.Second; time.Sleep(100 * time.Millisecond) {
		backlog(t, db, 300, "'k' || g")
		drain(store, reader)
		if _, highest := stored(); highest > last {
			writes, last = writes+1, highest
		}
	}
	if writes < 1 || writes > 4 { // at once, and after 3, 6 and 12 seconds
		t.Errorf("marks were written %d times in 22 s, want 4 at most", writes)
	}

	before, _ := stored()
	backlog(t, db, 120_000, "'k' || g % 1000")
	drain(store, reader)
	eventually(t, "marks that have moved far are written, at the latest in their turn", func() bool {
		drain(store, reader)
		lowest, _ := stored()
		return lowest >= before+100_000
	})

	before, _ = stored()
	backlog(t, db, 300, "'k' || g")
	drain(store, reader)
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	defer func() { _ = tx.Rollback() }()
	late := outlast.NewID()
	must(t, store.Outbox().Insert(t.Context(), tx, []*outlast.Message{text(late, "late")}))
	second := store.Relay().Reader()
	for started := time.Now(); time.Since(started) < 8*time.Second; time.Sleep(100 * time.Millisecond) {
		backlog(t, db, 300, "'k' || g")
		drain(store, second)
	}
	if lowest, _ := stored(); lowest <= before {
		t.Error("no marks are written up to an open transaction")
	}
	must(t, tx.Commit())
	third := postgres.Store(db)
	if !drain(third, third.Relay().Reader())[late] {
		t.Error("a relay that began above the marks does not see a message that was committed late")
	}
}
