package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
)

// handlerTx is a transaction in which a handler works: a *sql.Tx for the handler,
// and pgx's connection under it for our own statements.
type handlerTx struct {
	s      *store
	pool   *sql.Conn
	conn   *pgx.Conn
	tx     *sql.Tx
	cancel context.CancelFunc
	ended  atomic.Bool
}

// begin opens a READ COMMITTED transaction that ctx does not end.
func (s *store) begin(ctx context.Context, op string) (*handlerTx, error) {
	if s.err != nil {
		return nil, s.err
	}
	pool, err := s.db.Conn(ctx)
	if err != nil {
		return nil, s.fail(op, err, false)
	}
	t := &handlerTx{s: s, pool: pool}
	err = pool.Raw(func(dc any) error {
		t.conn = dc.(*stdlib.Conn).Conn()
		return nil
	})
	if err == nil {
		// A transaction of database/sql is rolled back when its context ends. This one
		// lives until Commit or Rollback, but BEGIN itself may be given up.
		var life context.Context
		life, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
		stop := context.AfterFunc(ctx, t.cancel)
		t.tx, err = pool.BeginTx(life, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		t.destroy()
		return nil, s.fail(op, err, false)
	}
	return t, nil
}

// Tx gives handlers what they may use.
func (t *handlerTx) Tx() outlast.Tx { return liveTx{t} }

// Commit ends the transaction. When ctx ends while the server works on it, the
// outcome is unknown.
func (t *handlerTx) Commit(ctx context.Context) error {
	if t.ended.Swap(true) {
		return &outlast.Error{Op: "commit", Code: outlast.CodeInternal, Err: sql.ErrTxDone}
	}
	if err := ctx.Err(); err != nil {
		t.destroy()
		return t.s.fail("commit", err, false)
	}
	stop := context.AfterFunc(ctx, t.cancel)
	err := t.tx.Commit()
	stop()
	if err != nil {
		t.destroy()
		return t.s.fail("commit", err, true)
	}
	t.cancel()
	_ = t.pool.Close()
	return nil
}

func (t *handlerTx) Rollback() {
	if t.ended.Swap(true) {
		return
	}
	defer time.AfterFunc(rollbackLimit, t.cancel).Stop()
	if err := t.tx.Rollback(); err != nil {
		t.destroy()
		return
	}
	t.cancel()
	_ = t.pool.Close()
}

// rollbackLimit is how long a ROLLBACK may take: where no answer comes, closing the
// connection does the same.
const rollbackLimit = 10 * time.Second

// destroy makes sure that the connection is never used again.
func (t *handlerTx) destroy() {
	if t.cancel != nil {
		t.cancel()
	}
	if t.tx != nil {
		_ = t.tx.Rollback()
	}
	_ = t.pool.Raw(func(any) error { return driver.ErrBadConn })
	_ = t.pool.Close()
}

// failed wraps an error of one of our own statements.
func (t *handlerTx) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return t.s.fail(op, err, false)
}

// liveTx is a handler's view: it has no Commit and no Rollback.
type liveTx struct{ t *handlerTx }

func (l liveTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return l.t.tx.ExecContext(ctx, query, args...)
}

func (l liveTx) StmtContext(ctx context.Context, stmt *sql.Stmt) *sql.Stmt {
	return l.t.tx.StmtContext(ctx, stmt)
}

func (l liveTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return l.t.tx.QueryContext(ctx, query, args...)
}

func (l liveTx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return l.t.tx.QueryRowContext(ctx, query, args...)
}

func (l liveTx) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return l.t.tx.PrepareContext(ctx, query)
}

func (l liveTx) pgxConn() *pgx.Conn { return l.t.conn }

// HandlePgx joins a contract to a function that works with pgx's own types. Its
// transaction is the handler's: Commit and Rollback are refused, Begin opens a
// savepoint. It needs this package's store; with another one every message fails.
func HandlePgx[T any](c outlast.Contract[T], fn func(ctx context.Context, tx pgx.Tx, m outlast.Received[T]) error, opts ...outlast.HandleOption) outlast.Handler {
	return outlast.Handle(c, func(ctx context.Context, tx outlast.Tx, m outlast.Received[T]) error {
		live, ok := tx.(interface{ pgxConn() *pgx.Conn })
		if !ok {
			return &outlast.Error{Op: "handle " + m.Type, Code: outlast.CodeInvalid,
				Err:  fmt.Errorf("the transaction is a %T", tx),
				Hint: "HandlePgx needs the store of postgres.Store, and no middleware that replaces the transaction"}
		}
		inner, err := borrow(ctx, live.pgxConn())
		if err != nil {
			return err
		}
		return fn(ctx, inner, m)
	}, opts...)
}

// borrow makes a pgx.Tx of a transaction that has begun: its BEGIN is a comment.
func borrow(ctx context.Context, c *pgx.Conn) (pgx.Tx, error) {
	tx, err := c.BeginTx(ctx, pgx.TxOptions{BeginQuery: "-- begun already"})
	return borrowedTx{tx}, err
}

type borrowedTx struct{ pgx.Tx }

func (borrowedTx) Commit(context.Context) error {
	return &outlast.Error{Op: "commit", Code: outlast.CodeInvalid, Hint: "the transaction is committed when the handler returns nil"}
}

func (borrowedTx) Rollback(context.Context) error {
	return &outlast.Error{Op: "roll back", Code: outlast.CodeInvalid, Hint: "the transaction is rolled back when the handler returns an error"}
}

// PgxTx lets [outlast.Outbox.Publish] write within a transaction of pgx.
func PgxTx(tx pgx.Tx) outlast.LiveTx { return pgxLive{tx} }

type pgxLive struct{ tx pgx.Tx }

func (p pgxLive) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	tag, err := p.tx.Exec(ctx, query, args...)
	return driver.RowsAffected(tag.RowsAffected()), err
}

// StmtContext returns nil: a statement of database/sql cannot run here, and Outlast
// does not ask for it.
func (p pgxLive) StmtContext(context.Context, *sql.Stmt) *sql.Stmt { return nil }
