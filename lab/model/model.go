// Package model is an executable model of Outlast's protocol (docs/protocol.md), and an
// explorer that visits all of its states. See docs/model.md.
package model

// Half is the part of the chain that a model holds.
type Half uint8

// The halves of the chain meet at the queue. Alone, the relays' half notes what
// reaches the queue, and the consumer's half is fed with any sequence that the relays'
// half has proved to be possible.
const (
	Chain Half = iota
	RelayHalf
	ConsumerHalf
)

// Config says what is explored.
type Config struct {
	Half  Half
	Rules Rules
	// Keys are the ordering keys of the messages, which draw their seqs in this order.
	Keys [messages]int
	// Messages is how many of them there are; 0 is all.
	Messages int
	// MaxFaults bounds the faults of a run; 0 is without bound.
	MaxFaults int
	// Attempts is how often a failing message is tried before it is dead; 0 is 2.
	Attempts int
	// Prefetch is how many deliveries an instance has in hand; 0 is 2.
	Prefetch int
	// Named keeps the two relays, and the two instances, apart. Otherwise states that are
	// mirror images of each other are one.
	Named bool
	// OneRelay and OneInstance leave the second one out.
	OneRelay, OneInstance bool
}

// Model is the chain, or a half of it, as a [Machine].
type Model struct {
	Config
	actions []action
}

// action is something that can happen. Its guard says when, its effect what then.
type action struct {
	name  string
	story string // with %[1]s and %[2]s for the arguments
	args  domain
	fault bool
	// guard may be nil for always.
	guard  func(m *Model, s *State, a, b int) bool
	effect func(m *Model, s *State, a, b int)
}

// domain says what the arguments of an action are.
type domain uint8

const (
	ofMessage domain = iota // a is a message
	ofRelay                 // a is a relay
	ofRelayMessage
	ofRelayKey
	ofInstance
	ofInstanceMessage
	ofNobody
)

// New returns the model of a configuration.
func New(c Config) *Model {
	if c.Messages == 0 {
		c.Messages = messages
	}
	if c.Attempts == 0 {
		c.Attempts = 2
	}
	if c.Prefetch == 0 {
		c.Prefetch = 2
	}
	m := &Model{Config: c}
	if c.Half != ConsumerHalf {
		m.actions = append(m.actions, producerActions()...)
		m.actions = append(m.actions, leaseActions()...)
		m.actions = append(m.actions, relayActions()...)
		m.actions = append(m.actions, brokerActions()...)
	} else {
		m.actions = append(m.actions, feedActions()...)
	}
	if c.Half != RelayHalf {
		m.actions = append(m.actions, sessionActions()...)
		m.actions = append(m.actions, consumerActions()...)
		m.actions = append(m.actions, retryActions()...)
	}
	return m
}

// Init is a system at rest: nothing is inserted, nobody holds the lease.
func (m *Model) Init() State { return State{} }

// Next yields every step that is possible in s.
func (m *Model) Next(s *State, yield func(Step, *State)) {
	for i := range m.actions {
		act := &m.actions[i]
		if act.fault && m.MaxFaults > 0 && int(s.Faults) >= m.MaxFaults {
			continue
		}
		na, nb := m.domain(act.args)
		for a := range na {
			for b := range nb {
				if act.guard != nil && !act.guard(m, s, a, b) {
					continue
				}
				next := *s
				m.apply(act, &next, a, b)
				m.canonical(&next)
				yield(Step{Action: uint8(i), A: uint8(a), B: uint8(b), Fault: act.fault}, &next)
			}
		}
	}
}

// apply takes one step.
func (m *Model) apply(act *action, s *State, a, b int) {
	was := *s
	act.effect(m, s, a, b)
	if act.fault && m.MaxFaults > 0 {
		s.Faults++
	}
	m.watch(&was, s)
}

func (m *Model) domain(d domain) (na, nb int) {
	rs, is := relays, instances
	if m.OneRelay {
		rs = 1
	}
	if m.OneInstance {
		is = 1
	}
	switch d {
	case ofMessage:
		return m.Messages, 1
	case ofRelay:
		return rs, 1
	case ofRelayMessage:
		return rs, m.Messages
	case ofRelayKey:
		return rs, 2
	case ofInstance:
		return is, 1
	case ofInstanceMessage:
		return is, m.Messages
	}
	return 1, 1
}

// key returns the messages of m's key.
func (m *Model) key(of int) (same Set) {
	for i := range m.Messages {
		if m.Keys[i] == m.Keys[of] {
			same = same.with(i)
		}
	}
	return same
}

// ofKey returns the messages of a key.
func (m *Model) ofKey(k int) (of Set) {
	for i := range m.Messages {
		if m.Keys[i] == k {
			of = of.with(i)
		}
	}
	return of
}

// canonical swaps the relays, and the instances, when that gives the smaller state:
// they are alike, so that the mirror image of a state has the mirror image's future.
func (m *Model) canonical(s *State) (swappedRelays, swappedInstances bool) {
	if m.Half != ConsumerHalf && !m.OneRelay && !m.Named && s.Relay[1].pack() < s.Relay[0].pack() {
		s.Relay[0], s.Relay[1] = s.Relay[1], s.Relay[0]
		s.Owner = mirror(s.Owner)
		swappedRelays = true
	}
	if m.Half != RelayHalf && !m.OneInstance && !m.Named && packInstance(s, 1) < packInstance(s, 0) {
		m.swapInstances(s)
		swappedInstances = true
	}
	return swappedRelays, swappedInstances
}

func mirror(n uint8) uint8 {
	if n == 0 {
		return 0
	}
	return 3 - n
}

func (m *Model) swapInstances(s *State) {
	s.Instance[0], s.Instance[1] = s.Instance[1], s.Instance[0]
	s.Active = s.Active>>1&1 | s.Active&1<<1
	for i, e := range s.Queue {
		if e != 0 && e.holder() != 0 {
			s.Queue[i] = entry(e.message(), 3-e.holder())
		}
	}
	for i, l := range s.Lock {
		s.Lock[i] = mirror(l)
	}
}

// pack writes a relay as one number.
func (r *Relay) pack() (n uint64) {
	n = uint64(r.Lease) | uint64(flag(r.Loaded))<<2 | uint64(r.Held)<<3 | uint64(r.Cursor)<<5
	for i := range messages {
		n = n<<8 | uint64(r.Hand[i])<<5 | uint64(r.Wire[i])<<2 | uint64(r.Line[i])
	}
	return n
}

// packInstance writes an instance, and what belongs to it elsewhere, as one number.
func packInstance(s *State, i int) (n uint64) {
	in := &s.Instance[i]
	n = uint64(in.Void) | uint64(in.Acked)<<3 | uint64(in.Retry)<<6 | uint64(flag(in.Leaving))<<8 | uint64(flag(s.Active.has(i)))<<9
	for m := range messages {
		n = n<<7 | uint64(in.Task[m])<<4 | uint64(in.Line[m])<<1 | uint64(flag(int(s.Lock[m]) == i+1))
	}
	for _, e := range s.Queue {
		n = n<<1 | uint64(flag(e != 0 && e.holder() == i+1))
	}
	return n
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
