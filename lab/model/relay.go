package model

// relayActions are rules 6 to 12: what the relay that holds the slot, or believes so,
// does with its rows.
func relayActions() []action {
	return []action{
		{name: "load held keys", story: "relay %[1]d learns which keys are held", args: ofRelay, guard: canLoad, effect: load},
		{name: "pick", story: "relay %[1]d picks m%[2]d", args: ofRelayMessage, guard: canPick, effect: pick},
		{name: "publish", story: "relay %[1]d publishes m%[2]d", args: ofRelayMessage, guard: canPublish, effect: publish},
		{name: "confirmed", story: "relay %[1]d hears the confirm of m%[2]d", args: ofRelayMessage, guard: canHearConfirm, effect: hearConfirm},
		{name: "returned", story: "relay %[1]d hears that m%[2]d was returned", args: ofRelayMessage, guard: canHearReturn, effect: hearReturn},
		{name: "nacked", story: "relay %[1]d hears that m%[2]d was refused, and will try it again", args: ofRelayMessage, guard: canHearNack, effect: hearNack},
		{name: "fail", story: "relay %[1]d gives m%[2]d up for now: it is to be held, and its key with it", args: ofRelayMessage, guard: canFail, effect: fail},
		{name: "overdue", story: "no confirm of m%[2]d comes in time; relay %[1]d will send it again", args: ofRelayMessage, fault: true, guard: isSent, effect: overdue},
		{name: "connection lost", story: "relay %[1]d loses its connection to the broker", args: ofRelay, fault: true, guard: isSending, effect: loseConnection},
		{name: "hold for route", story: "relay %[1]d puts m%[2]d, and what follows it in its key, away until their route takes messages", args: ofRelayMessage, fault: true, guard: canPutAway, effect: putAway},
		{name: "wait for route instead", story: "relay %[1]d lets m%[2]d, which was held behind its key, wait for its route", args: ofRelayMessage, fault: true, guard: canAwaitRoute, effect: awaitRoute},
		{name: "settle", story: "relay %[1]d settles m%[2]d", args: ofRelayMessage, guard: canSettle, effect: settle},
		{name: "settle, unknown", story: "relay %[1]d settles m%[2]d and is not told whether it happened", args: ofRelayMessage, fault: true, guard: canSettleCurrent, effect: settleUnknown},
		{name: "take held", story: "relay %[1]d takes m%[2]d from the held", args: ofRelayMessage, guard: canTakeHeld, effect: takeHeld},
		{name: "free key", story: "relay %[1]d finds nothing of key number %[2]d among the held", args: ofRelayKey, guard: canFreeKey, effect: freeKey},
	}
}

// mayRead is rule 5: a relay that cannot be sure of its lease reads nothing more. What
// it has in hand it may still send, as one that was frozen does.
func (m *Model) mayRead(s *State, r int) bool {
	l := s.Relay[r].Lease
	return l == LeaseCurrent && !s.Lapsed || m.Rules.ReadAfterLapse && l != LeaseNone
}

func canLoad(m *Model, s *State, r, _ int) bool { return m.mayRead(s, r) && !s.Relay[r].Loaded }

// load is rule 9: held keys are loaded at takeover, before anything is picked.
func load(m *Model, s *State, r, _ int) {
	x := &s.Relay[r]
	x.Loaded = true
	for i := range m.Messages {
		if s.Place[i].held() && !m.Rules.NoHeldAtTakeover {
			x.Held = x.Held.with(m.Keys[i])
		}
	}
}

// visible says whether a relay finds the row in the outbox.
func (m *Model) visible(s *State, i int) bool {
	if s.Place[i] == Gone && m.Rules.PickSettled {
		return true
	}
	return s.Place[i] == Outbox && (s.Tx[i] == TxCommitted || m.Rules.ReadUncommitted && s.Tx[i] == TxOpen)
}

