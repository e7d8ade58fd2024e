package chain

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

type numbered struct {
	Key string `json:"key" outlast:"key"`
	N   int    `json:"n"`
}

// TestF19_BehindPgBouncer: every transaction may be in another session of the server, and
// sessions end: two relays share the work, one takes over from the other, and a group
// handles everything once. No lock of a session is ever taken.
func TestF19_BehindPgBouncer(t *testing.T) {
	t.Parallel()
	server := servers.SharedPostgres(t)
	bouncer, err := servers.PgBouncer(t.Context(), server, servers.Host{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bouncer.Close(); err != nil {
			t.Error(err)
		}
	})
	direct := servers.Database(t)
	through := strings.Replace(direct, servers.HostOf(direct), servers.HostOf(bouncer.URL()), 1)
	w := newWorld(t, through, servers.NewVHost(t).URL())
	w.exec("CREATE TABLE effects (n int)")
	service, err := outlast.NewConsumer(outlast.ConsumerConfig{Group: "reader", Store: postgres.Store(w.db), Broker: rabbitmq.Broker(w.broker),
		Handlers: []outlast.Handler{outlast.Handle(outlast.Event[numbered]("order.placed", 1), func(ctx context.Context, tx outlast.Tx, m outlast.Received[numbered]) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES ($1)", m.Body.N)
			return err
		})}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	first := w.relay("--lease", "2s")
	second := w.relay("--lease", "2s")
	w.eventually("both relays hold their share", time.Minute, func() bool {
		return w.number(`SELECT count(*) FROM (SELECT owner FROM outlast_slot WHERE scope = 'relay' GROUP BY owner HAVING count(*) = 128) o`) == 2
	})
	const n = 2000
	w.exec(fill(50, n))
	w.eventually("some are handled", time.Minute, func() bool { return w.number("SELECT count(*) FROM effects") > 0 })
	first.kill()
	db, err := postgres.Open(t.Context(), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	w.eventually("all are handled", 3*time.Minute, func() bool {
		var count int
		err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM effects").Scan(&count)
		return err == nil && count >= n
	})
	w.wait("all are settled")
	if distinct := w.number("SELECT count(DISTINCT n) FROM effects"); distinct != n || w.number("SELECT count(*) FROM effects") != n {
		t.Errorf("%d effects, %d different ones, want %d", w.number("SELECT count(*) FROM effects"), distinct, n)
	}
	w.eventually("no lock of a session is left", time.Minute, func() bool {
		return w.number(`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 0
	})
	second.end()
}
