package model

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// halvesRun is a run of the whole chain that is watched as one of each half. A message
// has in the consumer's half the number of its first arrival among those of its key.
type halvesRun struct {
	chain, relays, consumer *Model
	number                  [messages]int // in the consumer's half; -1 has not arrived
}

func newHalvesRun(rules Rules) *halvesRun {
	conf := Config{Keys: aab, AnySeqs: true, Named: true, Rules: rules}
	h := &halvesRun{chain: New(conf), number: [messages]int{-1, -1, -1}}
	conf.Half = RelayHalf
	h.relays = New(conf)
	conf.Half = ConsumerHalf
	h.consumer = New(conf)
	return h
}

// relayPart is what the relays' half has of a state of the chain.
func relayPart(s *State) State {
	return State{
		Tx: s.Tx, Place: s.Place, Before: s.Before, Away: s.Away, Owner: s.Owner, Lapsed: s.Lapsed,
		Relay: s.Relay, Orphan: s.Orphan, Unbound: s.Unbound, Routed: s.Routed,
	}
}

// consumerPart is what the consumer's half has. Settled is what the relays will not
// send again.
func (h *halvesRun) consumerPart(s *State) State {
	c := State{Active: s.Active}
	set := func(of Set) (to Set) {
		for i, n := range h.number {
			if of.has(i) {
				to = to.with(n)
			}
		}
		return to
	}
	for n, e := range s.Queue {
		if e != 0 {
			c.Queue[n] = entry(h.number[e.message()], e.holder())
		}
	}
	for x := range s.Instance {
		from, to := &s.Instance[x], &c.Instance[x]
		*to = Instance{Void: set(from.Void), Retry: set(from.Retry), Lost: from.Lost, Again: set(from.Again), Leaving: from.Leaving, Acked: set(from.Acked)}
		for n, l := range from.Line {
			if l != 0 {
				to.Line[n] = uint8(h.number[l-1] + 1)
			}
		}
	}
	c.Routed, c.Effect, c.Dead = set(s.Routed), set(s.Effect), set(s.Dead)
	for i, n := range h.number {
		if n < 0 {
			continue
		}
		c.Before[n] = h.consumer.key(n) & (1<<n - 1)
		c.Inbox[n], c.Rank[n], c.Attempts[n], c.Lock[n] = s.Inbox[i], s.Rank[i], s.Attempts[i], s.Lock[i]
		for x := range s.Instance {
			c.Instance[x].Task[n] = s.Instance[x].Task[i]
		}
		if sendsNoMore(s, i) {
			c.Settled = c.Settled.with(n)
		}
	}
	return c
}

// sendsNoMore: the row is gone, and so is every copy of its message on this side of the
// queue.
func sendsNoMore(s *State, i int) bool {
	for r := range s.Relay {
		if s.Relay[r].Hand[i] != HandNone || s.Relay[r].Wire[i] != WireNone {
			return false
		}
	}
	return s.Place[i] == Gone && !s.Orphan.has(i)
}

// arrive numbers a message at its first arrival, and names the feed's action.
func (h *halvesRun) arrive(i int) string {
	if h.number[i] >= 0 {
		return "arrive again"
	}
	before := 0
	for other, n := range h.number {
		if n >= 0 && h.chain.key(i).has(other) {
			before++
		}
	}
	for n := range messages {
		if h.chain.key(i).has(n) {
			if before == 0 {
				h.number[i] = n
				break
			}
			before--
		}
	}
	return "arrive"
}

func (m *Model) has(name string) bool {
	for i := range m.actions {
		if m.actions[i].name == name {
			return true
		}
	}
	return false
}

// step checks that a step of the chain is one of each half, or none of it.
func (h *halvesRun) step(s, next *State, by Step) error {
	act := &h.chain.actions[by.Action]
	relays, consumer := relayPart(s), h.consumerPart(s)
	a, b, ok := int(by.A), int(by.B), true
	if h.relays.has(act.name) {
		if relays, ok = h.relays.do(relays, act.name, a, b); !ok {
			return fmt.Errorf("the relays alone cannot: %s %d %d", act.name, a, b)
		}
	}
	if relays != relayPart(next) {
		return fmt.Errorf("%s %d %d leads the relays alone to\n%+v, not\n%+v", act.name, a, b, relays, relayPart(next))
	}
	take := func(name string, a, b int) {
		if ok {
			consumer, ok = h.consumer.do(consumer, name, a, b)
		}
	}
	switch {
	case act.name == "route":
		take(h.arrive(b), h.number[b], 0)
	case act.name == "late publish":
		take(h.arrive(a), h.number[a], 0)
	case h.consumer.has(act.name) && act.args == ofInstanceMessage:
		take(act.name, a, h.number[b])
	case h.consumer.has(act.name) && act.args == ofMessage:
		take(act.name, h.number[a], 0)
	case h.consumer.has(act.name):
		take(act.name, a, b)
	}
	for i, n := range h.number {
		if n >= 0 && sendsNoMore(next, i) && !consumer.Settled.has(n) {
			take("settled", n, 0)
		}
	}
	if !ok {
		return fmt.Errorf("the consumer alone cannot: %s %d %d", act.name, a, b)
	}
	if consumer != h.consumerPart(next) {
		return fmt.Errorf("%s %d %d leads the consumer alone to\n%+v, not\n%+v", act.name, a, b, consumer, h.consumerPart(next))
	}
	return nil
}

// walk takes random steps of the chain and returns the first that is none of the halves.
func (h *halvesRun) walk(rng *rand.Rand, steps int) (Set, error) {
	type choice struct {
		by   Step
		next State
	}
	s := h.chain.Init()
	for range steps {
		var calm, all []choice
		h.chain.Next(&s, func(by Step, next *State) {
			all = append(all, choice{by, *next})
			if !by.Fault {
				calm = append(calm, choice{by, *next})
			}
		})
		if len(calm) > 0 && rng.IntN(6) > 0 {
			all = calm
		}
		if len(all) == 0 {
			break
		}
		c := all[rng.IntN(len(all))]
		if err := h.step(&s, &c.next, c.by); err != nil {
			return s.Effect, err
		}
		s = c.next
	}
	return s.Effect | s.Dead, nil
}

// TestChainIsItsHalves: what a proof says of each half, whatever the other one does, holds
// of the chain, because each of its steps is one of each half, or none of it.
func TestChainIsItsHalves(t *testing.T) {
	t.Parallel()
	walks := 300
	switch {
	case long():
		walks = 5000
	case raceEnabled:
		walks = 30
	}
	ended := 0
	for seed := range walks {
		done, err := newHalvesRun(Rules{}).walk(rand.New(rand.NewPCG(uint64(seed), 0)), 500)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if done == 1<<messages-1 {
			ended++
		}
	}
	t.Logf("%d walks, %d of them to the end of every message", walks, ended)
	if ended == 0 {
		t.Error("no walk came to the end of every message")
	}
}

// TestChainIsNotItsHalves shows that the test before can fail: relays that send again
// what they have settled break what the consumer's half counts on.
func TestChainIsNotItsHalves(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2000) {
		if _, err := newHalvesRun(Rules{PickSettled: true}).walk(rand.New(rand.NewPCG(seed, 0)), 500); err != nil {
			t.Logf("seed %d: %.1000v", seed, err)
			return
		}
	}
	t.Error("every walk is one of the halves")
}