// canPick is rule 6: a relay is given the rows that are there and not in its hands, of
// each key the lowest seq first, whatever it picked before.
func canPick(m *Model, s *State, r, i int) bool {
	x := &s.Relay[r]
	if !m.mayRead(s, r) || !x.Loaded || x.Hand[i] != HandNone || !m.visible(s, i) {
		return false
	}
	cursor := m.cursor(s, r)
	if i < cursor {
		return false
	}
	for other := cursor; other < m.Messages; other++ {
		if m.key(i).has(other) && m.visible(s, other) && x.Hand[other] == HandNone && s.goesFirst(other, i) && !m.Rules.PickAnyRow {
			return false
		}
	}
	return true
}

// goesFirst orders rows of a key that nobody has in hand: those that were put away for
// their route go before others, and among their like the lower seq.
func (s *State) goesFirst(a, b int) bool {
	if s.Away.has(a) != s.Away.has(b) {
		return s.Away.has(a)
	}
	return a < b
}

// cursor is where a broken relay goes on: 0 by the rules.
func (m *Model) cursor(s *State, r int) int {
	switch {
	case m.Rules.MaxCursor:
		return int(s.Relay[r].Cursor)
	case m.Rules.KeepCursor:
		return int(s.Cursor)
	}
	return 0
}

// pick takes a row in hand, or sends it after the held rows of its key.
func pick(m *Model, s *State, r, i int) {
	x := &s.Relay[r]
	x.Hand[i] = HandQueued
	if x.Held.has(m.Keys[i]) && !m.Rules.LaterRowsGoOn {
		x.Hand[i] = HandBehind
	}
	lineAdd(&x.Line, i)
	if m.Rules.MaxCursor {
		x.Cursor = max(x.Cursor, uint8(i+1))
	}
	if m.Rules.KeepCursor {
		s.Cursor = max(s.Cursor, uint8(i+1))
	}
}

// with lists the messages of a key that a relay has in one of some states.
func (m *Model) with(x *Relay, key Set, states ...Hand) (of Set) {
	for i := range m.Messages {
		for _, h := range states {
			if key.has(i) && x.Hand[i] == h {
				of = of.with(i)
			}
		}
	}
	return of
}

// canPublish is rule 8: at most one unconfirmed message of a key, the first in line.
func canPublish(m *Model, s *State, r, i int) bool {
	x := &s.Relay[r]
	if x.Lease == LeaseNone || x.Hand[i] != HandQueued {
		return false
	}
	if m.Rules.ManyPerKey {
		return true
	}
	open := m.with(x, m.key(i).without(i), HandQueued, HandSent)
	return open&lineBefore(&x.Line, i) == 0 && m.with(x, m.key(i), HandSent) == 0
}

// publish puts the message on the wire. An earlier publish of it that the broker has
// not taken goes its own way.
func publish(m *Model, s *State, r, i int) {
	x := &s.Relay[r]
	if x.Wire[i] == WireSending {
		s.Orphan = s.Orphan.with(i)
	}
	x.Hand[i], x.Wire[i] = HandSent, WireSending
	if m.Rules.MarkWhenSent {
		x.Hand[i] = HandConfirmed
	}
}

func canHearConfirm(m *Model, s *State, r, i int) bool {
	w := s.Relay[r].Wire[i]
	return w == WireAck || m.free && w == WireSending && s.Routed.has(i) || w == WireReturn && m.Rules.AckBeforeReturn || w == WireNack && m.Rules.NackIsConfirm
}

// hearConfirm is rule 10: a message's own confirm, with no return before it, settles
// it; also one of an earlier publish of it.
func hearConfirm(_ *Model, s *State, r, i int) {
	x := &s.Relay[r]
	x.Wire[i] = WireNone
	if h := x.Hand[i]; h == HandSent || h == HandQueued {
		x.Hand[i] = HandConfirmed
	}
}

func canHearReturn(_ *Model, s *State, r, i int) bool { return s.Relay[r].Wire[i] == WireReturn }

// hearReturn: the message waits for a queue to be bound, in hand or put away.
func hearReturn(_ *Model, s *State, r, i int) { again(&s.Relay[r], i) }

func again(x *Relay, i int) {
	x.Wire[i] = WireNone
	if x.Hand[i] == HandSent {
		x.Hand[i] = HandQueued
	}
}

