package model

// leaseActions are rule 5: one slot, whose lease has an owner, an epoch and an end.
// The number of the epoch is not kept, only whether a relay's is the newest.
func leaseActions() []action {
	return []action{
		{name: "take lease", story: "relay %[1]d takes the lease, under a new epoch", args: ofRelay, guard: canTakeLease, effect: takeLease},
		{name: "lapse", story: "the lease's time is over", args: ofNobody, fault: true, guard: canLapse, effect: lapse},
		{name: "lapse of the dead", story: "the lease of a relay that is gone ends", args: ofNobody, guard: canLapseOfDead, effect: lapse},
		{name: "notice", story: "relay %[1]d notices that its lease is over, and forgets what it had in hand", args: ofRelay, guard: canNotice, effect: stop},
		{name: "release", story: "relay %[1]d gives the lease back", args: ofRelay, fault: true, guard: canRelease, effect: release},
		{name: "begin anew", story: "relay %[1]d, in doubt of its lease, forgets everything and goes on under the same epoch", args: ofRelay, fault: true, guard: canBeginAnew, effect: beginAnew},
		{name: "late settlement", story: "what relay %[1]d was writing of m%[2]d before happens now", args: ofRelayMessage, guard: isLate, effect: settleLate},
		{name: "crash", story: "relay %[1]d dies and starts again", args: ofRelay, fault: true, guard: isBusy, effect: stop},
	}
}

func canTakeLease(m *Model, s *State, r, _ int) bool {
	if m.Rules.TakeLivingLease && s.Relay[r].Lease == LeaseNone {
		return true
	}
	return s.Owner == 0 || s.Lapsed
}

// takeLease raises the epoch, so that a former owner's is stale, whether it knows or
// not. The new owner begins without memory.
func takeLease(m *Model, s *State, r, _ int) {
	for i := range s.Relay {
		if s.Relay[i].Lease != LeaseCurrent || i == r {
			continue
		}
		if !s.Lapsed {
			s.Broken = BrokenLease
		}
		if !m.Rules.SharedEpoch {
			s.Relay[i].Lease = LeaseStale
		}
	}
	stop(m, s, r, 0)
	s.Relay[r].Lease = LeaseCurrent
	s.Owner, s.Lapsed = uint8(r+1), false
	s.Late = [messages]Hand{} // what was being written is fenced off by the new epoch
}

// canBeginAnew: by rule 5 a relay that gave its slots up takes them under a new epoch:
// it gives them back first. That is the action crash or release.
func canBeginAnew(m *Model, s *State, r, _ int) bool {
	return m.Rules.ReuseEpoch && s.Relay[r].Lease == LeaseCurrent && !s.Lapsed
}

func beginAnew(m *Model, s *State, r, _ int) {
	for i, h := range s.Relay[r].Hand {
		if h == HandConfirmed || h == HandFailed || h == HandBehind {
			s.Late[i] = h
		}
	}
	stop(m, s, r, 0)
	s.Relay[r].Lease = LeaseCurrent
}

func isLate(_ *Model, s *State, r, i int) bool {
	return s.Late[i] != HandNone && s.Relay[r].Lease == LeaseCurrent
}

func settleLate(m *Model, s *State, r, i int) {
	write(m, s, r, i, s.Late[i])
	s.Late[i] = HandNone
}

func (s *State) ownerAlive() bool {
	return s.Owner != 0 && s.Relay[s.Owner-1].Lease == LeaseCurrent
}

// canLapse: the owner is frozen or cannot renew, and may go on all the same.
func canLapse(_ *Model, s *State, _, _ int) bool { return !s.Lapsed && s.ownerAlive() }

func canLapseOfDead(_ *Model, s *State, _, _ int) bool {
	return s.Owner != 0 && !s.Lapsed && !s.ownerAlive()
}

func lapse(_ *Model, s *State, _, _ int) { s.Lapsed = true }

func canNotice(_ *Model, s *State, r, _ int) bool {
	x := &s.Relay[r]
	return x.Lease == LeaseStale || x.Lease == LeaseCurrent && s.Lapsed
}

func isBusy(_ *Model, s *State, r, _ int) bool { return s.Relay[r] != Relay{} }

// stop loses all that a relay has in memory. What it wrote to the broker may arrive yet.
func stop(m *Model, s *State, r, _ int) {
	for i, w := range s.Relay[r].Wire {
		if w == WireSending {
			s.Orphan = s.Orphan.with(i)
		}
	}
	s.Relay[r] = Relay{}
}

// canRelease: what was sent is awaited and settled first.
func canRelease(_ *Model, s *State, r, _ int) bool {
	x := &s.Relay[r]
	if x.Lease != LeaseCurrent || s.Lapsed {
		return false
	}
	for _, h := range x.Hand {
		if h != HandNone && h != HandQueued {
			return false
		}
	}
	return true
}

func release(m *Model, s *State, r, _ int) {
	stop(m, s, r, 0)
	s.Owner = 0
}
