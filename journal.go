package outlast

import (
	"cmp"
	"context"
	"encoding/json"
	"strconv"
	"time"
)

// JournalStore is the role of tracking: what a database knows of the life of its
// messages. Truth stays where the work is done (outbox, held, sent log, inbox, retry,
// dead letters); this role only reads it, and adds the facts that would otherwise
// vanish with the row that they were about. Package journey makes stories of it.
type JournalStore interface {
	// Tracking returns nil when this database has the tables of tracking, CodeSchema
	// when it has not: everything else then works without them.
	Tracking(ctx context.Context) error
	// Facts returns what this database knows of the messages that q selects, pending
	// and waiting ones included, at most q.Limit facts of each place. Without the
	// tables of tracking it knows what waits and what the inbox has. What a limit cuts
	// off are the oldest rows of a place, so that the same question has the same answer.
	Facts(ctx context.Context, q FactQuery) (FactPage, error)
	// IDs returns the ids of the messages that q selects, the greatest first, at most
	// q.Limit of them; with before, only ids less than that. Ids of ours are in the order
	// in which the messages were made, and a message keeps its place among them while it
	// moves from table to table. What only an inbox knows is not among them.
	IDs(ctx context.Context, q FactQuery, before string) ([]string, error)
	// Failures groups the dead letters by fingerprint, group and type: those last seen the
	// latest first, and those last seen at one time in the order of their keys.
	Failures(ctx context.Context, q FailureQuery) ([]Failure, error)
	// Hear records, in the database of the group, that it hears these types from now
	// on. Types that were there before stay, with their time.
	Hear(ctx context.Context, group string, types []string) error
	// Unhear ends that record: what is sent from now on is not expected of the group.
	Unhear(ctx context.Context, group, typ string, by Action) error
	// Hearers returns the records of this database.
	Hearers(ctx context.Context) ([]Hearer, error)
	// Seen calls yield with the id of everything that the inbox of group has of source's
	// messages enqueued in the minute: handled, waiting and dead.
	Seen(ctx context.Context, group, source string, minute time.Time, yield func(id string) error) error
	// Known returns those of the ids that the inbox of group has of source's messages.
	Known(ctx context.Context, group, source string, ids []string) ([]string, error)
	// Keep makes room ahead and drops what may be dropped, with bounded work.
	Keep(ctx context.Context, r Retention) (Kept, error)
}

// FactKind is what happened to a message.
type FactKind string

const (
	// FactFailed is a try that failed, in the sender or in a group. It is history: it
	// never decides where a message is.
	FactFailed FactKind = "failed"
	// FactCommitted: the transaction that enqueued the message has committed.
	FactCommitted FactKind = "committed"
	// FactHeld: it waits in outlast_held, Code says why.
	FactHeld FactKind = "held"
	// FactSent: the broker has confirmed and routed it.
	FactSent FactKind = "sent"
	// FactUnheard: the broker had no queue for it, and the contract says that this is fine.
	FactUnheard FactKind = "unheard"
	// FactExpired: its time was over before it could be sent.
	FactExpired FactKind = "expired"
	// FactWithdrawn: a person or its producer took it back.
	FactWithdrawn FactKind = "withdrawn"
	// FactResent: a person enqueued it once more, with its id.
	FactResent FactKind = "resent"

	// FactWaiting: a group has it in outlast_retry, Code says why.
	FactWaiting FactKind = "waiting"
	// FactDead: a group gave it up.
	FactDead FactKind = "dead"
	// FactReplayed: a person gave it another chance.
	FactReplayed FactKind = "replayed"
	// FactDiscarded: a person threw the dead letter away.
	FactDiscarded FactKind = "discarded"
	// FactHandled: its effects have committed.
	FactHandled FactKind = "handled"
)

