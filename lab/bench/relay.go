package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast/internal/report"
)

// relayRows is the usual number of rows of a run.
const relayRows = 40_000

// relayCase is one contender on one kind of queue with one kind of message.
type relayCase struct {
	contender
	workload
	queue string
}

func (c *relayCase) String() string {
	keys := "no keys"
	if c.keys > 0 {
		keys = fmt.Sprintf("%d keys", c.keys)
	}
	return fmt.Sprintf("%s %s %s %s", c.name, c.queue, bytesText(c.size), keys)
}

func bytesText(n int) string {
	if n >= 1024 {
		return fmt.Sprintf("%d KiB", n/1024)
	}
	return fmt.Sprintf("%d B", n)
}

func (o *options) queueTypes() []string { return strings.Split(o.queues, ",") }

// relayCaseOf scales the number of rows: large messages and few keys are slow.
func (o *options) relayCase(name, queue string, size, keys int) *relayCase {
	c := contenderNamed(name)
	rows := relayRows * c.share * o.scale
	if size > 1024 {
		rows /= float64(size) / 2048
	}
	if keys > 0 && keys < 500 {
		rows = min(rows, float64(keys)*400*o.scale+1500*o.scale)
	}
	return &relayCase{contender: c, workload: workload{rows: max(int(rows), 100), size: size, keys: keys}, queue: queue}
}

func relayPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	var cases []*relayCase
	for _, q := range o.queueTypes() {
		for _, name := range []string{"broker", "adapter", "outlast", "untracked", "river", "skiplocked", "stopwait"} {
			cases = append(cases, o.relayCase(name, q, 256, 1000))
		}
	}
	return s.measure(ctx, o, &report.Table{Name: "relay", Title: "Outbox to broker, every message confirmed"}, cases)
}

func keysPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	var cases []*relayCase
	for _, q := range o.queueTypes() {
		for _, keys := range []int{0, 1000, 100, 10, 1} {
			cases = append(cases, o.relayCase("outlast", q, 256, keys))
		}
	}
	return s.measure(ctx, o, &report.Table{Name: "keys", Title: "Outbox to broker by number of ordering keys"}, cases)
}

func sizesPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	var cases []*relayCase
	for _, q := range o.queueTypes() {
		for _, size := range []int{256, 4096, 65536} {
			for _, name := range []string{"broker", "outlast", "untracked", "river"} {
				cases = append(cases, o.relayCase(name, q, size, 1000))
			}
		}
	}
	return s.measure(ctx, o, &report.Table{Name: "sizes", Title: "Outbox to broker by size of the messages"}, cases)
}

// measure lets the cases take turns for some rounds.
func (s *stack) measure(ctx context.Context, o *options, t *report.Table, cases []*relayCase) ([]*report.Table, error) {
	databases := map[string]string{}
	for round := range o.rounds {
		for i := range cases {
			c := cases[(i+round)%len(cases)] // nobody is always first
			if !o.wants(c.String()) {
				continue
			}
			if err := s.relayRun(ctx, o, t, c, databases, round); err != nil {
				return []*report.Table{t}, fmt.Errorf("%s: %w", c, err)
			}
		}
	}
	sortLines(t, cases)
	return []*report.Table{t}, nil
}

// relayRun seeds, relays and checks once.
func (s *stack) relayRun(ctx context.Context, o *options, t *report.Table, c *relayCase, databases map[string]string, round int) error {
	queue, err := s.newQueue(c.queue)
	if err != nil {
		return err
	}
	work := task{Actor: c.name, Broker: s.vhost.URL(), Queue: queue, Rows: c.rows, Size: c.size, Keys: c.keys}
	if round == 0 {
		work.Profile = o.profileFile(c.String())
	}
	if !c.bare {
		if work.Database, err = s.database(ctx, c, databases); err != nil {
			return err
		}
		if err := s.refill(ctx, c, work.Database); err != nil {
			return err
		}
	}
	pg, rabbit := treeCPU(s.postgresPID), treeCPU(s.rabbitPID)
	result, err := perform(ctx, work)
	if err != nil {
		return err
	}
	pg, rabbit = settledCPU(s.postgresPID)-pg, treeCPU(s.rabbitPID)-rabbit
	if err := s.check(ctx, c, &work); err != nil {
		return err
	}
	if err := s.deleteQueue(queue); err != nil {
		return err
	}
	t.Add(c.String(), relayValues(&result, pg, rabbit)...)
	return nil
}

func relayValues(r *outcome, pg, rabbit float64) []report.Value {
	n := float64(r.Rows)
	return []report.Value{
		{Name: "msg/s", Value: r.rate()},
		{Name: "messages", Value: n},
		{Name: "CPU us/msg", Value: r.Usage.CPU / n * 1e6},
		{Name: "database CPU us/msg", Value: pg / n * 1e6},
		{Name: "broker CPU us/msg", Value: rabbit / n * 1e6},
		{Name: "allocs/msg", Value: r.Usage.Allocs / n},
		{Name: "heap B/msg", Value: r.Usage.Bytes / n},
		{Name: "reads+writes/msg", Value: (r.Usage.Reads + r.Usage.Writes) / n},
		{Name: "peak RSS MiB", Value: r.Usage.RSS / (1 << 20)},
		{Name: "first after ms", Value: r.First * 1000},
	}
}

// database returns the contender's database, made when first asked for.
func (s *stack) database(ctx context.Context, c *relayCase, made map[string]string) (string, error) {
	if url := made[c.name]; url != "" {
		return url, nil
	}
	url, err := s.postgres.NewDatabase(ctx)
	if err != nil {
		return "", err
	}
	made[c.name] = url
	return url, c.prepare(ctx, url)
}

// refill empties and fills the tables. All runs begin alike: right after a checkpoint.
func (s *stack) refill(ctx context.Context, c *relayCase, url string) error {
	return withConn(ctx, url, func(conn *pgx.Conn) error {
		for _, sql := range []string{c.clear, "CHECKPOINT"} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return c.seed(ctx, conn, c.workload)
	})
}

// check makes sure that the run counts: the queue holds all messages, and no row is left.
func (s *stack) check(ctx context.Context, c *relayCase, work *task) error {
	if !c.bare {
		left := 0
		if err := withConn(ctx, work.Database, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, c.left).Scan(&left) }); err != nil {
			return err
		}
		if left != 0 {
			return fmt.Errorf("%d rows are left", left)
		}
	}
	depth := 0
	for range 100 { // a queue may tell its length a little late
		var err error
		if depth, err = s.depth(work.Queue); err != nil {
			return err
		}
		if depth == c.rows {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the queue holds %d messages, want %d", depth, c.rows)
}

// sortLines puts the lines in the order of the cases, which took turns.
func sortLines(t *report.Table, cases []*relayCase) {
	var sorted []*report.Line
	for _, c := range cases {
		for _, l := range t.Lines {
			if l.Case == c.String() {
				sorted = append(sorted, l)
			}
		}
	}
	t.Lines = sorted
}
