// Command orders places an order every second. It keeps its orders and its outbox in
// orders.db, and runs the embedded broker in the directory "broker".
package main

import (
	"context"
	"database/sql"
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

func run(ctx context.Context) error {
	db, err := sql.Open("sqlite", sqlite.DSN("orders.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	store := sqlite.Store(db)
	if err := store.Migrations().Up(ctx, 0); err != nil { // 0: to the newest version
		return err
	}
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)`); err != nil {
		return err
	}
	broker, err := embedded.Start("broker")
	if err != nil {
		return err
	}
	defer broker.Close()

	service, err := outlast.NewService(outlast.ServiceConfig{
		Name:   "orders",
		Store:  store,
		Broker: nats.Broker(broker.URL()),
		Logger: slog.Default(), // without it nothing is logged
	})
	if err != nil {
		return err // every bad field, at once
	}
	go placeOrders(ctx, db, service.Outbox())
	return service.Run(ctx) // delivers the outbox until ctx ends
}

func placeOrders(ctx context.Context, db *sql.DB, outbox *outlast.Outbox) {
	for ctx.Err() == nil {
		id, err := place(ctx, db, outbox, "ada", 1999)
		if err != nil {
			log.Print(err)
		} else {
			fmt.Println("placed", id)
		}
		time.Sleep(time.Second)
	}
}

// place writes the order and the message about it in one transaction: both are there,
// or neither. The broker is not asked, so it may be down.
func place(ctx context.Context, db *sql.DB, outbox *outlast.Outbox, customer string, cents int64) (string, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer tx.Rollback()
	var number int
	err = tx.QueryRowContext(ctx, `INSERT INTO orders (customer, cents) VALUES ($1, $2) RETURNING number`, customer, cents).Scan(&number)
	if err != nil {
		return "", err
	}
	id := fmt.Sprintf("order-%d", number)
	message := contracts.OrderPlaced.Message(contracts.Order{OrderID: id, Customer: customer, Cents: cents})
	if err := outbox.Publish(ctx, tx, message); err != nil {
		return "", err
	}
	return id, tx.Commit()
}
