package postgres_test

import (
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestF19_APoolerIsNoticed: behind PgBouncer in transaction mode nothing may be prepared,
// and nothing may depend on a session. Many connections share few of the server's.
func TestF19_APoolerIsNoticed(t *testing.T) {
	t.Parallel()
	_, pooler := pooled(t)
	t.Run("by itself", func(t *testing.T) { shareFew(t, openURL(t, pooler.URL())) })
	t.Run("with prepared statements", func(t *testing.T) {
		if version := keepStatements(t, pooler.URL()); version != "" {
			t.Skipf("%s knows no prepared statements; make test-matrix has newer ones", version)
		}
		db := openURL(t, pooler.URL(), postgres.ExecMode(pgx.QueryExecModeCacheStatement))
		shareFew(t, db)
		var prepared int
		must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'PGBOUNCER%'", pgx.QueryExecModeSimpleProtocol).Scan(&prepared))
		if prepared == 0 {
			t.Error("the pooler prepared nothing: the mode, or the pooler's setting, is not what it says")
		}
	})
}

// pooled is a database of a server of its own, with the tables, and a pooler before it.
func pooled(t *testing.T) (direct *sql.DB, pooler *servers.Bouncer) {
	t.Helper()
	if why := servers.LacksBouncer(); why != "" {
		t.Fatal(why)
	}
	server, err := servers.Postgres(t.Context(), servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	pooler, err = servers.PgBouncer(t.Context(), server, servers.Host{})
	must(t, err)
	t.Cleanup(func() { must(t, pooler.Close()) })
	direct = openURL(t, server.URL())
	must(t, postgres.Store(direct).Migrations().Up(t.Context(), 0))
	return direct, pooler
}

// keepStatements has a pooler keep prepared statements, or returns its version when it is
// older than 1.21, which cannot.
func keepStatements(t *testing.T, url string) (tooOld string) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	must(t, err)
	config.Database, config.DefaultQueryExecMode = "pgbouncer", pgx.QueryExecModeSimpleProtocol
	console, err := pgx.ConnectConfig(t.Context(), config)
	must(t, err)
	defer console.Close(t.Context())
	var version string
	must(t, console.QueryRow(t.Context(), "SHOW VERSION").Scan(&version))
	var major, minor int
	if _, err := fmt.Sscanf(version, "PgBouncer %d.%d", &major, &minor); err != nil {
		t.Fatalf("the version %q: %v", version, err)
	}
	if major == 1 && minor < 21 {
		return version
	}
	_, err = console.Exec(t.Context(), "SET max_prepared_statements = 200")
	must(t, err)
	return ""
}

// shareFew publishes from many connections at once, and picks and settles it all.
func shareFew(t *testing.T, db *sql.DB) {
	t.Helper()
	ctx, store := t.Context(), postgres.Store(db)
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 40 {
				tx, err := db.BeginTx(ctx, nil)
				if err == nil {
					err = outlast.NewOutbox(store).Publish(ctx, tx, *text(outlast.NewID(), "k"))
				}
				if err == nil {
					err = tx.Commit()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	picked := 0
	leases, reader := lease(t, store, "reader"), store.Relay().Reader()
	for picked < 320 && !t.Failed() {
		rows, err := reader.Pick(ctx, leases, 100, 1<<20)
		must(t, err)
		_, err = store.Relay().Settle(ctx, &outlast.Settlement{Leases: leases, Sent: rows})
		must(t, err)
		reader.Forget(rows)
		picked += len(rows)
	}
}

// TestStatementsArePreparedOnce shows what a direct connection gains.
func TestStatementsArePreparedOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, store := open(t)
	conn, err := db.Conn(ctx)
	must(t, err)
	defer conn.Close()
	for range 3 {
		tx, err := conn.BeginTx(ctx, nil)
		must(t, err)
		must(t, outlast.NewOutbox(store).Publish(ctx, tx, *text(outlast.NewID(), "k")))
		must(t, tx.Commit())
	}
	must(t, conn.Raw(func(dc any) error {
		var prepared int
		err := dc.(*stdlib.Conn).Conn().QueryRow(ctx, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT INTO %outbox%'",
			pgx.QueryExecModeExec).Scan(&prepared)
		if prepared != 1 {
			t.Errorf("%d prepared statements for 3 publishes, want 1", prepared)
		}
		return err
	}))
}
