package check_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/outlastmq/outlast/outlasttest/check"
	"github.com/outlastmq/outlast/outlasttest/history"
)

// line is an event with the process that records it.
type line struct {
	p string
	history.Event
}

// script is a history by hand: the processes orders (producer and relay) and billing
// (consumer), and the test, in the order of time.
type script []line

func (s *script) say(p string, events ...history.Event) {
	for _, e := range events {
		*s = append(*s, line{p, e})
	}
}

// messageID is that of message n.
func messageID(n int) string { return fmt.Sprintf("00000000-0000-7000-8000-%012d", n) }

const (
	scope  = "relay:orders"
	owner1 = "relay-1"
	owner2 = "relay-2"
)

// good is a history without a fault in it, of three messages of one key: the second
// fails once, the third is a dead letter.
func good() script {
	var s script
	s.say("orders",
		history.Event{E: history.Lease, Scope: scope, Owner: owner1, O: "renewed", At: 1_000, Exp: 11_000_000},
		history.Event{E: history.Lease, Scope: scope, Owner: owner1, O: "gained", At: 1_000, Exp: 11_000_000, Slots: []history.SlotEpoch{{1, 1}}},
		history.Event{E: history.Link, Name: "relay", O: "up"})
	s.say("billing", history.Event{E: history.Bind, O: history.On, G: "billing", Type: "order.placed.v1", Why: "ordered"},
		history.Event{E: history.Link, Name: "billing.0", O: "up"})
	for n := 1; n <= 3; n++ {
		s.sent(n)
	}
	s.handled(1)
	s.failed(2)
	s.handled(2)
	s.dead(3)
	s.say("billing", history.Event{E: history.Purge, G: "billing", Source: "orders", N: 1, At: 10, O: history.OK})
	s.say("test", history.Event{E: history.Quiesce, O: history.OK})
	for n := 1; n <= 3; n++ {
		s.say("test", history.Event{E: history.LedgerRow, Name: "orders", Tx: fmt.Sprint("business-", n), Seq: int64(n), At: 5})
	}
	s.say("test", history.Event{E: history.LedgerRow, Name: "orders", O: history.OK})
	for n := 1; n <= 2; n++ {
		s.say("test", history.Event{E: history.LedgerRow, Name: "billing", Tx: fmt.Sprint("effect-", n), G: "billing", M: messageID(n), Seq: int64(n), At: 5})
	}
	s.say("test", history.Event{E: history.LedgerRow, Name: "billing", O: history.OK},
		history.Event{E: history.Left, Name: "dead", M: messageID(3), G: "billing", Why: "verdict", N: 1, Type: "order.placed.v1", Source: "orders", At: 5, Last: 6},
		history.Event{E: history.Left, Name: "billing"})
	return s
}

func (s *script) sent(n int) {
	m, tx := messageID(n), fmt.Sprint("business-", n)
	s.say("orders",
		history.Event{E: history.Begin, Tx: tx, Name: "orders"},
		history.Event{E: history.Enqueue, Tx: tx, M: m, Type: "order.placed.v1", Key: "k", KeySeq: int64(n), Hash: fmt.Sprintf("abc%d", n)},
		history.Event{E: history.Committing, Tx: tx},
		history.Event{E: history.Commit, Tx: tx, O: history.OK},
		history.Event{E: history.Claim, M: m, Source: "orders", Slot: 1, Epoch: 1},
		history.Event{E: history.Publish, M: m, Slot: 1, Epoch: 1, Try: 1},
		history.Event{E: history.Confirm, M: m, Slot: 1, Epoch: 1, Try: 1, O: history.Ack},
		history.Event{E: history.Mark, M: m, Slot: 1, Epoch: 1, O: history.OK})
	s.say("billing", history.Event{E: history.Deliver, M: m, G: "billing", Type: "order.placed.v1", Source: "orders", Queue: "billing.0", Session: "s1", Tag: uint64(n), Hash: fmt.Sprintf("abc%d", n)})
}

