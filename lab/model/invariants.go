package model

import "fmt"

// Check names an invariant that does not hold in s. The numbers are those of the
// catalogue of invariants in docs/model.md.
func (m *Model) Check(s *State) string {
	if s.Broken != Whole {
		return brokenText[s.Broken]
	}
	for i := range m.Messages {
		if m.exists(s, i) && !m.somewhere(s, i) {
			return fmt.Sprintf("I1: m%d is committed and nowhere any more", i)
		}
		if m.free && m.twoInFlight(s, i) {
			return fmt.Sprintf("rule 8: m%d and another one of its key are unconfirmed", i)
		}
		if m.Half != ConsumerHalf && s.Tx[i] != TxCommitted && m.left(s, i) {
			return fmt.Sprintf("I2: m%d was published and is not committed", i)
		}
	}
	return ""
}

// exists says whether somebody may count on a message.
func (m *Model) exists(s *State, i int) bool {
	if m.Half == ConsumerHalf {
		return s.Routed.has(i)
	}
	return s.Tx[i] == TxCommitted
}

// somewhere is the part of I1 that holds at any instant: a message is in a place that
// no crash takes from it, or its end is known.
func (m *Model) somewhere(s *State, i int) bool {
	switch s.Place[i] {
	case Outbox, HeldBackoff, HeldBehind:
		return true
	}
	if m.Half == RelayHalf {
		return s.Routed.has(i)
	}
	for _, e := range s.Queue {
		if e != 0 && e.message() == i {
			return true
		}
	}
	return s.Inbox[i] == Waiting || (s.Effect | s.Dead).has(i)
}

// twoInFlight: what settleFaults counts on.
func (m *Model) twoInFlight(s *State, i int) bool {
	for r := range s.Relay {
		x := &s.Relay[r]
		for other := range i {
			if m.key(i).has(other) && x.inFlight(i) && x.inFlight(other) {
				return true
			}
		}
	}
	return false
}

func (x *Relay) inFlight(i int) bool {
	return x.Wire[i] != WireNone && (x.Hand[i] == HandQueued || x.Hand[i] == HandSent)
}

// left says whether a message has left the producer's database.
func (m *Model) left(s *State, i int) bool {
	for r := range s.Relay {
		if s.Relay[r].Wire[i] != WireNone {
			return true
		}
	}
	return s.Routed.has(i) || s.Orphan.has(i)
}

// Done is the rest of I1: everything committed is settled, and handled or dead.
func (m *Model) Done(s *State) bool {
	for i := range m.Messages {
		switch {
		case s.Tx[i] == TxOpen:
			return false
		case !m.exists(s, i):
		case m.Half != ConsumerHalf && s.Place[i] != Gone:
			return false
		case m.Half != RelayHalf && !(s.Effect | s.Dead).has(i):
			return false
		}
	}
	return m.Half == RelayHalf || s.Queue == [queueRoom]Entry{}
}

// watch is I10: only these transitions happen. And a relay that has nothing of a settled
// message never has again: that is when no further copy of it is to come.
func (m *Model) watch(was, is *State) {
	for i := range m.Messages {
		if was.Place[i] == Gone && m.Half != ConsumerHalf && takenAgain(was, is, i) {
			is.Broken = BrokenSettled
		}
		if !placeMayBecome(was.Place[i], is.Place[i], is.Away.has(i)) || !inboxMayBecome(was.Inbox[i], is.Inbox[i], m.Rules.DropDead) {
			is.Broken = BrokenMachine
		}
	}
}

func takenAgain(was, is *State, i int) bool {
	for r := range is.Relay {
		if was.Relay[r].Hand[i] == HandNone && is.Relay[r].Hand[i] != HandNone {
			return true
		}
	}
	return false
}

func placeMayBecome(was, is Place, away bool) bool {
	switch was {
	case is:
		return true
	case Nowhere:
		return is == Outbox
	case Outbox:
		return true // held, gone, or rolled back
	case HeldBackoff, HeldBehind:
		return is == HeldBackoff || is == HeldBehind || is == Gone || is == Outbox && away
	}
	return false // gone is gone
}

func inboxMayBecome(was, is Inbox, dropped bool) bool {
	switch was {
	case is:
		return true
	case Unknown:
		return true
	case Waiting:
		return is == Handled || is == Buried || dropped
	case Handled:
		return is == Unknown // the purge
	}
	return false // dead is dead
}