// Fact is one thing that happened to a message. Facts are immutable and form a set:
// they may be read late, twice and in any order, and say the same.
type Fact struct {
	Kind FactKind `json:"kind"`
	ID   string   `json:"id"`
	// Source is the service that wrote the message.
	Source string `json:"source,omitempty"`
	// Group is set on the receiving side.
	Group string `json:"group,omitempty"`
	// At is by the clock of the database that holds the fact.
	At time.Time `json:"at,omitzero"`
	// Attempt counts failed tries so far; Replays what a person brought back.
	Attempt int `json:"attempt,omitempty"`
	Replays int `json:"replays,omitempty"`
	// Code is a short reason, Detail the text for people.
	Code   string `json:"code,omitempty"`
	Detail string `json:"detail,omitempty"`
	// Until is the time of the next try, when there is one.
	Until time.Time `json:"until,omitzero"`
	// EnqueuedAt is set where the row holds no envelope and yet tells when the message was
	// enqueued: an inbox does. Of a message that did not say so it is when it came.
	EnqueuedAt time.Time `json:"enqueued_at,omitzero"`
	// Now marks the fact of a row that is there: where the message is.
	Now bool `json:"now,omitempty"`
	// AsOf is set when the database did not say so itself just now: somebody who asked it
	// then (package collector) remembers it. No store sets it.
	AsOf time.Time `json:"as_of,omitzero"`
	// Envelope is what the row holds of the message, nil when it holds only the id.
	Envelope *Envelope `json:"envelope,omitempty"`
}

// FactQuery selects messages by any of its lists: their ids, their flows, their
// business keys (values of fields tagged "find", and ordering keys). Facts of an
// inbox, which holds neither flows nor keys, are selected by id alone.
type FactQuery struct {
	IDs   []string
	Flows []string
	Keys  []string
	// Limit is of facts for each place. Range 1 to 10,000; default 1,000.
	Limit int
}

// Limited returns the limit with its default.
func (q FactQuery) Limited() int {
	if q.Limit < 1 {
		return 1000
	}
	return min(q.Limit, 10_000)
}

// FactPage is the answer to a FactQuery. More says that a limit cut it off. Service is
// the owner of the outbox in this database, Tracked whether it has a sent log.
type FactPage struct {
	Service string `json:"service,omitempty"`
	Tracked bool   `json:"tracked"`
	// Since is the instant from which the sent log is whole: of a message that was enqueued
	// then or later, and that a relay has sent, it knows. It is the end of what was dropped
	// from the log, or of the last time that a relay sent without tracking, whichever is
	// later; a little later than that, never earlier. Zero: nothing is known, because nobody
	// has kept the log yet. A relay of a build without tracking, or without any right on the
	// tables of tracking, leaves no trace here (TestStore/The_sent_log_tells_since_when_it_is_whole).
	Since time.Time `json:"since,omitzero"`
	Facts []Fact    `json:"facts"`
	More  bool      `json:"more,omitempty"`
}

// FailureQuery selects groups of failures. Limit: default 100, range 1 to 1,000.
type FailureQuery struct {
	Group string
	// Before and After continue a listing behind a failure, of which Before is when it was
	// last seen and After its key. Before alone leaves out all that were last seen then.
	Before time.Time
	After  FailureKey
	Limit  int
}

// FailureKey tells groups of failures apart. Keys are ordered by their fields, each by its
// bytes.
type FailureKey struct{ Fingerprint, Group, Type string }

// Compare orders keys.
func (k FailureKey) Compare(other FailureKey) int {
	return cmp.Or(cmp.Compare(k.Fingerprint, other.Fingerprint), cmp.Compare(k.Group, other.Group), cmp.Compare(k.Type, other.Type))
}

// Failure is a group of dead letters of one cause.
type Failure struct {
	Fingerprint string    `json:"fingerprint"`
	Group       string    `json:"group"`
	Type        string    `json:"type"`
	Reason      string    `json:"reason"`
	Error       string    `json:"error,omitempty"` // of the newest
	Count       int       `json:"count"`
	FirstSeen   time.Time `json:"first_seen"`
	LastSeen    time.Time `json:"last_seen"`
}

// Key tells the failure from others of its database.
func (f Failure) Key() FailureKey { return FailureKey{f.Fingerprint, f.Group, f.Type} }

// Compare orders failures as a listing has them.
func (f Failure) Compare(other Failure) int {
	return cmp.Or(other.LastSeen.Compare(f.LastSeen), f.Key().Compare(other.Key()))
}

// Hearer is a group that hears a type: whom the books expect a message of. Until is
// zero while it does.
type Hearer struct {
	Group string    `json:"group"`
	Type  string    `json:"type"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"`
	// Forgot is the instant up to which the group's inbox may have forgotten what it handled,
	// by its purges: what it handled later it remembers. Zero: it never forgot anything, or
	// only before it began to say so (TestStore/Purge_tells_what_it_forgot).
	Forgot time.Time `json:"forgot,omitzero"`
}

