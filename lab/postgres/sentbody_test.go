package postgres_test

import (
	"testing"

	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestTheSentLogKeepsBodiesAsTheyAre: no part of the sent log has the server try to compress a
// body, those of older tables and those that come later as well.
func TestTheSentLogKeepsBodiesAsTheyAre(t *testing.T) {
	t.Parallel()
	ctx, db := t.Context(), openURL(t, servers.Database(t))
	migrations := postgres.Store(db).Migrations()
	must(t, migrations.Up(ctx, 4))
	must(t, exec(ctx, db, "SELECT outlast_keep_ahead(interval '1 hour')"))
	must(t, migrations.Up(ctx, 0))
	must(t, exec(ctx, db, "SELECT outlast_keep_ahead(interval '4 hours')"))
	var columns, kept int
	must(t, db.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE a.attstorage = 'e')
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relkind IN ('r', 'p') AND c.relname ~ '^outlast_sent_body' AND a.attname IN ('body', 'body_bytes')`).Scan(&columns, &kept))
	if columns < 12 || kept != columns { // the table, its default part, and four hours or more
		t.Errorf("%d of %d columns keep bodies as they are", kept, columns)
	}
}
