// Package traps holds one test for each mistake that was found in other outbox
// libraries, on real servers: whoever makes it here sees which one it was.
package traps

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast/lab/proxy"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// counting starts a server that counts statements, and returns a world on it.
func counting(t *testing.T) *rig.World {
	t.Helper()
	server, err := servers.Postgres(t.Context(), servers.PostgresConfig{NoSync: true, Settings: map[string]string{
		"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.max": "10000"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	database, err := server.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := rig.New(t, database, servers.NewVHost(t).URL())
	w.Exec("CREATE EXTENSION pg_stat_statements")
	return w
}

// behind returns the same world with a proxy before its broker.
func behind(t *testing.T, w *rig.World, query string) (*rig.World, *proxy.Proxy) {
	t.Helper()
	address := parse(t, w.Broker)
	p, err := proxy.New(address.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	address.Host, address.RawQuery = p.Address(), query
	return w.With(w.Database, address.String()), p
}

// connect opens a connection of its own, for a transaction that stays open.
func connect(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
