package model

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if long() {
		debug.SetGCPercent(25) // most of the memory is what is known, and stays
	}
	goleak.VerifyTestMain(m)
}

// proof is an exploration that must find nothing.
type proof struct {
	name string
	conf Config
	// faults are explored by make test, raced by make test with the race detector, and
	// long by make model; -1 is without bound, 0 is not at all.
	raced, faults, long int
}

var proofs = []proof{
	{"relays_keys_AAB", Config{Half: RelayHalf, Keys: aab, AnySeqs: true}, 1, -1, -1},
	{"relays_keys_AAA", Config{Half: RelayHalf, Keys: aaa}, 1, 1, -1},
	{"relays_two_messages", Config{Half: RelayHalf, Keys: aab, Messages: 2}, -1, -1, -1},
	{"relays_two_messages_every_state", Config{Half: RelayHalf, Keys: aab, Messages: 2, EveryState: true}, 1, 2, -1},
	{"consumer_one_instance", Config{Half: ConsumerHalf, Keys: aab, OneInstance: true}, 1, 3, -1},
	{"consumer_two_instances_two_messages", Config{Half: ConsumerHalf, Keys: aab, Messages: 2}, 1, 3, -1},
	{"consumer_two_instances", Config{Half: ConsumerHalf, Keys: aab}, 1, 1, 3},
	{"consumer_keys_AAA_three_tries", Config{Half: ConsumerHalf, Keys: aaa, Attempts: 3, Prefetch: 3}, 1, 2, 3},
	{"chain_two_messages", Config{Keys: aab, Messages: 2}, 0, 1, 2},
	{"chain_three_messages", Config{Keys: aab, AnySeqs: true, OneInstance: true}, 0, 0, 1},
}

// long says that a test runs at the scale of make model.
func long() bool { return os.Getenv("OUTLAST_TEST_MODEL") != "" }

// TestProtocol explores the protocol. In every state that can be reached I1, I2, I4,
// I5, I7, I9 and I10 hold, and an end in which everything is settled, and handled or
// dead, can be reached without another fault.
func TestProtocol(t *testing.T) {
	for _, p := range proofs {
		faults := p.faults
		switch {
		case long():
			faults = p.long
		case raceEnabled:
			faults = p.raced
		}
		if faults == 0 {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
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
	lim := Limits{Live: true, States: 250_000_000}
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
