package model

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proof is an exploration that must find nothing.
type proof struct {
	name string
	conf Config
	// faults are explored by make test, raced by make test with the race detector, and
	// long by make model; -1 is without bound, 0 is not at all.
	raced, faults, long int
}

var proofs = []proof{
	{"relay_keys_AAB", Config{Half: RelayHalf, Keys: aab}, 1, 2, 2},
	{"relay_keys_ABA", Config{Half: RelayHalf, Keys: aba}, 1, 1, 2},
	{"relay_keys_AAA", Config{Half: RelayHalf, Keys: aaa}, 1, 1, 2},
	{"relay_two_messages", Config{Half: RelayHalf, Keys: aab, Messages: 2}, 1, 2, 3},
	{"consumer_keys_AAB", Config{Half: ConsumerHalf, Keys: aab}, 1, 3, 4},
	{"consumer_keys_AAA_three_tries", Config{Half: ConsumerHalf, Keys: aaa, Attempts: 3, Prefetch: 3}, 1, 2, 3},
	{"consumer_alone", Config{Half: ConsumerHalf, Keys: aab, OneInstance: true}, 2, -1, -1},
	{"chain_two_messages", Config{Keys: aab, Messages: 2}, 0, 1, 2},
	{"chain_keys_AAB", Config{Keys: aab, OneInstance: true}, 0, 0, 1},
}

// long says that a test runs at the scale of make model.
func long() bool { return os.Getenv("OUTLAST_TEST_MODEL") != "" }

// TestProtocol explores the protocol. In every state that can be reached I1, I2, I4,
// I5, I7, I9 and I10 hold, and an end in which everything is settled, and handled or
// dead, can be reached without another fault.
func TestProtocol(t *testing.T) {
	for _, p := range proofs {
		t.Run(p.name, func(t *testing.T) {
			faults := p.faults
			switch {
			case long():
				faults = p.long
			case raceEnabled:
				faults = p.raced
			}
			if faults == 0 {
				t.Skip("make model explores it")
			}
			conf := p.conf
			conf.MaxFaults = max(faults, 0)
			prove(t, conf)
		})
	}
}

// OUTLAST_TEST_MODEL_FAULTS, with -run of one proof, sets another bound.
func prove(t *testing.T, conf Config) {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv("OUTLAST_TEST_MODEL_FAULTS")); err == nil {
		conf.MaxFaults = n
	}
	m := New(conf)
	lim := Limits{Live: true, States: 40_000_000}
	if long() {
		lim.Progress = func(depth, states, frontier int, took time.Duration) {
			fmt.Fprintf(os.Stderr, "%s: depth %d, %d states, %d to look at, %v\n", t.Name(), depth, states, frontier, took.Round(time.Second))
		}
	}
	r, err := Explore(m, lim)
	if err != nil {
		t.Fatal(err)
	}
	if r.Broken != "" {
		t.Fatalf("%s\n%s%+v", r.Broken, m.Tell(r.Path), r.Last)
	}
	t.Logf("faults %s: %d states, %d steps, depth %d, %v", bound(conf.MaxFaults), r.States, r.Steps, r.Depth, r.Took.Round(10*time.Millisecond))
}

func bound(faults int) string {
	if faults == 0 {
		return "without bound"
	}
	return fmt.Sprintf("up to %d", faults)
}
