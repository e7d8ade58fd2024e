package history

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"

	"github.com/outlastmq/outlast"
)

type (
	txKey     struct{}
	keySeqKey struct{}
)

// writing is a transaction under whose context messages are published.
type writing struct {
	id string
	// wrote: something was.
	wrote atomic.Bool
}

// txOf returns the id of the transaction of ctx, in which something is written now.
func txOf(ctx context.Context) string {
	w, _ := ctx.Value(txKey{}).(*writing)
	if w == nil {
		return ""
	}
	w.wrote.Store(true)
	return w.id
}

func keySeqOf(ctx context.Context) int64 {
	n, _ := ctx.Value(keySeqKey{}).(int64)
	return n
}

// WithKeySeq says of the messages that are published under ctx which place their
// transaction has among those of their ordering key: with n growing in the order in
// which the transactions followed each other, the checker can tell their order.
func WithKeySeq(ctx context.Context, n int64) context.Context {
	return context.WithValue(ctx, keySeqKey{}, n)
}

// Tx is a business transaction whose end is recorded. Like *sql.Tx, which is in it, it
// is a live transaction for [outlast.Outbox.Publish].
type Tx struct {
	*sql.Tx
	r  *Recorder
	id string
	// over: its end is recorded.
	over bool
}

// Begin begins a transaction and writes its row into the ledger. What is published
// under the context that it returns counts as written in the transaction.
func (r *Recorder) Begin(ctx context.Context, db *sql.DB, ledger *Ledger) (context.Context, *Tx, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return ctx, nil, err
	}
	t := &Tx{Tx: tx, r: r, id: outlast.NewID()}
	r.Record(Event{E: Begin, Tx: t.id, Name: ledger.name()})
	if err := ledger.write(ctx, tx, t.id, "", ""); err != nil {
		_ = t.Rollback()
		return ctx, nil, err
	}
	return context.WithValue(ctx, txKey{}, &writing{id: t.id}), t, nil
}

// Commit commits and records that it is about to, and whether it did: an error that is
// not the database's own word leaves it unknown.
func (t *Tx) Commit() error {
	if !t.over {
		t.r.Record(Event{E: Committing, Tx: t.id})
	}
	err := t.Tx.Commit()
	t.end(commitOutcome(err), err)
	return err
}

// Rollback rolls back, unless the transaction has ended.
func (t *Tx) Rollback() error {
	err := t.Tx.Rollback()
	if !errors.Is(err, sql.ErrTxDone) {
		t.end(RolledBack, nil) // whatever became of the connection: nobody has asked for a commit
	}
	return err
}

func (t *Tx) end(o string, err error) {
	if t.over {
		return
	}
	t.over = true
	e := Event{E: Commit, Tx: t.id, O: o}
	if err != nil {
		e.Error = outlast.CleanErrorText(err.Error())
	}
	t.r.Record(e)
}

// commitOutcome tells apart what a database has refused and what nobody knows.
func commitOutcome(err error) string {
	if err == nil {
		return OK
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) && len(state.SQLState()) == 5 {
		switch state.SQLState()[:2] {
		case "23", "25", "40", "22", "P0": // constraints, aborted before, serialization, data, raised
			return Fail
		}
	}
	if errors.Is(err, sql.ErrTxDone) {
		return Fail // it was rolled back before
	}
	return Unknown
}

// Middleware records the transactions of handlers and writes their rows into the
// ledger. Make it the outermost one. With a nil ledger, what became of a commit with
// an unknown outcome cannot be told.
func (r *Recorder) Middleware(ledger *Ledger) outlast.Middleware {
	return func(next outlast.HandlerFunc) outlast.HandlerFunc {
		return func(ctx context.Context, tx outlast.Tx, d *outlast.Delivered) error {
			id := outlast.NewID()
			r.effects.Store(effectKey{d.Group, d.Message.ID}, id)
			r.Record(Event{E: Begin, Tx: id, Name: ledger.name(), G: d.Group, M: d.Message.ID, N: d.Attempt})
			if ledger != nil {
				if err := ledger.write(ctx, tx, id, d.Group, d.Message.ID); err != nil {
					return err
				}
			}
			w := &writing{id: id}
			err := next(context.WithValue(ctx, txKey{}, w), tx, d)
			if err == nil && w.wrote.Load() {
				r.Record(Event{E: Committing, Tx: id})
			}
			return err
		}
	}
}
