package history

// Version of the format, in the first event of every process.
const Version = 1

// Kind of an event. Behind each, the fields that it has besides T and E.
type Kind string

const (
	// A process begins (V, P, PID) and ends in good order. Killed is not in a file: readers
	// put it where a process ended without Close.
	Open   Kind = "open"
	Close  Kind = "close"
	Killed Kind = "killed"

	// A business transaction: Tx, and Name of the ledger that it writes to, if any.
	// Committing is right before COMMIT is sent: nothing that it wrote may be seen before.
	// Commit has O: ok, fail, unknown, rolled back. A handler's transaction begins with G, M
	// and N besides; it is committing when the handler has returned, which is recorded when
	// it published something, and its end is an [Effect].
	Begin      Kind = "begin"
	Committing Kind = "committing"
	Commit     Kind = "commit"
	// A message was written in a transaction: Tx, M, Type, Key, KeySeq, Hash.
	Enqueue Kind = "enqueue"
	// A message that waited for its due time was withdrawn in a transaction: Tx, M.
	Withdraw Kind = "withdraw"

	// Leases of a scope: Scope, Owner, O (gained, renewed, lost, released), Slots, and for
	// the first two At and Exp.
	Lease Kind = "lease"
	// A relay has a row: M, Source, Slot, Epoch; Why is the reason when it was held.
	Claim Kind = "claim"
	// It is about to publish it: M, Slot, Epoch, Try, Lane.
	Publish Kind = "publish"
	// The broker returned that try: no queue is bound.
	Return Kind = "return"
	// The broker's word on that try, O: ack, nack, refused (can never be sent), closed (the
	// broker closed the channel over it or another), not sent, unknown. A try whose word is
	// overdue is unknown, and may get it later.
	Confirm Kind = "confirm"
	// Its row is deleted as sent: M, Slot, Epoch, O: ok, stale (the lease had passed on:
	// nothing was done), fail, unknown. Why: expired or unheard, when it was not sent.
	Mark Kind = "mark"
	// Its row waits among the held: as Mark, Why is the reason, N the attempts, Wait.
	Hold Kind = "hold"
	// Its held row came due and is back in the outbox: as Mark.
	Release Kind = "release"
	// A route stopped (off) or began (on) to take messages: Name, O, Why.
	Route Kind = "route"
	// A connection changed: Name (relay, or a queue), O (up, down, blocked), Why.
	Link Kind = "link"

	// The bindings of a group are there (O on) or were taken away (off): G, Type; no Type
	// stands for all of them. Why is ordered for a group that keeps the order of keys, and
	// destroyed when a queue was deleted with what was in it.
	Bind Kind = "bind"
	// A delivery came: M, Type, G, Queue, Session, Tag, Redelivered, Hash.
	Deliver Kind = "deliver"
	// A handler is called: M, G, N (the attempt), and returned: O is ok, failed, transient
	// or interrupted, Why its error.
	Start Kind = "start"
	Tried Kind = "tried"
	// The transaction with the message's mark ended, O: ok, fail, unknown. Effect: it was
	// handled, Why tells otherwise (expired); Tx if known. Park: it waits, Why is the
	// reason, N the attempts, Wait. Dead: Why is the reason, N the attempts, Type, Source,
	// At (first seen), Error.
	Effect Kind = "effect"
	Park   Kind = "park"
	Dead   Kind = "dead"
	// The inbox knew the message: M, G, Why (handled, waiting, dead).
	Known Kind = "known"
	// A delivery was settled: M, G, Session, Tag, O: ack, reject, stale (its session had
	// ended: nothing was said).
	Settle Kind = "settle"
	// The inbox forgot handled messages: G, Source, N (how many), At (what its producer
	// settled before), Wait (the least age), O.
	Purge Kind = "purge"

	// An operator acted: Name (replay, discard, withdraw, release, ...), M, G, Why.
	Operator Kind = "operator"
	// A fault begins (O on) or ends (off), or strikes once (no O): Name, Why. Names begin
	// with what they concern: broker, database, relay, consumer, producer.
	Fault Kind = "fault"
	// Something rare was seen by the one who runs the test: Name, such as "leader change".
	Seen Kind = "seen"
	// A number of the process, such as its goroutines: Name, Value.
	Gauge Kind = "gauge"
	// Nothing moves any more, O ok; or it should not, and does, O timeout.
	Quiesce Kind = "quiesce"
	// After the run. A row of the ledger: Tx, G, M, Seq, At. Name is the database.
	LedgerRow Kind = "ledger"
	// After the run. A message that still is where Name says: pending, held, retry, dead;
	// M, G, Why, N; of a dead letter also Type, Source, At (first seen), Last and Error.
	// Without M: all of the database Name were read.
	Left Kind = "left"
)

// Event is one line of a history.
type Event struct {
	T int64 `json:"t"` // Unix nanoseconds, by the process's clock
	E Kind  `json:"e"`

	V   int    `json:"v,omitempty"`
	P   string `json:"p,omitempty"`
	PID int    `json:"pid,omitempty"`

	O   string `json:"o,omitempty"`
	Why string `json:"why,omitempty"`
	M   string `json:"m,omitempty"` // the message's id
	G   string `json:"g,omitempty"` // the group

	Tx     string `json:"tx,omitempty"`
	Type   string `json:"type,omitempty"`
	Source string `json:"src,omitempty"`
	Key    string `json:"key,omitempty"`
	// KeySeq orders the transactions of a key; 0 says nothing of order.
	KeySeq int64 `json:"ks,omitempty"`
	// Hash is of id, type, key, content type, headers and body.
	Hash string `json:"h,omitempty"`

	Slot  int   `json:"slot,omitempty"`
	Epoch int64 `json:"ep,omitempty"`
	Try   int   `json:"try,omitempty"`
	Lane  int   `json:"lane,omitempty"`

	Queue       string `json:"q,omitempty"`
	Session     string `json:"s,omitempty"`
	Tag         uint64 `json:"tag,omitempty"`
	Redelivered bool   `json:"re,omitempty"`
	N           int    `json:"n,omitempty"`
	Wait        int64  `json:"wait,omitempty"` // nanoseconds
	Error       string `json:"err,omitempty"`

	Scope string      `json:"scope,omitempty"`
	Owner string      `json:"owner,omitempty"`
	Slots []SlotEpoch `json:"slots,omitempty"`
	At    int64       `json:"at,omitempty"`  // Unix microseconds, by the database's clock
	Exp   int64       `json:"exp,omitempty"` // likewise
	// Last is when a dead letter was buried, as At.
	Last int64 `json:"last,omitempty"`

	Name  string  `json:"name,omitempty"`
	Value float64 `json:"value,omitempty"`
	Seq   int64   `json:"seq,omitempty"`
}

// SlotEpoch is a slot and the epoch under which it is held.
type SlotEpoch [2]int64

// Outcomes of events.
const (
	OK      = "ok"
	Fail    = "fail"
	Unknown = "unknown"
	Stale   = "stale"
	Timeout = "timeout"

	RolledBack = "rolled back"

	Ack     = "ack"
	Nack    = "nack"
	Reject  = "reject"
	Refused = "refused"
	Closed  = "closed"
	NotSent = "not sent"

	On  = "on"
	Off = "off"

	Destroyed = "destroyed"
)
