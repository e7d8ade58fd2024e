package outlast_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// TestRelayStorm is TestRelayChaos with faults of the database as well, two types on
// every key, bodies of all sizes, small windows, messages that the broker refuses,
// and people who release what is held.
func TestRelayStorm(t *testing.T) {
	seeds := []uint64{174, 175, 192, 196} // rows of one key that waited for it and for its route, as the slots changed hands
	for seed := range uint64(30) {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newStorm(t, seed).run() })
		})
	}
}

// storm is one run. Order is promised within a key and a route: here each key of
// the trace is one of both.
type storm struct {
	*relayRig
	rng   *rand.Rand
	late  *laggard
	small func(*outlast.RelayConfig)
	ends  [2]func()
}

const (
	stormKeys   = 6
	stormRounds = 120
)

func newStorm(t *testing.T, seed uint64) *storm {
	s := &storm{rng: rand.New(rand.NewPCG(seed, 2))}
	s.relayRig = newRelayRig(t, memory.Seed(seed), memory.Reorder(0.2))
	s.late = newLaggard(s.store, seed)
	s.bind("ab", "a.b.v1")
	s.bind("cd", "c.d.v1")
	inFlight := []int{1, 3, 16, 1024}[s.rng.IntN(4)]
	s.small = func(c *outlast.RelayConfig) {
		c.Store = s.late
		c.InFlight, c.InFlightBytes = inFlight, 64<<10
		c.Buffer = max(4*inFlight, 2+s.rng.IntN(300))
	}
	s.start(s.small)
	return s
}

func (s *storm) run() {
	for i := range stormRounds {
		var batch []outlast.Message
		for k := range stormKeys {
			batch = append(batch, s.padded("a.b.v1", fmt.Sprintf("k%d", k), i), s.padded("c.d.v1", fmt.Sprintf("k%d", k), i))
		}
		unheard := message("nobody.v1", fmt.Sprintf("k%d", i%stormKeys), i)
		unheard.MayBeUnheard = true
		s.publish(append(batch, unheard)...)
		s.publish(message("a.b.v1", "", i, outlast.After(time.Duration(s.rng.IntN(100))*time.Second)),
			message("c.d.v1", "", i, outlast.ExpiresIn(time.Duration(1+s.rng.IntN(100))*time.Second)))
		s.brokerFault()
		s.storeFault()
		s.people()
		time.Sleep(time.Duration(s.rng.IntN(4000)) * time.Millisecond)
	}
	s.heal()
	s.wantOrder(keyed(s.bodies("ab.0")), stormKeys, stormRounds)
	s.wantOrder(keyed(s.bodies("cd.0")), stormKeys, stormRounds)
	s.wantAtRest()
}

// padded is a message with a body of some kilobytes, now and then, and rarely of
// more than the broker takes while MaxMessage is injected.
func (s *storm) padded(typ, key string, n int) outlast.Message {
	m := message(typ, key, n)
	switch s.rng.IntN(20) {
	case 0, 1, 2:
		m.Body = pad(m.Body, s.rng.IntN(30_000))
	case 3:
		m.Body = pad(m.Body, 40_000+s.rng.IntN(40_000))
	}
	return m
}

// pad appends spaces, which JSON allows after a value.
func pad(body []byte, n int) []byte { return append(body, bytes.Repeat([]byte(" "), n)...) }