func canHearNack(_ *Model, s *State, r, i int) bool { return s.Relay[r].Wire[i] == WireNack }

func hearNack(_ *Model, s *State, r, i int) { again(&s.Relay[r], i) }

func canFail(m *Model, s *State, r, i int) bool {
	h := s.Relay[r].Hand[i]
	w := s.Relay[r].Wire[i]
	return (w == WireNack || m.free && w == WireSending) && (h == HandSent || h == HandQueued)
}

// fail is rule 9: a message that failed by itself is held, and what is in hand of its
// key is held behind it.
func fail(m *Model, s *State, r, i int) {
	x := &s.Relay[r]
	x.Wire[i] = WireNone
	x.Hand[i] = HandFailed
	x.Held = x.Held.with(m.Keys[i])
	if m.Rules.LaterRowsGoOn {
		return
	}
	for later := range m.Messages {
		if m.key(i).has(later) && x.Hand[later] == HandQueued {
			x.Hand[later] = HandBehind
		}
	}
}

func isSent(_ *Model, s *State, r, i int) bool { return s.Relay[r].Hand[i] == HandSent }

// overdue: the outcome is unknown, and the confirm may come yet.
func overdue(m *Model, s *State, r, i int) {
	s.Relay[r].Hand[i] = HandQueued
	if m.Rules.UnknownIsOK {
		s.Relay[r].Hand[i] = HandConfirmed
	}
}

func isSending(_ *Model, s *State, r, _ int) bool { return s.Relay[r].Wire != [messages]Wire{} }

// loseConnection: every message without an answer is unknown, and is sent again. What
// was written may arrive yet.
func loseConnection(m *Model, s *State, r, _ int) {
	x := &s.Relay[r]
	for i := range x.Wire {
		if x.Wire[i] == WireSending {
			s.Orphan = s.Orphan.with(i)
		}
		if m.Rules.UnknownIsOK && x.Hand[i] == HandSent {
			x.Hand[i] = HandConfirmed
		}
		again(x, i)
	}
}

// canPutAway is rule 9 for a route that takes nothing: what is in hand of a key waits
// among the held, all of it, and comes back in the order of its seqs before any later
// row. A row that was held already goes back to where it was.
func canPutAway(m *Model, s *State, r, i int) bool {
	x := &s.Relay[r]
	if m.Rules.MaxCursor || x.Hand[i] != HandQueued {
		return false
	}
	if m.Rules.PutAwayOne {
		return true
	}
	return m.with(x, m.key(i), HandSent) == 0 && lineBefore(&x.Line, i)&m.with(x, m.key(i), HandQueued) == 0
}

// putAway: what was written of a row may arrive yet, and nobody asks for its confirm.
func putAway(m *Model, s *State, r, i int) {
	x := &s.Relay[r]
	for away := range m.Messages {
		if x.Hand[away] != HandQueued || !m.key(i).has(away) || m.Rules.PutAwayOne && away != i {
			continue
		}
		if x.Wire[away] == WireSending {
			s.Orphan = s.Orphan.with(away)
		}
		x.Wire[away], x.Hand[away] = WireNone, HandNone
		lineRemove(&x.Line, away)
		if s.Place[away] == Outbox && x.Lease == LeaseCurrent {
			s.Away = s.Away.with(away)
		}
	}
}

// canAwaitRoute: the only held row of a key may wait for its route instead, where it
// holds nobody back but rows of that route.
func canAwaitRoute(m *Model, s *State, r, i int) bool {
	if s.Relay[r].Lease != LeaseCurrent || !s.Place[i].held() || !canPutAway(m, s, r, i) {
		return false
	}
	for other := range m.Messages {
		if other != i && m.key(i).has(other) && (s.Place[other].held() || s.Relay[r].Hand[other] == HandBehind) {
			return false
		}
	}
	return true
}

func awaitRoute(m *Model, s *State, r, i int) {
	s.Place[i] = Outbox
	putAway(m, s, r, i)
}

