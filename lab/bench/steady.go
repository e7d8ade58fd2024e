package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast/internal/report"
)

const (
	steadyRate   = 500 // messages a second, each in its own transaction
	steadySample = 50  // one of so many is timed
	burstRows    = 50_000
	steadyPace   = 100 * time.Millisecond // how exactly a burst is timed
	burstPause   = 10 * time.Second       // in which what stood behind a burst is handled
)

// countEffects asks the database's statistics, which are a second late at most: counting the
// rows would be work of the bench on the cores that it measures, more of it with each minute.
const countEffects = "SELECT coalesce(sum(n_tup_ins), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'effect'"

// steadyPart keeps a load up for a long time and shows, period by period, what would
// grow if anything did: the rows and the bytes of the outbox, the relay's memory and
// CPU, and the time from COMMIT to effect. Bursts in the beginning and in the end
// show what the system could do then.
func steadyPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	return s.steady(ctx, o, "steady", cmp.Or(o.period, 45*time.Minute), func(context.Context, string) (func(), error) { return func() {}, nil })
}

// heldPart is the same under a transaction that stays open: no row that the relay has
// deleted since can be removed from its table.
func heldPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	return s.steady(ctx, o, "held", cmp.Or(o.period, 10*time.Minute), oldTransaction)
}

// oldTransaction opens a transaction that sees the outbox as it is now, until end.
func oldTransaction(ctx context.Context, url string) (end func(), err error) {
	old, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	end = func() { _ = old.Close(context.WithoutCancel(ctx)) } // its database goes anyway
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM outlast_outbox"} {
		if _, err := old.Exec(ctx, sql); err != nil {
			end()
			return nil, err
		}
	}
	return end, nil
}

