package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/outlastmq/outlast/internal/report"
	"github.com/outlastmq/outlast/lab/proxy"
)

const (
	recoveryRate  = 100 // messages a second
	poisonRate    = 200
	poisonKeys    = 1000
	betweenCuts   = 3 * time.Second
	recoveryTries = 12 // outages of a run
)

// downFor are the lengths of the outages, in turn.
var downFor = []time.Duration{time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second}

// recoveryPart measures how soon messages flow when the broker accepts connections
// again, and what failing messages do to those of other keys.
func recoveryPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	back := &report.Table{Name: "recovery", Title: "Milliseconds from the broker's first accepted connection to the first committed effect", Notes: []string{
		"A proxy refuses connections for 1, 3, 7 or 15 s. The median of all outages, with the shortest and the longest."}}
	poison := &report.Table{Name: "poison", Title: "Milliseconds from COMMIT to the committed effect of healthy keys, in an ordered group", Notes: []string{
		fmt.Sprintf("%d msg/s over %d keys; with poison one key in %d fails %d times for each message.", poisonRate, poisonKeys, failsEveryN, poisonTries-1)}}
	tables := []*report.Table{back, poison}
	for range o.rounds {
		for _, mode := range []string{"within", "outbox"} {
			name := map[string]string{"within": "outlast, relay in the process", "outbox": "outlast, relay in another process"}[mode]
			if !o.wants(name) {
				continue
			}
			if err := s.recoveryRun(ctx, o, back, name, mode); err != nil {
				return tables, fmt.Errorf("%s: %w", name, err)
			}
		}
		for _, mode := range []string{"healthy", "poison"} {
			if !o.wants(mode) {
				continue
			}
			if err := s.poisonRun(ctx, o, poison, mode); err != nil {
				return tables, fmt.Errorf("%s: %w", mode, err)
			}
		}
	}
	if len(poison.Lines) == 2 {
		healthy, ill := poison.Lines[0].Metrics[1], poison.Lines[1].Metrics[1]
		poison.Notes = append(poison.Notes, fmt.Sprintf("with poison the p99 of the others is %.2f of that without", ill.Median()/healthy.Median()))
	}
	return tables, nil
}

func (s *stack) recoveryRun(ctx context.Context, o *options, t *report.Table, name, mode string) error {
	address, err := url.Parse(s.vhost.URL())
	if err != nil {
		return err
	}
	front, err := proxy.New(address.Host)
	if err != nil {
		return err
	}
	defer front.Close()
	tries := max(2, int(recoveryTries*o.scale))
	length := betweenCuts
	for i := range tries {
		length += downFor[i%len(downFor)] + betweenCuts
	}
	address.Host = front.Address()
	work := task{Broker: address.String(), Size: 256, Keys: poisonKeys, Rate: recoveryRate, Batch: 1, Sample: 1, Rows: int(length.Seconds() * recoveryRate)}
	var back []int64
	_, consumed, err := s.runChain(ctx, work, mode, time.Second, nil, func() error {
		for i := range tries {
			time.Sleep(betweenCuts) // the load itself, not a wait for an effect
			front.Cut()
			time.Sleep(downFor[i%len(downFor)])
			back = append(back, time.Now().UnixNano())
			if err := front.Restore(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, at := range back {
		first := int64(0)
		for _, effect := range consumed.Stamps {
			if effect > at && (first == 0 || effect < first) {
				first = effect
			}
		}
		if first == 0 {
			return errors.New("no effect came after an outage")
		}
		t.Add(name, report.Value{Name: "ms", Value: float64(first-at) / 1e6})
	}
	return nil
}

func (s *stack) poisonRun(ctx context.Context, o *options, t *report.Table, mode string) error {
	length := time.Duration(float64(20*time.Second)*o.scale) + time.Second
	work := task{Broker: s.vhost.URL(), Size: 256, Keys: poisonKeys, Rate: poisonRate, Batch: 1, Sample: 1, Rows: int(length.Seconds() * poisonRate)}
	produced, consumed, err := s.runChain(ctx, work, "within", 0, func(sink *task) { sink.Keys, sink.Mode = poisonKeys, mode }, nil)
	if err != nil {
		return err
	}
	for id := range produced.Stamps {
		if consumed.Stamps[id] == 0 { // of a poison key
			delete(produced.Stamps, id)
		}
	}
	lags, err := lagsOf(&produced, &consumed, time.Second)
	if err != nil {
		return err
	}
	t.Add(mode, report.Value{Name: "p50 ms", Value: report.Quantile(lags, 0.5)}, report.Value{Name: "p99 ms", Value: report.Quantile(lags, 0.99)})
	return nil
}
