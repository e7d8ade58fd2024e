package model

// brokerActions are what the broker does with publishes: rules 10 and 14.
func brokerActions() []action {
	return []action{
		{name: "route", story: "the broker puts m%[2]d of relay %[1]d into the queue", args: ofRelayMessage, guard: canRoute, effect: route},
		{name: "return", story: "no queue is bound: the broker returns m%[2]d to relay %[1]d", args: ofRelayMessage, guard: canReturn, effect: giveBack},
		{name: "refuse", story: "the broker refuses m%[2]d of relay %[1]d", args: ofRelayMessage, fault: true, guard: canRefuse, effect: refuse},
		{name: "late publish", story: "a late publish of m%[1]d, whose sender is gone, reaches the queue", args: ofMessage, guard: canRouteOrphan, effect: routeOrphan},
		{name: "late publish lost", story: "a publish of m%[1]d, whose sender is gone, is lost", args: ofMessage, guard: isOrphan, effect: loseOrphan},
		{name: "unbind", story: "the queue's binding is removed", args: ofNobody, fault: true, guard: isBound, effect: unbind},
		{name: "bind", story: "the queue is bound again", args: ofNobody, guard: isUnbound, effect: bind},
	}
}

func canRoute(m *Model, s *State, r, i int) bool {
	return s.Relay[r].Wire[i] == WireSending && !s.Unbound && m.hasRoom(s, i)
}

// route confirms a message when a queue has it.
func route(m *Model, s *State, r, i int) {
	m.arrive(s, i)
	s.Relay[r].Wire[i] = WireAck
}

func canReturn(_ *Model, s *State, r, i int) bool {
	return s.Relay[r].Wire[i] == WireSending && s.Unbound
}

func giveBack(m *Model, s *State, r, i int) {
	s.Relay[r].Wire[i] = WireReturn
	if m.Rules.NotMandatory {
		s.Relay[r].Wire[i] = WireAck
	}
}

func canRefuse(_ *Model, s *State, r, i int) bool { return s.Relay[r].Wire[i] == WireSending }

func refuse(_ *Model, s *State, r, i int) { s.Relay[r].Wire[i] = WireNack }

func isOrphan(_ *Model, s *State, i, _ int) bool { return s.Orphan.has(i) }

func canRouteOrphan(m *Model, s *State, i, _ int) bool {
	return s.Orphan.has(i) && !s.Unbound && m.hasRoom(s, i)
}

func routeOrphan(m *Model, s *State, i, _ int) {
	s.Orphan = s.Orphan.without(i)
	m.arrive(s, i)
}

func loseOrphan(_ *Model, s *State, i, _ int) { s.Orphan = s.Orphan.without(i) }

func isBound(m *Model, s *State, _, _ int) bool   { return !s.Unbound && !m.free }
func isUnbound(_ *Model, s *State, _, _ int) bool { return s.Unbound }
func unbind(_ *Model, s *State, _, _ int)         { s.Unbound = true }
func bind(_ *Model, s *State, _, _ int)           { s.Unbound = false }

// hasRoom: the model's queue is short. A message that is there twice waits outside; a
// third copy of it can do nothing that a second cannot.
func (m *Model) hasRoom(s *State, i int) bool {
	if m.Half == RelayHalf {
		return true
	}
	copies := 0
	for _, e := range s.Queue {
		if e != 0 && e.message() == i {
			copies++
		}
	}
	return copies < 2 && s.Queue[queueRoom-1] == 0
}

// arrive appends a message to the queue. The relays' part of I5 is that the first
// copies arrive in order.
func (m *Model) arrive(s *State, i int) {
	if !s.Routed.has(i) && !s.Routed.includes(s.Before[i]) {
		s.Broken = BrokenArrival
	}
	s.Routed = s.Routed.with(i)
	if m.Half == RelayHalf {
		return
	}
	for n := range s.Queue {
		if s.Queue[n] == 0 {
			s.Queue[n] = entry(i, 0)
			return
		}
	}
}

// feedActions stand for the relays when the consumer is explored alone: first copies
// in the order of their keys, and any further copy until the producer has settled the
// message.
func feedActions() []action {
	return []action{
		{name: "arrive", story: "m%[1]d reaches the queue", args: ofMessage, outside: true, guard: canFeed, effect: feed},
		{name: "arrive again", story: "another copy of m%[1]d reaches the queue", args: ofMessage, fault: true, guard: canFeedAgain, effect: feed},
		{name: "settled", story: "the producer has settled m%[1]d", args: ofMessage, outside: true, guard: canSettleFeed, effect: settleFeed},
	}
}

func canFeed(m *Model, s *State, i, _ int) bool {
	earlier := m.key(i) & (1<<i - 1)
	return !s.Routed.has(i) && s.Routed.includes(earlier) && m.hasRoom(s, i)
}

func feed(m *Model, s *State, i, _ int) {
	s.Before[i] = m.key(i) & (1<<i - 1)
	m.arrive(s, i)
}

func canFeedAgain(m *Model, s *State, i, _ int) bool {
	return s.Routed.has(i) && !s.Settled.has(i) && m.hasRoom(s, i)
}

func canSettleFeed(_ *Model, s *State, i, _ int) bool { return s.Routed.has(i) && !s.Settled.has(i) }

func settleFeed(_ *Model, s *State, i, _ int) { s.Settled = s.Settled.with(i) }
