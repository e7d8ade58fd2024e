package model

import "slices"

// sessionActions are how the queue is served: rule 19. It delivers to one instance at a
// time, in order, and takes back in order what a lost session had in hand.
func sessionActions() []action {
	return []action{
		{name: "subscribe", story: "instance %[1]d serves the queue", args: ofInstance, guard: canSubscribe, effect: subscribe},
		{name: "deliver", story: "instance %[1]d is given the next message", args: ofInstance, guard: canDeliver, effect: deliver},
		{name: "session lost", story: "the session of instance %[1]d ends; its deliveries go back", args: ofInstance, fault: true, guard: isActive, effect: loseSession},
		{name: "notice loss", story: "instance %[1]d notices that its session is over", args: ofInstance, guard: hasLost, effect: noticeLoss},
		{name: "drop", story: "instance %[1]d forgets m%[2]d, which it has not begun", args: ofInstanceMessage, guard: canDrop, effect: drop},
		{name: "leave", story: "instance %[1]d is to hand the queue over, and starts nothing more", args: ofInstance, fault: true, guard: canLeave, effect: leave},
		{name: "close", story: "instance %[1]d closes its channel", args: ofInstance, guard: canClose, effect: closeChannel},
		{name: "die", story: "instance %[1]d dies and starts again", args: ofInstance, fault: true, guard: isAwake, effect: die},
	}
}

func canSubscribe(m *Model, s *State, c, _ int) bool {
	return !s.Active.has(c) && !s.Instance[c].Lost && (s.Active == 0 || m.Rules.ManyActive)
}

func subscribe(_ *Model, s *State, c, _ int) { s.Active = s.Active.with(c) }

// nextReady is the first entry that is delivered to nobody.
func (s *State) nextReady() int {
	for n, e := range s.Queue {
		if e != 0 && e.holder() == 0 {
			return n
		}
	}
	return -1
}

func (s *State) held(c int) (count int) {
	for _, e := range s.Queue {
		if e != 0 && e.holder() == c+1 {
			count++
		}
	}
	return count
}

func canDeliver(m *Model, s *State, c, _ int) bool {
	return s.nextReady() >= 0 && s.Active.has(c) && !s.Instance[c].Leaving && s.held(c) < m.Prefetch
}

// deliver: a copy of what is in hand already comes after it.
func deliver(_ *Model, s *State, c, _ int) {
	n := s.nextReady()
	i := s.Queue[n].message()
	s.Queue[n] = entry(i, c+1)
	if x := &s.Instance[c]; x.Task[i] == TaskNone {
		x.Task[i] = TaskReady
		lineAdd(&x.Line, i)
	}
}

// place is where in the queue the first copy of a message is that an instance has in
// hand; -1 is nowhere.
func (s *State) place(c, i int) int {
	return slices.Index(s.Queue[:], entry(i, c+1))
}

// copies counts what an instance has in hand of a message.
func (s *State) copies(c, i int) (n byte) {
	for _, e := range s.Queue {
		n += flag(e == entry(i, c+1))
	}
	return n
}

// over ends a task. Another copy of its message that the instance has in hand is next.
func (m *Model) over(s *State, c, i int) {
	x := &s.Instance[c]
	x.Task[i] = TaskNone
	x.Void, x.Acked = x.Void.without(i), x.Acked.without(i)
	n := s.place(c, i)
	switch {
	case x.Leaving:
	case x.Again.has(i): // the queue knows of it no more; the line has kept its place
		x.Task[i], x.Again = TaskReady, x.Again.without(i)
		return
	case n >= 0:
		x.Task[i] = TaskReady
		lineRemove(&x.Line, i)
		lineInsert(&x.Line, i, func(other int) bool { return !m.key(i).has(other) || s.place(c, other) > n })
		return
	}
	lineRemove(&x.Line, i)
}

func isActive(_ *Model, s *State, c, _ int) bool { return s.Active.has(c) }

// requeue gives back what was delivered to an instance: the entries keep their places.
func requeue(s *State, c int) {
	s.Active = s.Active.without(c)
	s.Instance[c].Leaving = false
	for n, e := range s.Queue {
		if e != 0 && e.holder() == c+1 {
			s.Queue[n] = entry(e.message(), 0)
		}
	}
}

// loseSession: the instance goes on as if nothing had happened until it notices, but its
// acknowledgements count for nothing.
func loseSession(_ *Model, s *State, c, _ int) {
	x := &s.Instance[c]
	x.Lost = x.Task != [messages]Task{}
	for i, t := range x.Task {
		if t != TaskNone && s.copies(c, i) > flag(!x.Void.has(i)) {
			x.Again = x.Again.with(i)
		}
	}
	requeue(s, c)
}

