package outlast

import "time"

// The hooks in this file tell every step of every message, for those who check
// afterwards that no promise was broken: the package outlasttest/history records
// them. Like all hooks they see and change nothing; without a hook a step costs a
// comparison and no allocation (TestStepsAllocateNothingWithoutHooks).

// HookClaimed is told of each row that comes into a relay's hands, under its lease.
type HookClaimed interface {
	OnClaimed(row *Row, lease Lease)
}

// Try is one publish of a row by a relay.
type Try struct {
	Row   *Row
	Lease Lease
	// Number counts the publishes of the row since it was claimed, from 1.
	Number int
}

// HookSending is told of each publish before anything of it is written, on which
// lane of the publisher.
type HookSending interface {
	OnSending(t Try, lane int)
}

// HookAnswered is told what became of each publish: [HookPublished] with the try. A
// publish whose confirm is overdue is told as unknown; the broker's late word on it
// may follow.
type HookAnswered interface {
	OnAnswered(t Try, o Outcome, err error)
}

// HookSettleFailed is told when a settlement did not commit, or when that is not
// known (CodeUnknown). The relay repeats it.
type HookSettleFailed interface {
	OnSettleFailed(s *Settlement, err error)
}

// HookLease is told of leases that come, are renewed and go.
type HookLease interface {
	OnLease(c LeaseChange)
}

// LeaseChange is what happened to leases of a scope.
type LeaseChange struct {
	// Scope is "relay:" with the source, or "group:" with the group.
	Scope string
	Owner string
	What  LeaseWhat
	// Leases are those that the change is about; none for LeaseRenewed, which is about
	// all that the owner holds.
	Leases []Lease
	// Now and Expires are the database's clock at a grant and the end that it gave.
	// They are zero for leases that go.
	Now, Expires time.Time
}

// LeaseWhat says what happened to leases.
type LeaseWhat string

const (
	LeaseGained  LeaseWhat = "gained"
	LeaseRenewed LeaseWhat = "renewed"
	// LeaseLost: it ran out, or another owner has it.
	LeaseLost LeaseWhat = "lost"
	// LeaseReleased is told before the database is.
	LeaseReleased LeaseWhat = "released"
)

// HookSubscribed is told when a queue of a group is subscribed to: from now on its
// bindings are there, if the consumer declares them.
type HookSubscribed interface {
	OnSubscribed(g GroupTopology, queue string, foreign bool)
}

// HookDelivered is told of each delivery as it arrives.
type HookDelivered interface {
	OnDelivered(group string, d *Delivery)
}

// HookTried is told before a handler is called and after it has returned, inside
// the transaction, whose end [HookRecorded] tells.
type HookTried interface {
	OnTrying(group string, m *Message, attempt int)
	OnTried(group string, m *Message, attempt int, end TryEnd, err error)
}

// TryEnd is how a call of a handler ended.
type TryEnd string

const (
	TryOK TryEnd = "ok"
	// TryFailed is the message's own failure, or its handler's verdict.
	TryFailed TryEnd = "failed"
	// TryTransient is trouble of the database. It costs no attempt.
	TryTransient TryEnd = "transient"
	// TryInterrupted: the consumer was cut. It costs no attempt.
	TryInterrupted TryEnd = "interrupted"
)

// HookRecorded is told when a transaction that records what became of a message has
// ended, before the delivery is acknowledged.
type HookRecorded interface {
	OnRecorded(r Recorded)
}

// Recorded is what a transaction says of one of its messages, or has found out about
// it: then Result is HandledDuplicate and nothing was changed.
type Recorded struct {
	Group   string
	Message *Message
	Result  HandledResult
	// Known, with HandledDuplicate, is what the inbox knew of the message.
	Known Seen
	// Waiting is set when the message waits, Dead when it is a dead letter.
	Waiting *Waiting
	Dead    *DeadLetterRecord
	// Err is nil when the transaction has committed. With CodeUnknown it may have;
	// otherwise it has not.
	Err error
}

// HookAcked is told of each acknowledgement after it was given: ok is false when
// the session of the delivery had ended, and nothing was sent.
type HookAcked interface {
	OnAcked(group string, d *Delivery, ok bool)
}

// HookPurged is told when the inbox has forgotten handled messages.
type HookPurged interface {
	OnPurged(p PurgeRequest, forgotten int, err error)
}

// none reports whether nobody listens: then nothing need be prepared.
func (h *hooks) none() bool { return len(h.list) == 0 }
