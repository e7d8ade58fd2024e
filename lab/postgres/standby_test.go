package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestF08_AStandbyIsRefused: what a standby shows may be of a past that never was. The
// store works on it once it is the primary.
func TestF08_AStandbyIsRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server, err := servers.Postgres(ctx, servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	primary := openURL(t, server.URL())
	must(t, postgres.Store(primary).Migrations().Up(ctx, 0))
	var data string
	must(t, primary.QueryRowContext(ctx, "SHOW data_directory").Scan(&data))
	must(t, server.Stop(ctx))
	must(t, os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o666))
	must(t, server.Start(ctx))

	db := openURL(t, server.URL()) // the old pool's connections died with the server
	store := postgres.Store(db)
	if err := store.Check(ctx); outlast.CodeOf(err) != outlast.CodeUnavailable || !strings.Contains(err.Error(), "standby") {
		t.Errorf("check on a standby: %v", err)
	}
	if err := store.Relay().Identify(ctx, "orders"); err == nil {
		t.Error("a relay may begin on a standby")
	}
	must(t, exec(ctx, db, "SELECT pg_promote()"))
	must(t, store.Check(ctx))
	must(t, store.Relay().Identify(ctx, "orders"))
}