func (s *storm) brokerFault() {
	t := s.t
	queue := []string{"ab.0", "cd.0"}[s.rng.IntN(2)]
	key := map[string]string{"ab.0": "a.b.v1.*", "cd.0": "c.d.v1.*"}[queue]
	switch s.rng.IntN(30) {
	case 0:
		s.broker.Die()
	case 1, 2, 3:
		s.broker.Revive()
	case 4:
		s.broker.Inject(memory.DropConfirm(s.rng.Float64() / 4))
	case 5:
		s.broker.Inject(memory.Nack(s.rng.Float64() / 2))
	case 6:
		s.broker.Block("storm")
	case 7, 8, 9:
		s.broker.Unblock()
	case 10:
		must(t, s.broker.Unbind(queue, outlast.EventExchange, key))
	case 11, 12:
		must(t, s.broker.Bind(queue, outlast.EventExchange, key))
	case 13:
		must(t, s.broker.SickQueue(queue, true))
	case 14, 15:
		must(t, s.broker.SickQueue(queue, false))
	case 16, 17:
		must(t, s.broker.MaxLength(queue, 1+s.rng.IntN(stormKeys*stormRounds)))
	case 18, 19, 20:
		must(t, s.broker.MaxLength(queue, 0))
	case 21:
		s.broker.Inject(memory.MaxMessage(30_000))
	case 22, 23:
		s.broker.Inject(memory.MaxMessage(0))
	case 24:
		s.broker.Inject(memory.DropConfirm(0), memory.Nack(0))
	}
}

func (s *storm) storeFault() {
	switch s.rng.IntN(20) {
	case 0:
		s.store.Inject(memory.FailNext(memory.RoleRelay, 1+s.rng.IntN(20)))
	case 1:
		s.store.Inject(memory.FailNext(memory.RoleLeases, 1+s.rng.IntN(4)))
	case 2:
		s.store.Inject(memory.Slow(memory.RoleRelay, time.Duration(s.rng.IntN(30_000))*time.Millisecond))
	case 3:
		s.store.Inject(memory.Slow(memory.RoleLeases, time.Duration(s.rng.IntN(15_000))*time.Millisecond))
	case 4, 5:
		s.store.Inject(memory.Slow(memory.RoleRelay, time.Duration(s.rng.IntN(50))*time.Millisecond), memory.Slow(memory.RoleLeases, 0))
	case 6:
		s.late.set(time.Duration(s.rng.IntN(12_000))*time.Millisecond, s.rng.Float64()/2)
	case 11, 12:
		s.late.set(time.Duration(s.rng.IntN(100))*time.Millisecond, 0)
	case 7, 8:
		i := s.rng.IntN(len(s.ends))
		if s.ends[i] == nil {
			s.ends[i] = s.start(s.small)
		}
	case 9, 10:
		if i := s.rng.IntN(len(s.ends)); s.ends[i] != nil {
			s.ends[i]()
			s.ends[i] = nil
		}
	}
}

// people release what waits, as an operator who is told that the cause is gone.
func (s *storm) people() {
	if s.rng.IntN(12) > 0 {
		return
	}
	_, err := s.store.Operator().Outbox().Release(s.t.Context(), outlast.Filter{Reason: string(outlast.HeldBackoff), Limit: 1000}, outlast.Action{Who: "test"})
	must(s.t, err)
}

func (s *storm) heal() {
	s.broker.Inject(memory.DropConfirm(0), memory.Nack(0), memory.MaxMessage(0))
	s.store.Inject(memory.Slow(memory.RoleRelay, 0), memory.Slow(memory.RoleLeases, 0))
	s.late.set(0, 0)
	for _, queue := range []string{"ab.0", "cd.0"} {
		must(s.t, s.broker.SickQueue(queue, false))
		must(s.t, s.broker.MaxLength(queue, 0))
	}
	must(s.t, s.broker.Bind("ab.0", outlast.EventExchange, "a.b.v1.*"))
	must(s.t, s.broker.Bind("cd.0", outlast.EventExchange, "c.d.v1.*"))
	s.broker.Unblock()
	s.broker.Revive()
	time.Sleep(40 * time.Minute)
}

// keyed leaves the messages out that have no key.
func keyed(bodies []string) []string {
	var list []string
	for _, b := range bodies {
		b = strings.TrimRight(b, `" `)
		if !strings.HasPrefix(b, "/") {
			list = append(list, b)
		}
	}
	return list
}
