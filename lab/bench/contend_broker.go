package main

import (
	"context"
	"errors"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

var errNack = errors.New("the broker refused a message")

// publishAMQP is the most that the broker takes from one process: no database, four
// channels, 256 unconfirmed messages on each.
func publishAMQP(ctx context.Context, t *task, done func(int)) error {
	conn, err := amqp.Dial(t.Broker)
	if err != nil {
		return err
	}
	defer conn.Close()
	var group sync.WaitGroup
	errs := make([]error, lanes)
	for lane := range lanes {
		group.Go(func() { errs[lane] = publishLane(ctx, conn, t, lane, done) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func publishLane(ctx context.Context, conn *amqp.Connection, t *task, lane int, done func(int)) error {
	ch, err := confirmChannel(conn)
	if err != nil {
		return err
	}
	pending := make(chan *amqp.DeferredConfirmation, window/lanes)
	var group sync.WaitGroup
	var refused error
	group.Go(func() {
		for c := range pending {
			if !c.Wait() {
				refused = errNack
			}
			done(1)
		}
	})
	for i := lane; i < t.Rows && err == nil; i += lanes {
		id := outlast.NewID()
		key, p := wire(id, keyOf(i, t.Keys), bodyOf(i, t.Size))
		var c *amqp.DeferredConfirmation
		if c, err = ch.PublishWithDeferredConfirmWithContext(ctx, outlast.EventExchange, key, true, false, p); err == nil {
			pending <- c
		}
	}
	close(pending)
	group.Wait()
	return errors.Join(err, refused)
}

func confirmChannel(conn *amqp.Connection) (*amqp.Channel, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	return ch, ch.Confirm(false)
}

// publishAndWait sends one message and waits for its confirm.
func publishAndWait(ctx context.Context, ch *amqp.Channel, id, key, body string) error {
	routingKey, p := wire(id, key, body)
	c, err := ch.PublishWithDeferredConfirmWithContext(ctx, outlast.EventExchange, routingKey, true, false, p)
	if err != nil {
		return err
	}
	acked, err := c.WaitContext(ctx)
	if err == nil && !acked {
		err = errNack
	}
	return err
}
