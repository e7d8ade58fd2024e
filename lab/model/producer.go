package model

// producerActions are what business transactions do with the outbox. Message i draws
// the i-th seq; transactions commit in any order.
func producerActions() []action {
	return []action{
		{name: "insert", story: "a transaction inserts m%[1]d and draws seq %[1]d", args: ofMessage, guard: canInsert, effect: insert},
		{name: "commit", story: "the transaction of m%[1]d commits", args: ofMessage, guard: isOpen, effect: commit},
		{name: "roll back", story: "the transaction of m%[1]d rolls back", args: ofMessage, fault: true, guard: isOpen, effect: rollBack},
	}
}

func canInsert(m *Model, s *State, i, _ int) bool {
	for earlier := range i {
		if s.Tx[earlier] == TxNone && (!m.AnySeqs || m.key(i).has(earlier)) {
			return false
		}
	}
	return s.Tx[i] == TxNone
}

// insert writes the row. Rule 3: what had committed before goes first.
func insert(m *Model, s *State, i, _ int) {
	s.Tx[i] = TxOpen
	s.Place[i] = Outbox
	for other := range m.Messages {
		if m.key(i).has(other) && s.Tx[other] == TxCommitted {
			s.Before[i] = s.Before[i].with(other)
		}
	}
}

func isOpen(_ *Model, s *State, i, _ int) bool { return s.Tx[i] == TxOpen }

func commit(_ *Model, s *State, i, _ int) { s.Tx[i] = TxCommitted }

func rollBack(_ *Model, s *State, i, _ int) {
	s.Tx[i] = TxRolledBack
	s.Place[i] = Nowhere
}
