package model

// canonical makes one of the states that have the same future: what nothing asks for
// any more is forgotten, and of two mirror images one is kept. A model whose relays and
// instances are Named keeps everything.
func (m *Model) canonical(s *State) (swappedRelays, swappedInstances bool) {
	if m.Named {
		return false, false
	}
	if m.Half != ConsumerHalf {
		m.forgetRelays(s)
		swappedRelays = m.mirrorRelays(s)
	}
	if m.Half != RelayHalf {
		m.forgetConsumer(s)
		swappedInstances = m.mirrorInstances(s)
	}
	m.forgetOrder(s)
	return swappedRelays, swappedInstances
}

// forgetOrder: what went before a message matters until it has gone before. Sets of
// what is routed, took effect, or is dead only grow.
func (m *Model) forgetOrder(s *State) {
	past, is := s.Effect|s.Dead, s.Effect
	if m.Half == RelayHalf {
		past, is = s.Routed, s.Routed
	}
	for i := range m.Messages {
		s.Before[i] &^= past
		if is.has(i) || s.Tx[i] == TxRolledBack {
			s.Before[i] = 0
		}
	}
}

// forgetRelays is about relays under old epochs, and owners that are gone.
func (m *Model) forgetRelays(s *State) {
	for r := range s.Relay {
		x := &s.Relay[r]
		if !m.mayRead(s, r) && !m.Rules.ReadAfterLapse {
			x.Loaded, x.Held = false, 0
		}
		if x.Lease == LeaseStale && !m.Rules.NoFence && !m.Rules.ReadAfterLapse {
			m.forgetZombie(s, x)
		}
		if m.Half == RelayHalf {
			m.forgetAnswers(s, x)
		}
		if m.free {
			m.settleFaults(s, r)
		}
		m.tidyLine(&x.Line, func(i int) bool { return x.Hand[i] != HandNone && x.Hand[i] != HandConfirmed })
		if x.Lease == LeaseStale && *x == (Relay{Lease: LeaseStale}) {
			*x = Relay{} // it holds nothing: whether it has noticed is all the same
		}
	}
	if m.free {
		s.Unbound = false
	}
	if s.Owner != 0 && s.Lapsed && !s.ownerAlive() && !m.Rules.NoFence && !m.Rules.SharedEpoch {
		s.Owner, s.Lapsed = 0, false // free: nobody asks whose it was
	}
	if m.Half == RelayHalf {
		s.Orphan &^= s.Routed // a further copy changes nothing but the queue
	}
}

// forgetZombie: under an old epoch a relay writes nothing. It can publish
// what it has in hand; to settle anything else is to notice, which it may at any time.
func (m *Model) forgetZombie(s *State, x *Relay) {
	for i, h := range x.Hand {
		if h == HandQueued || h == HandSent {
			continue
		}
		x.Hand[i] = HandNone
		switch { // nobody waits for the answer
		case x.Wire[i] != WireSending:
			x.Wire[i] = WireNone
		case m.Half == RelayHalf: // in the chain it is a copy of its own
			s.Orphan, x.Wire[i] = s.Orphan.with(i), WireNone
		}
	}
}

// forgetAnswers: of a message that a queue has and whose row is gone, or will be by what
// is decided, a relay without it in hand waits for no answer.
func (m *Model) forgetAnswers(s *State, x *Relay) {
	for i, h := range x.Hand {
		if s.Routed.has(i) && (h == HandConfirmed || h == HandNone && s.Place[i] == Gone) {
			x.Wire[i] = WireNone
		}
	}
}

