package outlast

import (
	"context"
	"encoding/json"
	"time"
)

// OperatorStore is the role of the program and the console: to look and to act on
// what waits. Every action is recorded with who did it and why.
type OperatorStore interface {
	// Status counts what waits, with bounded work on any backlog: counts above
	// CountLimit are reported as such.
	Status(ctx context.Context) (*StoreStatus, error)
	Outbox() OutboxOperator
	Retries() RetryOperator
	Dead() DeadOperator
	// SetPaused pauses or resumes a group's consumers, or with [RelaySwitch] the relays of
	// this outbox: see [LeaseStore.Lease].
	SetPaused(ctx context.Context, group string, paused bool, by Action) error
	// Actions returns recorded operator actions, the newest first.
	Actions(ctx context.Context, q ActionQuery) ([]ActionRecord, error)
}

// CountLimit bounds exact counting; a backlog above it is "more than".
const CountLimit = 1_000_000

// Action says who does something and why.
type Action struct {
	Who    string
	Reason string
}

// ActionQuery selects recorded actions. Before continues a listing: only actions with a
// smaller Seq. Limit: default 100, range 1 to 10,000.
type ActionQuery struct {
	Before int64
	Limit  int
}

// Limited returns the limit with its default.
func (q ActionQuery) Limited() int {
	if q.Limit < 1 {
		return 100
	}
	return min(q.Limit, 10_000)
}

// ActionRecord is one recorded action. Seq orders the actions of a database.
type ActionRecord struct {
	Seq    int64     `json:"seq"`
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	What   string    `json:"what"`   // "dead replay"
	Target string    `json:"target"` // an id or a filter
	Count  int       `json:"count"`
	Reason string    `json:"reason,omitempty"`
}

// StoreStatus is what waits in one database.
type StoreStatus struct {
	Source  string        `json:"source"`
	Now     time.Time     `json:"now"` // the database's clock
	Pending []RouteStatus `json:"pending"`
	Held    []HeldStatus  `json:"held"`
	Retry   []GroupStatus `json:"retry"`
	Dead    []GroupStatus `json:"dead"`
	// Relays are the relay owners alive, with the number of slots each holds.
	Relays []RelayStatus `json:"relays"`
	Groups []PausedGroup `json:"paused"`
	// RelaysPaused is set while an operator has paused the relays of this outbox.
	RelaysPaused *PausedGroup `json:"relays_paused,omitempty"`
	// Unattended are the pending rows of slots that no relay alive holds: nobody even
	// tries to send them. While the relays are paused they hold none.
	Unattended Backlog `json:"unattended"`
}

// AddPaused is for stores: it adds what an operator paused, a group or the relays.
func (s *StoreStatus) AddPaused(p PausedGroup) {
	if p.Group == RelaySwitch {
		s.RelaysPaused = &p
		return
	}
	s.Groups = append(s.Groups, p)
}

// Backlog is a number of rows and the age of the oldest.
type Backlog struct {
	Count  int           `json:"count"`
	Oldest time.Duration `json:"oldest_ns"`
}

// RouteStatus counts pending rows of a type.
type RouteStatus struct {
	Type   string        `json:"type"`
	Count  int           `json:"count"`
	Oldest time.Duration `json:"oldest_ns"`
}

// HeldStatus counts held rows of a type and reason.
type HeldStatus struct {
	Type   string        `json:"type"`
	Reason HeldReason    `json:"reason"`
	Count  int           `json:"count"`
	Oldest time.Duration `json:"oldest_ns"`
	Error  string        `json:"error,omitempty"` // of one of them
}

// GroupStatus counts waiting or dead messages of a group and type.
type GroupStatus struct {
	Group  string        `json:"group"`
	Type   string        `json:"type"`
	Count  int           `json:"count"`
	Oldest time.Duration `json:"oldest_ns"`
	// Overdue, of waiting messages, are the first of their keys whose own time came more
	// than OverdueAfter ago and that nobody has tried.
	Overdue int `json:"overdue,omitempty"`
	// Spent, of waiting messages, are those that hold their key until a person acts: see
	// [WaitSpent]. Those that a person has made due are not among them.
	Spent int `json:"spent,omitempty"`
}

