package postgres_test

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/postgres"
)

// TestF06_NothingNotifies: a NOTIFY in a transaction makes commits wait for each other.
// There is none in any function, migration or statement but the two that were asked for, and
// what another program wrote is delivered without any wake-up.
func TestF06_NothingNotifies(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server, err := servers.Postgres(ctx, servers.PostgresConfig{NoSync: true}) // the queue of notifications is a server's
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	address := server.URL()
	db := openURL(t, address)
	store := postgres.Store(db)
	must(t, store.Migrations().Up(ctx, 0))
	notifies := regexp.MustCompile(`(?i)\b(pg_)?notify\b|\bLISTEN\b`)
	for name, text := range store.(interface{ Statements() map[string]string }).Statements() {
		if asked := name == "wake_notify" || name == "wake_listen"; notifies.MatchString(text) != asked {
			t.Errorf("%s notifies or listens, or is no more what does:\n%s", name, text)
		}
	}
	if n := number(t, db, `SELECT count(*) FROM pg_proc WHERE prosrc ~* '\mnotify\M|pg_notify' AND pronamespace = 'public'::regnamespace`); n > 0 {
		t.Errorf("%d functions notify", n)
	}
	if n := number(t, db, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"); n > 0 {
		t.Errorf("%d triggers on our tables", n)
	}

	// What is notified stays in the server's queue while somebody listens who does not read.
	listener, err := pgx.Connect(ctx, address)
	must(t, err)
	defer listener.Close(ctx)
	for _, sql := range []string{"LISTEN anything", "BEGIN", "SELECT 1"} {
		_, err := listener.Exec(ctx, sql)
		must(t, err)
	}
	const n = 500
	const used = "SELECT count(*) FROM (SELECT pg_notification_queue_usage() AS used) q WHERE used > 0"
	broker := memory.NewBroker()
	must(t, broker.Topology().Apply(ctx, outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}},
		Groups: []outlast.GroupTopology{{Group: "reader", Partitions: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "order.placed.v1"}}}}}))
	serve(t, outlast.ServiceConfig{Name: "orders", Store: store, Broker: broker})
	outbox := outlast.NewOutbox(store) // it wakes nobody
	for i := range n {
		tx, err := db.BeginTx(ctx, nil)
		must(t, err)
		must(t, outbox.Publish(ctx, tx, orderPlaced.Message(placed{fmt.Sprint(i)})))
		must(t, tx.Commit())
	}
	eventually(t, "all are delivered", func() bool {
		d, err := broker.Topology().Depth(ctx, "reader.0")
		must(t, err)
		return d.Messages == n && number(t, db, "SELECT count(*) FROM outlast_outbox") == 0
	})
	if number(t, db, used) > 0 {
		t.Error("something was notified")
	}
	for i := range n { // as much as one notification for each message does show
		must(t, exec(ctx, db, fmt.Sprintf("NOTIFY outlast_%d", i)))
	}
	if number(t, db, used) == 0 {
		t.Error("the queue of notifications shows nothing: the test cannot fail")
	}
}
