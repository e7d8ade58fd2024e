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
	// AnySeqs lets messages of different keys draw their seqs in any order, so that A A B
	// stands for A B A and A B B as well.
	AnySeqs bool
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
	// EveryState keeps states apart between which only faults lead.
	EveryState bool
	// OneRelay and OneInstance leave the second one out.
	OneRelay, OneInstance bool
}

// Model is the chain, or a half of it, as a [Machine].
type Model struct {
	Config
	actions []action
	same    [messages]Set // the messages of each one's key
	// free: faults of the relays' half cost nothing, so that states between which only
	// faults lead are one; see settleFaults.
	free bool
}

// action is something that can happen. Its guard says when, its effect what then.
type action struct {
	name  string
	story string // with %[1]s and %[2]s for the arguments
	args  domain
	fault bool
	// outside is set on what another part does, which need not happen either.
	outside bool
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
	m.free = c.Half == RelayHalf && c.MaxFaults == 0 && !c.Named && !c.EveryState && c.Rules == Rules{}
	for i := range c.Messages {
		m.same[i] = m.ofKey(c.Keys[i])
	}
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
				yield(Step{Action: uint8(i), A: uint8(a), B: uint8(b), Fault: act.fault || act.outside}, &next)
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

// key returns the messages of a message's key.
func (m *Model) key(of int) Set { return m.same[of] }

// ofKey returns the messages of a key.
func (m *Model) ofKey(k int) (of Set) {
	for i := range m.Messages {
		if m.Keys[i] == k {
			of = of.with(i)
		}
	}
	return of
}