// OverdueAfter is how long a retry may be late before it counts as overdue.
const OverdueAfter = time.Minute

// RelayStatus is one relay alive.
type RelayStatus struct {
	Owner string `json:"owner"`
	Slots int    `json:"slots"`
}

// PausedGroup is a group that an operator paused.
type PausedGroup struct {
	Group  string    `json:"group"`
	Since  time.Time `json:"since"`
	Who    string    `json:"who"`
	Reason string    `json:"reason,omitempty"`
}

// Filter selects rows for listing and for bulk actions. Zero fields select all.
type Filter struct {
	IDs         []string
	Type        string
	Key         string
	Group       string
	Reason      string
	Fingerprint string
	// OlderThan and NewerThan compare the row's age.
	OlderThan time.Duration
	NewerThan time.Duration
	// After continues a listing after that Seq. Limit: default 100, range 1 to 10,000.
	After int64
	Limit int
}

// Item is a row as operators see it. Bodies come only from Show.
type Item struct {
	Seq         int64           `json:"seq"`
	Where       string          `json:"where"` // "pending", "held", "retry", "dead"
	Group       string          `json:"group,omitempty"`
	Envelope    Envelope        `json:"envelope"`
	Reason      string          `json:"reason,omitempty"`
	Error       string          `json:"error,omitempty"`
	Attempts    int             `json:"attempts"`
	Replays     int             `json:"replays,omitempty"`
	Fingerprint string          `json:"fingerprint,omitempty"`
	FirstAt     time.Time       `json:"first_at,omitzero"`
	LastAt      time.Time       `json:"last_at,omitzero"`
	NextAt      time.Time       `json:"next_at,omitzero"`
	BodySize    int             `json:"body_size"`
	Body        json.RawMessage `json:"body,omitempty"`       // when it is JSON
	BodyBytes   []byte          `json:"body_bytes,omitempty"` // when it is not
}

// OutboxOperator looks into the outbox and the held.
type OutboxOperator interface {
	// List returns rows in order of Seq, pending and held, without bodies.
	List(ctx context.Context, f Filter) ([]Item, error)
	// Show returns one row by id with its body, or CodeNotFound.
	Show(ctx context.Context, id string) (*Item, error)
	// Release makes held rows of any reason but due and behind eligible now.
	Release(ctx context.Context, f Filter, by Action) (int, error)
	// Withdraw deletes rows. A pending row of a running relay may have been published
	// already: such ids are returned as uncertain.
	Withdraw(ctx context.Context, f Filter, by Action) (withdrawn int, uncertain []string, err error)
}

// RetryOperator looks into the messages that wait for a retry.
type RetryOperator interface {
	List(ctx context.Context, f Filter) ([]Item, error)
	Show(ctx context.Context, group, id string) (*Item, error)
	// Now makes waiting messages due at once.
	Now(ctx context.Context, f Filter, by Action) (int, error)
}

// DeadOperator looks into the dead letters.
type DeadOperator interface {
	List(ctx context.Context, f Filter) ([]Item, error)
	Show(ctx context.Context, group, id string) (*Item, error)
	// Replay moves dead letters back to waiting, due at once, with their ids and with
	// attempts counted anew. A message is dead or waiting, never both, so two replays
	// of one message are never in flight. At most Filter.Limit rows.
	Replay(ctx context.Context, f Filter, by Action) (int, error)
	// Discard deletes dead letters for good; the inbox remembers them as dead.
	Discard(ctx context.Context, f Filter, by Action) (int, error)
	// Edit puts a new message into the place of a dead letter, in one transaction: the
	// dead letter is discarded, and edited waits for its group alone, due at once, ordered
	// as the dead letter was. Nothing of it passes the broker. CodeNotFound: there is no
	// such dead letter; CodeConflict: the group knows edited's source and id already.
	Edit(ctx context.Context, group, id string, edited *Message, by Action) error
}
