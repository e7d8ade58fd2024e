package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/report"
)

// flatPart asks what the rate depends on. It should depend on none of these.
func flatPart(ctx context.Context, s *stack, o *options) (tables []*report.Table, err error) {
	for _, f := range []func(context.Context, *options) (*report.Table, error){s.flatBacklog, s.flatSnapshot, s.flatRelays, s.flatQueues} {
		t, err := f(ctx, o)
		if t != nil && len(t.Lines) > 0 {
			tables = append(tables, t)
		}
		if err != nil {
			return tables, err
		}
	}
	return tables, nil
}

// boundedQueue keeps the newest messages only, so that the broker's memory and disk do
// not depend on the backlog of the database.
const boundedLength = 50_000

func (s *stack) boundedQueue(name, binding string) error {
	return s.channel(func(ch *amqp.Channel) error {
		args := amqp.Table{"x-queue-type": "quorum", "x-max-length": int64(boundedLength), "x-delivery-limit": int64(outlast.DeliveryLimit)}
		if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
			return err
		}
		return ch.QueueBind(name, binding, outlast.EventExchange, false, nil)
	})
}

// longRun is how many messages the broker alone and the relay without the sent log take at
// most: many segments of the broker's log, and more than the database's buffers hold.
const longRun = 2_000_000

// flatBacklog drains a large table, with small ones before it and after it in the same
// database: a database that was made for a small one has had no vacuum yet, and its sent log
// is empty. The queue is full from the beginning, so that for each message of all the broker
// drops an old one. The broker alone and a relay without the sent log, each in its turn, tell
// what a long run costs the broker, and what the sent log costs.
func (s *stack) flatBacklog(ctx context.Context, o *options) (*report.Table, error) {
	const small, around = 50_000, 5
	large := o.rows
	if large == 0 {
		large = 1_000_000
	}
	t := &report.Table{Name: "backlog", Title: "Drains of a large backlog, with small ones before and after it, and the broker alone"}
	full := func(string) error {
		return fillQueue(ctx, s, &task{Broker: s.vhost.URL(), Rows: boundedLength, Size: 256, Keys: 1000})
	}
	for _, actor := range []string{"broker", "outlast", "untracked"} {
		rows := large
		if actor != "outlast" {
			rows = min(rows, longRun)
		}
		smalls := slices.Repeat([]int{small}, around)
		whole := fmt.Sprintf("%s, %d messages", actor, rows)
		if !o.wants(whole) {
			continue
		}
		results, err := s.drain(ctx, actor, slices.Concat(smalls, []int{rows}, smalls), full)
		for i, r := range results {
			name := whole
			if i < around {
				name = fmt.Sprintf("%s, %d messages before", actor, small)
			} else if i > around {
				name = fmt.Sprintf("%s, %d messages after", actor, small)
			}
			n := float64(r.Rows)
			t.Add(name, report.Value{Name: "msg/s", Value: r.rate()}, report.Value{Name: "msg/s of the first tenth", Value: r.tenth(0)},
				report.Value{Name: "of the slowest tenth", Value: r.slowestTenth()}, report.Value{Name: "of the last tenth", Value: r.tenth(9)},
				report.Value{Name: "CPU us/msg", Value: r.Usage.CPU / n * 1e6}, report.Value{Name: "database CPU us/msg", Value: r.database / n * 1e6},
				report.Value{Name: "broker CPU us/msg", Value: r.broker / n * 1e6}, report.Value{Name: "peak RSS MiB", Value: r.Usage.RSS / (1 << 20)},
				report.Value{Name: "cores idle %", Value: r.cores.idle * 100}, report.Value{Name: "cores waiting for the disk %", Value: r.cores.disk * 100})
		}
		if err != nil {
			return t, fmt.Errorf("%s: %w", actor, err)
		}
	}
	return t, nil
}

// tenth is the rate of one tenth of the messages.
func (o *outcome) tenth(i int) float64 {
	from := 0.0
	if i > 0 {
		from = o.Tenths[i-1]
	}
	return float64(o.Rows) / 10 / (o.Tenths[i] - from)
}

// slowestTenth is far below the others where something stood still for a while.
func (o *outcome) slowestTenth() float64 {
	slowest := o.tenth(0)
	for i := 1; i < 10; i++ {
		slowest = min(slowest, o.tenth(i))
	}
	return slowest
}

