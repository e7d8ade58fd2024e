package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	leases := []outlast.Lease{{Slot: 1, Epoch: 1}}
	for what, read := range map[string]func() error{
		"pick": func() error {
			_, err := store.Relay().Reader().Pick(ctx, leases, 10, 1<<20)
			return err
		},
		"the held, as a whole": func() error {
			_, err := store.Relay().HeldIndex(ctx, leases)
			return err
		},
		"what is due": func() error {
			_, err := store.Relay().Held(ctx, outlast.HeldQuery{Leases: leases, Due: true})
			return err
		},
		"a key": func() error {
			_, err := store.Relay().Held(ctx, outlast.HeldQuery{Leases: leases, Key: &outlast.SlotKey{Slot: 1, Key: "a"}})
			return err
		},
		"a route": func() error {
			_, err := store.Relay().Held(ctx, outlast.HeldQuery{Leases: leases, Route: &outlast.Route{Type: "a.v1"}})
			return err
		},
	} {
		if err := read(); outlast.CodeOf(err) != outlast.CodeUnavailable || !strings.Contains(err.Error(), "standby") {
			t.Errorf("a relay may read %s on a standby: %v", what, err)
		}
	}
	must(t, exec(ctx, db, "SELECT pg_promote()"))
	must(t, store.Check(ctx))
	must(t, store.Relay().Identify(ctx, "orders"))
}

// TestF08_APoolLeavesAStandby: behind PgBouncer a connection outlives its server, which may come
// back as a standby of the new primary. Such a connection is not used again, so that the
// next one finds the primary; nothing is read from the standby meanwhile.
func TestF08_APoolLeavesAStandby(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	if why := servers.LacksBouncer(); why != "" {
		t.Fatal(why)
	}
	one, err := servers.Postgres(ctx, servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, one.Close()) })
	two, err := one.Standby(ctx, servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, two.Close()) })
	var hosts []string
	for _, server := range []*servers.PostgresServer{one, two} {
		pooler, err := servers.PgBouncer(ctx, server, servers.Host{})
		must(t, err)
		t.Cleanup(func() { must(t, pooler.Close()) })
		hosts = append(hosts, servers.HostOf(pooler.URL()))
	}
	db := openURL(t, strings.Replace(one.URL(), servers.HostOf(one.URL()), strings.Join(hosts, ","), 1))
	store := postgres.Store(db)
	must(t, store.Migrations().Up(ctx, 0))
	reader, leases := store.Relay().Reader(), []outlast.Lease{{Slot: 1, Epoch: 1}}
	_, err = reader.Pick(ctx, leases, 10, 1<<20)
	must(t, err)

	must(t, one.Kill())
	must(t, two.Promote(ctx))
	must(t, one.Follow(ctx, two))
	wrote := false
	for limit := time.Now().Add(time.Minute); !wrote && time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		if _, err := reader.Pick(ctx, leases, 10, 1<<20); err != nil {
			t.Log(err)
			continue
		}
		wrote = store.Relay().Identify(ctx, "orders") == nil
	}
	if !wrote {
		t.Error("the pool has not found the new primary")
	}
}
