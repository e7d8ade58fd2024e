package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/outlastmq/outlast"
)

// settledHook counts rows that have left the outbox.
type settledHook func(n int)

func (h settledHook) OnSettled(s *outlast.Settlement, _ []outlast.Lease) { h(len(s.Sent)) }

// warnings shows what goes wrong in an actor; the rest is silent.
var warnings = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

// relayOutlast is the relay with its default settings, of which tracking is one.
func relayOutlast(tracking bool) actor {
	return func(ctx context.Context, t *task, done func(int)) error {
		return withStore(ctx, t.Database, 20, func(_ *sql.DB, store outlast.Store) error {
			relay, err := outlast.NewRelay(outlast.RelayConfig{Source: messageSource, Store: store,
				Broker: brokerAt(t.Broker), Interval: t.Interval, WakeUps: t.Mode == "notify", NoTracking: !tracking,
				Hooks: []outlast.Hook{settledHook(done)}, Logger: warnings})
			if err != nil {
				return err
			}
			return relay.Run(ctx)
		})
	}
}

// window is how many unconfirmed messages the pipelined publishers allow, over lanes.
const (
	window = 1024
	lanes  = 4
)

// publishAdapter is what the relay publishes with, without a database: what is lost
// between "broker" and this is the adapter's, and between this and "outlast" the relay's.
func publishAdapter(ctx context.Context, t *task, done func(int)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots, up := make(chan struct{}, window), make(chan struct{}, 1)
	var once sync.Once
	var failed error
	p := brokerAt(t.Broker).Publisher(outlast.PublisherConfig{Logger: warnings,
		Results: func(rs []outlast.Result) {
			for _, r := range rs {
				if r.Outcome != outlast.OutcomeConfirmed {
					once.Do(func() { failed = fmt.Errorf("%s: %w", r.Outcome, r.Err); cancel() })
				}
				<-slots
			}
			done(len(rs))
		},
		Link: func(l outlast.Link) {
			if l.State == outlast.LinkUp {
				select {
				case up <- struct{}{}:
				default:
				}
			}
		}})
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) }) // ends with ctx, or failed says why not
	defer running.Wait()
	<-up
	for i := range t.Rows {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return failed
		}
		id, key := outlast.NewID(), keyOf(i, t.Keys)
		m := &outlast.Message{Envelope: outlast.Envelope{ID: id, Type: messageType, Source: messageSource, Kind: outlast.KindEvent,
			Key: key, CorrelationID: id, ContentType: "application/json"}, Body: []byte(bodyOf(i, t.Size))}
		bucket := outlast.Bucket(key, id)
		p.Send(bucket%lanes, []*outlast.Publishing{{Message: m, Exchange: outlast.EventExchange,
			RoutingKey: fmt.Sprintf("%s.%d", messageType, bucket)}})
	}
	<-ctx.Done()
	return failed
}
