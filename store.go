package outlast

import (
	"context"
	"errors"
	"io"
	"time"
)

// Store is a service's own database, as Outlast uses it. It hands out roles, each
// a small interface, so that a part of the system can be given only what it needs.
//
// Rules for every role: only the database's clock decides (durations cross as
// intervals, never as instants of the caller's clock); errors are *[Error] with
// CodeUnavailable for an outage, CodeUnknown for a COMMIT whose outcome is not
// known, CodeSchema for missing or foreign tables, CodeDenied for missing rights;
// all methods are safe for concurrent use unless they say otherwise.
// The suite outlasttest.Store proves an implementation.
type Store interface {
	// Engine is "postgres", "sqlite" or "memory".
	Engine() string
	// Slots is the fixed number of slots of this engine: 256, or 1 for SQLite.
	Slots() int
	// Check returns nil when the tables are there, of a version that this build can
	// work on, open to this role for at least one kind of work, and the server is a
	// primary. Older tables than the newest are enough for what they have; newer ones
	// are, as long as they do not say that they need a newer build. Whether the role
	// may do a relay's work, Identify tells.
	Check(ctx context.Context) error

	Outbox() OutboxStore
	Leases() LeaseStore
	Relay() RelayStore
	Inbox() InboxStore
	Operator() OperatorStore
	Journal() JournalStore
	Books() BookStore
	Migrations() Migrator
}

// OutboxStore is the producer's role.
type OutboxStore interface {
	// Insert adds the messages to the outbox within tx: one statement for those to be
	// sent now, one more when some have a due time (those wait in outlast_held). It
	// sets no field of the messages. Their order is the order of the slice. It never
	// commits and talks to nothing but tx.
	Insert(ctx context.Context, tx LiveTx, msgs []*Message) error
	// Withdraw deletes, within tx, the message with that id if it still waits for its
	// due time, and reports whether it did.
	Withdraw(ctx context.Context, tx LiveTx, id string) (bool, error)
}

// LeaseStore keeps the leases of a scope: the relay's slots, a group's partitions.
// An owner is alive while its own record has not expired; its leases live with
// it. An expired record is never renewed, so a lease has one owner at any instant
// of the database's clock, and a takeover raises the epoch.
type LeaseStore interface {
	// Lease renews owner's record for ttl, then adjusts its share: with n owners
	// alive, a fair share is ceil(total/n). It takes free leases up to the share and
	// never more. It takes nothing away: Held above Share is for the owner to Release.
	// When the record had expired, Lost is true and Held holds only what was taken anew.
	// While the scope is paused (see [RelaySwitch]) the share of everybody is 0: records
	// are renewed, and nothing is taken.
	Lease(ctx context.Context, r LeaseRequest) (LeaseGrant, error)
	// Release gives back those of the leases that are still owner's under their epochs: one
	// that comes late takes nothing away that was taken anew since. With none named it
	// gives back all, and removes the owner's record.
	Release(ctx context.Context, scope, owner string, leases []Lease) error
}

// RelayScope is the scope of the relays' leases on the slots of an outbox, the one
// that [RelayStore.Settle] is fenced by.
const RelayScope = "relay"

// RelaySwitch is the name by which [OperatorStore.SetPaused] pauses the relays of an outbox,
// like a group; no group can have it. Relays notice when they renew their leases.
const RelaySwitch = "@" + RelayScope

// LeaseRequest asks for a share of a scope's slots 0..Total-1.
type LeaseRequest struct {
	Scope string
	Owner string
	TTL   time.Duration
	Total int
}

// LeaseGrant is what an owner holds after a call of Lease.
type LeaseGrant struct {
	Held []Lease
	// Share is 0 only while an operator has paused the scope.
	Share  int
	Owners int
	Lost   bool
	// Now and Expires are the database's clock at the call and the end of the owner's
	// record. They are for people and for checks: what is decided by this process is
	// decided by its own monotonic clock from before the call.
	Now, Expires time.Time
}

// Lease is one slot with the epoch under which it is held.
type Lease struct {
	Slot  int
	Epoch int64
}

// Row is a message at rest in the outbox or among the held.
type Row struct {
	Message
	// Seq orders rows; deletes name (Seq, ID).
	Seq  int64
	Slot int
	// NotDue and Expired are judged by the database's clock when the row was read.
	NotDue  bool
	Expired bool

	// InHeld is true for rows of outlast_held; what follows is set only for them.
	InHeld   bool
	Reason   HeldReason
	Attempts int
}

// HeldReason says why a row waits in outlast_held.
type HeldReason string

