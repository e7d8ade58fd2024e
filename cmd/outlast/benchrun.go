package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/report"
)

const (
	benchSource   = "outlast-bench"
	benchClients  = 16
	benchInFlight = 1024
	benchBatch    = 100
)

// benchRun measures step by step. Each step leaves its messages to the next one.
type benchRun struct {
	f      *benchFlags
	place  *benchPlace
	broker *broker
	result *benchResult
	say    func(text string)

	rates map[string]float64
}

// Names of the rates.
const (
	rateBare     = "database: one INSERT in a transaction"
	ratePublish  = "outlast: one Publish in a transaction"
	rateCeiling  = "broker alone: publish and confirm"
	rateRelay    = "outlast: outbox to broker"
	rateConsume  = "outlast: queue to effect, one by one"
	rateBatches  = "outlast: queue to effect, batches of 100"
	oneCommit    = "one transaction with one INSERT"
	oneConfirm   = "one message to the broker and its confirm"
	commitEffect = "outlast: COMMIT to committed effect, at 20 msg/s"
)

func (m *benchRun) run(ctx context.Context) error {
	m.rates = map[string]float64{}
	m.result.Rates = &report.Table{Name: "rates", Title: "messages a second"}
	m.result.Latency = &report.Table{Name: "latency", Title: "milliseconds (the slowest in 100 beside the middle one)"}
	for _, step := range []func(context.Context) error{m.producers, m.ceiling, m.relayAndConsume, m.latency} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return &outlast.Error{Op: "bench", Code: outlast.CodeUnavailable, Err: errors.New("interrupted; its tables and queues are removed")}
			}
			return err
		}
	}
	m.result.Advice = m.advice()
	return nil
}

func (m *benchRun) rate(name string, perSecond float64) {
	m.rates[name] = perSecond
	m.result.Rates.Add(name, report.Value{Name: "msg/s", Value: perSecond})
}

func (m *benchRun) lag(name string, took []time.Duration) {
	ms := make([]float64, len(took))
	for i, d := range took {
		ms[i] = d.Seconds() * 1000
	}
	m.rates[name] = report.Quantile(ms, 0.5)
	m.result.Latency.Add(name, report.Value{Name: "p50 ms", Value: m.rates[name]}, report.Value{Name: "p99 ms", Value: report.Quantile(ms, 0.99)})
}

func (m *benchRun) message(part string, n int) outlast.Message {
	body := fmt.Sprintf(`{"n":%d,"text":"`, n)
	body += strings.Repeat("x", max(int(m.f.size)-len(body)-2, 0)) + `"}`
	msg := outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: benchType(m.place.name, part), ContentType: "application/json"}, Body: []byte(body)}
	if m.f.keys > 0 {
		msg.Envelope.Key = fmt.Sprintf("key-%d", n%m.f.keys)
	}
	return msg
}

// producers measures transactions of one client, and then of many.
func (m *benchRun) producers(ctx context.Context) error {
	insert := "INSERT INTO " + m.place.table("bare") + " (id, ordering_key, body) VALUES ($1, $2, $3)"
	bare := func(tx *sql.Tx, n int) error {
		msg := m.message("relay", n)
		_, err := tx.ExecContext(ctx, insert, msg.ID, msg.Envelope.Key, string(msg.Body))
		return err
	}
	outbox := outlast.NewOutbox(m.place.db)
	publish := func(tx *sql.Tx, n int) error { return outbox.Publish(ctx, tx, m.message("relay", n)) }

	m.say("measuring transactions")
	took, err := m.transactions(ctx, 1, min(m.f.rows, 200), bare)
	if err != nil {
		return err
	}
	m.lag(oneCommit, took)
	for _, c := range []struct {
		name  string
		write func(*sql.Tx, int) error
	}{{rateBare, bare}, {ratePublish, publish}} {
		began := time.Now()
		if took, err = m.transactions(ctx, benchClients, m.f.rows, c.write); err != nil {
			return err
		}
		m.rate(c.name, float64(len(took))/time.Since(began).Seconds())
	}
	return nil
}

