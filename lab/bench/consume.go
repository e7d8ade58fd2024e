package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/report"
)

// consumeRows is the usual number of messages of a run.
const consumeRows = 8000

// groupName is the group of the consumers.
const groupName = "bench-reader"

// consumeCase is a consumer at work on a full queue. Every message costs an inbox row,
// one business INSERT and an acknowledgement.
type consumeCase struct {
	name    string
	actor   string
	engine  string // "postgres" or "sqlite"
	broker  string // "rabbitmq" or "nats"
	workers int
	batch   int
	keys    int // above 0: the group keeps the order of keys
	mode    string
	share   float64
}

func consumeCases() []consumeCase {
	const pg, lite, rabbit, nats = "postgres", "sqlite", "rabbitmq", "nats"
	return []consumeCase{
		{"by hand, 48 workers", "byhand", pg, rabbit, 48, 1, 0, "insert", 1},
		{"outlast, default (16 workers)", "consume", pg, rabbit, 0, 1, 0, "insert", 1},
		{"outlast, 48 workers", "consume", pg, rabbit, 48, 1, 0, "insert", 1},
		{"outlast, batches of 200, 4 workers", "consume", pg, rabbit, 4, 200, 0, "insert", 3},
		{"outlast, ordered, 1000 keys", "consume", pg, rabbit, 48, 1, 1000, "insert", 1},
		{"outlast, ordered, 10 keys", "consume", pg, rabbit, 48, 1, 10, "insert", 0.5},
		{"outlast, ordered, batches of 200", "consume", pg, rabbit, 4, 200, 1000, "insert", 3},
		{"by hand, 48 workers, 20 ms of work", "byhand", pg, rabbit, 48, 1, 0, "slow", 0.5},
		{"outlast, 48 workers, 20 ms of work", "consume", pg, rabbit, 48, 1, 0, "slow", 0.5},
		{"outlast, 48 workers, 2 % fail once", "consume", pg, rabbit, 48, 1, 0, "failing", 1},
		{"outlast, NATS, 48 workers", "consume", pg, nats, 48, 1, 0, "insert", 1},
		{"outlast, NATS, batches of 200", "consume", pg, nats, 4, 200, 0, "insert", 3},
		{"outlast, SQLite and NATS", "consume", lite, nats, 16, 1, 0, "insert", 0.5},
		{"outlast, SQLite and NATS, batches of 200", "consume", lite, nats, 4, 200, 0, "insert", 3},
	}
}

func consumerPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	t := &report.Table{Name: "consumer", Title: "Queue to committed effect: inbox row, one INSERT, acknowledgement"}
	for range o.rounds {
		for _, c := range consumeCases() {
			if !o.wants(c.name) {
				continue
			}
			if err := s.consumeRun(ctx, o, t, &c); err != nil {
				return []*report.Table{t}, fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return []*report.Table{t}, nil
}

func (s *stack) consumeRun(ctx context.Context, o *options, t *report.Table, c *consumeCase) (err error) {
	broker, err := s.brokerURL(c.broker)
	if err != nil {
		return err
	}
	database, drop, err := s.freshDatabase(ctx, c.engine)
	if err != nil {
		return err
	}
	defer drop()
	group := outlast.GroupTopology{Group: groupName, Partitions: 1, Ordered: c.keys > 0,
		Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: messageType}}}
	if c.keys > 0 {
		group.Generation = 2 // ordered or not is an argument of the queue
	}
	topology := brokerAt(broker).Topology()
	if err := topology.Apply(ctx, outlast.Topology{Groups: []outlast.GroupTopology{group}}); err != nil {
		return err
	}
	work := task{Actor: c.actor, Database: database, Broker: broker, Queue: group.Queue(0), Rows: max(int(consumeRows*c.share*o.scale), 200),
		Size: 256, Keys: c.keys, Clients: c.workers, Batch: c.batch, Mode: c.mode,
		Linger: time.Second, Profile: o.profileFile(c.name)}
	fill := work
	fill.Actor, fill.Profile, fill.Linger = "adapter", "", 0
	if _, err := perform(ctx, fill); err != nil {
		return fmt.Errorf("fill the queue: %w", err)
	}
	pg, rabbit := treeCPU(s.postgresPID), treeCPU(s.rabbitPID)
	r, err := perform(ctx, work)
	if err != nil {
		return err
	}
	pg, rabbit = settledCPU(s.postgresPID)-pg, treeCPU(s.rabbitPID)-rabbit
	if err := checkEffects(ctx, &work, topology); err != nil {
		return err
	}
	n := float64(r.Rows)
	t.Add(c.name, report.Value{Name: "msg/s", Value: r.rate()}, report.Value{Name: "CPU us/msg", Value: r.Usage.CPU / n * 1e6},
		report.Value{Name: "database CPU us/msg", Value: pg / n * 1e6}, report.Value{Name: "broker CPU us/msg", Value: rabbit / n * 1e6},
		report.Value{Name: "allocs/msg", Value: r.Usage.Allocs / n}, report.Value{Name: "peak RSS MiB", Value: r.Usage.RSS / (1 << 20)})
	if c.broker == "rabbitmq" {
		return s.deleteQueue(work.Queue)
	}
	return nil
}

