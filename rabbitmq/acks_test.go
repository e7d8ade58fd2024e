package rabbitmq

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestF50_F61_Acks compares what the broker is told with the plainest book of what it
// delivered: a command names a delivery that it waits for, covers only those that are
// done, and each once; in the end nothing that is done is left.
func TestF50_F61_Acks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		prefetch := rapid.IntRange(1, 40).Draw(t, "prefetch")
		var open []uint64              // in hand
		done := map[uint64]bool{}      // not told
		unsettled := map[uint64]bool{} // of the broker
		stale, cut := 0, false
		a := newAcks(prefetch, func(tag uint64, multiple bool) error {
			if cut {
				return errors.New("closed")
			}
			if tag == 0 || !unsettled[tag] {
				t.Fatalf("tag %d is unknown to the broker", tag)
			}
			for other := range unsettled {
				if other != tag && !(multiple && other < tag) {
					continue
				}
				if !done[other] {
					t.Fatalf("the command for %d covers %d, which is in hand", tag, other)
				}
				delete(unsettled, other)
				delete(done, other)
			}
			return nil
		}, func() { stale++ })
		a.pause = time.Hour // the test alone looks, as its books have no lock
		defer a.end()
		next := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"deliver": func(t *rapid.T) {
				if len(unsettled) == prefetch {
					return
				}
				next++
				unsettled[next] = true
				open = append(open, next)
				a.delivered(next)
			},
			"ack": func(t *rapid.T) {
				if len(open) == 0 {
					return
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				tag := open[i]
				open = append(open[:i], open[i+1:]...)
				done[tag] = true
				if !a.ack(tag) {
					t.Fatalf("tag %d: the channel is there", tag)
				}
			},
			"look": func(*rapid.T) { a.look() },
			"looks": func(t *rapid.T) {
				a.look()
				a.look()
				if len(done) > 0 {
					t.Fatalf("%d are done and not told after two looks", len(done))
				}
			},
			"": func(t *rapid.T) {
				if len(open) == 0 && len(done) > 0 || len(done) > max(1, prefetch/2) {
					t.Fatalf("%d are done and not told", len(done))
				}
			},
		})
		cut = rapid.Bool().Draw(t, "the channel is cut")
		left := len(done)
		a.end()
		if want := map[bool]int{true: left}[cut]; stale != want || len(done) != want {
			t.Fatalf("%d stale and %d not told, want %d", stale, len(done), want)
		}
		for n, tag := range open {
			if a.ack(tag) || stale != n+1+len(done) {
				t.Fatalf("tag %d was taken after the end", tag)
			}
		}
	})
}

// TestF50_AcksOfOddTags: a broker whose tags do not count up is told of each delivery by
// itself and at once.
func TestF50_AcksOfOddTags(t *testing.T) {
	t.Parallel()
	type command struct {
		tag      uint64
		multiple bool
	}
	var told []command
	a := newAcks(100, func(tag uint64, multiple bool) error {
		told = append(told, command{tag, multiple})
		return nil
	}, func() {})
	defer a.end()
	tags := []uint64{1, 2, 1 << 63, 0, 7, 7, 3}
	for _, tag := range tags {
		a.delivered(tag)
	}
	for i, tag := range tags {
		a.ack(tag)
		if len(told) != i+1 || told[i] != (command{tag, false}) {
			t.Fatalf("%v after the acknowledgement of %d", told, tag)
		}
	}
}

// BenchmarkAcks settles deliveries as workers that finish slightly out of order do.
func BenchmarkAcks(b *testing.B) {
	commands := 0
	a := newAcks(96, func(uint64, bool) error { commands++; return nil }, func() {})
	defer a.end()
	b.ReportAllocs()
	tag := uint64(0)
	for range 48 {
		tag++
		a.delivered(tag)
	}
	for done := uint64(0); b.Loop(); done++ {
		tag++
		a.delivered(tag)
		a.ack(done ^ 1 + 1) // 2, 1, 4, 3
	}
	b.ReportMetric(float64(commands)/float64(b.N), "commands/op")
}
