package memory

import (
	"bytes"
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// row is a message at rest, pending or held.
type row struct {
	msg  outlast.Message
	seq  int64
	slot int
	lock *Tx // of a withdrawal

	held     bool
	reason   outlast.HeldReason
	next     time.Time // zero: no time ends its wait
	since    time.Time
	attempts int
	err      string
}

func (r *row) number() int64 { return r.seq }

// view is the row as readers get it; it shares nothing with the store.
func (r *row) view(now time.Time) *outlast.Row {
	v := &outlast.Row{Message: *clone(&r.msg), Seq: r.seq, Slot: r.slot}
	v.Expired = !r.msg.ExpiresAt.IsZero() && !r.msg.ExpiresAt.After(now)
	if r.held {
		v.InHeld, v.Reason, v.Attempts = true, r.reason, r.attempts
		v.NotDue = r.reason == outlast.HeldDue && r.next.After(now)
	}
	return v
}

func clone(m *outlast.Message) *outlast.Message {
	c := *m
	c.Body = bytes.Clone(m.Body)
	c.Headers, c.Find = maps.Clone(m.Headers), maps.Clone(m.Find)
	c.Show = slices.Clone(m.Show)
	return &c
}

type outbox struct{ s *Store }

func (o outbox) Insert(ctx context.Context, tx outlast.LiveTx, msgs []*outlast.Message) error {
	const what = "insert into outbox"
	s := o.s
	t, err := s.own(what, tx)
	if err != nil {
		return err
	}
	if err := s.enter(ctx, what, RoleOutbox); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.ended {
		return &outlast.Error{Op: what, Code: outlast.CodeInvalid, Err: sql.ErrTxDone}
	}
	now := time.Now()
	if t.inserted.IsZero() {
		t.inserted = now
	}
	for _, m := range msgs {
		r := s.newRow(m, now)
		t.ops = append(t.ops, op{row: r, apply: func() {
			if r.seq != 0 { // 0: withdrawn by the same transaction
				s.put(r)
			}
		}})
	}
	return nil
}

func (s *Store) newRow(m *outlast.Message, now time.Time) *row {
	r := &row{msg: *clone(m), seq: s.nextSeq(), since: now}
	r.msg.Delay, r.msg.Lifetime = 0, 0
	r.msg.EnqueuedAt = now
	r.slot = slotOf(m)
	due := m.Due
	if m.Delay > 0 {
		due = now.Add(m.Delay)
	}
	worth := now
	if due.After(now) {
		r.held, r.reason, r.next, worth = true, outlast.HeldDue, due, due
		r.msg.Due = due
	}
	if m.Lifetime > 0 {
		r.msg.ExpiresAt = worth.Add(m.Lifetime)
	}
	return r
}

// put files a row where it belongs; it is called with mu held.
func (s *Store) put(r *row) {
	if r.held {
		s.held.insert(r)
	} else {
		s.outbox[r.slot].insert(r)
	}
}

// SlotOf is the slot in which Insert writes.
func (o outbox) SlotOf(m *outlast.Message) int { return slotOf(m) }

func (o outbox) Withdraw(ctx context.Context, tx outlast.LiveTx, id string) (bool, error) {
	const what = "withdraw"
	s := o.s
	t, err := s.own(what, tx)
	if err != nil {
		return false, err
	}
	if err := s.enter(ctx, what, RoleOutbox); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range t.ops {
		if r := o.row; r != nil && r.msg.ID == id && r.held && r.seq != 0 {
			seq := r.seq
			r.seq = 0
			t.ops = append(t.ops, op{undo: func() { r.seq = seq }})
			return true, nil
		}
	}
	for _, r := range s.held {
		if r.msg.ID != id || r.reason != outlast.HeldDue {
			continue
		}
		seq := r.seq
		if r.lock == t {
			return false, nil // withdrawn already
		}
		if err := s.acquire(ctx, what, t, &r.lock); err != nil {
			return false, err
		}
		if now, ok := s.held.get(seq); !ok || now != r || r.reason != outlast.HeldDue {
			return false, nil // it left while we waited
		}
		t.ops = append(t.ops, op{apply: func() { s.held.remove(seq) }})
		return true, nil
	}
	return false, nil
}
