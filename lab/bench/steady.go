package main

import (
	"context"
	"fmt"
	"time"

	"github.com/outlastmq/outlast/internal/report"
)

const (
	steadyRate   = 500 // messages a second, each in its own transaction
	steadySample = 50  // one of so many is timed
)

// steadyPart keeps a load up for a long time and shows, period by period, what would
// grow if anything did: the rows and the bytes of the outbox, the relay's memory and
// CPU, and the time from COMMIT to effect.
func steadyPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	length := o.period
	if length == 0 {
		length = 45 * time.Minute
	}
	t := &report.Table{Name: "steady", Title: fmt.Sprintf("%d msg/s for %s: commit, relay in its own process, consume", steadyRate, length)}
	url, drop, err := s.freshDatabase(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	defer drop()
	if err := execAll(ctx, url, businessTable); err != nil {
		return nil, err
	}
	work := task{Database: url, Broker: s.vhost.URL(), Size: 256, Keys: 1000, Rate: steadyRate, Batch: 1, Sample: steadySample,
		Rows: int(length.Seconds() * steadyRate)}
	chain, err := s.startChain(ctx, work, "outbox", time.Second, nil)
	if err != nil {
		return nil, err
	}
	w := &watch{url: url, relay: chain.relay.cmd.Process.Pid, began: time.Now()}
	period := max(length/15, 2*time.Second)
	for time.Since(w.began) < length-period/2 {
		if err := sleep(ctx, period); err != nil {
			chain.stop()
			return []*report.Table{t}, err
		}
		if err := w.look(ctx, t); err != nil {
			chain.stop()
			return []*report.Table{t}, err
		}
	}
	produced, consumed, err := chain.wait()
	if err != nil {
		return []*report.Table{t}, err
	}
	lags, err := steadyLags(&produced, &consumed, length, period)
	return []*report.Table{t, lags}, err
}

// watch remembers what it saw last.
type watch struct {
	url     string
	relay   int
	began   time.Time
	at      time.Time
	effects int
	cpu     float64
}

func (w *watch) look(ctx context.Context, t *report.Table) error {
	rows, err := number(ctx, w.url, "SELECT count(*) FROM outlast_outbox")
	if err != nil {
		return err
	}
	size, err := number(ctx, w.url, "SELECT pg_total_relation_size('outlast_outbox')")
	if err != nil {
		return err
	}
	effects, err := number(ctx, w.url, "SELECT count(*) FROM effect")
	if err != nil {
		return err
	}
	now, cpu := time.Now(), treeCPU(w.relay)
	if !w.at.IsZero() {
		took := now.Sub(w.at).Seconds()
		t.Add(fmt.Sprintf("outlast, at %s", now.Sub(w.began).Round(time.Second)),
			report.Value{Name: "effects/s", Value: float64(effects-w.effects) / took}, report.Value{Name: "outbox rows", Value: float64(rows)},
			report.Value{Name: "outbox MiB", Value: float64(size) / (1 << 20)}, report.Value{Name: "relay CPU ms/s", Value: (cpu - w.cpu) / took * 1000},
			report.Value{Name: "relay RSS MiB", Value: procNumber(fmt.Sprintf("/proc/%d/status", w.relay), "VmRSS:") / 1024})
	}
	w.at, w.effects, w.cpu = now, effects, cpu
	return nil
}

// steadyLags shows the times from COMMIT to effect, period by period.
func steadyLags(produced, consumed *outcome, length, period time.Duration) (*report.Table, error) {
	t := &report.Table{Name: "steady latency", Title: "Milliseconds from COMMIT to effect in the same time"}
	first := int64(0)
	for _, at := range produced.Stamps {
		if first == 0 || at < first {
			first = at
		}
	}
	lags := make([][]float64, length/period+1)
	for id, at := range produced.Stamps {
		effect, ok := consumed.Stamps[id]
		if !ok {
			return t, fmt.Errorf("message %s had no effect", id)
		}
		i := min(int(time.Duration(at-first)/period), len(lags)-1)
		lags[i] = append(lags[i], float64(effect-at)/1e6)
	}
	for i, l := range lags {
		if len(l) > 0 {
			t.Add(fmt.Sprintf("outlast, from %s on", (time.Duration(i)*period).Round(time.Second)), report.Value{Name: "p50 ms", Value: report.Quantile(l, 0.5)},
				report.Value{Name: "p99 ms", Value: report.Quantile(l, 0.99)}, report.Value{Name: "slowest ms", Value: report.Quantile(l, 1)})
		}
	}
	return t, nil
}
