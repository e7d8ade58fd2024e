package postgres_test

import (
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
	if why := servers.LacksBouncer(); why != "" {
		t.Fatal(why)
	}
	ctx := t.Context()
	server, err := servers.Postgres(ctx, servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	pooler, err := servers.PgBouncer(ctx, server, servers.Host{})
	must(t, err)
	t.Cleanup(func() { must(t, pooler.Close()) })

	direct := postgres.Store(openURL(t, server.URL()))
	must(t, direct.Migrations().Up(ctx, 0))
	db := openURL(t, pooler.URL())
	store := postgres.Store(db)
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
