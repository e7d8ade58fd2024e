package postgres_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/outlastmq/outlast"
)

// backlog writes rows whose keys an expression of g, from 1 to n, names.
func backlog(t *testing.T, db *sql.DB, n int, key string) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), fmt.Sprintf(`INSERT INTO outlast_outbox (type, ordering_key, body)
		SELECT 'order.placed.v1', %s, '{}' FROM generate_series(1, %d) g`, key, n))
	must(t, err)
}

// TestABacklogIsReadInItsOrder reads a backlog of which some slots have ten times as many
// rows as others. Rows that are far apart in the table must not be read, and so deleted, at
// the same time: each vacuum would have to visit all of the table.
func TestABacklogIsReadInItsOrder(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	const rows = 60_000
	backlog(t, db, rows, "'k' || g % 100")
	leases, reader := lease(t, store, "reader"), store.Relay().Reader()
	picked := map[int64]bool{}
	var lowest, highest, widest int64
	must(t, db.QueryRowContext(t.Context(), "SELECT min(seq) FROM outlast_outbox").Scan(&lowest))
	for len(picked) < rows {
		got, err := reader.Pick(t.Context(), leases, 1000, 1<<20)
		must(t, err)
		if len(got) == 0 {
			t.Fatalf("nothing is picked after %d rows", len(picked))
		}
		for _, r := range got {
			picked[r.Seq] = true
			highest = max(highest, r.Seq)
		}
		for picked[lowest] {
			lowest++
		}
		widest = max(widest, highest-lowest)
	}
	// 64 rows of a slot with one key in a hundred are 6,400 rows apart.
	if widest > 16_000 {
		t.Errorf("rows that were picked at a time are up to %d of %d apart", widest, rows)
	}
}

// TestABacklogStarvesNobody has more slots with a backlog than fit into a pick. A message in
// another slot must be read soon, however small the picks are.
func TestABacklogStarvesNobody(t *testing.T) {
	for name, bound := range map[string]struct{ rows, bytes int }{
		"full picks":              {1000, 1 << 20},
		"small picks":             {50, 1 << 20},
		"picks limited by bytes":  {1000, 60},
		"picks of one row":        {1, 1 << 20},
		"picks of few large rows": {1000, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, store := open(t)
			backlog(t, db, 60_000, "'busy' || g % 20")
			leases, reader := lease(t, store, "reader"), store.Relay().Reader()
			pick := func() []*outlast.Row {
				rows, err := reader.Pick(t.Context(), leases, bound.rows, bound.bytes)
				must(t, err)
				if len(rows) == 0 {
					t.Fatal("nothing is picked")
				}
				return rows
			}
			for range 30 {
				pick() // until all slots were looked into
			}
			for i := range 4 {
				id := outlast.NewID()
				tx, err := db.BeginTx(t.Context(), nil)
				must(t, err)
				must(t, store.Outbox().Insert(t.Context(), tx, []*outlast.Message{text(id, fmt.Sprint("quiet", i))}))
				must(t, tx.Commit())
				found := false
				for picks := 0; !found; picks++ {
					if picks == 60 {
						t.Fatalf("message %d is not picked in %d picks", i, picks)
					}
					for _, r := range pick() {
						found = found || r.ID == id
					}
				}
			}
		})
	}
}

// TestBusyKeysDelayNobody has an old backlog in more slots than fit into a pick, and a newer
// one in many others: both are read side by side.
func TestBusyKeysDelayNobody(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	backlog(t, db, 200_000, "'busy' || g % 20")
	var newest int64
	must(t, db.QueryRowContext(t.Context(), "SELECT max(seq) FROM outlast_outbox").Scan(&newest))
	backlog(t, db, 40_000, "'k' || g % 200")
	var others int
	must(t, db.QueryRowContext(t.Context(), `SELECT count(*) FROM outlast_outbox WHERE seq > $1
		AND slot NOT IN (SELECT slot FROM outlast_outbox WHERE seq <= $1)`, newest).Scan(&others))
	leases, reader := lease(t, store, "reader"), store.Relay().Reader()
	old, rest, picks := 0, 0, 0
	for ; rest < others && picks < 120; picks++ {
		rows, err := reader.Pick(t.Context(), leases, 1000, 1<<20)
		must(t, err)
		for _, r := range rows {
			if r.Seq <= newest {
				old++
			} else {
				rest++
			}
		}
	}
	if rest < others || old < 250*picks {
		t.Errorf("after %d picks: %d rows of the old backlog, %d of %d others", picks, old, rest, others)
	}
}
