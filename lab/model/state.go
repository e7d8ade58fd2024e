package model

// The world is small: three messages, two keys, two relays, two instances of one
// consumer. Every field is a byte, so that a state is a short plain value.
const (
	messages  = 3
	relays    = 2
	instances = 2
	queueRoom = 4
)

// State is the whole system at one instant.
type State struct {
	// The producer's database.
	Tx    [messages]Tx
	Place [messages]Place
	// Before[m] are the messages of m's key whose transactions had committed when m was
	// inserted: the order that was promised. Nobody in the system can read it.
	Before [messages]Set
	Away   Set   // rows that wait for their route, as far as the order of a key is concerned
	Owner  uint8 // of the lease: a relay's number and 1; 0 is nobody
	Lapsed bool  // the lease's time is over by the database's clock
	Cursor uint8 // of a broken rule: where a relay stopped reading
	// Late, of a broken rule, is what an owner was writing when it began anew.
	Late [messages]Hand

	Relay [relays]Relay

	// The broker.
	Orphan  Set // publishes whose sender is gone, not yet taken by the broker
	Unbound bool
	Routed  Set // messages that a queue took at least once
	Queue   [queueRoom]Entry
	Active  Set // instances that the queue delivers to

	// The consumer's database and processes.
	Inbox    [messages]Inbox
	Rank     [messages]uint8 // the order of the waiting messages of a key
	Attempts [messages]uint8
	Lock     [messages]uint8 // whose open transaction holds the message; as Owner
	Instance [instances]Instance
	Effect   Set // what took effect
	Dead     Set
	Settled  Set // with the consumer alone: what the producer has settled

	// Broken is what an action has done that no action may do.
	Broken Broken
	Faults uint8 // so far, when they are limited
}

// Set is a set of messages, keys or instances.
type Set uint8

func (s Set) has(i int) bool       { return s>>i&1 == 1 }
func (s Set) with(i int) Set       { return s | 1<<i }
func (s Set) without(i int) Set    { return s &^ (1 << i) }
func (s Set) includes(of Set) bool { return of&^s == 0 }

// Tx is the transaction of a message.
type Tx uint8

// The states of a transaction.
const (
	TxNone Tx = iota
	TxOpen    // the row is inserted, its seq is drawn
	TxCommitted
	TxRolledBack
)

// Place is where a message's row is.
type Place uint8

// The places of a row.
const (
	Nowhere Place = iota
	Outbox
	HeldBackoff // it failed by itself
	HeldBehind  // an earlier row of its key is held
	Gone        // sent and deleted
)

func (p Place) held() bool { return p == HeldBackoff || p == HeldBehind }

// Lease is what a relay believes of the slot.
type Lease uint8

// A relay holds the lease under the epoch of the database or under an older one,
// which it cannot tell apart.
const (
	LeaseNone Lease = iota
	LeaseCurrent
	LeaseStale
)

// Hand is where a message is in a relay's hands.
type Hand uint8

// What a relay does with a row, in the order of its life.
const (
	HandNone   Hand = iota
	HandQueued      // behind its key
	HandSent
	HandConfirmed // to be deleted
	HandFailed    // to be held for its backoff
	HandBehind    // to be held behind its key
)

// Wire is a publish that its relay still listens for.
type Wire uint8

// The states of a publish on its way.
const (
	WireNone    Wire = iota
	WireSending      // the broker has not taken it
	WireAck
	WireNack
	WireReturn // no queue was bound: a return, followed by an ack
)

// Relay is one process that relays.
type Relay struct {
	Lease  Lease
	Loaded bool // it knows which keys are held
	Held   Set  // keys whose rows wait among the held
	Hand   [messages]Hand
	Wire   [messages]Wire
	Line   [messages]uint8 // what is in hand, in the order in which it was taken
	Cursor uint8           // of a broken rule: above what it reads
}

// Entry is a place in the queue: a message and 1, and above four bits the number and 1
// of the instance that it was delivered to.
type Entry uint8

func entry(m, holder int) Entry { return Entry(m + 1 + holder<<4) }
func (e Entry) message() int    { return int(e&15) - 1 }
func (e Entry) holder() int     { return int(e >> 4) }

// Inbox is what the group's inbox says of a message.
type Inbox uint8

// The states of a message in the inbox.
const (
	Unknown Inbox = iota
	Handled
	Waiting
	Buried
)

// Task is what an instance does with a delivery.
type Task uint8

// The life of a delivery in an instance.
const (
	TaskNone    Task = iota
	TaskReady        // delivered, in its key's lane
	TaskRunning      // its transaction is open, the handler runs
	TaskBehind       // its transaction is open, and it must wait
	TaskSaved        // what became of it is committed, or was known: to be acknowledged
	TaskPeeked       // of a broken rule: the states were read before the mark was inserted
)

// Instance is one process of the consumer.
type Instance struct {
	Task    [messages]Task
	Line    [messages]uint8 // deliveries, in order
	Void    Set             // tasks whose session is over: the broker delivers them again
	Retry   Set             // the waiting messages that its scheduler runs
	Lost    bool            // its session is over, and it has not noticed
	Again   Set             // then: tasks behind which it has another copy of their message
	Leaving bool            // it gives the queue up
	Acked   Set             // of a broken rule: acknowledged before their commit
}

// Broken names a promise that a step has broken.
type Broken uint8

// What an action can break by itself.
const (
	Whole Broken = iota
	BrokenMark
	BrokenLease
	BrokenOrder
	BrokenTwice
	BrokenMachine
	BrokenArrival
	BrokenSettled
)

var brokenText = [...]string{
	BrokenMark:    "I7: a row was deleted although no queue had taken its message",
	BrokenLease:   "I9: a relay changed rows under a lease that had passed to another one",
	BrokenOrder:   "I5: a message took effect before an earlier one of its key",
	BrokenTwice:   "I4: a message took effect twice",
	BrokenMachine: "I10: a row or a message left a state that has no way out",
	BrokenArrival: "I5: a message reached the queue before an earlier one of its key",
	BrokenSettled: "I4: a message that was settled is sent again, when the inbox may have forgotten it",
}

// line operations: a line is a list of numbers and 1, without holes.

func lineAdd(l *[messages]uint8, m int) {
	for i := range l {
		if l[i] == 0 {
			l[i] = uint8(m + 1)
			return
		}
	}
}

// lineInsert puts m before the first later message.
func lineInsert(l *[messages]uint8, m int, later func(x int) bool) {
	lineAdd(l, m)
	for i := messages - 1; i > 0; i-- {
		if int(l[i]) == m+1 && later(int(l[i-1])-1) {
			l[i], l[i-1] = l[i-1], l[i]
		}
	}
}

func lineRemove(l *[messages]uint8, m int) {
	kept := 0
	for _, x := range l {
		if x != 0 && int(x) != m+1 {
			l[kept] = x
			kept++
		}
	}
	for ; kept < messages; kept++ {
		l[kept] = 0
	}
}

// lineBefore lists what stands before m.
func lineBefore(l *[messages]uint8, m int) (before Set) {
	for _, x := range l {
		if x == 0 || int(x) == m+1 {
			return before
		}
		before = before.with(int(x) - 1)
	}
	return before
}
