package memory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
)

// Tx is a transaction of a [Store]. It understands no SQL: its statements return an
// error, and a handler's effects go through Put, Update and Do. It is used by one
// goroutine at a time.
type Tx struct {
	store   *Store
	managed bool // Outlast ends it
	done    chan struct{}
	ended   bool
	ops     []op
	// inserted is the time of the first row written to the outbox.
	inserted time.Time
	// waitsFor is the transaction that holds what this one wants; mu guards it.
	waitsFor *Tx
}

var _ outlast.Tx = (*Tx)(nil)

// op is a deed of a transaction: applied at the commit, or undone.
type op struct {
	apply func()
	undo  func()
	row   *row // an outbox row that only this transaction sees
	key   string
	value any
}

type value struct {
	committed any
	lock      *Tx
}

// Begin starts a transaction of a producer.
func (s *Store) Begin() *Tx {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begin(false)
}

func (s *Store) begin(managed bool) *Tx {
	t := &Tx{store: s, managed: managed, done: make(chan struct{})}
	s.open[t] = true
	return t
}

// Commit makes everything visible at once. Outcomes: nil, CodeUnavailable (it did
// not happen) and CodeUnknown. A transaction that Outlast began refuses it.
func (t *Tx) Commit() error {
	if t.managed {
		return &outlast.Error{Op: "commit", Code: outlast.CodeInvalid, Hint: "outlast commits this transaction after the handler"}
	}
	return t.commit("commit")
}

// Rollback undoes everything. After the end it returns sql.ErrTxDone.
func (t *Tx) Rollback() error {
	if t.managed {
		return &outlast.Error{Op: "roll back", Code: outlast.CodeInvalid, Hint: "return an error from the handler"}
	}
	return t.rollback()
}

func (t *Tx) rollback() error {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	if t.ended {
		return sql.ErrTxDone
	}
	t.end(false)
	return nil
}

func (t *Tx) commit(op string) error {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.ended {
		return &outlast.Error{Op: op, Code: outlast.CodeInternal, Err: sql.ErrTxDone}
	}
	apply, err := s.commitFault(op)
	t.end(apply)
	return err
}

// commitFault decides the fate of a COMMIT; it is called with mu held.
func (s *Store) commitFault(op string) (apply bool, err error) {
	if s.faults.fail[RoleCommit] > 0 {
		s.faults.fail[RoleCommit]--
		return false, unavailable(op, errInjected)
	}
	if len(s.faults.unknown) == 0 {
		return true, nil
	}
	apply = s.faults.unknown[0]
	s.faults.unknown = s.faults.unknown[1:]
	return apply, &outlast.Error{Op: op, Code: outlast.CodeUnknown, Err: errInjected}
}

// end is called with mu held.
func (t *Tx) end(apply bool) {
	if apply {
		for _, o := range t.ops {
			if o.apply != nil {
				o.apply()
			}
		}
	} else {
		t.undoTo(0)
	}
	t.ended, t.ops = true, nil
	delete(t.store.open, t)
	close(t.done)
}

// undoTo rolls back to a savepoint; it is called with mu held.
func (t *Tx) undoTo(n int) {
	for i := len(t.ops) - 1; i >= n; i-- {
		if t.ops[i].undo != nil {
			t.ops[i].undo()
		}
	}
	t.ops = t.ops[:n]
}

// Do calls fn when, and only if, the transaction commits. fn must not call the store.
func (t *Tx) Do(fn func()) {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	if !t.ended {
		t.ops = append(t.ops, op{apply: fn})
	}
}

// Put sets key to v when the transaction commits. It waits while another
// transaction that wrote the key is open, as an UPDATE does.
func (t *Tx) Put(ctx context.Context, key string, v any) error {
	return t.Update(ctx, key, func(any) any { return v })
}

