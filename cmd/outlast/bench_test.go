package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// What bench made is gone after it, whatever ended it.
func (s *shell) nothingIsLeft() {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "*"+benchPrefix+"*"))
	if err != nil || len(files) > 0 {
		s.t.Errorf("files are left: %v, %v", files, err)
	}
}

func TestBench(t *testing.T) {
	t.Parallel()
	s := withBroker(t, withTables(t))
	plot := filepath.Join(s.dir, "bench.svg")
	got := decode[benchResult](s, "bench", "--messages", "200", "--for", "500ms", "--svg", plot)
	for _, name := range []string{rateBare, ratePublish, rateCeiling, rateRelay, rateConsume, rateBatches} {
		found := false
		for _, l := range got.Rates.Lines {
			found = found || l.Case == name && l.Metrics[0].Median() > 0
		}
		if !found {
			t.Errorf("there is no rate %q in %+v", name, got.Rates.Lines)
		}
	}
	if len(got.Latency.Lines) != 3 || len(got.Advice) != 1 || !strings.Contains(got.Advice[0], "200 messages and 500ms for each step are a try") {
		t.Errorf("latencies %+v, advice %q", got.Latency.Lines, got.Advice)
	}
	if svg, err := os.ReadFile(plot); err != nil || !strings.Contains(string(svg), rateRelay) {
		t.Errorf("the plot does not show the relay: %v", err)
	}
	s.nothingIsLeft()
	if status := s.ok("status"); strings.Contains(status, "bench") {
		t.Errorf("the user's own outbox was used:\n%s", status)
	}
}

func TestBench_draws_for_people(t *testing.T) {
	t.Parallel()
	s := withBroker(t, withTables(t))
	contains(t, s.ok("bench", "--messages", "1000", "--for", "3s", "--keys", "0"), "messages a second", rateRelay, "####", "Your ceiling is", commitEffect)
	s.nothingIsLeft()
}

func TestBench_interrupted_removes_what_it_made(t *testing.T) {
	t.Parallel()
	s := withBroker(t, withTables(t))
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errs syncBuffer
	p := s.program(&out, &interrupter{syncBuffer: &errs, at: "measuring the relay", do: interrupt})
	if code := p.run(ctx, []string{"bench", "--messages", "2000", "--for", "5s", "--progress"}); code != exitFailure {
		t.Errorf("exit code %d, want %d\n%s%s", code, exitFailure, out.String(), errs.String())
	}
	contains(t, errs.String(), "interrupted; its tables and queues are removed")
	s.nothingIsLeft()
}

func TestBench_asks_the_broker_before_it_loads_the_database(t *testing.T) {
	t.Parallel()
	s := withTables(t)
	got := s.fails(exitFailure, []string{"127.0.0.1:1"}, "bench", "--progress", "--broker", "nats://127.0.0.1:1")
	for _, text := range []string{"measuring", "remove"} {
		if strings.Contains(got.err, text) {
			t.Errorf("without a broker bench says %q:\n%s", text, got.err)
		}
	}
	s.nothingIsLeft()
}

// stuckTopology is that of a broker that removes nothing.
type stuckTopology struct{ outlast.TopologyBroker }

func (stuckTopology) Remove(context.Context, outlast.GroupTopology) error {
	return errors.New("it is away")
}

// The next run finds queues by their schema.
func TestBench_keeps_the_schema_of_queues_that_stay(t *testing.T) {
	t.Parallel()
	dropped := false
	place := &benchPlace{topo: stuckTopology{}, name: "outlast_bench_abc", groups: []outlast.GroupTopology{benchGroup("outlast_bench_abc", "relay")},
		drop: func(context.Context) error { dropped = true; return nil }}
	err := place.remove()
	if err == nil || dropped {
		t.Fatalf("the schema was dropped: %v; error %v", dropped, err)
	}
	contains(t, err.Error(), "the queue of outlast-bench-abc-relay", "it is away", "schema outlast_bench_abc is left as well")
}

// interrupter acts when a word is printed.
type interrupter struct {
	*syncBuffer
	at string
	do func()
}

func (i *interrupter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), i.at) {
		i.do()
	}
	return i.syncBuffer.Write(p)
}

func TestBench_refuses_what_it_cannot_measure(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	for flag, value := range map[string]string{"--messages": "99", "--size": "63", "--keys": "-1", "--for": "1ms", "--svg": filepath.Join("nowhere", "bench.svg")} {
		s.fails(exitUsage, []string{flag}, "bench", flag, value)
	}
}

func TestBench_advice(t *testing.T) {
	t.Parallel()
	advise := func(f *benchFlags, rates map[string]float64) string {
		return strings.Join((&benchRun{f: f, rates: rates}).advice(), "\n")
	}
	fast := map[string]float64{rateBare: 5000, ratePublish: 4900, rateCeiling: 20000, rateRelay: 15000, rateConsume: 2000, rateBatches: 9000, oneCommit: 0.9, oneConfirm: 1}
	text := advise(&benchFlags{rows: 20_000, time: 4 * time.Second, size: 256, keys: 1000}, fast)
	contains(t, text, "ceiling is 5000", "reaches 75 %", "4.5 times", "at most 1000 msg/s")
	if strings.Contains(text, "A transaction takes") {
		t.Errorf("a quick commit is found slow:\n%s", text)
	}
	fast[ratePublish] = 3000
	if text = advise(&benchFlags{rows: 20_000, time: 4 * time.Second, size: 256, keys: 1000}, fast); strings.Contains(text, "trigger") {
		t.Errorf("what the checks of the outbox cost is taken for a trigger:\n%s", text)
	}
	contains(t, text, "Publish reaches 60 %", "checks each row")
	slow := map[string]float64{rateBare: 100, ratePublish: 40, rateCeiling: 20000, rateRelay: 1000, rateConsume: 2000, rateBatches: 2000, oneCommit: 11, oneConfirm: 2}
	contains(t, advise(&benchFlags{rows: 20_000, time: 4 * time.Second, size: outlast.DefaultMaxBody, keys: 10}, slow), "A transaction takes 11.0 ms", "Publish reaches 40 %", "trigger",
		"10 keys pass at most 5000 msg/s", "InFlightBytes")
}