func hasLost(_ *Model, s *State, c, _ int) bool { return s.Instance[c].Lost }

// noticeLoss: what runs goes on, but cannot be acknowledged any more. What a worker is
// about to begin may be begun yet; the rest will be delivered again.
func noticeLoss(m *Model, s *State, c, _ int) {
	x := &s.Instance[c]
	x.Lost, x.Again = false, 0
	var next Set
	for i := range x.Task {
		if m.first(s, c, i) {
			next = next.with(i)
		}
	}
	for i, t := range x.Task {
		switch {
		case t == TaskReady && !next.has(i):
			m.over(s, c, i)
		case t != TaskNone:
			x.Void = x.Void.with(i)
		}
	}
}

func canDrop(_ *Model, s *State, c, i int) bool {
	x := &s.Instance[c]
	return x.Task[i] == TaskReady && (x.Void.has(i) || x.Leaving)
}

func drop(m *Model, s *State, c, i int) { m.over(s, c, i) }

func canLeave(m *Model, s *State, c, _ int) bool {
	return s.Active.has(c) && !s.Instance[c].Leaving && !m.OneInstance
}

func leave(m *Model, s *State, c, _ int) {
	x := &s.Instance[c]
	x.Leaving = true
	for i, t := range x.Task {
		if t == TaskReady {
			m.over(s, c, i)
		}
	}
}

// canClose is rule 19: what was started is settled first.
func canClose(m *Model, s *State, c, _ int) bool {
	x := &s.Instance[c]
	if !x.Leaving || m.Rules.CloseWithWork {
		return x.Leaving
	}
	for i, t := range x.Task {
		if t != TaskNone && !x.Void.has(i) {
			return false
		}
	}
	return true
}

// closeChannel gives the rest back. Without rule 19 the broker is only told to send no
// more: what is in hand stays there, and the next instance is given what follows.
func closeChannel(m *Model, s *State, c, _ int) {
	if m.Rules.CloseWithWork {
		s.Active = s.Active.without(c)
		s.Instance[c].Leaving = false
		return
	}
	requeue(s, c)
}

func isAwake(_ *Model, s *State, c, _ int) bool {
	return s.Active.has(c) || s.Instance[c] != Instance{}
}

// die rolls open transactions back.
func die(_ *Model, s *State, c, _ int) {
	requeue(s, c)
	s.Instance[c] = Instance{}
	for i, l := range s.Lock {
		if int(l) == c+1 {
			s.Lock[i] = 0
		}
	}
}

// consumerActions are rules 16, 17 and 20: one transaction holds the mark in the inbox
// and the effects, and the acknowledgement follows its commit.
func consumerActions() []action {
	return []action{
		{name: "begin", story: "instance %[1]d begins m%[2]d: it inserts its mark and then reads what is known", args: ofInstanceMessage, guard: canBegin, effect: begin},
		{name: "peek", story: "instance %[1]d reads what is known of m%[2]d", args: ofInstanceMessage, guard: canPeek, effect: peek},
		{name: "mark", story: "instance %[1]d inserts the mark of m%[2]d", args: ofInstanceMessage, guard: canMark, effect: mark},
		{name: "handle", story: "instance %[1]d handles m%[2]d and commits", args: ofInstanceMessage, guard: isRunning, effect: handle},
		{name: "answer lost", story: "instance %[1]d is not told whether what it wrote of m%[2]d was committed", args: ofInstanceMessage, fault: true, guard: isSaved, effect: loseAnswer},
		{name: "undo", story: "the database rolls m%[2]d of instance %[1]d back", args: ofInstanceMessage, fault: true, guard: isInTx, effect: undo},
		{name: "fail try", story: "the handler of instance %[1]d fails m%[2]d, and that is committed", args: ofInstanceMessage, fault: true, guard: isRunning, effect: failTry},
		{name: "bury", story: "instance %[1]d finds that m%[2]d can never succeed, and that is committed", args: ofInstanceMessage, fault: true, guard: isRunning, effect: buryTry},
		{name: "postpone", story: "something that m%[2]d needs is down: instance %[1]d commits that it waits", args: ofInstanceMessage, fault: true, guard: isRunning, effect: postpone},
		{name: "wait behind", story: "instance %[1]d commits that m%[2]d waits behind its key", args: ofInstanceMessage, guard: isBehind, effect: waitBehind},
		{name: "acknowledge", story: "instance %[1]d acknowledges m%[2]d", args: ofInstanceMessage, guard: canAck, effect: acknowledge},
		{name: "purge", story: "the inbox forgets m%[1]d", args: ofMessage, guard: canPurge, effect: purge},
	}
}

