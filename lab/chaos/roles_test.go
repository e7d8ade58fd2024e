package chaos

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

const (
	envRole    = "OUTLAST_CHAOS_ROLE"
	envOrders  = "OUTLAST_CHAOS_ORDERS"
	envBilling = "OUTLAST_CHAOS_BILLING"
	envBroker  = "OUTLAST_CHAOS_BROKER"
)

// effect has no unique constraint, so that a doubled effect shows.
const (
	ordersTables = `
		CREATE TABLE keys (key text PRIMARY KEY, n int NOT NULL);
		INSERT INTO keys SELECT 'k' || i, 0 FROM generate_series(1, 20) i;
		CREATE TABLE sent (id text PRIMARY KEY, key text NOT NULL, n int NOT NULL);
		CREATE TABLE effect (seq bigserial, id text NOT NULL, key text NOT NULL, n int NOT NULL, attempt int NOT NULL, pid int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());`
	billingTables = `
		CREATE TABLE effect (seq bigserial, id text NOT NULL, key text NOT NULL, n int NOT NULL, attempt int NOT NULL, pid int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());`
)

type order struct {
	Key string `json:"key" outlast:"key"`
	N   int    `json:"n"`
	ID  string `json:"id"`
}

var (
	placed = outlast.Event[order]("order.placed", 1)
	billed = outlast.Event[order]("order.billed", 1)
)

var quickRetry = outlast.RetryPolicy{Attempts: 100, First: 50 * time.Millisecond, Longest: time.Second}

// runRole is a child process.
func runRole(name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch name {
	case "writer":
		db, err := postgres.Open(ctx, os.Getenv(envOrders))
		if err != nil {
			return err
		}
		return write(ctx, db, outlast.NewOutbox(postgres.Store(db)))
	case "orders":
		return serve(ctx, name, os.Getenv(envOrders), func(*outlast.Outbox) outlast.Handler {
			return outlast.Handle(billed, func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
				return book(ctx, tx, m)
			})
		})
	case "billing":
		return serve(ctx, name, os.Getenv(envBilling), func(outbox *outlast.Outbox) outlast.Handler {
			return outlast.Handle(placed, func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
				if err := book(ctx, tx, m); err != nil {
					return err
				}
				if err := outbox.Publish(ctx, tx, billed.Message(m.Body)); err != nil {
					return err
				}
				if rand.IntN(50) == 0 {
					return errors.New("drawn by lot")
				}
				return nil
			})
		})
	}
	return fmt.Errorf("no role %q", name)
}

func serve(ctx context.Context, name, database string, handler func(*outlast.Outbox) outlast.Handler) error {
	db, err := postgres.Open(ctx, database)
	if err != nil {
		return err
	}
	defer db.Close()
	store := postgres.Store(db)
	service, err := outlast.NewService(outlast.ServiceConfig{
		Name: name, Store: store, Broker: rabbitmq.Broker(os.Getenv(envBroker)),
		Handlers: []outlast.Handler{handler(outlast.NewOutbox(store))},
		Consumer: outlast.ConsumerConfig{Partitions: 4, Retry: quickRetry, LeaseTTL: 2 * time.Second, HeartbeatInterval: time.Second},
		Relay:    outlast.RelayConfig{LeaseTTL: 2 * time.Second, Interval: 200 * time.Millisecond},
	})
	if err != nil {
		return err
	}
	return service.Run(ctx)
}

func book(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO effect (id, key, n, attempt, pid) VALUES ($1, $2, $3, $4, $5)`,
		m.Body.ID, m.Body.Key, m.Body.N, m.Attempt, os.Getpid())
	return err
}

// write commits orders until it is killed. The key's row is locked, so that the
// transactions of one key follow each other.
func write(ctx context.Context, db *sql.DB, outbox *outlast.Outbox) error {
	for ctx.Err() == nil {
		if err := writeOne(ctx, db, outbox); err != nil && ctx.Err() == nil {
			return err
		}
		time.Sleep(3 * time.Millisecond)
	}
	return nil
}

func writeOne(ctx context.Context, db *sql.DB, outbox *outlast.Outbox) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	o := order{Key: fmt.Sprintf("k%d", 1+rand.IntN(20)), ID: outlast.NewID()}
	if err := tx.QueryRowContext(ctx, `UPDATE keys SET n = n + 1 WHERE key = $1 RETURNING n`, o.Key).Scan(&o.N); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO sent (id, key, n) VALUES ($1, $2, $3)`, o.ID, o.Key, o.N); err != nil {
		return err
	}
	if err := outbox.Publish(ctx, tx, placed.Message(o, outlast.ID(o.ID))); err != nil {
		return err
	}
	return tx.Commit()
}
