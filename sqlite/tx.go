package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/outlastmq/outlast"
)

// runner is what *sql.DB and *sql.Tx have in common.
type runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// writeTx is a transaction that holds the write lock. It is used by one goroutine.
type writeTx struct {
	s  *store
	op string
	tx *sql.Tx
	// guarded transactions are in the hands of a handler: a savepoint tells at the end
	// whether the transaction is still the one that was begun.
	guarded bool
	dead    error // why no statement is let through any more
	unsure  bool  // a handler may have had an error that was not seen here
	stmts   bool  // a handler has prepared statements: it stays unsure
	ended   bool
}

const (
	setGuard     = "SAVEPOINT outlast_guard"
	releaseGuard = "RELEASE outlast_guard"
	undoToGuard  = "ROLLBACK TO outlast_guard"
)

// begin waits for the writers of this process in turn, then for those of others
// up to the busy timeout. ctx ends the wait, and never the transaction.
func (s *store) begin(ctx context.Context, op string) (*writeTx, error) {
	if s.err != nil {
		return nil, s.err
	}
	select {
	case s.gate <- struct{}{}:
	case <-ctx.Done():
		return nil, mapped(op, ctx.Err())
	}
	w := &writeTx{s: s, op: op}
	if err := w.open(ctx); err != nil {
		<-s.gate
		return nil, mapped(op, err)
	}
	return w, nil
}

// open begins under a context of its own: database/sql would roll back on its end
// at any moment, and an interrupted COMMIT could not be told from a failed one.
func (w *writeTx) open(ctx context.Context) error {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	tx, err := w.s.db.BeginTx(own, nil)
	if !stop() {
		if err == nil {
			_ = tx.Rollback()
		}
		return ctx.Err()
	}
	if err != nil {
		cancel()
		return err
	}
	w.tx, w.dead, w.unsure, w.stmts = tx, nil, false, false
	return nil // the transaction's end releases own
}

// guard sets the savepoint behind which a handler works.
func (w *writeTx) guard(ctx context.Context) error {
	w.guarded = true
	return w.exec(ctx, setGuard)
}

func (w *writeTx) exec(ctx context.Context, query string, args ...any) error {
	_, err := w.count(ctx, query, args...)
	return err
}

func (w *writeTx) count(ctx context.Context, query string, args ...any) (int64, error) {
	if err := w.alive(); err != nil {
		return 0, mapped(w.op, err)
	}
	res, err := w.tx.ExecContext(ctx, query, args...)
	if err != nil {
		w.saw(err)
		return 0, mapped(w.op, err)
	}
	n, err := res.RowsAffected()
	return n, mapped(w.op, err)
}

// alive returns why the transaction is over, or nil.
func (w *writeTx) alive() error {
	if w.ended {
		return sql.ErrTxDone
	}
	if w.dead == nil && w.unsure {
		w.unsure = w.stmts
		w.probe(errors.New("an error that nobody returned"))
	}
	return w.dead
}

// saw takes note of an error: it may have ended the transaction.
func (w *writeTx) saw(err error) {
	switch {
	case err == nil || w.dead != nil || w.ended:
	case endsTransaction(err):
		w.kill(err)
	default:
		w.probe(err)
	}
}

// probe asks SQLite whether a transaction is open, by the refusal of a second BEGIN.
func (w *writeTx) probe(cause error) {
	_, err := w.tx.ExecContext(context.Background(), "BEGIN")
	if err != nil && strings.Contains(err.Error(), "within a transaction") {
		return
	}
	w.kill(cause)
}

// kill makes database/sql refuse every further statement, also those that a handler
// has prepared. It is an outage when the cause is one, and otherwise a failure of the
// handler, which costs the message an attempt.
func (w *writeTx) kill(cause error) {
	code := outlast.CodeInternal
	if outlast.Retryable(mapped(w.op, cause)) {
		code = outlast.CodeUnavailable
	}
	w.dead = &outlast.Error{Op: w.op, Code: code, Err: fmt.Errorf("the transaction is over after: %w", cause), Hint: hintSwallowed}
	_ = w.tx.Rollback()
}

const hintSwallowed = "a statement failed, or the handler ended the transaction: return every statement's error from the handler"

func (w *writeTx) end() {
	if !w.ended {
		w.ended = true
		<-w.s.gate
	}
}

func (w *writeTx) rollback() {
	if w.ended {
		return
	}
	_ = w.tx.Rollback() // whatever it returns, the transaction is gone
	w.end()
}

// commit has three outcomes: nil, an error that says that it did not happen, and
// CodeUnknown. ctx is honoured before the commit starts, not during it.
func (w *writeTx) commit(ctx context.Context) error {
	if w.ended {
		return &outlast.Error{Op: w.op, Code: outlast.CodeInternal, Err: sql.ErrTxDone}
	}
	defer w.end()
	if err := w.ready(ctx); err != nil {
		_ = w.tx.Rollback()
		return mapped(w.op, err)
	}
	if err := w.tx.Commit(); err != nil {
		return commitError(w.op, err)
	}
	return nil
}

func (w *writeTx) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.dead != nil {
		return w.dead
	}
	if !w.guarded {
		return nil
	}
	if _, err := w.tx.ExecContext(context.WithoutCancel(ctx), releaseGuard); err != nil {
		return &outlast.Error{Op: w.op, Code: outlast.CodeInternal, Err: fmt.Errorf("the transaction was over before its commit: %w", err), Hint: hintSwallowed}
	}
	return nil
}
