package main

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// loadClients is how many transactions of a load may be open at once.
const loadClients = 32

// produceAtRate commits messages at a set rate, whatever becomes of them: an open loop,
// so that a slow answer does not slow the load. Modes:
//
//	"direct"  commits, then publishes and waits for the confirm: fast, and loses
//	          messages when the process dies in between
//	"within"  publishes to the outbox, with the relay in this process
//	"outbox"  publishes to the outbox; the relay is in another process
//	"notify"  the same, and wakes that relay
func produceAtRate(ctx context.Context, t *task, done func(int)) error {
	return withStore(ctx, t.Database, loadClients+10, func(db *sql.DB, store outlast.Store) error {
		l := &load{t: t, db: db, outbox: outlast.NewOutbox(store, outlast.OutboxConfig{WakeUps: t.Mode == "notify", Logger: warnings}), done: done}
		switch t.Mode {
		case "direct":
			return l.direct(ctx)
		case "within":
			return l.within(ctx, store)
		}
		return l.run(ctx)
	})
}

type load struct {
	t       *task
	db      *sql.DB
	outbox  *outlast.Outbox
	publish func(ctx context.Context, id, key, body string) error
	done    func(int)
}

// direct has one channel for each client.
func (l *load) direct(ctx context.Context) error {
	conn, err := amqp.Dial(l.t.Broker)
	if err != nil {
		return err
	}
	defer conn.Close()
	channels := make(chan *amqp.Channel, loadClients)
	for range loadClients {
		ch, err := confirmChannel(conn)
		if err != nil {
			return err
		}
		channels <- ch
	}
	l.publish = func(ctx context.Context, id, key, body string) error {
		ch := <-channels
		defer func() { channels <- ch }()
		return publishAndWait(ctx, ch, id, key, body)
	}
	return l.run(ctx)
}

// within runs the service's relay beside the load. A message is finished when it has
// left the outbox.
func (l *load) within(ctx context.Context, store outlast.Store) error {
	service, err := outlast.NewService(outlast.ServiceConfig{Name: messageSource, Store: store, Broker: brokerAt(l.t.Broker),
		Hooks: []outlast.Hook{settledHook(l.done)}, Logger: warnings})
	if err != nil {
		return err
	}
	l.outbox, l.done = service.Outbox(), func(int) {}
	var relay sync.WaitGroup
	var ended error
	relay.Go(func() { ended = service.Run(ctx) })
	err = l.run(ctx)
	relay.Wait()
	return errors.Join(err, ended)
}

// run starts a transaction whenever one is due.
func (l *load) run(ctx context.Context) error {
	due := make(chan int)
	var clients sync.WaitGroup
	errs := make([]error, loadClients)
	for c := range loadClients {
		clients.Go(func() {
			for i := range due {
				if errs[c] == nil {
					errs[c] = l.commit(ctx, i)
				}
			}
		})
	}
	began := time.Now()
	for i := 0; i < l.t.Rows && ctx.Err() == nil; i += l.t.Batch {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(l.t.Rate))))
		due <- i
	}
	close(due)
	clients.Wait()
	return unlessEnded(ctx, errors.Join(errs...))
}

// commit commits one transaction with a business row and its messages.
func (l *load) commit(ctx context.Context, from int) error {
	msgs := make([]outlast.Message, 0, l.t.Batch)
	for i := from; i < min(from+l.t.Batch, l.t.Rows); i++ {
		msgs = append(msgs, outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: messageType, Key: keyOf(i, l.t.Keys),
			ContentType: "application/json"}, Body: []byte(bodyOf(i, l.t.Size))})
	}
	err := inTx(ctx, l.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO business (n) VALUES ($1)`, from); err != nil || l.publish != nil {
			return err
		}
		return l.outbox.Publish(ctx, tx, msgs...)
	})
	if err != nil {
		return err
	}
	for i, m := range msgs {
		if l.t.stamps.wants(from + i) {
			l.t.stamps.note(m.ID)
		}
	}
	if l.publish == nil {
		l.outbox.Wake()
		l.done(len(msgs))
		return nil
	}
	return l.publishAll(ctx, msgs)
}

func (l *load) publishAll(ctx context.Context, msgs []outlast.Message) error {
	errs := make([]error, len(msgs))
	var group sync.WaitGroup
	for i, m := range msgs {
		group.Go(func() { errs[i] = l.publish(ctx, m.ID, m.Envelope.Key, string(m.Body)) })
	}
	group.Wait()
	l.done(len(msgs))
	return errors.Join(errs...)
}