// first is rule 19 in the process: a key's messages run one after another.
func (m *Model) first(s *State, c, i int) bool {
	x := &s.Instance[c]
	return x.Task[i] == TaskReady && (m.Rules.LanesMix || lineBefore(&x.Line, i)&m.key(i) == 0)
}

// canBegin: the mark of a message that is in another open transaction is waited for.
func canBegin(m *Model, s *State, c, i int) bool {
	return m.first(s, c, i) && s.Lock[i] == 0 && !m.Rules.StatesBeforeMark
}

// keyWaits says whether another message of i's key waits.
func (m *Model) keyWaits(s *State, i int) bool {
	for other := range m.Messages {
		if other != i && m.key(i).has(other) && s.Inbox[other] == Waiting {
			return true
		}
	}
	return false
}

// look is what the fresh statement of rule 17 says of a message.
func (m *Model) look(s *State, i int) Task {
	known := s.Inbox[i]
	switch {
	case known == Waiting && m.Rules.NoWaitingInInbox:
		return TaskRunning
	case known != Unknown:
		return TaskSaved
	case m.keyWaits(s, i) && !m.Rules.NoBehind:
		return TaskBehind
	}
	return TaskRunning
}

func begin(m *Model, s *State, c, i int) {
	t := m.look(s, i)
	s.Instance[c].Task[i] = t
	if t != TaskSaved {
		s.Lock[i] = uint8(c + 1)
	}
}

func canPeek(m *Model, s *State, c, i int) bool {
	return m.Rules.StatesBeforeMark && m.first(s, c, i)
}

func peek(m *Model, s *State, c, i int) {
	t := m.look(s, i)
	if t == TaskRunning {
		t = TaskPeeked
	}
	s.Instance[c].Task[i] = t
	if t == TaskBehind {
		s.Lock[i] = uint8(c + 1)
	}
}

func canMark(_ *Model, s *State, c, i int) bool {
	return s.Instance[c].Task[i] == TaskPeeked && s.Lock[i] == 0
}

func mark(_ *Model, s *State, c, i int) {
	s.Instance[c].Task[i] = TaskRunning
	s.Lock[i] = uint8(c + 1)
}

func isRunning(_ *Model, s *State, c, i int) bool { return s.Instance[c].Task[i] == TaskRunning }
func isBehind(_ *Model, s *State, c, i int) bool  { return s.Instance[c].Task[i] == TaskBehind }

func isInTx(m *Model, s *State, c, i int) bool { return isRunning(m, s, c, i) || isBehind(m, s, c, i) }

// end closes an instance's transaction.
func end(s *State, c, i int, t Task) {
	s.Lock[i] = 0
	s.Instance[c].Task[i] = t
}

func handle(m *Model, s *State, c, i int) {
	m.takeEffect(s, i)
	end(s, c, i, TaskSaved)
}

// takeEffect commits the effects and the mark.
func (m *Model) takeEffect(s *State, i int) {
	switch {
	case s.Effect.has(i):
		s.Broken = BrokenTwice
	case !(s.Effect | s.Dead).includes(s.Before[i]):
		s.Broken = BrokenOrder
	}
	s.Effect = s.Effect.with(i)
	s.Inbox[i], s.Rank[i] = Handled, 0
}

func isSaved(_ *Model, s *State, c, i int) bool { return s.Instance[c].Task[i] == TaskSaved }

// loseAnswer: neither acknowledged nor run again before the inbox has told.
func loseAnswer(_ *Model, s *State, c, i int) { s.Instance[c].Task[i] = TaskReady }

// undo: the task begins anew, unless it is dropped.
func undo(_ *Model, s *State, c, i int) { end(s, c, i, TaskReady) }

func buryTry(m *Model, s *State, c, i int) {
	m.bury(s, i)
	end(s, c, i, TaskSaved)
}

func postpone(m *Model, s *State, c, i int) {
	m.wait(s, i)
	end(s, c, i, TaskSaved)
}

func failTry(m *Model, s *State, c, i int) {
	m.fail(s, i)
	end(s, c, i, TaskSaved)
}

// fail is rule 20: a message waits for another try, or is dead, which frees its key.
func (m *Model) fail(s *State, i int) {
	s.Attempts[i]++
	if int(s.Attempts[i]) < m.Attempts {
		m.wait(s, i)
		return
	}
	m.bury(s, i)
}

func (m *Model) bury(s *State, i int) {
	s.Attempts[i], s.Rank[i] = 0, 0
	if m.Rules.DropDead {
		s.Inbox[i] = Unknown
		return
	}
	s.Inbox[i] = Buried
	s.Dead = s.Dead.with(i)
}

