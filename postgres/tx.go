package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
)

// handlerTx is a transaction in which a handler works: database/sql's connection for the
// handler, and pgx's under it for our own statements.
type handlerTx struct {
	s     *store
	pool  *sql.Conn
	conn  *pgx.Conn
	tx    pgx.Tx
	ended atomic.Bool

	// live is held for reading during a handler's statement: none is under way when the
	// transaction ends, and none begins then.
	live sync.RWMutex
	mu   sync.Mutex
	open func() // closes the last query's rows; those before it are closed, or it had failed
	// std is set when a handler prepares statements, which belong to a *sql.Tx. Its end
	// is the transaction's.
	std    *sql.Tx
	cancel context.CancelFunc // of std
}

// begin takes a connection for a READ COMMITTED transaction that ctx does not end. It
// begins with what is sent next: see send.
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
	if err == nil && s.prepares.Load() {
		err = t.standard(ctx)
	}
	if err != nil {
		t.destroy()
		return nil, s.fail(op, err, false)
	}
	return t, nil
}

// send sends the first statements of the transaction behind its BEGIN: one way to the
// server and back. An error of BEGIN is that of the first statement.
func (t *handlerTx) send(ctx context.Context, queue func(*pgx.Batch)) pgx.BatchResults {
	batch := &pgx.Batch{}
	if t.std == nil {
		batch.BeginTx(pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	}
	queue(batch)
	results := t.conn.SendBatch(ctx, batch)
	if t.std == nil {
		t.tx = results.Tx()
		_, _ = results.Exec() // the next result has the error too
	}
	return results
}

// byIndex queues a statement as the store's byIndex does, and lets the handler's own be planned
// as before.
func (t *handlerTx) byIndex(b *pgx.Batch, name string, args ...any) {
	t.s.byIndex(b, name, args...)
	b.Queue(t.s.sql.Get("as_before"))
}

func (t *handlerTx) queryByIndex(ctx context.Context, name string, args ...any) (pgx.Rows, error) {
	batch := &pgx.Batch{}
	t.byIndex(batch, name, args...)
	return rowsOf(t.conn.SendBatch(ctx, batch))
}

func (t *handlerTx) execByIndex(ctx context.Context, name string, args ...any) error {
	batch := &pgx.Batch{}
	t.byIndex(batch, name, args...)
	return t.conn.SendBatch(ctx, batch).Close() // which has the error of any of them
}

// standard has the transaction run as one of database/sql. Within one that has begun,
// the server answers its BEGIN with a warning and goes on.
func (t *handlerTx) standard(ctx context.Context) (err error) {
	// It is rolled back when its context ends. This one lives until Commit or Rollback,
	// but BEGIN itself may be given up.
	var life context.Context
	life, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, t.cancel)
	level := sql.LevelReadCommitted
	if t.tx != nil {
		level = sql.LevelDefault
	}
	t.std, err = t.pool.BeginTx(life, &sql.TxOptions{Isolation: level})
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// Tx gives handlers what they may use.
func (t *handlerTx) Tx() outlast.Tx { return liveTx{t} }

// Commit ends the transaction. When ctx ends while the server works on it, the
// outcome is unknown.
func (t *handlerTx) Commit(ctx context.Context) error {
	if t.ended.Swap(true) {
		return &outlast.Error{Op: "commit", Code: outlast.CodeInternal, Err: sql.ErrTxDone}
	}
	t.quiet()
	defer t.live.Unlock()
	if err := ctx.Err(); err != nil {
		t.destroy()
		return t.s.fail("commit", err, false)
	}
	if err := t.commit(ctx); err != nil {
		t.destroy()
		return t.s.fail("commit", err, true)
	}
	_ = t.pool.Close()
	return nil
}

func (t *handlerTx) commit(ctx context.Context) error {
	if t.std == nil {
		return t.tx.Commit(ctx)
	}
	defer t.cancel()
	defer context.AfterFunc(ctx, t.cancel)()
	return t.std.Commit()
}

func (t *handlerTx) Rollback() {
	if t.ended.Swap(true) {
		return
	}
	t.quiet()
	defer t.live.Unlock()
	if err := t.rollback(); err != nil {
		t.destroy()
		return
	}
	_ = t.pool.Close()
}

// rollbackLimit is how long a ROLLBACK may take: where no answer comes, closing the
// connection does the same.
const rollbackLimit = 10 * time.Second

func (t *handlerTx) rollback() error {
	switch {
	case t.std != nil:
		defer t.cancel()
		defer time.AfterFunc(rollbackLimit, t.cancel).Stop()
		return t.std.Rollback()
	case t.tx != nil:
		ctx, cancel := context.WithTimeout(context.Background(), rollbackLimit)
		defer cancel()
		return t.tx.Rollback(ctx)
	}
	return nil // it never began
}

// quiet locks handlers out and ends what their queries have left open.
func (t *handlerTx) quiet() {
	t.live.Lock()
	if t.open != nil {
		t.open()
	}
}

// destroy makes sure that the connection is never used again.
func (t *handlerTx) destroy() {
	if t.cancel != nil {
		t.cancel()
	}
	if t.std != nil {
		_ = t.std.Rollback()
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

// liveTx is a handler's view: it has no Commit and no Rollback. Once the transaction
// has ended it does nothing.
type liveTx struct{ t *handlerTx }

// err says that the transaction has ended; only while live is held.
func (t *handlerTx) err() error {
	if t.ended.Load() {
		return sql.ErrTxDone
	}
	return nil
}

func (t *handlerTx) closeLater(end func()) {
	t.mu.Lock()
	t.open = end
	t.mu.Unlock()
}

func (l liveTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	l.t.live.RLock()
	defer l.t.live.RUnlock()
	if err := l.t.err(); err != nil {
		return nil, err
	}
	return l.t.pool.ExecContext(ctx, query, args...)
}

func (l liveTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	l.t.live.RLock()
	defer l.t.live.RUnlock()
	if err := l.t.err(); err != nil {
		return nil, err
	}
	rows, err := l.t.pool.QueryContext(ctx, query, args...)
	if err == nil {
		l.t.closeLater(func() { _ = rows.Close() })
	}
	return rows, err
}

func (l liveTx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	l.t.live.RLock()
	defer l.t.live.RUnlock()
	row := l.t.pool.QueryRowContext(ctx, query, args...) // closed when the transaction has ended
	if row.Err() == nil {
		l.t.closeLater(func() { _ = row.Scan() })
	}
	return row
}

func (l liveTx) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	tx, err := l.standard(ctx)
	if err != nil {
		return nil, err
	}
	return tx.PrepareContext(ctx, query)
}

// StmtContext cannot refuse: without a transaction it returns a statement that fails.
func (l liveTx) StmtContext(ctx context.Context, stmt *sql.Stmt) *sql.Stmt {
	tx, err := l.standard(ctx)
	if err != nil {
		ended, end := context.WithCancelCause(ctx)
		end(err)
		return new(sql.Tx).StmtContext(ended, stmt)
	}
	return tx.StmtContext(ctx, stmt)
}

// standard returns the transaction as one of database/sql. Later ones of this process
// begin as such, so that the server warns only once.
func (l liveTx) standard(ctx context.Context) (_ *sql.Tx, err error) {
	l.t.live.RLock()
	defer l.t.live.RUnlock()
	if err := l.t.err(); err != nil {
		return nil, err
	}
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if l.t.std == nil {
		l.t.s.prepares.Store(true)
		err = l.t.standard(ctx)
	}
	return l.t.std, err
}

// pgx returns the transaction as one of pgx.
func (l liveTx) pgx(ctx context.Context) (pgx.Tx, error) {
	if l.t.tx != nil {
		return borrowedTx{l.t.tx}, nil
	}
	// It began as one of database/sql: this BEGIN is a comment.
	tx, err := l.t.conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: "-- begun already"})
	return borrowedTx{tx}, err
}

// HandlePgx joins a contract to a function that works with pgx's own types. Its
// transaction is the handler's: Commit and Rollback are refused, Begin opens a
// savepoint. It needs this package's store; with another one every message fails.
func HandlePgx[T any](c outlast.Contract[T], fn func(ctx context.Context, tx pgx.Tx, m outlast.Received[T]) error, opts ...outlast.HandleOption) outlast.Handler {
	return outlast.Handle(c, func(ctx context.Context, tx outlast.Tx, m outlast.Received[T]) error {
		live, ok := tx.(interface {
			pgx(ctx context.Context) (pgx.Tx, error)
		})
		if !ok {
			return &outlast.Error{Op: "handle " + m.Type, Code: outlast.CodeInvalid,
				Err:  fmt.Errorf("the transaction is a %T", tx),
				Hint: "HandlePgx needs the store of postgres.Store, and no middleware that replaces the transaction"}
		}
		inner, err := live.pgx(ctx)
		if err != nil {
			return err
		}
		return fn(ctx, inner, m)
	}, opts...)
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