// canSettle: what is decided is written; a row is never held before an earlier one of
// its key that is to be held as well.
func canSettle(m *Model, s *State, r, i int) bool {
	x := &s.Relay[r]
	switch x.Hand[i] {
	case HandConfirmed, HandFailed:
		return true
	case HandBehind:
		for earlier := range m.Messages {
			moves := x.Hand[earlier] == HandFailed || x.Hand[earlier] == HandBehind
			if moves && m.key(i).has(earlier) && lineBefore(&x.Line, i).has(earlier) && !s.Place[earlier].held() && !m.Rules.HoldInAnyOrder {
				return false
			}
		}
		return true
	}
	return false
}

func canSettleCurrent(m *Model, s *State, r, i int) bool {
	return s.Relay[r].Lease == LeaseCurrent && canSettle(m, s, r, i)
}

// settle is rule 12, fenced by rule 5: under a stale epoch nothing is done, and the
// relay learns that the slot is another one's.
func settle(m *Model, s *State, r, i int) {
	x := &s.Relay[r]
	if x.Lease == LeaseStale && !m.Rules.NoFence {
		stop(m, s, r, 0)
		return
	}
	write(m, s, r, i, x.Hand[i])
	x.Hand[i] = HandNone
	lineRemove(&x.Line, i)
}

// settleUnknown happens, and is repeated: that is harmless.
func settleUnknown(m *Model, s *State, r, i int) { write(m, s, r, i, s.Relay[r].Hand[i]) }

// write is what the database does. Deletes and moves name the row, so that one that is
// gone stays gone.
func write(m *Model, s *State, r, i int, hand Hand) {
	if s.Place[i] == Gone || s.Place[i] == Nowhere {
		return
	}
	was := s.Place[i]
	switch hand {
	case HandConfirmed:
		s.Place[i] = Gone
		if !s.Routed.has(i) {
			s.Broken = BrokenMark
		}
	case HandFailed:
		s.Place[i] = HeldBackoff
		if m.Rules.ForgetHeldFailed {
			s.Place[i] = Gone
		}
	case HandBehind:
		s.Place[i] = HeldBehind
	}
	if s.Place[i] != was {
		s.Away = s.Away.without(i)
		if s.stale(r) {
			s.Broken = BrokenLease
		}
	}
}

// stale says whether the lease has passed to another relay.
func (s *State) stale(r int) bool { return s.Owner != 0 && int(s.Owner) != r+1 }

// canTakeHeld is rule 9: held rows of a key drain in the order of their seqs, when none
// of the key is in hand or on its way there. Time makes a backoff end.
func canTakeHeld(m *Model, s *State, r, i int) bool {
	x := &s.Relay[r]
	if !m.mayRead(s, r) || !x.Loaded || !x.Held.has(m.Keys[i]) || x.Hand[i] != HandNone || !s.Place[i].held() {
		return false
	}
	if m.with(x, m.key(i), HandQueued, HandSent, HandFailed, HandBehind) != 0 {
		return false
	}
	for lower := range i {
		if m.key(i).has(lower) && s.Place[lower].held() && x.Hand[lower] == HandNone && !m.Rules.HeldInAnyOrder {
			return false
		}
	}
	return true
}

func takeHeld(m *Model, s *State, r, i int) {
	x := &s.Relay[r]
	x.Hand[i] = HandQueued
	lineInsert(&x.Line, i, func(q int) bool { return !m.key(i).has(q) || q > i })
}

// canFreeKey: nothing of the key is held, and nothing is on its way there.
func canFreeKey(m *Model, s *State, r, k int) bool {
	x := &s.Relay[r]
	if !m.mayRead(s, r) || !x.Held.has(k) {
		return false
	}
	for i := range m.Messages {
		if m.Keys[i] == k && s.Place[i].held() {
			return false
		}
	}
	return m.Rules.FreeKeyEarly || m.with(x, m.ofKey(k), HandFailed, HandBehind) == 0
}

func freeKey(_ *Model, s *State, r, k int) { s.Relay[r].Held = s.Relay[r].Held.without(k) }
