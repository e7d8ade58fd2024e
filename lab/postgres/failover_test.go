package postgres_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/postgres"
)

// TestF07_AFailoverThatLosesCommits: a standby that lacks what was committed last becomes
// the primary. Sequence numbers and transaction ids come again; the same relay sends what is
// written from then on all the same, and says once that the database was set back: what it
// sent and is lost nobody else can tell of.
func TestF07_AFailoverThatLosesCommits(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	primary, standby, database := replicated(t)
	db := openURL(t, servers.JoinURLs(database, primary, standby))
	store := postgres.Store(db)
	broker, arrivals := reader(t)
	outbox := outlast.NewOutbox(store)
	publish := func(n int) {
		for i := range n {
			tx, err := db.BeginTx(ctx, nil)
			must(t, err)
			must(t, outbox.Publish(ctx, tx, orderPlaced.Message(placed{fmt.Sprint(i % 7)})))
			must(t, tx.Commit())
		}
	}
	arrived := func(n int) func() bool { return func() bool { return arrivals() >= n } }
	// The relay's lease outlives the failover, so that it has no reason to begin anew but
	// what it sees in the database.
	said := &warnings{}
	serve(t, outlast.ServiceConfig{Name: "orders", Store: store, Broker: broker, Logger: slog.New(slog.NewTextHandler(said, nil)),
		Relay: outlast.RelayConfig{LeaseTTL: 5 * time.Minute}})
	const early, lost, kept = 20, 300, 50
	publish(early)
	eventually(t, "the relay works", func() bool { return arrived(early)() && number(t, db, "SELECT count(*) FROM outlast_outbox") == 0 })
	// A COMMIT that has waited for the standby: it knows all until now.
	must(t, primary.Synchronous(ctx, true))
	must(t, exec(ctx, openURL(t, database), "CREATE TABLE synced ()"))
	must(t, primary.Synchronous(ctx, false))
	must(t, standby.Stop(ctx)) // what comes now it never sees
	publish(lost)
	eventually(t, "they are delivered, which only the old primary knows", arrived(early+lost))
	must(t, primary.Kill())
	must(t, standby.Start(ctx))
	must(t, standby.Promote(ctx))
	eventually(t, "the new primary takes connections", func() bool { return db.PingContext(ctx) == nil })
	if n := number(t, db, "SELECT count(*) FROM outlast_outbox"); n != 0 {
		t.Fatalf("%d rows on the new primary: the failover lost nothing", n)
	}
	publish(kept)
	eventually(t, "what is written after the failover is delivered", arrived(early+lost+kept))
	eventually(t, "its rows are settled", func() bool { return number(t, db, "SELECT count(*) FROM outlast_outbox") == 0 })
	if n := said.count(`level=WARN msg="the database was set back`); n != 1 {
		t.Errorf("the relay says %d times that the database was set back, want once:\n%s", n, said)
	}
}

// TestF07_WhatOnlyThePrimaryHasIsNotSent: the producer gives up waiting for the standby, and
// the primary shows the row all the same, although a failover would lose it. Nothing
// of it leaves until the standby has it; and a mark that is seen that way acknowledges nothing.
func TestF07_WhatOnlyThePrimaryHasIsNotSent(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	primary, standby, database := replicated(t)
	db := openURL(t, database)
	must(t, primary.Synchronous(ctx, true))
	store := postgres.Store(db)
	broker, arrivals := reader(t)
	outbox := outlast.NewOutbox(store)
	publish := func(patience time.Duration, opts ...outlast.MessageOption) error {
		tx, err := db.BeginTx(ctx, nil)
		must(t, err)
		must(t, outbox.Publish(ctx, tx, orderPlaced.Message(placed{"7"}, opts...)))
		if patience == 0 {
			return tx.Commit()
		}
		hurried, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		_, err = tx.ExecContext(hurried, "COMMIT") // database/sql waits for its own without end
		_ = tx.Rollback()
		return err
	}
	serve(t, outlast.ServiceConfig{Name: "orders", Store: store, Broker: broker,
		Relay: outlast.RelayConfig{LeaseTTL: 5 * time.Minute, Interval: 50 * time.Millisecond}})
	must(t, publish(0))
	eventually(t, "the relay works", func() bool { return arrivals() == 1 && number(t, db, "SELECT count(*) FROM outlast_outbox") == 0 })

	mark := outlast.Mark{Source: "orders", ID: "1", Hash: 1}
	begin := func(patience time.Duration) (outlast.InboxTx, error) {
		hurried, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return store.Inbox().Begin(hurried, "billing", []outlast.Mark{mark})
	}
	tx, err := begin(time.Minute)
	must(t, err)
	must(t, standby.Pause())
	hurried, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := tx.Commit(hurried); outlast.CodeOf(err) != outlast.CodeUnknown {
		t.Fatalf("a commit without the standby: %v", err)
	}
	for _, opts := range [][]outlast.MessageOption{nil, {outlast.After(50 * time.Millisecond)}} {
		if err := publish(300*time.Millisecond, opts...); err == nil {
			t.Fatal("a commit without the standby succeeded")
		}
	}
	eventually(t, "the primary shows all", func() bool {
		return number(t, db, "SELECT (SELECT count(*) FROM outlast_outbox) + (SELECT count(*) FROM outlast_held) + (SELECT count(*) FROM outlast_inbox)") == 3
	})
	for range 3 {
		if tx, err := begin(time.Second); err == nil {
			t.Errorf("what only the primary has is told as %v", tx.States())
			tx.Rollback()
		}
	}
	time.Sleep(time.Second) // twenty intervals
	if n := arrivals(); n != 1 {
		t.Errorf("%d messages arrived, want the first alone", n)
	}
	must(t, standby.Continue())
	eventually(t, "they are sent when the standby has them", func() bool { return arrivals() == 3 })
	tx, err = begin(time.Minute)
	must(t, err)
	if got := tx.States()[0]; got != outlast.SeenHandled {
		t.Errorf("with the standby, the mark is told as %v", got)
	}
	tx.Rollback()
}

// replicated starts a primary with the tables in a database of it, and a standby.
func replicated(t *testing.T) (primary, standby *servers.PostgresServer, database string) {
	ctx := t.Context()
	primary, err := servers.Postgres(ctx, servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, primary.Close()) })
	database, err = primary.NewDatabase(ctx)
	must(t, err)
	must(t, postgres.Store(openURL(t, database)).Migrations().Up(ctx, 0))
	standby, err = primary.Standby(ctx, servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, standby.Close()) })
	return primary, standby, database
}

// reader is a broker with a queue for orders, and how many messages are in it.
func reader(t *testing.T) (broker *memory.Broker, arrivals func() int) {
	broker = memory.NewBroker()
	must(t, broker.Topology().Apply(t.Context(), outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}},
		Groups: []outlast.GroupTopology{{Group: "reader", Partitions: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "order.placed.v1"}}}}}))
	return broker, func() int {
		d, err := broker.Topology().Depth(t.Context(), "reader.0")
		must(t, err)
		return d.Messages
	}
}

// warnings is a log that a test reads while it is written.
type warnings struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *warnings) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *warnings) count(what string) int { return strings.Count(w.String(), what) }
