package storm

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/lab/storm/role"
)

// TestMain runs the tests, or, as a child process of one, a role of the storm.
func TestMain(m *testing.M) {
	role.Main()
	goleak.VerifyTestMain(m)
}

// testWriter shows what happens in the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Helper()
	w.t.Logf("%s", p)
	return len(p), nil
}

// seed is that of the environment, so that a run can be repeated, or a fixed one.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("OUTLAST_TEST_SEED")
	if text == "" {
		return 1
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// run carries out a storm and fails the test for every promise that it broke.
func run(t *testing.T, c Config) *Report {
	t.Helper()
	c.Seed, c.Out = seed(t), testWriter{t}
	report, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	report.Print(testWriter{t})
	for _, p := range report.Problems() {
		t.Error(p)
	}
	if report.Made() == 0 {
		t.Error("nothing went wrong: the test was not real")
	}
	return report
}

// TestStorm is a short storm of everything on one node. make chaos runs longer ones on three.
func TestStorm(t *testing.T) {
	t.Parallel()
	run(t, Config{Length: 25 * time.Second, Nodes: 1, Pause: 2 * time.Second})
}

// TestF84_EarlierCommitBeside: relays and consumers of an earlier commit work on the same
// tables and queues as the present ones, and processes change from one to the other.
func TestF84_EarlierCommitBeside(t *testing.T) {
	t.Parallel()
	earlier, err := BuildEarlier(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err) // a checkout without its history: git fetch --unshallow
	}
	run(t, Config{Length: 15 * time.Second, Nodes: 1, Pause: time.Second, Earlier: earlier, Only: []string{"change of version"}})
}

// TestCrash kills processes at random moments. OUTLAST_TEST_SEED repeats a run,
// OUTLAST_TEST_ROUNDS makes it longer.
func TestCrash(t *testing.T) {
	t.Parallel()
	rounds := 20
	if s := os.Getenv("OUTLAST_TEST_ROUNDS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	run(t, Config{Length: time.Duration(rounds) * 1200 * time.Millisecond, Nodes: 1, Rate: 200, Pause: 400 * time.Millisecond, Most: 7,
		Only: []string{"kill process"}})
}

// TestF68_OrderedGroupKilledAndDrained: two instances of an ordered group, one killed, one
// drained, while messages come: order kept, one effect each.
func TestF68_OrderedGroupKilledAndDrained(t *testing.T) {
	t.Parallel()
	c := Config{Length: time.Second, Nodes: 1, Rate: 200, Trouble: 1, Out: testWriter{t}, Folder: t.TempDir()}
	if err := c.setDefaults(); err != nil {
		t.Fatal(err)
	}
	s := &storm{Config: c, timeline: fault.NewTimeline(c.Out), used: map[string]Usage{}}
	var err error
	if s.stage, err = raise(t.Context(), c, s.timeline); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stage.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := s.startAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	one, two := s.stage.cast["billing-1"], s.stage.cast["billing-2"]
	for i, step := range []func(context.Context) error{plain(one.kill), plain(one.start), two.stop, plain(two.start)} {
		awaitEffects(t, s.stage, 200)
		if err := step(t.Context()); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	awaitEffects(t, s.stage, 200)
	report := &Report{}
	if err := s.judge(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	report.Print(testWriter{t})
	for _, p := range report.Problems() {
		t.Error(p)
	}
}

// awaitEffects waits for n more effects in billing.
func awaitEffects(t *testing.T, s *stage, n int) {
	t.Helper()
	const effects = `SELECT count(*) FROM ledger_effect`
	want := 0
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		have, err := s.count(t.Context(), "billing", effects)
		if err != nil {
			t.Fatal(err)
		}
		if want == 0 {
			want = have + n
		}
		if have >= want {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d effects in 2 minutes, want %d", have, want)
		}
	}
}