const (
	// HeldDue waits for its due time. It blocks nothing.
	HeldDue HeldReason = "due"
	// HeldBackoff failed by itself and is tried again; later rows of its key wait behind.
	HeldBackoff HeldReason = "backoff"
	// HeldRefused cannot be sent as it is; it waits for a person, later rows of its
	// key behind it.
	HeldRefused HeldReason = "refused"
	// HeldBehind waits for an earlier row of its key.
	HeldBehind HeldReason = "behind"
	// HeldUnroutable waits for a queue to be bound to its route.
	HeldUnroutable HeldReason = "unroutable"
	// HeldRoute waits for a route that refuses or does not answer: a full queue, a
	// queue without its majority, a missing exchange or right.
	HeldRoute HeldReason = "route"
)

// HeldReasons are all of them.
var HeldReasons = []HeldReason{HeldDue, HeldBackoff, HeldRefused, HeldBehind, HeldUnroutable, HeldRoute}

// BlocksKey reports whether later rows of the same key must wait behind such a row.
func (r HeldReason) BlocksKey() bool {
	return r == HeldBackoff || r == HeldRefused || r == HeldBehind
}

// OfRoute reports whether such a row waits for its route.
func (r HeldReason) OfRoute() bool { return r == HeldUnroutable || r == HeldRoute }

// RelayStore is the relay's role.
type RelayStore interface {
	// Identify makes source the owner of this outbox. It returns CodeConflict when it
	// belongs to another one, and CodeDenied when this role lacks a right that a relay
	// needs.
	Identify(ctx context.Context, source string) error
	// Reader returns a new reader with no memory. One reader serves one owner.
	Reader() OutboxReader
	// Settle applies what became of rows, in one transaction, fenced: for a lease that
	// is not current any more nothing is done, and it is among the returned stale ones.
	Settle(ctx context.Context, s *Settlement) (stale []Lease, err error)
	// HeldIndex returns what a new owner of the slots must know.
	HeldIndex(ctx context.Context, leases []Lease) (HeldIndex, error)
	// Held reads rows of outlast_held.
	Held(ctx context.Context, q HeldQuery) (HeldPage, error)
	// SettledBefore returns an instant of the database's clock before which nothing
	// enqueued is unsettled or can still be committed. It may lag, and is zero when
	// nothing is known yet.
	SettledBefore(ctx context.Context) (time.Time, error)
}

// OutboxReader reads pending rows in order. It is used by one goroutine at a time,
// but Forget and Drop may be called while a Pick runs.
type OutboxReader interface {
	// Pick returns pending rows of the leased slots that it has not returned before:
	// at most maxRows, and bodies of at most maxBytes in all (but always one row if
	// there is any). Rows of a slot come in order of Seq, except that a row whose
	// transaction committed late comes later.
	//
	// Guarantee: if the transaction of row a committed before the INSERT of row b of
	// the same slot began, then a comes before b: earlier in this Pick or in an
	// earlier one (TestStore/Pick_keeps_the_order_of_transactions).
	// It holds whether each Pick is of all slots or of some
	// (TestStore/F09_Pick_finds_late_commits_of_any_schedule_in_order).
	// A row that was returned is not returned again until Drop, even while its delete
	// is under way. Selection is by state: no row is skipped for ever.
	// When the database has lost what it had shown, Pick returns [ErrSetBack] once and
	// begins anew.
	Pick(ctx context.Context, leases []Lease, maxRows, maxBytes int) ([]*Row, error)
	// Forget tells that the rows have left the outbox (their settlement committed).
	Forget(rows []*Row)
	// Drop forgets everything about slots whose lease is gone or was taken anew.
	Drop(slots []int)
}

// ErrSetBack says that a database has lost transactions that it had shown before, as a
// failover to a standby does that lacked the last commits.
var ErrSetBack = errors.New("the database has lost transactions that it had shown")

// Settlement is what became of rows. Rows of one settlement may be of many slots;
// Leases holds the lease of each.
type Settlement struct {
	Leases []Lease
	// Sent rows are deleted, from the outbox or from the held, and noted in the sent
	// log by the same statement.
	Sent []*Row
	// Fates says how each of Sent left: as long as Sent, or nil when all were sent.
	Fates []Fate
	// Untracked leaves the sent log alone.
	Untracked bool
	// Hold rows move from the outbox to the held, or change there if they are held already.
	Hold []Hold
	// Release rows, held and due, move back to the outbox as if enqueued now.
	Release []*Row
}

