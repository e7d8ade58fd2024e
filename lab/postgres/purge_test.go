package postgres_test

import (
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestAPurgeReadsFewRows: an inbox keeps days of messages, and is purged once a minute. What a
// purge reads must not depend on how much is kept.
func TestAPurgeReadsFewRows(t *testing.T) {
	t.Parallel()
	const rows, limit = 20_000, 100
	for name, c := range map[string]struct {
		enqueued, handled string // expressions of g, from 1 to rows: how long ago
		purged, read      int
	}{
		"nothing is old":                      {"g * interval '1 microsecond'", "g * interval '1 microsecond'", 0, 0},
		"all was handled late":                {"interval '5 hours' - g * interval '1 microsecond'", "interval '0'", 0, 20 * limit},
		"the oldest were handled late":        {"interval '5 hours' - g * interval '1 microsecond'", "CASE WHEN g > 500 THEN interval '2 hours' ELSE interval '0' END", limit, 20 * limit},
		"all is old":                          {"interval '5 hours' - g * interval '1 microsecond'", "interval '2 hours'", limit, 20 * limit},
		"the clock of the producer was ahead": {"interval '-2 hours' + g * interval '1 microsecond'", "interval '2 hours'", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := servers.Database(t)
			db, err := postgres.Open(t.Context(), url)
			must(t, err)
			store := postgres.Store(db)
			must(t, store.Migrations().Up(t.Context(), 0))
			_, err = db.ExecContext(t.Context(), `INSERT INTO outlast_inbox (grp, source, id, hash, enqueued_at, at)
				SELECT 'readers', 'orders', g::text, g, now() - (`+c.enqueued+`), now() - (`+c.handled+`) FROM generate_series(1, $1) g`, rows)
			must(t, err)
			purged, err := store.Inbox().Purge(t.Context(), outlast.PurgeRequest{
				Group: "readers", Source: "orders", SettledBefore: time.Now().Add(24 * time.Hour), Age: time.Hour, Limit: limit})
			must(t, err)
			must(t, db.Close()) // its sessions report what they have read when they end

			watch := openURL(t, url)
			number := func(query string) (n int) {
				must(t, watch.QueryRowContext(t.Context(), query).Scan(&n))
				return n
			}
			eventually(t, "the sessions have ended", func() bool {
				return number(`SELECT count(*) FROM pg_stat_activity
					WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`) == 0
			})
			read := number(`SELECT coalesce(sum(idx_tup_read), 0)::int + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'outlast_inbox')::int
				FROM pg_stat_user_indexes WHERE relname = 'outlast_inbox'`)
			if purged != c.purged || read > c.read {
				t.Errorf("%d of %d rows were purged and %d read, want %d and at most %d", purged, rows, read, c.purged, c.read)
			}
			t.Logf("%d rows read", read)
		})
	}
}
