package memory

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/outlastmq/outlast"
)

type outboxOperator struct{ s *Store }

// rows returns the rows that f selects, in order, up to its limit; called with mu held.
func (x outboxOperator) rows(f *outlast.Filter, also func(*row) bool) []*row {
	now := time.Now()
	var all []*row
	pick := func(rows list[*row]) {
		for _, r := range rows {
			at := r.msg.EnqueuedAt
			if r.held {
				at = r.since
			}
			if matches(f, facts{seq: r.seq, msg: &r.msg, reason: string(r.reason), at: at}, now) && also(r) {
				all = append(all, r)
			}
		}
	}
	for i := range x.s.outbox {
		pick(x.s.outbox[i])
	}
	pick(x.s.held)
	sort.Slice(all, func(i, j int) bool { return all[i].seq < all[j].seq })
	return all[:min(f.Limit, len(all))]
}

func anyRow(*row) bool { return true }

func (r *row) item() outlast.Item {
	i := outlast.Item{Seq: r.seq, Where: "pending", Envelope: clone(&r.msg).Envelope, BodySize: len(r.msg.Body), FirstAt: r.msg.EnqueuedAt}
	if r.held {
		i.Where, i.Reason, i.Error, i.Attempts, i.NextAt = "held", string(r.reason), r.err, r.attempts, r.next
	}
	return i
}

func (x outboxOperator) List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
	f, err := limited("list outbox", f)
	if err != nil {
		return nil, err
	}
	if err := x.s.enter(ctx, "list outbox", RoleOperator); err != nil {
		return nil, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	var items []outlast.Item
	for _, r := range x.rows(&f, anyRow) {
		items = append(items, r.item())
	}
	return items, nil
}

func (x outboxOperator) Show(ctx context.Context, id string) (*outlast.Item, error) {
	op := fmt.Sprintf("show message %q", id)
	if err := x.s.enter(ctx, op, RoleOperator); err != nil {
		return nil, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	rows := x.rows(&outlast.Filter{IDs: []string{id}, Limit: 1}, anyRow)
	if len(rows) == 0 {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeNotFound}
	}
	item := rows[0].item()
	setBody(&item, rows[0].msg.Body)
	return &item, nil
}