// drained is one drain, with the seconds of CPU that the servers took for it, and what the
// machine's cores did meanwhile: a drain that is slow by itself keeps them busy, and one that
// is slow because the disk is shows here.
type drained struct {
	outcome
	database, broker float64
	cores            coreShares
}

// drain lets an actor send tables of the given sizes, one after the other, in one database.
// All begin right after a checkpoint. The broker alone needs no table. With an error it
// returns what was drained until then.
func (s *stack) drain(ctx context.Context, actor string, sizes []int, between ...func(url string) error) (results []drained, err error) {
	url, drop, err := s.freshDatabase(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	defer drop()
	queue := fmt.Sprintf("bench.%d", s.queues.Add(1))
	if err := s.boundedQueue(queue, messageType+".*"); err != nil {
		return nil, err
	}
	for _, f := range between {
		if err := f(url); err != nil {
			return nil, err
		}
	}
	c := contenderNamed(actor)
	work := task{Actor: actor, Database: url, Broker: s.vhost.URL(), Queue: queue, Size: 256, Keys: 1000}
	sent := 0
	for _, rows := range sizes {
		work.Rows = rows
		if !c.bare {
			if err := fillOutbox(ctx, s, &work); err != nil {
				return results, err
			}
		}
		if err := execAll(ctx, url, "CHECKPOINT"); err != nil {
			return results, err
		}
		pg, rabbit, cores := treeCPU(s.postgresPID), treeCPU(s.rabbitPID), readCores()
		r, err := perform(ctx, work)
		if err != nil {
			return results, err
		}
		shares := readCores().since(cores)
		results = append(results, drained{r, settledCPU(s.postgresPID) - pg, treeCPU(s.rabbitPID) - rabbit, shares})
		sent += rows
		check := &relayCase{contender: c, workload: workload{rows: min(sent, boundedLength)}}
		if err := s.check(ctx, check, &work); err != nil {
			return results, err
		}
	}
	return results, s.deleteQueue(queue)
}

// flatSnapshot drains again and again while a transaction keeps everything that was
// deleted in the table.
func (s *stack) flatSnapshot(ctx context.Context, o *options) (*report.Table, error) {
	t := &report.Table{Name: "snapshot", Title: "Drains of 50,000 rows one after the other, under a transaction that stays open"}
	rows, times := max(int(50_000*o.scale), 1000), 8
	for _, held := range []bool{false, true} {
		name := map[bool]string{false: "outlast, no old transaction", true: "outlast, an old transaction"}[held]
		if !o.wants(name) {
			continue
		}
		end := func() {}
		results, err := s.drain(ctx, "outlast", slices.Repeat([]int{rows}, times), func(url string) (err error) {
			if held {
				end, err = oldTransaction(ctx, url)
			}
			return err
		})
		end()
		if err != nil {
			return t, err
		}
		for i, r := range results {
			if i == 0 || i == times/2 || i == times-1 {
				t.Add(fmt.Sprintf("%s, drain %d", name, i+1), report.Value{Name: "msg/s", Value: r.rate()},
					report.Value{Name: "CPU us/msg", Value: r.Usage.CPU / float64(r.Rows) * 1e6}, report.Value{Name: "first after ms", Value: r.First * 1000})
			}
		}
	}
	return t, nil
}

// flatRelays lets more and more relays share one outbox.
func (s *stack) flatRelays(ctx context.Context, o *options) (*report.Table, error) {
	t := &report.Table{Name: "relays", Title: "Relays on one outbox, each in its process"}
	rows := max(int(50_000*o.scale), 2000)
	for range min(o.rounds, 3) {
		for _, n := range []int{1, 2, 4, 8} {
			name := fmt.Sprintf("outlast, %d relays", n)
			if !o.wants(name) {
				continue
			}
			took, results, err := s.share(ctx, rows, n, messageTypes(1))
			if err != nil {
				return t, fmt.Errorf("%s: %w", name, err)
			}
			cpu := 0.0
			for _, r := range results {
				cpu += r.Usage.CPU
			}
			t.Add(name, report.Value{Name: "msg/s", Value: float64(rows) / took.Seconds()}, report.Value{Name: "CPU us/msg", Value: cpu / float64(rows) * 1e6})
		}
	}
	return t, nil
}

// flatQueues spreads the messages over more and more types with a queue each.
func (s *stack) flatQueues(ctx context.Context, o *options) (*report.Table, error) {
	t := &report.Table{Name: "queues", Title: "Types with a queue each (classic queues), one relay"}
	rows := max(int(50_000*o.scale), 2000)
	for range min(o.rounds, 3) {
		for _, n := range []int{1, 10, 100, 1000} {
			name := fmt.Sprintf("outlast, %d queues", n)
			if !o.wants(name) {
				continue
			}
			took, results, err := s.share(ctx, rows, 1, messageTypes(n))
			if err != nil {
				return t, fmt.Errorf("%s: %w", name, err)
			}
			t.Add(name, report.Value{Name: "msg/s", Value: float64(rows) / took.Seconds()},
				report.Value{Name: "CPU us/msg", Value: results[0].Usage.CPU / float64(rows) * 1e6})
		}
	}
	return t, nil
}

func messageTypes(n int) []string {
	var types []string
	for i := range n {
		types = append(types, fmt.Sprintf("bench.q%d.v1", i))
	}
	return types
}

// share starts relays, waits until they have shared the slots out, commits all rows at
// once, and takes the time until the outbox is empty.
func (s *stack) share(ctx context.Context, rows, relays int, types []string) (took time.Duration, results []outcome, err error) {
	url, drop, err := s.freshDatabase(ctx, "postgres")
	if err != nil {
		return 0, nil, err
	}
	defer drop()
	defer s.deleteTypes(types)
	if err := s.declareTypes(types); err != nil {
		return 0, nil, err
	}
	var group []*running
	for range relays {
		r, err := start(ctx, task{Actor: "outlast", Database: url, Broker: s.vhost.URL(), Endless: true})
		if err != nil {
			return 0, nil, err
		}
		group = append(group, r)
	}
	if err := until(ctx, url, fmt.Sprintf(`SELECT count(*) FROM (SELECT owner FROM outlast_slot WHERE scope = 'relay' AND owner IS NOT NULL
		GROUP BY owner HAVING count(*) >= %d) o`, 256/relays), relays); err != nil {
		return 0, nil, err
	}
	if err := withConn(ctx, url, func(conn *pgx.Conn) error { return seedTypes(ctx, conn, rows, types) }); err != nil {
		return 0, nil, err
	}
	began := time.Now()
	if err := until(ctx, url, `SELECT count(*) FROM (SELECT FROM outlast_outbox LIMIT 1) o`, 0); err != nil {
		return 0, nil, err
	}
	took = time.Since(began)
	sent := 0
	for _, r := range group {
		if err := r.end(); err != nil {
			return 0, nil, err
		}
		result, err := r.wait()
		if err != nil {
			return 0, nil, err
		}
		sent += result.Rows
		results = append(results, result)
	}
	if sent != rows {
		return 0, nil, fmt.Errorf("the relays sent %d messages, want %d", sent, rows)
	}
	return took, results, s.checkTypes(types, rows)
}

func seedTypes(ctx context.Context, conn *pgx.Conn, rows int, types []string) error {
	return copyRows(ctx, conn, "outlast_outbox", []string{"type", "ordering_key", "body"}, rows,
		func(i int) []any { return []any{types[i%len(types)], keyOf(i, 1000), bodyOf(i, 256)} })
}

// until asks every 20 ms until a query finds the number that is wanted.
func until(ctx context.Context, url, query string, want int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return withConn(ctx, url, func(conn *pgx.Conn) error {
		for {
			n := 0
			if err := conn.QueryRow(ctx, query).Scan(&n); err != nil || n == want {
				return err
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				return fmt.Errorf("%d instead of %d: %w", n, want, err)
			}
		}
	})
}

func (s *stack) declareTypes(types []string) error {
	return s.channel(func(ch *amqp.Channel) error {
		for _, t := range types {
			if _, err := ch.QueueDeclare(t, true, false, false, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
				return err
			}
			if err := ch.QueueBind(t, t+".*", outlast.EventExchange, false, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *stack) deleteTypes(types []string) {
	for _, t := range types {
		_ = s.deleteQueue(t) // the broker goes anyway
	}
}

// checkTypes makes sure that the queues together hold all messages.
func (s *stack) checkTypes(types []string, rows int) error {
	depth := 0
	for range 100 {
		depth = 0
		for _, t := range types {
			n, err := s.depth(t)
			if err != nil {
				return err
			}
			depth += n
		}
		if depth == rows {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the queues hold %d messages, want %d", depth, rows)
}
