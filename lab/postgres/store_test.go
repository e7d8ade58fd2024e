// Package postgres_test proves the store on PostgreSQL against real servers.
package postgres_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/outlasttest"
	"github.com/outlastmq/outlast/postgres"
)

func TestMain(m *testing.M) { servers.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openURL(t testing.TB, url string, opts ...postgres.OpenOption) *sql.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), url, opts...)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

// open returns a pool on a fresh database, and the store with its tables in it.
func open(t testing.TB, opts ...postgres.Option) (*sql.DB, outlast.Store) {
	t.Helper()
	db := openURL(t, servers.Database(t))
	store := postgres.Store(db, opts...)
	must(t, store.Migrations().Up(t.Context(), 0))
	return db, store
}

func suite(t *testing.T, mode pgx.QueryExecMode) {
	outlasttest.Store(t, func(t *testing.T) outlasttest.StoreUnderTest {
		db := openURL(t, servers.Database(t), postgres.ExecMode(mode))
		store := postgres.Store(db, postgres.Schema("shop"), postgres.Prefix("box_"), postgres.SettledMargin(time.Second))
		must(t, store.Migrations().Up(t.Context(), 0))
		return outlasttest.StoreUnderTest{
			Store:             store,
			ConcurrentWriters: true,
			Begin:             func(ctx context.Context) (outlasttest.ProducerTx, error) { return db.BeginTx(ctx, nil) },
		}
	})
}

// TestStoreInOtherModes shows that no statement depends on how pgx sends it. The default
// mode is what TestS29_StoreAsItsRoles runs in.
func TestStoreInOtherModes(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]pgx.QueryExecMode{
		"describe": pgx.QueryExecModeCacheDescribe,
		"exec":     pgx.QueryExecModeExec,
		"simple":   pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(name, func(t *testing.T) { suite(t, mode) })
	}
}

func TestEveryStatementPrepares(t *testing.T) {
	t.Parallel()
	db, store := open(t, postgres.Prefix("other_"))
	all := store.(interface{ Statements() map[string]string }).Statements()
	for name, text := range all {
		stmt, err := db.PrepareContext(t.Context(), text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		must(t, stmt.Close())
	}
	if len(all) < 50 {
		t.Errorf("%d statements, expected more", len(all))
	}
}
