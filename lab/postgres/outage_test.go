package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	neturl "net/url"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/proxy"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/postgres"
)

const patience = 90 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func number(t *testing.T, db *sql.DB, query string, args ...any) (n int) {
	t.Helper()
	must(t, db.QueryRowContext(t.Context(), query, args...).Scan(&n))
	return n
}

// serve runs a service until the test ends.
func serve(t *testing.T, conf outlast.ServiceConfig) *outlast.Service {
	t.Helper()
	s, err := outlast.NewService(conf)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	return s
}

// TestF03_AFailedCommitEndsItsConnection: a COMMIT that was cancelled leaves nobody a
// connection of which it is not known what it is in.
func TestF03_AFailedCommitEndsItsConnection(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := openURL(t, servers.Database(t), postgres.MaxConns(1))
	store := postgres.Store(db)
	must(t, store.Migrations().Up(ctx, 0))
	must(t, exec(ctx, db, `CREATE TABLE effects (n int);
		CREATE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(600); RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER cancels AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cancel()`))
	const pid = "SELECT pg_backend_pid()"
	before := number(t, db, pid)
	tx := begin(t, store)
	_, err := tx.Tx().ExecContext(ctx, "INSERT INTO effects VALUES (1)")
	must(t, err)
	if err := tx.Commit(ctx); outlast.CodeOf(err) != outlast.CodeUnavailable {
		t.Errorf("commit: %v, want %q", err, outlast.CodeUnavailable)
	}
	tx.Rollback()
	if after := number(t, db, pid); after == before {
		t.Errorf("the pool goes on with the connection whose COMMIT failed, that of backend %d", before)
	}
	tx = begin(t, store)
	must(t, tx.Commit(ctx))
	if n := number(t, db, "SELECT count(*) FROM effects"); n != 0 {
		t.Errorf("%d effects of a transaction that was rolled back", n)
	}
}

// TestF82_ADatabaseThatTakesNoWrites: while it is read-only, and while it restarts, a
// producer is told so at once; relay and consumer wait, and then everything takes effect once.
func TestF82_ADatabaseThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server, err := servers.Postgres(ctx, servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	db := openURL(t, server.URL())
	store := postgres.Store(db)
	must(t, store.Migrations().Up(ctx, 0))
	must(t, exec(ctx, db, "CREATE TABLE effects (id text)"))
	s := serve(t, outlast.ServiceConfig{Name: "billing", Store: store, Broker: memory.NewBroker(),
		Handlers: []outlast.Handler{outlast.Handle(orderPlaced, func(ctx context.Context, tx outlast.Tx, m outlast.Received[placed]) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES ($1)", m.Body.OrderID)
			return err
		})}})
	published := 0
	publish := func() error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return nil // no transaction, nothing to publish in
		}
		defer func() { _ = tx.Rollback() }() // does nothing after a commit
		if err := s.Outbox().Publish(ctx, tx, orderPlaced.Message(placed{fmt.Sprint(published)})); err != nil {
			return err
		}
		must(t, tx.Commit())
		published++
		return nil
	}
	effects := func() bool { // once each; false also when the pool gives a connection that the restart ended
		var all, different, left int
		err := db.QueryRowContext(ctx, "SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM outlast_outbox) FROM effects").Scan(&all, &different, &left)
		return err == nil && all == published && different == published && left == 0
	}
	for range 20 {
		must(t, publish())
	}
	eventually(t, "the service works", effects)

	for range 20 {
		must(t, publish())
	}
	for _, sql := range []string{"ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"} {
		must(t, exec(ctx, db, sql))
	}
	refused := 0
	eventually(t, "publishing is refused", func() bool {
		err := publish()
		if err != nil && outlast.CodeOf(err) != outlast.CodeUnavailable {
			t.Fatalf("publish while read-only: %v, want %q", err, outlast.CodeUnavailable)
		}
		if err != nil {
			refused++
		}
		return refused == 50 // connections learn of it one by one
	})
	health, err := outlast.NewHealth(s, outlast.HealthConfig{})
	must(t, err)
	eventually(t, "the service says so", func() bool { return !health.Ready(ctx).Ready })
	open, err := db.BeginTx(ctx, nil)
	must(t, err)
	must(t, server.Restart(ctx))
	if err := s.Outbox().Publish(ctx, open, orderPlaced.Message(placed{"never"})); outlast.CodeOf(err) != outlast.CodeUnavailable {
		t.Errorf("publish on a connection that is gone: %v, want %q", err, outlast.CodeUnavailable)
	}
	_ = open.Rollback() // with its connection
	for _, sql := range []string{"ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"} {
		eventually(t, sql, func() bool { return exec(ctx, db, sql) == nil })
	}
	for want := published + 20; published < want; {
		_ = publish() // connections learn of it one by one
	}
	eventually(t, "everything took effect once", effects)
	eventually(t, "the dead letters can be listed", func() bool {
		dead, err := store.Operator().Dead().List(ctx, outlast.Filter{})
		if len(dead) > 0 {
			t.Fatalf("dead letters of an outage: %+v", dead)
		}
		return err == nil
	})
}

// TestASwallowedAnswerIsNotWaitedForForEver: what the server says on a connection arrives no
// more, as behind a proxy that has lost its way. Whoever gives up gets the connection closed,
// and a rollback gives up by itself.
func TestASwallowedAnswerIsNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	url := servers.Database(t)
	must(t, postgres.Store(openURL(t, url)).Migrations().Up(t.Context(), 0))
	at, err := neturl.Parse(url)
	must(t, err)
	link, err := proxy.New(at.Host)
	must(t, err)
	t.Cleanup(func() { must(t, link.Close()) })
	at.Host = link.Address()
	db := openURL(t, at.String())
	inbox := postgres.Store(db).Inbox()
	marks := func() []outlast.Mark { return []outlast.Mark{{Source: "orders", ID: outlast.NewID()}} }
	begin := func() outlast.InboxTx {
		tx, err := inbox.Begin(t.Context(), "billing", marks())
		must(t, err)
		return tx
	}
	for _, standard := range []bool{false, true} {
		tx := begin()
		if standard { // the transaction is database/sql's once a handler has asked for it
			_, err := tx.Tx().ExecContext(t.Context(), "SELECT 1")
			must(t, err)
		}
		link.Deafen()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			tx.Rollback()
		}()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatalf("a rollback waits for ever (database/sql: %v)", standard)
		}
	}
	begin().Rollback() // a connection that can be used again
	link.Deafen()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if tx, err := inbox.Begin(ctx, "billing", marks()); err == nil {
		tx.Rollback()
		t.Error("the answer to BEGIN was swallowed, and it came")
	}
	begin().Rollback()
}