// steady runs a load. Before prepares the database and says how to end that.
func (s *stack) steady(ctx context.Context, o *options, name string, length time.Duration, before func(ctx context.Context, url string) (func(), error)) (tables []*report.Table, err error) {
	url, drop, err := s.freshDatabase(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	defer drop()
	if err := execAll(ctx, url, businessTable); err != nil {
		return nil, err
	}
	end, err := before(ctx, url)
	if err != nil {
		return nil, err
	}
	defer end()
	rows := int(burstRows * o.scale) // of a burst
	work := task{Database: url, Broker: s.vhost.URL(), Size: 256, Keys: 1000, Rate: steadyRate, Batch: 1, Sample: steadySample, Pace: steadyPace,
		Rows: int(length.Seconds() * steadyRate)}
	w := newWatch(s, url, name, length)
	chain, err := s.startChain(ctx, work, "outbox", time.Second, func(sink *task) { sink.Rows += 2 * w.times * rows })
	if err != nil {
		return nil, err
	}
	w.chain, w.began = chain, time.Now()
	tables = []*report.Table{w.work, w.sizes}
	if err := w.run(ctx, rows); err != nil {
		chain.stop()
		return tables, err
	}
	produced, consumed, err := chain.wait()
	if err != nil {
		return tables, err
	}
	lags, err := w.lags(name, &produced, &consumed)
	if err != nil {
		return append(tables, lags), err
	}
	bursts, err := w.burstRates(name, rows, &consumed)
	return append(tables, lags, bursts), err
}

// watch looks at a chain under load. It remembers what it saw last.
type watch struct {
	stack *stack
	url   string
	chain *chain
	began time.Time

	work, sizes *report.Table

	periods int
	period  time.Duration
	times   int // how many bursts there are in the beginning, and in the end
	bursts  []burst
	at      time.Time
	effects int
	cpu     float64
}

// burst is what was measured of one: the CPU of the relay and of the servers, in seconds for
// each effect committed meanwhile.
type burst struct {
	at                      time.Time // when it was committed
	machine                 float64
	relay, database, broker float64
}

// newWatch divides the time into 3 to 15 periods, of two minutes at least where the time is
// long enough. The first one and the last have as many bursts as there is room for, three at
// most: one measurement beside a load that fills the cores tells little.
func newWatch(s *stack, url, name string, length time.Duration) *watch {
	periods := max(3, min(15, int(length/(2*time.Minute))))
	period := length / time.Duration(periods)
	return &watch{stack: s, url: url, periods: periods, period: period, times: max(1, min(3, int(period/time.Minute))),
		work:  &report.Table{Name: name, Title: fmt.Sprintf("%d msg/s for %s: commit, relay in its own process, consume", steadyRate, length)},
		sizes: &report.Table{Name: name + " sizes", Title: "What the tables and indexes take meanwhile"}}
}

// run looks once in a period, with bursts in the first one, before it counts, and in
// the last, after it has counted.
func (w *watch) run(ctx context.Context, rows int) error {
	for i := range w.periods {
		if i == 0 || i == w.periods-1 {
			pause := w.period / 6
			for range w.times {
				if err := sleep(ctx, pause); err != nil {
					return err
				}
				if err := w.burst(ctx, rows); err != nil {
					return err
				}
				pause = burstPause
			}
		}
		if i == w.periods-1 {
			break
		}
		if err := sleep(ctx, time.Until(w.began.Add(time.Duration(i+1)*w.period))); err != nil {
			return err
		}
		if err := w.look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// burst commits many messages at once, and returns when as many have had their effects. It
// does not count the outbox, where it would read what is deleted too; the rates are by what
// the relay and the consumers note themselves.
func (w *watch) burst(ctx context.Context, rows int) error {
	machine := machineSpeed()
	before, err := number(ctx, w.url, countEffects)
	if err != nil {
		return err
	}
	if err := fillOutbox(ctx, nil, &task{Database: w.url, Rows: rows, Size: 256, Keys: 1000}); err != nil {
		return err
	}
	at, relay, pg, rabbit := time.Now(), treeCPU(w.chain.relay.cmd.Process.Pid), treeCPU(w.stack.postgresPID), treeCPU(w.stack.rabbitPID)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		n, err := number(ctx, w.url, countEffects)
		if err != nil {
			return err
		}
		if done := float64(n - before); n >= before+rows {
			w.bursts = append(w.bursts, burst{at, machine, (treeCPU(w.chain.relay.cmd.Process.Pid) - relay) / done,
				(treeCPU(w.stack.postgresPID) - pg) / done, (treeCPU(w.stack.rabbitPID) - rabbit) / done})
			return nil
		}
		if err := sleep(ctx, 2*time.Second); err != nil {
			return fmt.Errorf("burst: %d of %d had their effects: %w", n-before, rows, err)
		}
	}
}

// burstRates tells how fast the relay and the consumers were when a burst had been
// committed, by what they note themselves.
func (w *watch) burstRates(name string, rows int, consumed *outcome) (*report.Table, error) {
	t := &report.Table{Name: name + " bursts", Title: fmt.Sprintf("%d messages at once, beside %d msg/s", rows, steadyRate)}
	for i, b := range w.bursts {
		relayed, err1 := w.chain.relayed.rateFrom(b.at, rows)
		handled, err2 := consumed.rateFrom(b.at, rows)
		if err := errors.Join(err1, err2); err != nil {
			return t, err
		}
		first := w.bursts[i/w.times*w.times].at
		t.Add("outlast, from "+first.Sub(w.began).Round(time.Second).String()+" on",
			report.Value{Name: "relayed msg/s", Value: relayed}, report.Value{Name: "handled msg/s", Value: handled},
			report.Value{Name: "relay CPU us/msg", Value: b.relay * 1e6}, report.Value{Name: "database CPU us/msg", Value: b.database * 1e6},
			report.Value{Name: "broker CPU us/msg", Value: b.broker * 1e6}, report.Value{Name: "hash of 4 MiB ms", Value: b.machine * 1000})
	}
	t.Notes = append(t.Notes, "The hash is the CPU that a fixed piece of work takes right before a burst: where it differs, the machine does.")
	return t, nil
}

func (w *watch) look(ctx context.Context) error {
	var rows, effects, outbox, indexes, sent, inbox int
	for _, q := range []struct {
		into *int
		sql  string
	}{
		{&rows, "SELECT count(*) FROM outlast_outbox"},
		{&effects, countEffects},
		{&outbox, "SELECT pg_table_size('outlast_outbox')"},
		{&indexes, "SELECT pg_indexes_size('outlast_outbox')"},
		{&sent, `SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
			WHERE inhparent IN ('outlast_sent'::regclass, 'outlast_sent_key'::regclass, 'outlast_sent_body'::regclass)`},
		{&inbox, "SELECT pg_total_relation_size('outlast_inbox')"},
	} {
		n, err := number(ctx, w.url, q.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", q.sql, err)
		}
		*q.into = n
	}
	relay := w.chain.relay.cmd.Process.Pid
	now, cpu := time.Now(), treeCPU(relay)
	if !w.at.IsZero() {
		name, took := "outlast, at "+now.Sub(w.began).Round(time.Second).String(), now.Sub(w.at).Seconds()
		w.work.Add(name, report.Value{Name: "effects/s", Value: float64(effects-w.effects) / took},
			report.Value{Name: "relay CPU ms/s", Value: (cpu - w.cpu) / took * 1000},
			report.Value{Name: "relay RSS MiB", Value: procNumber(fmt.Sprintf("/proc/%d/status", relay), "VmRSS:") / 1024})
		mib := func(bytes int) float64 { return float64(bytes) / (1 << 20) }
		w.sizes.Add(name, report.Value{Name: "outbox MiB", Value: mib(outbox)}, report.Value{Name: "its indexes MiB", Value: mib(indexes)},
			report.Value{Name: "outbox rows", Value: float64(rows)}, report.Value{Name: "sent log MiB", Value: mib(sent)},
			report.Value{Name: "inbox MiB", Value: mib(inbox)})
	}
	w.at, w.effects, w.cpu = now, effects, cpu
	return nil
}

// lags shows the times from COMMIT to effect, period by period. The messages of
// the bursts are not among them; those that stood behind them are.
func (w *watch) lags(name string, produced, consumed *outcome) (*report.Table, error) {
	t := &report.Table{Name: name + " latency", Title: "Milliseconds from COMMIT to effect in the same time"}
	first := int64(0)
	for _, at := range produced.Stamps {
		if first == 0 || at < first {
			first = at
		}
	}
	lags := make([][]float64, w.periods)
	for id, at := range produced.Stamps {
		effect, ok := consumed.Stamps[id]
		if !ok {
			return t, fmt.Errorf("message %s had no effect", id)
		}
		i := min(int(time.Duration(at-first)/w.period), len(lags)-1)
		lags[i] = append(lags[i], float64(effect-at)/1e6)
	}
	for i, l := range lags {
		if len(l) > 0 {
			t.Add(fmt.Sprintf("outlast, from %s on", (time.Duration(i)*w.period).Round(time.Second)), report.Value{Name: "p50 ms", Value: report.Quantile(l, 0.5)},
				report.Value{Name: "p99 ms", Value: report.Quantile(l, 0.99)}, report.Value{Name: "slowest ms", Value: report.Quantile(l, 1)})
		}
	}
	return t, nil
}
