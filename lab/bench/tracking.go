package main

import (
	"context"
	"fmt"
	"time"

	"github.com/outlastmq/outlast/internal/report"
)

// trackingPart measures what the sent log costs a whole system that is as busy as it can be:
// producers, relay and consumer in processes of their own. The part relay measures the relay alone.
func trackingPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	t := &report.Table{Name: "tracking", Title: "From the producers' transactions to the committed effects, with the sent log and without", Notes: []string{
		"Producers commit a business row and 40 messages at a time, as fast as the outbox takes them; the consumer commits up to 100 effects at a time."}}
	relays := []string{"outlast", "untracked"}
	for round := range o.rounds {
		for i := range relays {
			relay := relays[(i+round)%len(relays)] // nobody is always first
			if !o.wants(relay) {
				continue
			}
			if err := s.trackingRun(ctx, o, t, relay); err != nil {
				return []*report.Table{t}, fmt.Errorf("%s: %w", relay, err)
			}
		}
	}
	rates := map[string]*report.Metric{}
	for _, line := range t.Lines {
		rates[line.Case] = line.Metrics[0]
	}
	if with, without := rates[relays[0]], rates[relays[1]]; with != nil && without != nil {
		t.Notes = append(t.Notes, fmt.Sprintf("With the sent log: %.2f of the rate without.", with.Median()/without.Median()))
	}
	return []*report.Table{t}, nil
}

func (s *stack) trackingRun(ctx context.Context, o *options, t *report.Table, relay string) error {
	const beyondAll = 20000 // messages a second
	work := task{Actor: relay, Broker: s.vhost.URL(), Size: 256, Keys: 1000, Rate: beyondAll, Batch: 40, Sample: 1,
		Rows: max(int(40000*o.scale), 400)}
	url, drop, err := s.freshDatabase(ctx, "postgres")
	if err != nil {
		return err
	}
	defer drop()
	if err := execAll(ctx, url, businessTable); err != nil {
		return err
	}
	work.Database = url
	pg, rabbit := treeCPU(s.postgresPID), treeCPU(s.rabbitPID)
	chain, err := s.startChain(ctx, work, "outbox", 20*time.Millisecond, nil)
	if err != nil {
		return err
	}
	produced, consumed, err := chain.wait()
	if err != nil {
		return err
	}
	pg, rabbit = settledCPU(s.postgresPID)-pg, treeCPU(s.rabbitPID)-rabbit
	n := float64(work.Rows)
	t.Add(relay, report.Value{Name: "msg/s", Value: n / between(&produced, &consumed).Seconds()},
		report.Value{Name: "database CPU us/msg", Value: pg / n * 1e6}, report.Value{Name: "broker CPU us/msg", Value: rabbit / n * 1e6},
		report.Value{Name: "producers' CPU us/msg", Value: produced.Usage.CPU / n * 1e6},
		report.Value{Name: "consumer's CPU us/msg", Value: consumed.Usage.CPU / n * 1e6})
	return nil
}

// between is the time from the first commit to the last effect.
func between(produced, consumed *outcome) time.Duration {
	first, last := int64(0), int64(0)
	for _, at := range produced.Stamps {
		if first == 0 || at < first {
			first = at
		}
	}
	for _, at := range consumed.Stamps {
		last = max(last, at)
	}
	return time.Duration(last - first)
}
