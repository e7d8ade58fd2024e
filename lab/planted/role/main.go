// Command role is one process of a system whose history is recorded: a writer, a
// relay or a consumer. Built with the tag outlast_planted it can have a known bug.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest/history"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

type order struct {
	ID string `json:"id"`
}

// errNowAndThen has messages tried again.
var errNowAndThen = errors.New("now and then")

var placed = outlast.Event[order]("order.placed", 1)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := run(ctx, os.Getenv("ROLE"), os.Getenv("NAME"))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv("NAME")+":", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, role, name string) error {
	rec, err := history.NewRecorder(filepath.Join(os.Getenv("HISTORY"), name+".jsonl"), name)
	if err != nil {
		return err
	}
	defer rec.Close()
	if role == "memory" {
		return whole(ctx, rec)
	}
	db, err := postgres.Open(ctx, os.Getenv("DATABASE"))
	if err != nil {
		return err
	}
	defer db.Close()
	switch role {
	case "writer":
		return write(ctx, db, rec)
	case "relay":
		return relay(ctx, name, db, rec)
	case "consumer":
		return consume(ctx, name, db, rec)
	}
	return fmt.Errorf("no role %q", role)
}

// write commits orders until ctx ends, several at a time and some of them late, so
// that transactions commit in another order than they began.
func write(ctx context.Context, db *sql.DB, rec *history.Recorder) error {
	outbox := outlast.NewOutbox(postgres.Store(db), outlast.OutboxConfig{Hooks: []outlast.Hook{rec}})
	ledger := &history.Ledger{Engine: "postgres", Name: "orders"}
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for ctx.Err() == nil {
				if err := writeOne(ctx, db, outbox, ledger, rec); err != nil && ctx.Err() == nil {
					fmt.Fprintln(os.Stderr, "write:", err)
				}
				time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
			}
		})
	}
	writers.Wait()
	return nil
}

func writeOne(ctx context.Context, db *sql.DB, outbox *outlast.Outbox, ledger *history.Ledger, rec *history.Recorder) error {
	inner, tx, err := rec.Begin(context.WithoutCancel(ctx), db, ledger)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	m := placed.Message(order{outlast.NewID()})
	if rand.IntN(2) == 0 {
		m.Envelope.Key = fmt.Sprint("hot-", rand.IntN(4)) // few slots, in which late commits meet others
	}
	if err := outbox.Publish(inner, tx, m); err != nil {
		return err
	}
	if rand.IntN(5) == 0 {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
	}
	return tx.Commit()
}

func relay(ctx context.Context, name string, db *sql.DB, rec *history.Recorder) error {
	r, err := outlast.NewRelay(outlast.RelayConfig{
		Source: "orders", Store: postgres.Store(db), Broker: rabbitmq.Broker(os.Getenv("BROKER")), Owner: name,
		LeaseTTL: 2 * time.Second, Interval: 50 * time.Millisecond, ConfirmDeadline: 2 * time.Second,
		Hooks: []outlast.Hook{rec},
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// consume handles slowly, so that there are always messages in hand.
func consume(ctx context.Context, name string, db *sql.DB, rec *history.Recorder) error {
	c, err := outlast.NewConsumer(outlast.ConsumerConfig{
		Group: "billing", Store: postgres.Store(db), Broker: rabbitmq.Broker(os.Getenv("BROKER")), Instance: name,
		Unordered: true, Workers: 24, HeartbeatInterval: time.Second, Grace: 2 * time.Second,
		Retry:      outlast.RetryPolicy{Attempts: 100, First: 50 * time.Millisecond, Longest: time.Second},
		Hooks:      []outlast.Hook{rec},
		Middleware: []outlast.Middleware{rec.Middleware(&history.Ledger{Engine: "postgres", Name: "billing"})},
		Handlers: []outlast.Handler{outlast.Handle(placed, func(ctx context.Context, _ outlast.Tx, _ outlast.Received[order]) error {
			wait := time.Duration(rand.IntN(60)) * time.Millisecond
			if rand.IntN(10) == 0 { // longer than a reconnect
				wait = time.Duration(500+rand.IntN(1500)) * time.Millisecond
			}
			time.Sleep(wait)
			if rand.IntN(50) == 0 {
				return errNowAndThen
			}
			return nil
		})},
	})
	if err != nil {
		return err
	}
	return c.Run(ctx)
}
