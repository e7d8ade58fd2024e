package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/report"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == actorCommand {
		os.Exit(actorMain(os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

// Every contender is run once, small: what it moved is complete, and what is not
// complete does not count.
func TestBench(t *testing.T) {
	t.Parallel()
	s, err := newStack(t.Context())
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	small := &options{rounds: 1, scale: 0.005, queues: "classic"}

	t.Run("relay_measures_every_contender", func(t *testing.T) {
		tables, err := relayPart(t.Context(), s, small)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range contenders() {
			line := lineOf(t, tables[0], c.name+" classic 256 B 1000 keys")
			if rate := line.Metrics[0]; rate.Name != "msg/s" || rate.Median() <= 0 {
				t.Errorf("%s: the main metric is %+v", line.Case, rate)
			}
		}
	})
	t.Run("a_run_with_something_missing_or_left_does_not_count", func(t *testing.T) {
		c := small.relayCase("outlast", "classic", 256, 0)
		queue, err := s.newQueue("classic")
		if err != nil {
			t.Fatal(err)
		}
		database, err := s.database(t.Context(), c, map[string]string{})
		if err != nil {
			t.Fatal(err)
		}
		work := &task{Database: database, Queue: queue}
		if err := s.check(t.Context(), c, work); err == nil || !strings.Contains(err.Error(), "holds 0 messages") {
			t.Errorf("an empty queue counts: %v", err)
		}
		if err := s.refill(t.Context(), c, database); err != nil {
			t.Fatal(err)
		}
		if err := s.check(t.Context(), c, work); err == nil || !strings.Contains(err.Error(), "rows are left") {
			t.Errorf("a full table counts: %v", err)
		}
	})
}

func lineOf(t *testing.T, table *report.Table, name string) *report.Line {
	t.Helper()
	for _, l := range table.Lines {
		if l.Case == name {
			return l
		}
	}
	t.Fatalf("there is no line %q in %s", name, table.Name)
	return nil
}

func TestOptions_want_cases_by_parts_of_names_that_may_have_commas(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		only, name string
		want       bool
	}{
		{"", "outlast, 48 workers", true},
		{"outlast, 48 workers", "outlast, 48 workers", true},
		{"outlast, 48 workers", "outlast, ordered, 10 keys", false},
		{"by hand,outlast, 48 workers,batches", "by hand, 48 workers", true},
		{"by hand,outlast, 48 workers,batches", "outlast, NATS, 48 workers", false},
		{"by hand,outlast, 48 workers,batches", "outlast, batches of 200, 4 workers", true},
		{"by hand,", "outlast, 48 workers", false},
	} {
		if got := (&options{only: c.only}).wants(c.name); got != c.want {
			t.Errorf("--only %q, case %q: got %t", c.only, c.name, got)
		}
	}
}

func TestActor_says_why_it_failed(t *testing.T) {
	t.Parallel()
	_, err := perform(context.WithoutCancel(t.Context()), task{Actor: "nobody"})
	if err == nil || !strings.Contains(err.Error(), "no actor") {
		t.Errorf("an unknown actor: %v", err)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"relay", "--rounds", "2", "keys", "--scale", "0.5"})
	if err != nil || o.rounds != 2 || o.scale != 0.5 || strings.Join(o.parts, " ") != "relay keys" {
		t.Errorf("got %+v, %v", o, err)
	}
	if _, err := parse([]string{"--rounds", "-1"}); err == nil {
		t.Error("fewer rounds than none are accepted")
	}
	if _, err := choose([]string{"no-such-part"}); err == nil {
		t.Error("an unknown part is accepted")
	}
}

func TestResults_are_saved_in_three_forms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := &options{json: filepath.Join(dir, "r.json"), svg: filepath.Join(dir, "r.svg"), md: filepath.Join(dir, "r.md")}
	table := &report.Table{Name: "relay", Title: "Relays"}
	table.Add("outlast", report.Value{Name: "msg/s", Value: 15000})
	if err := (&results{Tables: []*report.Table{table}}).save(o); err != nil {
		t.Fatal(err)
	}
	var back results
	data, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &back); err != nil || back.Tables[0].Lines[0].Metrics[0].Values[0] != 15000 {
		t.Errorf("the JSON holds %+v, %v", back, err)
	}
	for path, want := range map[string]string{o.svg: "<svg", o.md: "| outlast | 15,000 |"} {
		if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: no %q: %v", filepath.Base(path), want, err)
		}
	}
}

func TestBody_has_its_size_and_does_not_compress(t *testing.T) {
	t.Parallel()
	for _, size := range []int{256, 4096, 65536} {
		for _, i := range []int{0, 7, 39_999, 10_000_000} {
			body := bodyOf(i, size)
			if len(body) != size || !json.Valid([]byte(body)) {
				t.Errorf("body %d of %d bytes has %d and is %.80s", i, size, len(body), body)
			}
		}
	}
}

