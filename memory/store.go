// Package memory is a store and a broker that live in this process, for unit tests
// and examples. Both keep the contracts of package outlast, proved by the same
// suites as the real ones, and both can be told to fail.
//
// Nothing here starts a goroutine but inside the Run methods, and all time comes
// from package time, so that everything works in a testing/synctest bubble.
package memory

import (
	"context"
	"errors"
	"hash/fnv"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

const slots = 256

// Store is an outlast.Store in memory. Its transactions are real ones: READ
// COMMITTED, with row locks that are waited for, and a deadlock is an error of
// CodeUnavailable. What it holds is gone with the process.
type Store struct {
	mu      sync.Mutex
	faults  faults
	version int
	seq     int64
	source  string

	outbox  [slots]list[*row]
	held    list[*row]
	open    map[*Tx]bool
	scopes  map[string]*scope
	marks   map[markKey]*mark
	retries list[*waiting]
	dead    list[*dead]
	alive   map[string]map[string]time.Time
	suspect map[markKey]int
	paused  map[string]outlast.PausedGroup
	actions []outlast.ActionRecord
	sent    []*sent
	facts   []outlast.Fact
	hearers map[hearerKey]outlast.Hearer
	books   map[int64]*book // by minute, in Unix microseconds
	whole   time.Time       // from when on the sent log is; see outlast.FactPage
	dropped time.Time       // what was sent before may be gone from the sent log
	forgot  map[string]time.Time
	values  map[string]*value
}

var _ outlast.Store = (*Store)(nil)

// StoreOption sets up a fault; see [Store.Inject].
type StoreOption func(*faults)

// NewStore returns an empty store with its tables in place.
func NewStore(opts ...StoreOption) *Store {
	s := &Store{
		version: latest,
		open:    map[*Tx]bool{},
		suspect: map[markKey]int{},
		values:  map[string]*value{},
		faults:  faults{fail: map[Role]int{}, slow: map[Role]time.Duration{}},
	}
	s.clear()
	s.Inject(opts...)
	return s
}

// clear empties every table, as dropping and creating them does.
func (s *Store) clear() {
	s.outbox = [slots]list[*row]{}
	s.held, s.retries, s.dead = nil, nil, nil
	s.scopes = map[string]*scope{}
	s.marks = map[markKey]*mark{}
	s.alive = map[string]map[string]time.Time{}
	s.suspect = map[markKey]int{}
	s.paused = map[string]outlast.PausedGroup{}
	s.actions, s.source = nil, ""
	s.clearJournal()
}

func (s *Store) clearJournal() {
	s.sent, s.facts, s.hearers, s.books = nil, nil, map[hearerKey]outlast.Hearer{}, map[int64]*book{}
	s.whole, s.dropped, s.forgot = time.Time{}, time.Time{}, map[string]time.Time{}
}

// Engine is "memory".
func (s *Store) Engine() string { return "memory" }

// Slots is 256.
func (s *Store) Slots() int { return slots }

// Check returns nil unless the tables were migrated away or a fault was injected.
func (s *Store) Check(ctx context.Context) error { return s.enter(ctx, "check store", RoleCheck) }

func (s *Store) Outbox() outlast.OutboxStore     { return outbox{s} }
func (s *Store) Leases() outlast.LeaseStore      { return leases{s} }
func (s *Store) Relay() outlast.RelayStore       { return relay{s} }
func (s *Store) Inbox() outlast.InboxStore       { return inbox{s} }
func (s *Store) Operator() outlast.OperatorStore { return operator{s} }
func (s *Store) Journal() outlast.JournalStore   { return journal{s} }
func (s *Store) Books() outlast.BookStore        { return books{s} }
func (s *Store) Migrations() outlast.Migrator    { return migrator{s} }

// Value returns what committed transactions have put under key, or nil.
func (s *Store) Value(key string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.values[key]; v != nil {
		return v.committed
	}
	return nil
}

// Role names a part of the store for the injection of faults.
type Role string

const (
	RoleCheck    Role = "check"
	RoleOutbox   Role = "outbox"
	RoleLeases   Role = "leases"
	RoleRelay    Role = "relay"
	RoleInbox    Role = "inbox"
	RoleOperator Role = "operator"
	RoleJournal  Role = "journal"
	// RoleCommit is every COMMIT, that of Settle included.
	RoleCommit Role = "commit"
)

type faults struct {
	fail    map[Role]int
	slow    map[Role]time.Duration
	unknown []bool // a COMMIT each; true: it was applied
}

// FailNext makes the next n calls of a role fail with CodeUnavailable and do
// nothing. For RoleCommit the transaction is rolled back.
func FailNext(r Role, n int) StoreOption { return func(f *faults) { f.fail[r] = n } }

// CommitUnknown makes the next n COMMITs return CodeUnknown, applied or not.
func CommitUnknown(n int, applied bool) StoreOption {
	return func(f *faults) {
		for range n {
			f.unknown = append(f.unknown, applied)
		}
	}
}

// Slow makes every call of a role wait for d first, or until its context ends.
// 0 ends it.
func Slow(r Role, d time.Duration) StoreOption { return func(f *faults) { f.slow[r] = d } }

// Inject sets up faults from now on.
func (s *Store) Inject(opts ...StoreOption) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range opts {
		o(&s.faults)
	}
}

// enter is what every call passes first: its context, faults and the schema.
func (s *Store) enter(ctx context.Context, op string, r Role) error {
	s.mu.Lock()
	slow := s.faults.slow[r]
	fails := s.faults.fail[r] > 0
	if fails {
		s.faults.fail[r]--
	}
	version := s.version
	s.mu.Unlock()
	if slow > 0 {
		t := time.NewTimer(slow)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	switch {
	case ctx.Err() != nil:
		return unavailable(op, context.Cause(ctx))
	case fails:
		return unavailable(op, errInjected)
	case version == 0, r == RoleJournal && version < tracked && op == "track messages":
		return &outlast.Error{Op: op, Code: outlast.CodeSchema, Hint: "migrate the store up"}
	}
	return nil
}

var errInjected = errors.New("injected fault")

func unavailable(op string, err error) error {
	return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err}
}

func invalid(op, field, limit, given string) error {
	return &outlast.Error{Op: op, Code: outlast.CodeInvalid,
		Fields: []outlast.FieldError{{Field: field, Limit: limit, Given: given}}}
}

// nextSeq is called with mu held.
func (s *Store) nextSeq() int64 { s.seq++; return s.seq }

func slotOf(m *outlast.Message) int {
	key := m.Envelope.Key
	if key == "" {
		key = m.ID
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum32() % slots)
}