func (s *script) tried(n, attempt int, o string) {
	s.say("billing",
		history.Event{E: history.Begin, Tx: fmt.Sprint("effect-", n), Name: "billing", G: "billing", M: messageID(n), N: attempt},
		history.Event{E: history.Start, G: "billing", M: messageID(n), N: attempt},
		history.Event{E: history.Tried, G: "billing", M: messageID(n), N: attempt, O: o})
}

func (s *script) settled(n int) {
	s.say("billing", history.Event{E: history.Settle, G: "billing", M: messageID(n), Session: "s1", Tag: uint64(n), O: history.Ack})
}

func (s *script) handled(n int) {
	s.tried(n, 1, "ok")
	s.say("billing", history.Event{E: history.Effect, G: "billing", M: messageID(n), Tx: fmt.Sprint("effect-", n), O: history.OK})
	if n != 2 { // it was settled when it began to wait
		s.settled(n)
	}
}

func (s *script) failed(n int) {
	s.tried(n, 1, "failed")
	s.say("billing", history.Event{E: history.Park, G: "billing", M: messageID(n), Why: "failed", N: 1, O: history.OK})
	s.settled(n)
}

func (s *script) dead(n int) {
	s.tried(n, 1, "failed")
	s.say("billing", history.Event{E: history.Dead, G: "billing", M: messageID(n), Why: "verdict", N: 1, O: history.OK, Type: "order.placed.v1", Source: "orders", At: 5})
	s.settled(n)
}

// at returns the index of the nth event that is of a kind and about a message, or any.
func (s script) at(t *testing.T, kind history.Kind, m string) int {
	t.Helper()
	i := slices.IndexFunc(s, func(l line) bool { return l.E == kind && (m == "" || l.M == m || l.Tx == m) })
	if i < 0 {
		t.Fatalf("no %s of %s in the history", kind, m)
	}
	return i
}

// drop takes an event out.
func (s script) drop(t *testing.T, kind history.Kind, m string) script {
	t.Helper()
	i := s.at(t, kind, m)
	return slices.Delete(slices.Clone(s), i, i+1)
}

// change changes an event.
func (s script) change(t *testing.T, kind history.Kind, m string, f func(*history.Event)) script {
	t.Helper()
	s = slices.Clone(s)
	f(&s[s.at(t, kind, m)].Event)
	return s
}

// after puts events behind another one.
func (s script) after(t *testing.T, kind history.Kind, m string, p string, events ...history.Event) script {
	t.Helper()
	var more script
	more.say(p, events...)
	return slices.Insert(slices.Clone(s), s.at(t, kind, m)+1, more...)
}

// before puts events in front of the first event of a kind.
func (s script) before(t *testing.T, kind history.Kind, m string, p string, events ...history.Event) script {
	t.Helper()
	var more script
	more.say(p, events...)
	return slices.Insert(slices.Clone(s), s.at(t, kind, m), more...)
}

// files writes the history as its processes would, an event each 10 ms.
func (s script) files(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	lines := map[string][]byte{}
	var paths []string
	now := int64(1_000_000_000)
	add := func(p string, e history.Event) {
		if lines[p] == nil && e.E != history.Open {
			lines[p] = []byte{}
			paths = append(paths, filepath.Join(dir, p+".jsonl"))
			data, _ := json.Marshal(history.Event{T: now, E: history.Open, V: history.Version, P: p, PID: 1})
			lines[p] = append(data, '\n')
		}
		if e.T == 0 {
			now += 10_000_000
			e.T = now
		}
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		lines[p] = append(append(lines[p], data...), '\n')
	}
	for _, l := range s {
		add(l.p, l.Event)
	}
	for _, path := range paths {
		p := filepath.Base(path[:len(path)-len(".jsonl")])
		add(p, history.Event{E: history.Close})
		if err := os.WriteFile(path, lines[p], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func (s script) check(t *testing.T) *check.Report {
	t.Helper()
	r, err := check.Files(t.Context(), check.Options{}, s.files(t)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