// transactions lets clients commit n transactions, or as many as there is time for, and
// returns how long each took.
func (m *benchRun) transactions(ctx context.Context, clients, n int, write func(*sql.Tx, int) error) ([]time.Duration, error) {
	end := time.Now().Add(m.f.time)
	var next atomic.Int64
	var group sync.WaitGroup
	took, errs := make([][]time.Duration, clients), make([]error, clients)
	for c := range clients {
		group.Go(func() {
			for time.Now().Before(end) && errs[c] == nil {
				i := int(next.Add(1))
				if i > n {
					return
				}
				began := time.Now()
				errs[c] = inTransaction(ctx, m.place.db.sql, func(tx *sql.Tx) error { return write(tx, i) })
				took[c] = append(took[c], time.Since(began))
			}
		})
	}
	group.Wait()
	var all []time.Duration
	for _, t := range took {
		all = append(all, t...)
	}
	return all, errors.Join(errs...)
}

func inTransaction(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// ceiling publishes past the database: first one message at a time, then with a window.
func (m *benchRun) ceiling(ctx context.Context) error {
	m.say("measuring the broker")
	if _, err := m.place.group(ctx, "ceiling"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*m.f.time+time.Minute)
	defer cancel()
	w := newBenchWindow(m.broker, benchInFlight)
	var running sync.WaitGroup
	running.Go(func() { w.fail(w.publisher.Run(ctx)) })
	defer running.Wait()
	defer cancel()
	if err := w.untilUp(ctx); err != nil {
		return err
	}
	var took []time.Duration
	for i := range 50 {
		began := time.Now()
		if err := errors.Join(w.send(ctx, m.ceilingMessage(i)), w.drain(ctx)); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	m.lag(oneConfirm, took)
	began, n := time.Now(), 0
	for ; n < m.f.rows && time.Since(began) < m.f.time; n++ {
		if err := w.send(ctx, m.ceilingMessage(n)); err != nil {
			return err
		}
	}
	if err := w.drain(ctx); err != nil {
		return err
	}
	m.rate(rateCeiling, float64(n)/time.Since(began).Seconds())
	return nil
}

func (m *benchRun) ceilingMessage(n int) *outlast.Publishing {
	msg := m.message("ceiling", n)
	msg.Source, msg.EnqueuedAt, msg.CorrelationID = benchSource, time.Now(), msg.ID
	return &outlast.Publishing{Message: &msg, Exchange: outlast.EventExchange,
		RoutingKey: fmt.Sprintf("%s.%d", msg.Type, outlast.Bucket(msg.Envelope.Key, msg.ID))}
}

// relayAndConsume fills the outbox, drains it, and handles what is then in the queue.
func (m *benchRun) relayAndConsume(ctx context.Context) error {
	group, err := m.place.group(ctx, "relay")
	if err != nil {
		return err
	}
	m.say("measuring the relay")
	n, err := m.fill(ctx)
	if err != nil {
		return err
	}
	sent, rate, err := m.drain(ctx, n)
	if err != nil {
		return err
	}
	m.rate(rateRelay, rate)
	m.say("measuring consumers")
	handled, rate, err := m.consume(ctx, group, min(sent/2, m.f.rows), 1)
	if err != nil {
		return err
	}
	m.rate(rateConsume, rate)
	if _, rate, err = m.consume(ctx, group, sent-handled, benchBatch); err != nil {
		return err
	}
	m.rate(rateBatches, rate)
	return nil
}

// fill adds to the outbox what the producers have not written, in large transactions.
func (m *benchRun) fill(ctx context.Context) (n int, err error) {
	status, err := m.place.db.Operator().Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, p := range status.Pending {
		n += p.Count
	}
	outbox := outlast.NewOutbox(m.place.db)
	for n < m.f.rows {
		var msgs []outlast.Message
		bytes := 0
		for len(msgs) < 500 && n+len(msgs) < m.f.rows && bytes < 4<<20 {
			msgs = append(msgs, m.message("relay", n+len(msgs)))
			bytes += int(m.f.size)
		}
		if err := inTransaction(ctx, m.place.db.sql, func(tx *sql.Tx) error { return outbox.Publish(ctx, tx, msgs...) }); err != nil {
			return n, err
		}
		n += len(msgs)
	}
	return n, nil
}

type benchSettled func(n int)

func (f benchSettled) OnSettled(s *outlast.Settlement, _ []outlast.Lease) { f(len(s.Sent)) }

type benchHandled func(h outlast.Handled)

func (f benchHandled) OnHandled(h outlast.Handled) { f(h) }

// drain relays n rows, or what there is time for.
func (m *benchRun) drain(ctx context.Context, n int) (sent int, rate float64, err error) {
	c := newBenchCount(n)
	relay, err := outlast.NewRelay(outlast.RelayConfig{Source: benchSource, Store: m.place.db, Broker: m.broker, Hooks: []outlast.Hook{benchSettled(c.add)}})
	if err != nil {
		return 0, 0, err
	}
	return c.watch(ctx, max(5*m.f.time, 30*time.Second), relay.Run)
}

// consume handles n messages, or what there is time for.
func (m *benchRun) consume(ctx context.Context, g outlast.GroupTopology, n, batch int) (handled int, rate float64, err error) {
	c := newBenchCount(n)
	contract := outlast.Event[[]byte](strings.TrimSuffix(g.Bindings[0].Type, ".v1"), 1, outlast.WithCodec(outlast.Raw))
	insert := "INSERT INTO " + m.place.table("effect") + " (id, body) VALUES ($1, $2)"
	consumer, err := outlast.NewConsumer(outlast.ConsumerConfig{Group: g.Group, Store: m.place.db, Broker: m.broker, Batch: batch, Unordered: true,
		Handlers: []outlast.Handler{outlast.Handle(contract, func(ctx context.Context, tx outlast.Tx, msg outlast.Received[[]byte]) error {
			_, err := tx.ExecContext(ctx, insert, msg.ID, string(msg.Body))
			return err
		})},
		Hooks: []outlast.Hook{benchHandled(func(h outlast.Handled) {
			if h.Result == outlast.HandledOK {
				c.add(1)
			}
		})}})
	if err != nil {
		return 0, 0, err
	}
	return c.watch(ctx, m.f.time, consumer.Run)
}

// latency runs a whole service, and times messages from their COMMIT to the effect's.
func (m *benchRun) latency(ctx context.Context) error {
	m.say("measuring the time from COMMIT to effect")
	group, err := m.place.group(ctx, "latency")
	if err != nil {
		return err
	}
	contract := outlast.Event[[]byte](strings.TrimSuffix(group.Bindings[0].Type, ".v1"), 1, outlast.WithCodec(outlast.Raw))
	effects := make(chan outlast.Handled, 1)
	service, err := outlast.NewService(outlast.ServiceConfig{Name: benchSource, Store: m.place.db, Broker: m.broker,
		Groups: []outlast.ConsumerConfig{{Group: group.Group, Unordered: true, Handlers: []outlast.Handler{
			outlast.Handle(contract, func(context.Context, outlast.Tx, outlast.Received[[]byte]) error { return nil })}}},
		Hooks: []outlast.Hook{benchHandled(func(h outlast.Handled) { effects <- h })}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	ended := make(chan error, 1)
	running.Go(func() { ended <- service.Run(ctx) })
	defer running.Wait()
	defer cancel()
	var took []time.Duration
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for i := range int(min(m.f.time, 5*time.Second)/(50*time.Millisecond)) + 3 {
		msg := m.message("latency", i)
		if err := inTransaction(ctx, m.place.db.sql, func(tx *sql.Tx) error { return service.Outbox().Publish(ctx, tx, msg) }); err != nil {
			return err
		}
		began := time.Now()
		service.Outbox().Wake()
		select {
		case <-effects:
		case err := <-ended:
			return errors.Join(err, ctx.Err())
		}
		if i >= 3 { // the first ones wait for the connections
			took = append(took, time.Since(began))
		}
		<-pace.C
	}
	m.lag(commitEffect, took)
	return nil
}