// Retention is how long the sent log keeps what. What the books have not balanced, and
// nobody signed off, is not dropped. Where nobody has ever kept books of this outbox
// (package journey does), age and bytes decide alone.
type Retention struct {
	// Books says that books are kept, also before the first minute was looked at.
	Books bool
	// BodyAge is how long bodies stay at least after they were sent. Default: one hour.
	BodyAge time.Duration
	// Age and Bytes bound the headers: what is older than Age may go, and the oldest
	// may go when all together take more than Bytes. Never younger than one hour, nor
	// while a deadline of theirs is ahead. Defaults: 7 days, 10 GiB.
	Age   time.Duration
	Bytes int64
}

// Filled returns the retention with its defaults.
func (r Retention) Filled() Retention {
	setDefault(&r.BodyAge, time.Hour)
	setDefault(&r.Age, 7*24*time.Hour)
	setDefault(&r.Bytes, 10<<30)
	return r
}

// Kept is what Keep did and saw.
type Kept struct {
	// Bytes is what the sent log takes.
	Bytes int64 `json:"bytes"`
	// Dropped counts parts that were dropped (partitions, or rows where there are none).
	Dropped int `json:"dropped"`
	// Due counts parts past their age or over the budget that wait for the books.
	Due int `json:"due"`
}

// Fate is how a row left the outbox.
type Fate int16

const (
	FateSent Fate = iota
	FateUnheard
	FateExpired
	FateWithdrawn
)

// Kind is the fact that a fate is.
func (f Fate) Kind() FactKind {
	switch f {
	case FateUnheard:
		return FactUnheard
	case FateExpired:
		return FactExpired
	case FateWithdrawn:
		return FactWithdrawn
	}
	return FactSent
}

// Headers of ours that travel, and rest in the tables, among a message's headers.
const (
	headerFind   = "outlast-find"
	headerWithin = "outlast-within-ms"
)

// StoredHeaders returns what a store writes into the column headers: the user's
// headers and those parts of the envelope that have no column of their own.
func (m *Message) StoredHeaders() Headers {
	if len(m.Find) == 0 && len(m.Show) == 0 && m.Within == 0 {
		return m.Headers
	}
	h := make(Headers, len(m.Headers)+3)
	for name, value := range m.Headers {
		h[name] = value
	}
	if len(m.Find) > 0 {
		h[headerFind] = findText(m.Find)
	}
	if len(m.Show) > 0 {
		h[headerShow] = showText(m.Show)
	}
	if m.Within > 0 {
		h[headerWithin] = strconv.FormatInt(m.Within.Milliseconds(), 10)
	}
	return h
}

// SetStoredHeaders is the reverse, for rows as they are read. It takes the map.
func (m *Message) SetStoredHeaders(h Headers) {
	if text, ok := h[headerFind]; ok {
		m.Find = parseFind(text)
		delete(h, headerFind)
	}
	if text, ok := h[headerShow]; ok {
		m.Show = parseShow(text)
		delete(h, headerShow)
	}
	if text, ok := h[headerWithin]; ok {
		m.Within = parseWithin(text)
		delete(h, headerWithin)
	}
	if len(h) == 0 {
		h = nil
	}
	m.Headers = h
}

func findText(find map[string]string) string {
	text, err := json.Marshal(find)
	if err != nil {
		return "{}" // a map of strings always has a JSON form
	}
	return string(text)
}

// parseFind never fails: a key that cannot be read is one that finds nothing.
func parseFind(text string) map[string]string {
	var find map[string]string
	if json.Unmarshal([]byte(text), &find) != nil {
		return nil
	}
	for name, value := range find {
		if len(find) > MaxFind || name == "" || len(name) > MaxHeaderName || len(value) > MaxAttribute || !cleanText(name) || !cleanText(value) || value == "" {
			delete(find, name)
		}
	}
	if len(find) == 0 {
		return nil
	}
	return find
}

func parseWithin(text string) time.Duration {
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 1 || ms > MaxDelay.Milliseconds() {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// Deadline is the instant by which every group should have handled the message, zero
// when its contract names none.
func (e *Envelope) Deadline() time.Time {
	if e.Within == 0 || e.EnqueuedAt.IsZero() {
		return time.Time{}
	}
	return e.EnqueuedAt.Add(e.Within)
}
