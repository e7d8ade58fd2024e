package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/report"
)

// latencyTime is how long each load lasts, without its first second.
const latencyTime = 6 * time.Second

// latencyCase is a way from a commit to its effect.
type latencyCase struct {
	name     string
	mode     string        // of the load, see produceAtRate
	interval time.Duration // of a relay in another process
	rate     int
}

func latencyCases() []latencyCase {
	var cases []latencyCase
	for _, rate := range []int{10, 500, 5000} {
		at := fmt.Sprintf("%d msg/s: ", rate)
		cases = append(cases,
			latencyCase{at + "direct publish after the commit", "direct", 0, rate},
			latencyCase{at + "outlast, relay in the process", "within", 0, rate},
			latencyCase{at + "outlast, relay in another process", "outbox", time.Second, rate},
			latencyCase{at + "outlast, the same with Interval 20 ms", "outbox", 20 * time.Millisecond, rate},
			latencyCase{at + "outlast, relay in another process that listens", "notify", time.Second, rate})
	}
	return cases
}

func latencyPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	t := &report.Table{Name: "latency", Title: "Milliseconds from COMMIT to the committed effect", Notes: []string{
		"The consumer is Outlast's in all cases: 48 workers, and batches of up to 100 at 5,000 msg/s. " +
			"Above 500 msg/s a transaction holds several messages. Quantiles of a round; p99.9 at 10 msg/s is the slowest."}}
	for range o.rounds {
		for _, c := range latencyCases() {
			if !o.wants(c.name) {
				continue
			}
			if err := s.latencyRun(ctx, o, t, &c); err != nil {
				return []*report.Table{t}, fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return []*report.Table{t}, nil
}

func (s *stack) latencyRun(ctx context.Context, o *options, t *report.Table, c *latencyCase) error {
	length := time.Duration(float64(latencyTime)*o.scale) + time.Second
	work := task{Broker: s.vhost.URL(), Size: 256, Keys: 1000, Rate: c.rate, Batch: max(1, c.rate/500), Sample: 1,
		Rows: max(int(length.Seconds()*float64(c.rate)), 20)}
	produced, consumed, err := s.runChain(ctx, work, c.mode, c.interval, nil, nil)
	if err != nil {
		return err
	}
	lags, err := lagsOf(&produced, &consumed, time.Second)
	if err != nil {
		return err
	}
	q := func(q float64) float64 { return report.Quantile(lags, q) }
	t.Add(c.name, report.Value{Name: "p50 ms", Value: q(0.5)}, report.Value{Name: "p99 ms", Value: q(0.99)}, report.Value{Name: "p99.9 ms", Value: q(0.999)},
		report.Value{Name: "mean ms", Value: mean(lags)}, report.Value{Name: "rate reached", Value: float64(consumed.Rows) / consumed.span()})
	return nil
}

const businessTable = `CREATE TABLE business (id bigserial PRIMARY KEY, n bigint NOT NULL)`

// chain is a load, a consumer, and sometimes a relay, each in its process.
type chain struct {
	s     *stack
	queue string
	relay *running // nil: within the load
	load  *running
	sink  *running
	stop  context.CancelFunc

	relayed outcome // of the relay, once the chain has ended
}

// runChain makes a database, runs a chain on it, and returns what both ends report.
// Reader is that of [stack.startChain]; during is called when everything runs. Both may
// be nil.
func (s *stack) runChain(ctx context.Context, work task, mode string, interval time.Duration, reader func(*task), during func() error) (produced, consumed outcome, err error) {
	url, drop, err := s.freshDatabase(ctx, "postgres")
	if err != nil {
		return produced, consumed, err
	}
	defer drop()
	work.Database = url
	if err := execAll(ctx, url, businessTable); err != nil {
		return produced, consumed, err
	}
	chain, err := s.startChain(ctx, work, mode, interval, reader)
	if err != nil {
		return produced, consumed, err
	}
	if during != nil {
		err = during()
	}
	produced, consumed, err2 := chain.wait()
	return produced, consumed, errors.Join(err, err2)
}

// startChain starts the consumer, waits until the broker knows it, and starts the rest. A
// relay in another process is the actor that work names, or the usual one. A reader says how the consumer differs from the usual one; it may be nil.
func (s *stack) startChain(ctx context.Context, work task, mode string, interval time.Duration, reader func(*task)) (_ *chain, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(work.Rows/work.Rate)*time.Second+2*time.Minute)
	c := &chain{s: s, stop: cancel}
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	group := outlast.GroupTopology{Group: groupName, Partitions: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: messageType}}}
	sink := work
	sink.Actor, sink.Mode, sink.Keys, sink.Clients, sink.Batch, sink.Linger = "consume", "insert", 0, 48, 1, time.Second
	if work.Rate > 1000 {
		sink.Clients, sink.Batch = 8, 100
	}
	if reader != nil {
		reader(&sink)
	}
	if group.Ordered = sink.Keys > 0; group.Ordered {
		group.Generation = 2 // ordered or not is an argument of the queue
	}
	c.queue = group.Queue(0)
	topology := brokerAt(work.Broker).Topology()
	if err := topology.Apply(ctx, outlast.Topology{Groups: []outlast.GroupTopology{group}}); err != nil {
		return nil, err
	}
	if c.sink, err = start(ctx, sink); err != nil {
		return nil, err
	}
	for consumers := 0; consumers == 0; {
		depth, err := topology.Depth(ctx, c.queue)
		if err != nil {
			return nil, err
		}
		consumers = depth.Consumers
	}
	if mode == "outbox" || mode == "notify" {
		relay := work
		relay.Endless, relay.Sample, relay.Interval, relay.Mode = true, 0, interval, mode
		if relay.Actor == "" {
			relay.Actor = "outlast"
		}
		if c.relay, err = start(ctx, relay); err != nil {
			return nil, err
		}
	}
	work.Actor, work.Mode = "load", mode
	c.load, err = start(ctx, work)
	return c, err
}

// wait returns when every message has had its effect.
func (c *chain) wait() (produced, consumed outcome, err error) {
	defer c.stop()
	produced, err1 := c.load.wait()
	if err1 != nil {
		c.stop()
	}
	consumed, err2 := c.sink.wait()
	var err3 error
	if c.relay != nil {
		err3 = c.relay.end()
		var err error
		c.relayed, err = c.relay.wait()
		err3 = errors.Join(err3, err)
	}
	return produced, consumed, errors.Join(err1, err2, err3, c.s.deleteQueue(c.queue))
}

// lagsOf joins the stamps of both ends, in milliseconds, without those of a first time.
func lagsOf(produced, consumed *outcome, skip time.Duration) ([]float64, error) {
	first := int64(0)
	for _, at := range produced.Stamps {
		if first == 0 || at < first {
			first = at
		}
	}
	var lags []float64
	for id, at := range produced.Stamps {
		effect, ok := consumed.Stamps[id]
		if !ok {
			return nil, fmt.Errorf("message %s had no effect", id)
		}
		if at >= first+int64(skip) {
			lags = append(lags, float64(effect-at)/1e6)
		}
	}
	if len(lags) == 0 {
		return nil, errors.New("no message was sent after the first second")
	}
	return lags, nil
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// span is the time in seconds between the first and the last stamp.
func (o *outcome) span() float64 {
	var low, high int64
	for _, at := range o.Stamps {
		if low == 0 || at < low {
			low = at
		}
		high = max(high, at)
	}
	return time.Duration(high - low).Seconds()
}