// checkEffects makes sure that the run counts: one effect of each message, and an empty queue.
func checkEffects(ctx context.Context, t *task, topology outlast.TopologyBroker) error {
	effects, err := number(ctx, t.Database, "SELECT count(*) FROM effect")
	if err != nil {
		return err
	}
	distinct, err := number(ctx, t.Database, "SELECT count(DISTINCT message_id) FROM effect")
	if err != nil {
		return err
	}
	if effects != t.Rows || distinct != t.Rows {
		return fmt.Errorf("%d effects of %d messages, want one of each of %d", effects, distinct, t.Rows)
	}
	return waitUntilEmpty(ctx, topology, t.Queue, 10*time.Second)
}

// waitUntilEmpty waits while a queue gets shorter, and gives up when it has not for patience:
// NATS takes acknowledgements at once and works on them later, each with a sync of the disk.
func waitUntilEmpty(ctx context.Context, topology outlast.TopologyBroker, queue string, patience time.Duration) error {
	shortest, changed := math.MaxInt, time.Now()
	for {
		depth, err := topology.Depth(ctx, queue)
		switch {
		case err != nil || depth.Messages == 0:
			return err
		case depth.Messages < shortest:
			shortest, changed = depth.Messages, time.Now()
		case time.Since(changed) > patience:
			return fmt.Errorf("%d messages are left in the queue, and no fewer than that for %s", depth.Messages, patience)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

const effectTable = `CREATE TABLE effect (message_id text NOT NULL, body text NOT NULL)`

// freshDatabase makes a database with the tables of Outlast and of the handlers.
func (s *stack) freshDatabase(ctx context.Context, engine string) (url string, drop func(), err error) {
	drop = func() {}
	switch engine {
	case "postgres":
		if url, err = s.postgres.NewDatabase(ctx); err != nil {
			return "", drop, err
		}
		drop = func() { _ = s.postgres.DropDatabase(context.WithoutCancel(ctx), url) } // the server goes anyway
	default:
		dir, err := os.MkdirTemp("", "outlast-bench-")
		if err != nil {
			return "", drop, err
		}
		url, drop = filepath.Join(dir, "bench.db"), func() { _ = os.RemoveAll(dir) }
	}
	if err := migrateOutlast(ctx, url); err != nil {
		return "", drop, err
	}
	return url, drop, execAll(ctx, url, effectTable, handInbox)
}

// handInbox is the inbox of the consumer by hand.
const handInbox = `CREATE TABLE hand_inbox (message_id text PRIMARY KEY, at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP)`