// Hold says why and for how long a row waits.
type Hold struct {
	Row    *Row
	Reason HeldReason
	// Wait is the time until the next try; negative means that no time ends it. For
	// HeldDue it is not used: the row's own Due is.
	Wait     time.Duration
	Attempts int
	// Error is what a person needs to know, already clean text.
	Error string
}

// HeldIndex is the summary of outlast_held for some slots.
type HeldIndex struct {
	// Keys are the keys that have a row with a reason that blocks its key.
	Keys []SlotKey
	// Routes are the routes that have rows waiting for their route.
	Routes []HeldRouteCount
}

// SlotKey is an ordering key in its slot.
type SlotKey struct {
	Slot int
	Key  string
}

// HeldRouteCount is a route with the number of rows that wait for it.
type HeldRouteCount struct {
	Route  Route
	Reason HeldReason
	Count  int
}

// HeldQuery selects held rows of the leased slots, ordered by Seq, above After.
// Exactly one of Due, Key and Route is used: Due selects rows with reason due or
// backoff whose time has come; Key the rows that block or wait behind that key;
// Route the rows that wait for that route.
type HeldQuery struct {
	Leases   []Lease
	Due      bool
	Key      *SlotKey
	Route    *Route
	After    int64
	MaxRows  int
	MaxBytes int
}

// HeldPage is a part of the held rows. NextDue, for a Due query, is the time until
// the next row comes due that this page does not hold; negative when there is none.
type HeldPage struct {
	Rows    []*Row
	NextDue time.Duration
}

// InboxStore is the consumer's role.
type InboxStore interface {
	// Begin opens a READ COMMITTED transaction, marks the messages of group as handled
	// (ids sorted), and then, by a fresh statement when one is needed, reads what was
	// known of them. It waits while another transaction holds the mark of one of them.
	// States of the returned transaction follow the order of marks.
	Begin(ctx context.Context, group string, marks []Mark) (InboxTx, error)
	// BeginRetry opens a transaction on one waiting message that is due, whose type is
	// among types, and that no earlier waiting message of its key precedes, locking it
	// for others (they skip it). Nothing due: a nil transaction, and the time until the
	// next one is due (negative: none is waiting).
	BeginRetry(ctx context.Context, group string, types []string) (RetryTx, time.Duration, error)
	// Purge forgets handled messages of source enqueued before settledBefore and
	// handled longer ago than age, at most limit rows, and returns how many. Messages
	// that wait or are dead are never forgotten. See [Hearer].Forgot, which it moves on first:
	// by a 24th of age more than is true, so that not each call does.
	Purge(ctx context.Context, p PurgeRequest) (int, error)
	// Alive renews instance's record in group and returns the records of others:
	// those that were not ended by Leave.
	Alive(ctx context.Context, group, instance string) ([]Instance, error)
	// Leave ends instance's record after a clean shutdown.
	Leave(ctx context.Context, group, instance string) error
	// Suspect counts, in a transaction of its own, that the message is about to be run
	// although a process died with it in hand, and returns how often that was said.
	// A committed mark, waiting or dead state of the message clears it.
	Suspect(ctx context.Context, group, source, id string) (int, error)
	// Unsuspect takes one count of Suspect back: the process lives that counted the
	// message, and has it no more in hand. Of a message without a count it changes nothing.
	// False: another transaction has the message in hand, and nothing was changed. It does
	// not wait for that one, except where the store has one writer.
	Unsuspect(ctx context.Context, group, source, id string) (bool, error)
	// Paused reports whether an operator paused the group.
	Paused(ctx context.Context, group string) (bool, error)
}

// Instance is a process of a group as its record shows it.
type Instance struct {
	Name string
	// Age is the time since its last sign of life.
	Age time.Duration
}

// PurgeRequest: see InboxStore.Purge.
type PurgeRequest struct {
	Group         string
	Source        string
	SettledBefore time.Time
	Age           time.Duration
	Limit         int
}

// Mark names a message in the inbox of a group.
type Mark struct {
	Source string
	ID     string
	// Key is set only in groups that keep order: then Seen tells whether earlier
	// messages of the key wait.
	Key string
	// Hash is of the content; another message with the same source and id but another
	// hash is a conflict. Eight bytes suffice: it detects mistakes, not attacks.
	Hash int64
	// EnqueuedAt is from the envelope; zero for foreign messages (the store takes now).
	EnqueuedAt time.Time
	// Redelivered: it was delivered before, and so may have been counted by Suspect. The
	// count of one that was not need not be forgotten.
	Redelivered bool
}

// Seen is what the inbox knew of a message when its transaction began.
type Seen string

