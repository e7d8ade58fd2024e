package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// made is the body of the messages, as far as the handlers need it.
type made struct {
	OrderID int `json:"order_id"`
	N       int `json:"n"`
}

var (
	rawMade = outlast.Event[[]byte]("bench.made", 1, outlast.WithCodec(outlast.Raw))
	errOnce = errors.New("this message fails once")

	errPoison = errors.New("this message fails several times")
)

const (
	slowWork    = 20 * time.Millisecond // of a slow handler, outside of the database
	failsEveryN = 50                    // messages, or keys, of which one fails
	poisonTries = 5                     // of a poison message, the last of which succeeds so that the run ends
)

const insertEffect = `INSERT INTO effect (message_id, body) VALUES ($1, $2)`

// handledHook counts committed effects.
type handledHook func(h outlast.Handled)

func (f handledHook) OnHandled(h outlast.Handled) { f(h) }

// handlerOf returns a handler with one INSERT that besides does what its mode says:
// "insert" nothing, "slow" waits as for another service, "failing" fails some messages once.
// In an ordered group "poison" fails all messages of some keys, and "healthy" none.
func handlerOf(mode string) func(ctx context.Context, tx outlast.Tx, m outlast.Received[[]byte]) error {
	return func(ctx context.Context, tx outlast.Tx, m outlast.Received[[]byte]) error {
		switch mode {
		case "slow":
			time.Sleep(slowWork) // the load itself, not a wait for an effect
		case "failing":
			var body made
			if err := json.Unmarshal(m.Body, &body); err != nil {
				return err
			}
			if body.N%failsEveryN == 0 && m.Attempt == 1 {
				return errOnce
			}
		}
		_, err := tx.ExecContext(ctx, insertEffect, m.ID, string(m.Body))
		return err
	}
}

// isPoison reports whether a key is one whose messages fail in mode "poison". They are
// left out of the times in the mode without poison too.
func isPoison(t *task, key string) bool {
	if t.Mode != "poison" && t.Mode != "healthy" {
		return false
	}
	n, err := strconv.Atoi(strings.TrimPrefix(key, keyPrefix))
	return err == nil && n%failsEveryN == 0
}

// consumeOutlast handles a queue with Outlast's consumer.
func consumeOutlast(ctx context.Context, t *task, done func(int)) error {
	conns := 2*max(t.Clients, 16) + 4 // handlers and retries at once
	return withStore(ctx, t.Database, conns, func(_ *sql.DB, store outlast.Store) error {
		config := outlast.ConsumerConfig{Group: groupName, Store: store, Broker: brokerAt(t.Broker), Workers: t.Clients, Batch: t.Batch,
			Unordered: t.Keys == 0, Logger: warnings, Handlers: []outlast.Handler{outlast.Handle(rawMade, handlerOf(t.Mode))},
			Retry: outlast.RetryPolicy{First: 10 * time.Millisecond},
			Hooks: []outlast.Hook{handledHook(func(h outlast.Handled) {
				if h.Result == outlast.HandledOK {
					if t.Sample > 0 && !isPoison(t, h.Message.Key) {
						t.stamps.note(h.Message.ID)
					}
					done(1)
				}
			})}}
		if t.Mode == "failing" || t.Mode == "poison" {
			config.Logger = nil // it would tell of every failure
		}
		if t.Keys > 0 {
			config.Generation = 2
			config.Handlers = []outlast.Handler{outlast.Handle(keyedMade, func(ctx context.Context, tx outlast.Tx, m outlast.Received[keyed]) error {
				if t.Mode == "poison" && m.Attempt < poisonTries && isPoison(t, m.Key) {
					return errPoison
				}
				_, err := tx.ExecContext(ctx, insertEffect, m.ID, m.Body.Text)
				return err
			})}
		}
		consumer, err := outlast.NewConsumer(config)
		if err != nil {
			return err
		}
		return consumer.Run(ctx)
	})
}

// keyed has an ordering key, which makes its group an ordered one.
type keyed struct {
	OrderID int    `json:"order_id" outlast:"key"`
	Text    string `json:"text"`
}

var keyedMade = outlast.Event[keyed]("bench.made", 1)

// consumeByHand is the best that is usually written by hand: many workers, and for each
// message one transaction with the mark and the effect, then the acknowledgement.
func consumeByHand(ctx context.Context, t *task, done func(int)) error {
	return withOwnPool(ctx, t.Database, t.Clients, func(db *sql.DB, _ outlast.Store) error {
		conn, err := amqp.Dial(t.Broker)
		if err != nil {
			return err
		}
		defer conn.Close()
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		if err := ch.Qos(2*t.Clients, 0, false); err != nil {
			return err
		}
		deliveries, err := ch.ConsumeWithContext(ctx, t.Queue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		var workers sync.WaitGroup
		errs := make([]error, t.Clients)
		for w := range t.Clients {
			workers.Go(func() {
				for d := range deliveries {
					if errs[w] = handleByHand(ctx, db, &d, t.Mode); errs[w] != nil {
						return
					}
					done(1)
				}
			})
		}
		workers.Wait()
		return unlessEnded(ctx, errors.Join(errs...))
	})
}

func handleByHand(ctx context.Context, db *sql.DB, d *amqp.Delivery, mode string) error {
	err := inTx(ctx, db, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `INSERT INTO hand_inbox (message_id) VALUES ($1) ON CONFLICT DO NOTHING`, d.MessageId)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err // a duplicate
		}
		if mode == "slow" {
			time.Sleep(slowWork) // the load itself, not a wait for an effect
		}
		_, err = tx.ExecContext(ctx, insertEffect, d.MessageId, string(d.Body))
		return err
	})
	if err != nil {
		return err
	}
	return d.Ack(false)
}