// wait files a message among the waiting, behind those of its key that wait already.
func (m *Model) wait(s *State, i int) {
	s.Inbox[i] = Waiting
	if s.Rank[i] != 0 && !m.Rules.NoWaitingInInbox {
		return
	}
	s.Rank[i] = 1
	for other := range m.Messages {
		if other != i && m.key(i).has(other) && s.Inbox[other] == Waiting {
			s.Rank[i] = max(s.Rank[i], s.Rank[other]+1)
		}
	}
}

func waitBehind(m *Model, s *State, c, i int) {
	m.wait(s, i)
	end(s, c, i, TaskSaved)
}

func canAck(m *Model, s *State, c, i int) bool {
	t := s.Instance[c].Task[i]
	return t == TaskSaved || m.Rules.AckFirst && t == TaskRunning && !s.Instance[c].Acked.has(i)
}

// acknowledge takes the message out of the queue, on the session that it came from;
// when that is over it does nothing.
func acknowledge(m *Model, s *State, c, i int) {
	x := &s.Instance[c]
	for n, e := range s.Queue {
		mine := e != 0 && e.holder() == c+1
		ours := mine && e.message() == i && !x.Void.has(i)
		if ours && !x.Acked.has(i) || mine && x.Void.has(i) && m.Rules.AckAnySession {
			copy(s.Queue[n:], s.Queue[n+1:])
			s.Queue[queueRoom-1] = 0
			break
		}
	}
	if x.Task[i] == TaskRunning {
		x.Acked = x.Acked.with(i)
		return
	}
	m.over(s, c, i)
}

// canPurge is rule 21: the inbox forgets a message that its producer has settled. That
// no copy is on its way any more is a matter of time: the window of deduplication is
// longer than copies and frozen processes last.
func canPurge(m *Model, s *State, i, _ int) bool {
	if s.Inbox[i] != Handled || s.Orphan.has(i) {
		return false
	}
	settled := s.Settled.has(i) || s.Place[i] == Gone
	if !settled && !m.Rules.PurgeEarly {
		return false
	}
	for r := range s.Relay {
		if s.Relay[r].Hand[i] != HandNone || s.Relay[r].Wire[i] != WireNone {
			return false
		}
	}
	for _, e := range s.Queue {
		if e != 0 && e.message() == i {
			return false
		}
	}
	for c := range s.Instance {
		if s.Instance[c].Task[i] != TaskNone {
			return false
		}
	}
	return true
}

func purge(_ *Model, s *State, i, _ int) { s.Inbox[i] = Unknown }

// retryActions are the scheduler of a group: it claims the first waiting message of a
// key, whose backoff time ends.
func retryActions() []action {
	return []action{
		{name: "claim retry", story: "instance %[1]d claims m%[2]d from the waiting", args: ofInstanceMessage, guard: canClaim, effect: claim},
		{name: "handle retry", story: "instance %[1]d handles the waiting m%[2]d and commits", args: ofInstanceMessage, guard: isClaimed, effect: handleRetry},
		{name: "fail retry", story: "instance %[1]d fails the waiting m%[2]d, and that is committed", args: ofInstanceMessage, fault: true, guard: isClaimed, effect: failRetry},
		{name: "bury retry", story: "instance %[1]d finds that the waiting m%[2]d can never succeed, and that is committed", args: ofInstanceMessage, fault: true, guard: isClaimed, effect: buryRetry},
		{name: "undo retry", story: "the database rolls the waiting m%[2]d of instance %[1]d back", args: ofInstanceMessage, fault: true, guard: isClaimed, effect: undoRetry},
	}
}

func canClaim(m *Model, s *State, c, i int) bool {
	if s.Inbox[i] != Waiting || (s.Instance[0].Retry | s.Instance[1].Retry).has(i) {
		return false
	}
	for other := range m.Messages {
		if other != i && m.key(i).has(other) && s.Inbox[other] == Waiting && s.Rank[other] < s.Rank[i] && !m.Rules.AnyWaitingRow {
			return false
		}
	}
	return true
}

func claim(_ *Model, s *State, c, i int) { s.Instance[c].Retry = s.Instance[c].Retry.with(i) }

func isClaimed(_ *Model, s *State, c, i int) bool { return s.Instance[c].Retry.has(i) }

func handleRetry(m *Model, s *State, c, i int) {
	m.takeEffect(s, i)
	undoRetry(m, s, c, i)
}

func failRetry(m *Model, s *State, c, i int) {
	m.fail(s, i)
	undoRetry(m, s, c, i)
}

func buryRetry(m *Model, s *State, c, i int) {
	m.bury(s, i)
	undoRetry(m, s, c, i)
}

func undoRetry(_ *Model, s *State, c, i int) { s.Instance[c].Retry = s.Instance[c].Retry.without(i) }
