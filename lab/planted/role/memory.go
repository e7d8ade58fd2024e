package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/outlasttest/history"
)

const inMemory = 200 // messages

// sends counts what the relay has handed to the broker.
type sends struct{ atomic.Int32 }

var _ outlast.HookSending = (*sends)(nil)

func (n *sends) OnSending(outlast.Try, int) { n.Add(1) }

// whole is a whole system in one process, whose broker dies for a moment.
func whole(ctx context.Context, rec *history.Recorder) error {
	outage := 50 * time.Millisecond
	if text := os.Getenv("OUTAGE"); text != "" {
		var err error
		if outage, err = time.ParseDuration(text); err != nil {
			return err
		}
	}
	store, broker := memory.NewStore(), memory.NewBroker()
	var handled atomic.Int32
	var sent sends
	var before int32
	service, err := outlast.NewService(outlast.ServiceConfig{
		Name: "orders", Store: store, Broker: broker, Hooks: []outlast.Hook{rec, &sent},
		Relay:      outlast.RelayConfig{Interval: 20 * time.Millisecond, InFlight: 8},
		Middleware: []outlast.Middleware{rec.Middleware(nil)},
		Handlers: []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error {
			handled.Add(1)
			return nil
		})},
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	for n := range inMemory {
		switch n % 50 {
		case 15:
			broker.Inject(memory.DropConfirm(1)) // so that what is sent now is in doubt when it dies
			before = sent.Load()
		case 25:
			for limit := time.Now().Add(time.Minute); sent.Load() == before; time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					return errors.New("the relay sends nothing")
				}
			}
			rec.Fault("broker dies", history.On, "")
			broker.Inject(memory.DropConfirm(0))
			broker.Die()
		case 35: // what was written meanwhile waits
			time.Sleep(outage)
			outage = 50 * time.Millisecond // a long one is enough once
			broker.Revive()
			rec.Fault("broker dies", history.Off, "")
		}
		tx := store.Begin()
		if err := service.Outbox().Publish(ctx, tx, placed.Message(order{outlast.NewID()})); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	rest := false
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit) && !rest; time.Sleep(10 * time.Millisecond) {
		st, err := store.Operator().Status(ctx)
		if err != nil {
			return err
		}
		rest = handled.Load() >= inMemory && len(st.Pending)+len(st.Held)+len(st.Retry) == 0
	}
	rec.Quiesce(rest)
	stop()
	if err := <-ended; err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return rec.Left(context.WithoutCancel(ctx), store, "orders")
}