// Update sets key to what fn makes of its value (nil when there is none). Like Put
// it locks the key, so that no update is lost. fn must not call the store.
func (t *Tx) Update(ctx context.Context, key string, fn func(old any) any) error {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.values[key]
	if v == nil {
		v = &value{}
		s.values[key] = v
	}
	if err := s.acquire(ctx, fmt.Sprintf("update %q", key), t, &v.lock); err != nil {
		return err
	}
	o := op{key: key, value: fn(t.get(key))}
	o.apply = func() { v.committed = o.value }
	t.ops = append(t.ops, o)
	return nil
}

// Get returns the value of key as this transaction sees it: its own, or the
// newest committed one, or nil.
func (t *Tx) Get(key string) any {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	return t.get(key)
}

func (t *Tx) get(key string) any {
	for i := len(t.ops) - 1; i >= 0; i-- {
		if t.ops[i].key == key && key != "" {
			return t.ops[i].value
		}
	}
	if v := t.store.values[key]; v != nil {
		return v.committed
	}
	return nil
}

// acquire takes the lock for t, waiting for its holder; it is called with mu held,
// and gives mu up while it waits. The lock is given back by Undo or the end.
func (s *Store) acquire(ctx context.Context, what string, t *Tx, lock **Tx) error {
	for *lock != nil && *lock != t {
		if err := s.await(ctx, what, t, *lock); err != nil {
			return err
		}
	}
	if t.ended {
		return &outlast.Error{Op: what, Code: outlast.CodeInternal, Err: sql.ErrTxDone}
	}
	if *lock == nil {
		*lock = t
		free := func() { *lock = nil }
		t.ops = append(t.ops, op{apply: free, undo: free})
	}
	return nil
}

// await waits for the end of holder; t is who waits, or nil. It is called with mu
// held, and gives it up meanwhile.
func (s *Store) await(ctx context.Context, what string, t, holder *Tx) error {
	for h := holder; h != nil && t != nil; h = h.waitsFor {
		if h == t {
			return unavailable(what, errDeadlock)
		}
	}
	if t != nil {
		t.waitsFor = holder
		defer func() { t.waitsFor = nil }()
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-holder.done:
		return nil
	case <-ctx.Done():
		return unavailable(what, context.Cause(ctx))
	}
}

var (
	errDeadlock = errors.New("deadlock detected")
	errNoSQL    = errors.New("the memory store understands no SQL: use Put, Update or Do of *memory.Tx")
)

// ExecContext returns an error: see [Tx].
func (t *Tx) ExecContext(context.Context, string, ...any) (sql.Result, error) { return nil, errNoSQL }

// QueryContext returns an error: see [Tx].
func (t *Tx) QueryContext(context.Context, string, ...any) (*sql.Rows, error) { return nil, errNoSQL }

// PrepareContext returns an error: see [Tx].
func (t *Tx) PrepareContext(context.Context, string) (*sql.Stmt, error) { return nil, errNoSQL }

// StmtContext returns stmt unchanged: see [Tx].
func (t *Tx) StmtContext(_ context.Context, stmt *sql.Stmt) *sql.Stmt { return stmt }

// QueryRowContext returns a row whose Scan returns an error: see [Tx].
func (t *Tx) QueryRowContext(ctx context.Context, query string, _ ...any) *sql.Row {
	// Only package sql can make a row that carries an error: from a context that has ended.
	return new(sql.DB).QueryRowContext(ended{ctx, errNoSQL}, query)
}

type ended struct {
	context.Context
	err error
}

func (e ended) Done() <-chan struct{} { return closed }
func (e ended) Err() error            { return e.err }

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// memoryTx finds the transaction in a type that embeds it.
func (t *Tx) memoryTx() *Tx { return t }

// own returns tx as a live transaction of s.
func (s *Store) own(op string, tx outlast.LiveTx) (*Tx, error) {
	w, ok := tx.(interface{ memoryTx() *Tx })
	if !ok || w.memoryTx() == nil || w.memoryTx().store != s {
		return nil, invalid(op, "tx", "a transaction of this memory store", fmt.Sprintf("%T", tx))
	}
	return w.memoryTx(), nil
}