// settleFaults makes one state of those between which nothing but faults, and steps that
// nobody else sees, lead back and forth, when faults are without bound. Where the way
// leads only forth, the state that it leads to can do all that the one before can.
//
//   - A confirm is overdue at once: a message that is queued again can do what a sent one
//     can, but for one thing: when another message of its key fails, it is held behind
//     it. Rule 8 excludes that, and twoInFlight says if it did not.
//   - The first of its key in line is always on its way: it may be published at any time,
//     its publish refused, and published again. That a publish is refused and the row
//     given up, or routed once more and confirmed, are one step each then: canFail and
//     canHearConfirm. A return is a refusal after which no row is given up, so that the
//     queue need not be unbound.
//   - What a queue has, a relay under an old epoch need not have in hand: it can publish
//     it, hear the confirm and forget it, and nothing but the queue has changed.
//   - Held keys are loaded with the lease: until then the relay does nothing, and nobody
//     else holds or frees a row.
func (m *Model) settleFaults(s *State, r int) {
	x := &s.Relay[r]
	if m.mayRead(s, r) && !x.Loaded {
		load(m, s, r, 0)
	}
	for i, h := range x.Hand {
		if h != HandQueued && h != HandSent {
			continue
		}
		if x.Lease == LeaseStale && s.Routed.has(i) {
			x.Hand[i], x.Wire[i] = HandNone, WireNone
			lineRemove(&x.Line, i)
			continue
		}
		x.Hand[i] = HandQueued
	}
	for i, h := range x.Hand {
		if h == HandQueued && m.with(x, lineBefore(&x.Line, i)&m.key(i), HandQueued) == 0 {
			x.Wire[i] = WireSending
		}
	}
}

// tidyLine keeps the order within each key, which is all that is asked for, and only of
// what stands in line.
func (m *Model) tidyLine(l *[messages]uint8, stands func(i int) bool) {
	var tidy [messages]uint8
	n := 0
	for k := range 2 {
		for _, x := range l {
			if x != 0 && m.Keys[x-1] == k && stands(int(x)-1) {
				tidy[n] = x
				n++
			}
		}
	}
	*l = tidy
}

// forgetConsumer is about tasks, attempts and marks that have come to their end.
func (m *Model) forgetConsumer(s *State) {
	for c := range s.Instance {
		x := &s.Instance[c]
		for i, t := range x.Task {
			// Known, and its session is over: the acknowledgement that is left to do does
			// nothing but to clear the lane, and may come at any time.
			if t == TaskSaved && x.Void.has(i) && !m.Rules.AckAnySession {
				m.over(s, c, i)
			}
		}
		m.tidyLine(&x.Line, func(i int) bool { return x.Task[i] != TaskNone })
	}
	for i := range m.Messages {
		if s.Inbox[i] == Handled || s.Inbox[i] == Buried {
			s.Attempts[i] = 0
		}
		// What can be purged stays so, and nothing will ask the inbox for it.
		if !m.Rules.PurgeEarly && canPurge(m, s, i, 0) {
			purge(m, s, i, 0)
		}
	}
	if !m.Rules.NoWaitingInInbox {
		m.tidyRanks(s)
	}
}

// tidyRanks numbers the waiting messages of a key from 1.
func (m *Model) tidyRanks(s *State) {
	was := s.Rank
	for i := range m.Messages {
		if was[i] == 0 {
			continue
		}
		s.Rank[i] = 1
		for other := range m.Messages {
			if m.key(i).has(other) && was[other] != 0 && was[other] < was[i] {
				s.Rank[i]++
			}
		}
	}
}

// mirrorRelays swaps the relays when that gives the smaller state: they are alike, so
// that the mirror image of a state has the mirror image's future.
func (m *Model) mirrorRelays(s *State) bool {
	if m.OneRelay {
		return false
	}
	a, b := s.Relay[0].pack(), s.Relay[1].pack()
	if a < b || a == b && s.Owner != 2 {
		return false
	}
	s.Relay[0], s.Relay[1] = s.Relay[1], s.Relay[0]
	s.Owner = mirror(s.Owner)
	return true
}

// mirrorInstances does the same with the instances.
func (m *Model) mirrorInstances(s *State) bool {
	if m.OneInstance || packInstance(s, 1) >= packInstance(s, 0) {
		return false
	}
	m.swapInstances(s)
	return true
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
	n = uint64(in.Void) | uint64(in.Acked)<<3 | uint64(in.Retry)<<6 | uint64(flag(in.Leaving))<<9 | uint64(flag(in.Lost))<<10 | uint64(flag(s.Active.has(i)))<<11 | uint64(in.Again)<<12
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
