package postgres_test

import (
	"testing"
	"time"

	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestABacklogIsNotSampled: autovacuum looks after a backlog, but does not read thousands of its
// pages for statistics, which no plan needs, while the relay shares the disk with it.
func TestABacklogIsNotSampled(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server, err := servers.Postgres(ctx, servers.PostgresConfig{NoSync: true, Settings: map[string]string{"autovacuum_naptime": "1s"}})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	db := openURL(t, server.URL())
	must(t, postgres.Store(db).Migrations().Up(ctx, 0))
	must(t, exec(ctx, db, "INSERT INTO outlast_outbox (type, body) SELECT 'order.placed.v1', '{}' FROM generate_series(1, 120000)"))
	must(t, exec(ctx, db, "DELETE FROM outlast_outbox WHERE id IN (SELECT id FROM outlast_outbox LIMIT 60000)"))
	var vacuums, samples int
	for deadline := time.Now().Add(time.Minute); vacuums == 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		must(t, db.QueryRowContext(ctx, "SELECT autovacuum_count, autoanalyze_count FROM pg_stat_user_tables WHERE relname = 'outlast_outbox'").Scan(&vacuums, &samples))
	}
	if vacuums == 0 {
		t.Fatal("autovacuum did not come in a minute")
	}
	// The same worker would take the samples right after the vacuum.
	for range 30 {
		time.Sleep(100 * time.Millisecond)
		must(t, db.QueryRowContext(ctx, "SELECT autoanalyze_count FROM pg_stat_user_tables WHERE relname = 'outlast_outbox'").Scan(&samples))
		if samples > 0 {
			t.Fatal("the outbox was analysed")
		}
	}
}

// TestPartsOfTheSentLogAreSampledWhenTheyDouble: all of them, those of older tables and those
// that come later as well.
func TestPartsOfTheSentLogAreSampledWhenTheyDouble(t *testing.T) {
	t.Parallel()
	ctx, db := t.Context(), openURL(t, servers.Database(t))
	migrations := postgres.Store(db).Migrations()
	must(t, migrations.Up(ctx, 5))
	must(t, exec(ctx, db, "SELECT outlast_keep_ahead(interval '1 hour')"))
	must(t, migrations.Up(ctx, 0))
	must(t, exec(ctx, db, "SELECT outlast_keep_ahead(interval '24 hours')"))
	var parts, rarely int
	must(t, db.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE c.reloptions @> '{autovacuum_analyze_scale_factor=1}')
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'r' AND c.relname ~ '^outlast_sent'`).Scan(&parts, &rarely))
	if parts < 3+2*4+24 || rarely != parts { // three default parts, a day of six hours each, a day of hours
		t.Errorf("%d of %d parts are sampled when they have doubled", rarely, parts)
	}
	must(t, migrations.Down(ctx, 5))
	must(t, exec(ctx, db, "SELECT outlast_keep_ahead(interval '30 hours')"))
	must(t, db.QueryRowContext(ctx, "SELECT count(*) FROM pg_class WHERE relname ~ '^outlast_sent' AND reloptions::text ~ 'analyze'").Scan(&rarely))
	if rarely != 0 {
		t.Errorf("%d parts keep the setting after the way back", rarely)
	}
}
