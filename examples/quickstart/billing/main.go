// Command billing charges orders, each once. It keeps its charges and its inbox in
// billing.db. Start it any time after orders, kill it, start it again: no order is
// forgotten and none is charged twice.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "modernc.org/sqlite"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/embedded"
	"github.com/outlastmq/outlast/examples/quickstart/contracts"
	"github.com/outlastmq/outlast/nats"
	"github.com/outlastmq/outlast/sqlite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

var errNoPrice = errors.New("the order has no price")

// charge is called in a transaction that Outlast commits when it returns nil.
func charge(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Order]) error {
	if m.Body.Cents <= 0 {
		return outlast.DeadLetter(errNoPrice) // a verdict: no retry can help
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO charges (order_id, cents) VALUES ($1, $2)`, m.Body.OrderID, m.Body.Cents)
	if err != nil {
		return err // anything else is retried by policy
	}
	fmt.Println("charged", m.Body.OrderID)
	return nil
}

func run(ctx context.Context) error {
	db, err := sql.Open("sqlite", sqlite.DSN("billing.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	store := sqlite.Store(db)
	if err := store.Migrations().Up(ctx, 0); err != nil { // 0: to the newest version
		return err
	}
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS charges (order_id TEXT, cents INTEGER)`); err != nil {
		return err
	}
	address, err := embedded.Connect("broker") // of the broker that orders runs
	if err != nil {
		return err
	}
	billing, err := outlast.NewService(outlast.ServiceConfig{
		Name:     "billing",
		Store:    store,
		Broker:   nats.Broker(address),
		Logger:   slog.Default(), // without it nothing is logged
		Handlers: []outlast.Handler{outlast.Handle(contracts.OrderPlaced, charge)},
		// After a kill, the next process waits for the dead one's lease, which is twice
		// as long. Short suits a trial; the default of 10s asks the database less often.
		Consumer: outlast.ConsumerConfig{HeartbeatInterval: 2 * time.Second},
	})
	if err != nil {
		return err // every bad field and declaration, at once
	}
	return billing.Run(ctx)
}
