package sqlite

import (
	"context"
	"encoding/json"
	"time"

	"github.com/outlastmq/outlast"
)

type retryTx struct {
	w       *writeTx
	waiting outlast.Waiting
	source  string
	id      string
	hash    int64
	lastAt  int64
}

// BeginRetry looks without a lock first, so that an idle group stops no writer. The
// write lock is the lock on the message: others wait for it rather than skip it.
func (x inbox) BeginRetry(ctx context.Context, group string, types []string) (outlast.RetryTx, time.Duration, error) {
	const op = "retry transaction"
	if x.s.err != nil {
		return nil, -1, x.s.err
	}
	_, wait, err := x.next(ctx, x.s.db, group, types)
	if err != nil || wait != 0 {
		return nil, wait, mapped(op, err)
	}
	w, err := x.s.begin(ctx, op)
	if err != nil {
		return nil, -1, err
	}
	t, wait, err := x.next(ctx, w.tx, group, types)
	if err != nil || wait != 0 {
		w.rollback()
		return nil, wait, mapped(op, err)
	}
	t.w = w
	if err := w.guard(ctx); err != nil {
		w.rollback()
		return nil, -1, err
	}
	return t, 0, nil
}

// next reads the first message that may run. The wait is 0 when it is due, and
// negative when there is none.
func (x inbox) next(ctx context.Context, db runner, group string, types []string) (*retryTx, time.Duration, error) {
	t := &retryTx{waiting: outlast.Waiting{Group: group, Message: &outlast.Message{}}}
	wt := &t.waiting
	var envelope string
	var firstAt, wait int64
	found, err := first(db.QueryRowContext(ctx, x.s.sql.Get("retry_next"), group, jsonList(types)),
		&wt.Seq, &t.source, &t.id, &envelope, &wt.Message.Body, &t.hash, &wt.Ordered, &wt.Attempts, &wt.Replays, &wt.Reason, &wt.Error,
		&firstAt, &t.lastAt, &wait)
	if err != nil || !found {
		return nil, -1, err
	}
	if wait > 0 {
		return nil, time.Duration(wait) * time.Microsecond, nil
	}
	if err := json.Unmarshal([]byte(envelope), &wt.Message.Envelope); err != nil {
		return nil, -1, &outlast.Error{Op: "read waiting message", Code: outlast.CodeInternal, Err: err}
	}
	wt.FirstAt = time.UnixMicro(firstAt)
	return t, 0, nil
}

func (t *retryTx) Tx() outlast.Tx                   { return handlerTx{t.w} }
func (t *retryTx) Waiting() *outlast.Waiting        { return &t.waiting }
func (t *retryTx) Rollback()                        { t.w.rollback() }
func (t *retryTx) Commit(ctx context.Context) error { return t.w.commit(ctx) }

// Undo keeps the lock. When SQLite rolled the whole transaction back (the
// handler's statement was interrupted, say), it begins a new one, and returns
// CodeConflict if another process had the message in between.
func (t *retryTx) Undo(ctx context.Context) error {
	const op = "undo handler"
	if t.w.dead == nil {
		if err := t.w.exec(ctx, undoToGuard); err == nil || t.w.dead == nil {
			return err
		}
	}
	if err := t.w.open(ctx); err != nil {
		t.w.dead = err
		return mapped(op, err)
	}
	var same bool
	err := t.w.tx.QueryRowContext(ctx, t.w.s.sql.Get("retry_unchanged"), t.waiting.Seq, t.waiting.Attempts, t.lastAt).Scan(&same)
	if err != nil {
		return mapped(op, err)
	}
	if !same {
		t.w.kill(errTaken)
		return &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: errTaken}
	}
	return t.w.guard(ctx)
}

func (t *retryTx) Done(ctx context.Context) error {
	if err := t.w.exec(ctx, t.w.s.sql.Get("retry_delete"), t.waiting.Seq); err != nil {
		return err
	}
	return setState(ctx, t.w, stateHandled, t.waiting.Group, t.source, t.id, t.hash)
}

func (t *retryTx) Wait(ctx context.Context, wt *outlast.Waiting) error {
	err := t.w.exec(ctx, t.w.s.sql.Get("retry_update"), t.waiting.Seq, wt.Attempts, wt.Reason, text(wt.Error), wt.Wait.Microseconds())
	if err != nil {
		return err
	}
	if wt.Reason == "failed" {
		if err := t.w.addFact(ctx, failure(t.waiting.Group, t.waiting.Message, wt.Attempts, wt.Reason, wt.Error)); err != nil {
			return err
		}
	}
	return t.w.exec(ctx, t.w.s.sql.Get("suspect_clear"), t.waiting.Group, t.source, t.id)
}

func (t *retryTx) Bury(ctx context.Context, d *outlast.DeadLetterRecord) error {
	if err := t.w.exec(ctx, t.w.s.sql.Get("retry_delete"), t.waiting.Seq); err != nil {
		return err
	}
	record := *d
	if record.FirstAt.IsZero() {
		record.FirstAt = t.waiting.FirstAt
	}
	return bury(ctx, t.w, t.waiting.Group, &record, t.hash)
}