const (
	// SeenNew: never seen; the mark is ours.
	SeenNew Seen = "new"
	// SeenBehind: never seen, but earlier messages of its key wait: it must wait too.
	SeenBehind Seen = "behind"
	// SeenHandled: a duplicate.
	SeenHandled Seen = "handled"
	// SeenWaiting: it waits for a retry; the scheduler runs it.
	SeenWaiting Seen = "waiting"
	// SeenDead: it is a dead letter.
	SeenDead Seen = "dead"
	// SeenConflict: source and id are known with other content.
	SeenConflict Seen = "conflict"
)

// InboxTx is a transaction with inbox marks in it. It is used by one goroutine.
type InboxTx interface {
	// Tx is what handlers get. It stays valid until Commit or Rollback.
	Tx() Tx
	States() []Seen
	// Wait records that the marked message waits: for its retry, or behind its key.
	Wait(ctx context.Context, w *Waiting) error
	// Bury records that the marked message is dead.
	Bury(ctx context.Context, d *DeadLetterRecord) error
	// Commit has three outcomes: nil, an error that says it did not happen, and
	// CodeUnknown. After a failed commit the connection is not used again.
	Commit(ctx context.Context) error
	// Rollback never fails in a way that matters: the transaction is gone.
	Rollback()
}

// RetryTx is a transaction that holds one waiting message.
type RetryTx interface {
	// Tx is what the handler gets. Effects made through it are undone by Undo.
	Tx() Tx
	// Waiting is the message with its history.
	Waiting() *Waiting
	// Undo rolls the handler's effects back (to a savepoint) and keeps the lock.
	Undo(ctx context.Context) error
	// Done records that the message is handled.
	Done(ctx context.Context) error
	// Wait records another failed or postponed try.
	Wait(ctx context.Context, w *Waiting) error
	// Bury records that the message is dead.
	Bury(ctx context.Context, d *DeadLetterRecord) error
	Commit(ctx context.Context) error
	Rollback()
}

// Why a received message waits.
const (
	WaitFailed      = "failed"       // its handler failed
	WaitSnoozed     = "snoozed"      // its handler asked for a later time
	WaitUnavailable = "unavailable"  // what its handler needs is away
	WaitBehind      = "behind"       // an earlier message of its key waits
	WaitUnknownType = "unknown type" // this build handles no such type
	WaitReplay      = "replay"       // a person brought it back
	WaitEdited      = "edited"       // a person put it into the place of a dead letter
	// WaitSpent: it cannot succeed, and holds its key until a person acts; see
	// [DeadHoldsKey]. Once a person has made it due it is tried like any other.
	WaitSpent = "spent"
)

// WaitReasons are all of them.
var WaitReasons = []string{WaitFailed, WaitSnoozed, WaitUnavailable, WaitBehind, WaitUnknownType, WaitReplay, WaitEdited, WaitSpent}

// Waiting is a received message that waits in outlast_retry.
type Waiting struct {
	Group   string
	Message *Message
	// Ordered keeps later messages of the key behind this one.
	Ordered bool
	// Attempts are the failed ones so far.
	Attempts int
	// Wait is the time until the next try. 0 means at once (when it is the first of its key).
	Wait time.Duration
	// Reason is one of WaitReasons.
	Reason string
	Error  string
	// Replays counts how often a person replayed it from the dead letters.
	Replays int
	// FirstAt is when it was first seen; set by the store.
	FirstAt time.Time
	// Seq is the store's; it orders the waiting messages of a key.
	Seq int64
}

// DeadLetterRecord is a message that cannot succeed, with all that a person needs.
type DeadLetterRecord struct {
	Group    string
	Message  *Message
	Ordered  bool
	Reason   string // "attempts spent", "verdict", "kills its process", "conflict", "invalid", "no id"
	Error    string // the error chain, clean text
	Attempts int
	Replays  int
	// Fingerprint groups failures of one cause: a short hash of type, reason and
	// normalised error.
	Fingerprint string
	FirstAt     time.Time
}

// Migrator creates and changes Outlast's tables. Versions count from 1; the files
// are in goose's format and may be printed for the user's own tool.
type Migrator interface {
	// Latest is the newest version that this build knows.
	Latest() int
	// Version is the database's; 0 when there are no tables.
	Version(ctx context.Context) (int, error)
	// Up and Down migrate to a version, one transaction each step, serialised against
	// other migrators. Up with 0 means Latest.
	Up(ctx context.Context, to int) error
	Down(ctx context.Context, to int) error
	// Print writes the SQL of Up from one version to another.
	Print(w io.Writer, from, to int) error
}