func TestLags_join_both_ends_without_the_first_second(t *testing.T) {
	t.Parallel()
	const second = int64(1e9)
	produced := &outcome{Stamps: map[string]int64{"early": 1 * second, "late": 3 * second}}
	consumed := &outcome{Stamps: map[string]int64{"early": 2 * second, "late": 3*second + 5e6}}
	if lags, err := lagsOf(produced, consumed, 1e9); err != nil || len(lags) != 1 || lags[0] != 5 {
		t.Errorf("got %v, %v; want 5 ms alone", lags, err)
	}
	delete(consumed.Stamps, "late")
	if _, err := lagsOf(produced, consumed, 1e9); err == nil {
		t.Error("a message without an effect is left out of the numbers")
	}
}

func TestTracedCalls_reads_the_sum_of_strace(t *testing.T) {
	t.Parallel()
	n, err := tracedCalls("    calls syscall\n--------- ----------------\n       40 read\n       12 futex\n--------- ----------------\n       52 total\n")
	if err != nil || n != 52 {
		t.Errorf("got %v, %v", n, err)
	}
	if _, err := tracedCalls("strace: attach failed"); err == nil {
		t.Error("a table without a sum is accepted")
	}
}

func TestCores_share_their_time_between_work_and_waits(t *testing.T) {
	t.Parallel()
	before := parseCores("cpu  100 0 50 800 50 0 0 0 70 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
	after := parseCores("cpu  150 10 75 900 250 5 5 5 90 0\n")
	if got, want := after.since(before), (coreShares{idle: 0.25, disk: 0.5}); got != want {
		t.Errorf("shares of the cores' time: got %+v, want %+v", got, want)
	}
	if got := parseCores("").since(parseCores("")); got != (coreShares{}) {
		t.Errorf("without /proc: got %+v, want none", got)
	}
}

func TestTenths_tell_the_slowest(t *testing.T) {
	t.Parallel()
	o := outcome{Rows: 1000, Tenths: []float64{1, 2, 3, 4, 9, 10, 11, 12, 13, 14}}
	if got := o.slowestTenth(); got != 20 {
		t.Errorf("the slowest tenth: got %v messages a second, want 20", got)
	}
}

func TestProcessorName_is_that_of_the_first(t *testing.T) {
	t.Parallel()
	list := "processor\t: 0\nvendor_id\t: X\nmodel\t\t: 17\nmodel name\t: One CPU @ 2.00GHz\n\nprocessor\t: 1\nmodel name\t: Another\n"
	if got := processorName(list); got != "One CPU @ 2.00GHz" {
		t.Errorf("got %q", got)
	}
	if got := processorName("Hardware\t: a board\n"); got != "" {
		t.Errorf("got %q of a list without names", got)
	}
}

func TestProducer_notes_how_it_compares(t *testing.T) {
	t.Parallel()
	table := &report.Table{}
	table.Add("bare INSERT of 100 16 clients", report.Value{Name: "tx/s", Value: 200})
	table.Add("outlast Publish of 100 16 clients", report.Value{Name: "tx/s", Value: 190})
	noteRatios(table)
	if len(table.Notes) != 1 || table.Notes[0] != "outlast Publish of 100 16 clients: 0.95 of the bare INSERT" {
		t.Errorf("the notes are %q", table.Notes)
	}
}

func TestProgress_takes_each_tenth(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	p := &progress{task: &task{Rows: 20}, cancel: func() { close(ended) }}
	for range 20 {
		p.done(1)
	}
	<-ended
	if r := p.result; r.Rows != 20 || len(r.Tenths) != 10 || r.Elapsed <= 0 {
		t.Errorf("got %+v", r)
	}
}

func TestRateFrom_counts_what_was_finished_since(t *testing.T) {
	t.Parallel()
	second := func(n int64) int64 { return n * 1e9 }
	o := &outcome{Paces: []pace{{second(1), 10}, {second(2), 30}, {second(3), 80}, {second(6), 230}}}
	if rate, err := o.rateFrom(time.Unix(2, 0), 100); err != nil || rate != 50 {
		t.Errorf("got %v, %v; want the 200 of four seconds", rate, err)
	}
	if _, err := o.rateFrom(time.Unix(3, 0), 151); err == nil {
		t.Error("more than there were have a rate")
	}
}

// depths is a topology whose queue has these lengths in turn, and then the last of them.
type depths struct {
	outlast.TopologyBroker
	left []int
}

func (d *depths) Depth(context.Context, string) (outlast.QueueDepth, error) {
	n := d.left[0]
	if len(d.left) > 1 {
		d.left = d.left[1:]
	}
	return outlast.QueueDepth{Messages: n}, nil
}

func TestAQueueThatGetsShorterIsWaitedFor(t *testing.T) {
	if err := waitUntilEmpty(t.Context(), &depths{left: []int{3, 2, 1, 0}}, "q", 0); err != nil {
		t.Error(err)
	}
	if err := waitUntilEmpty(t.Context(), &depths{left: []int{3, 2}}, "q", 0); err == nil {
		t.Error("a queue that stays as long as it is counts as empty")
	}
}