// Release turns every row into one whose backoff is over: it stays where it is, so
// that the rows behind it keep their order.
func (x outboxOperator) Release(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	f, err := limited("release held", f)
	if err != nil {
		return 0, err
	}
	if err := x.s.enter(ctx, "release held", RoleOperator); err != nil {
		return 0, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	rows := x.rows(&f, func(r *row) bool {
		return r.held && r.reason != outlast.HeldDue && r.reason != outlast.HeldBehind
	})
	for _, r := range rows {
		r.reason, r.next = outlast.HeldBackoff, time.Now()
	}
	x.s.record(by, "outbox release", target(f), len(rows))
	return len(rows), nil
}

func (x outboxOperator) Withdraw(ctx context.Context, f outlast.Filter, by outlast.Action) (int, []string, error) {
	f, err := limited("withdraw", f)
	if err != nil {
		return 0, nil, err
	}
	if err := x.s.enter(ctx, "withdraw", RoleOperator); err != nil {
		return 0, nil, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	rows := x.rows(&f, func(r *row) bool { return r.lock == nil })
	var uncertain []string
	for _, r := range rows {
		if !r.held && x.s.relayed(r.slot) {
			uncertain = append(uncertain, r.msg.ID)
		}
		x.s.note(outlast.FactWithdrawn, "", &r.msg, 0, by.Who, by.Reason)
		x.s.take(r)
	}
	x.s.record(by, "outbox withdraw", target(f), len(rows))
	return len(rows), uncertain, nil
}

// relayed reports whether a relay alive holds the slot.
func (s *Store) relayed(slot int) bool {
	sc := s.scopes[outlast.RelayScope]
	return sc != nil && slot < len(sc.slots) && sc.isAlive(sc.slots[slot].owner, time.Now())
}

type retryOperator struct{ s *Store }

func (x retryOperator) rows(f *outlast.Filter) []*waiting {
	now := time.Now()
	var rows []*waiting
	for _, w := range x.s.retries {
		if len(rows) < f.Limit && matches(f, facts{w.Seq, w.Message, w.Group, w.Reason, "", w.FirstAt}, now) {
			rows = append(rows, w)
		}
	}
	return rows
}

func (w *waiting) item() outlast.Item {
	return outlast.Item{
		Seq: w.Seq, Where: "retry", Group: w.Group, Envelope: clone(w.Message).Envelope, Reason: w.Reason, Error: w.Error,
		Attempts: w.Attempts, Replays: w.Replays, FirstAt: w.FirstAt, LastAt: w.last, NextAt: w.next, BodySize: len(w.Message.Body),
	}
}

func (x retryOperator) List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
	f, err := limited("list retries", f)
	if err != nil {
		return nil, err
	}
	if err := x.s.enter(ctx, "list retries", RoleOperator); err != nil {
		return nil, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	var items []outlast.Item
	for _, w := range x.rows(&f) {
		items = append(items, w.item())
	}
	return items, nil
}

func (x retryOperator) Show(ctx context.Context, group, id string) (*outlast.Item, error) {
	op := fmt.Sprintf("show waiting message %q of group %q", id, group)
	if err := x.s.enter(ctx, op, RoleOperator); err != nil {
		return nil, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	rows := x.rows(&outlast.Filter{Group: group, IDs: []string{id}, Limit: 1})
	if len(rows) == 0 {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeNotFound}
	}
	item := rows[0].item()
	setBody(&item, rows[0].Message.Body)
	return &item, nil
}

func (x retryOperator) Now(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	f, err := limited("retry now", f)
	if err != nil {
		return 0, err
	}
	if err := x.s.enter(ctx, "retry now", RoleOperator); err != nil {
		return 0, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	rows := x.rows(&f)
	for _, w := range rows {
		w.next = time.Now()
	}
	x.s.record(by, "retry now", target(f), len(rows))
	return len(rows), nil
}

type deadOperator struct{ s *Store }

func (x deadOperator) rows(f *outlast.Filter) []*dead {
	now := time.Now()
	var rows []*dead
	for _, d := range x.s.dead {
		if len(rows) < f.Limit && matches(f, facts{d.seq, d.Message, d.Group, d.Reason, d.Fingerprint, d.lastAt}, now) {
			rows = append(rows, d)
		}
	}
	return rows
}

func (d *dead) item() outlast.Item {
	return outlast.Item{
		Seq: d.seq, Where: "dead", Group: d.Group, Envelope: clone(d.Message).Envelope, Reason: d.Reason, Error: d.Error,
		Attempts: d.Attempts, Replays: d.Replays, Fingerprint: d.Fingerprint, FirstAt: d.FirstAt, LastAt: d.lastAt, BodySize: len(d.Message.Body),
	}
}

func (x deadOperator) List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
	f, err := limited("list dead letters", f)
	if err != nil {
		return nil, err
	}
	if err := x.s.enter(ctx, "list dead letters", RoleOperator); err != nil {
		return nil, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	var items []outlast.Item
	for _, d := range x.rows(&f) {
		items = append(items, d.item())
	}
	return items, nil
}

func (x deadOperator) Show(ctx context.Context, group, id string) (*outlast.Item, error) {
	op := fmt.Sprintf("show dead letter %q of group %q", id, group)
	if err := x.s.enter(ctx, op, RoleOperator); err != nil {
		return nil, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	rows := x.rows(&outlast.Filter{Group: group, IDs: []string{id}, Limit: 1})
	if len(rows) == 0 {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeNotFound}
	}
	item := rows[0].item()
	setBody(&item, rows[0].Message.Body)
	return &item, nil
}

func (x deadOperator) Replay(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	f, err := limited("replay dead letters", f)
	if err != nil {
		return 0, err
	}
	if err := x.s.enter(ctx, "replay dead letters", RoleOperator); err != nil {
		return 0, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	n := 0
	for _, d := range x.rows(&f) {
		if x.s.replay(d) {
			x.s.note(outlast.FactReplayed, d.Group, d.Message, 0, by.Who, by.Reason)
			n++
		}
	}
	x.s.record(by, "dead replay", target(f), n)
	return n, nil
}

// replay reports false for a conflicting copy of a message that waits itself.
func (s *Store) replay(d *dead) bool {
	k := d.key()
	m := s.marks[k]
	if m != nil && (m.by != nil || m.state == outlast.SeenWaiting) {
		return false
	}
	now := time.Now()
	w := &waiting{next: now, last: now, Waiting: outlast.Waiting{
		Group: d.Group, Message: d.Message, Ordered: d.Ordered, Reason: outlast.WaitReplay, Error: d.Error,
		Replays: d.Replays + 1, FirstAt: d.FirstAt, Seq: s.nextSeq(),
	}}
	s.dead.remove(d.seq)
	s.retries.insert(w)
	s.setState(k, outlast.SeenWaiting)
	return true
}

func (x deadOperator) Discard(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	f, err := limited("discard dead letters", f)
	if err != nil {
		return 0, err
	}
	if err := x.s.enter(ctx, "discard dead letters", RoleOperator); err != nil {
		return 0, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	rows := x.rows(&f)
	for _, d := range rows {
		x.s.note(outlast.FactDiscarded, d.Group, d.Message, 0, by.Who, by.Reason)
		x.s.dead.remove(d.seq)
	}
	x.s.record(by, "dead discard", target(f), len(rows))
	return len(rows), nil
}

func (x deadOperator) Edit(ctx context.Context, group, id string, edited *outlast.Message, by outlast.Action) error {
	const op = "dead edit"
	s := x.s
	if err := s.enter(ctx, op, RoleOperator); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := x.rows(&outlast.Filter{Group: group, IDs: []string{id}, Limit: 1})
	if len(rows) == 0 {
		return &outlast.Error{Op: op, Code: outlast.CodeNotFound}
	}
	d, now := rows[0], time.Now()
	w := &waiting{next: now, last: now, Waiting: outlast.Waiting{
		Group: group, Message: clone(edited), Ordered: d.Ordered, Reason: outlast.WaitEdited, FirstAt: now, Seq: s.nextSeq(),
	}}
	if s.marks[w.key()] != nil {
		return &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: fmt.Errorf("group %q knows %s already", group, edited.ID)}
	}
	s.marks[w.key()] = &mark{state: outlast.SeenWaiting, enqueuedAt: now, handledAt: now}
	s.retries.insert(w)
	s.note(outlast.FactDiscarded, group, d.Message, 0, by.Who, edited.ID+": "+by.Reason)
	s.dead.remove(d.seq)
	s.record(by, op, id+" as "+edited.ID, 1)
	return nil
}
