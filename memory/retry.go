package memory

import (
	"context"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

type retryTx struct {
	tx   *Tx
	row  *waiting
	save int // the savepoint: how many ops are not the handler's
}

func (x inbox) BeginRetry(ctx context.Context, group string, types []string) (outlast.RetryTx, time.Duration, error) {
	s := x.s
	if err := s.enter(ctx, "begin retry", RoleInbox); err != nil {
		return nil, -1, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var first *waiting
	blocked := map[string]bool{} // keys whose lowest message was met
	for _, w := range s.retries {
		if w.Group != group {
			continue
		}
		if key := w.Message.Envelope.Key; w.Ordered && key != "" {
			if blocked[key] {
				continue
			}
			blocked[key] = true
		}
		if w.lock != nil || !slices.Contains(types, w.Message.Type) {
			continue
		}
		if first == nil || w.next.Before(first.next) {
			first = w
		}
	}
	if first == nil {
		return nil, -1, nil
	}
	if wait := first.next.Sub(now); wait > 0 {
		return nil, wait, nil
	}
	t := &retryTx{tx: s.begin(true), row: first}
	first.lock = t.tx
	free := func() { first.lock = nil }
	t.tx.ops = append(t.tx.ops, op{apply: free, undo: free})
	t.save = len(t.tx.ops)
	return t, 0, nil
}

func (t *retryTx) Tx() outlast.Tx { return t.tx }
func (t *retryTx) Rollback()      { _ = t.tx.rollback() }

func (t *retryTx) Waiting() *outlast.Waiting {
	s := t.tx.store
	s.mu.Lock()
	defer s.mu.Unlock()
	w := t.row.Waiting
	w.Message = clone(t.row.Message)
	return &w
}

func (t *retryTx) Undo(ctx context.Context) error {
	if err := t.tx.store.enter(ctx, "undo handler", RoleInbox); err != nil {
		return err
	}
	t.tx.store.mu.Lock()
	defer t.tx.store.mu.Unlock()
	if !t.tx.ended {
		t.tx.undoTo(t.save)
	}
	return nil
}

// then adds a deed for the commit.
func (t *retryTx) then(ctx context.Context, what string, apply func(now time.Time)) error {
	if err := t.tx.store.enter(ctx, what, RoleInbox); err != nil {
		return err
	}
	t.tx.store.mu.Lock()
	defer t.tx.store.mu.Unlock()
	now := time.Now()
	t.tx.ops = append(t.tx.ops, op{apply: func() { apply(now) }})
	return nil
}

func (t *retryTx) Done(ctx context.Context) error {
	s := t.tx.store
	return t.then(ctx, "record handled message", func(time.Time) {
		s.retries.remove(t.row.Seq)
		s.setState(t.row.key(), outlast.SeenHandled)
	})
}

func (t *retryTx) Wait(ctx context.Context, w *outlast.Waiting) error {
	again := *w
	return t.then(ctx, "record waiting message", func(now time.Time) {
		r := t.row
		r.Attempts, r.Reason, r.Error = again.Attempts, again.Reason, again.Error
		r.next, r.last = now.Add(again.Wait), now
		if r.Reason == "failed" {
			t.tx.store.note(outlast.FactFailed, r.Group, r.Message, r.Attempts, r.Reason, r.Error)
		}
		t.tx.store.setState(r.key(), outlast.SeenWaiting)
	})
}

func (t *retryTx) Bury(ctx context.Context, d *outlast.DeadLetterRecord) error {
	s := t.tx.store
	record := *d
	return t.then(ctx, "record dead letter", func(now time.Time) {
		r := s.newDead(t.row.Group, &record, now)
		if record.FirstAt.IsZero() {
			r.FirstAt = t.row.FirstAt
		}
		if m := s.marks[t.row.key()]; m != nil {
			r.hash = m.hash
		}
		s.retries.remove(t.row.Seq)
		s.bury(r)
		s.setState(r.key(), outlast.SeenDead)
	})
}

func (t *retryTx) Commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		t.Rollback()
		return unavailable("commit retry", err)
	}
	return t.tx.commit("commit retry")
}
