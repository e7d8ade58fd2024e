package memory

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"time"

	"github.com/outlastmq/outlast"
)

type markKey struct{ group, source, id string }

// mark is what the inbox of a group knows of a message.
type mark struct {
	state      outlast.Seen // handled, waiting or dead
	hash       int64
	enqueuedAt time.Time
	handledAt  time.Time
	// by is the open transaction that inserted the mark; others wait for its end.
	by *Tx
}

// waiting is a message in the retry table.
type waiting struct {
	outlast.Waiting
	next time.Time
	last time.Time
	lock *Tx
}

func (w *waiting) number() int64 { return w.Seq }

func (w *waiting) key() markKey { return markKey{w.Group, w.Message.Source, w.Message.ID} }

// dead is a dead letter.
type dead struct {
	outlast.DeadLetterRecord
	seq    int64
	hash   int64
	lastAt time.Time
}

func (d *dead) number() int64 { return d.seq }

func (d *dead) key() markKey { return markKey{d.Group, d.Message.Source, d.Message.ID} }

type inbox struct{ s *Store }

type inboxTx struct {
	tx     *Tx
	group  string
	marks  []outlast.Mark
	states []outlast.Seen
}

func (x inbox) Begin(ctx context.Context, group string, marks []outlast.Mark) (outlast.InboxTx, error) {
	const op = "begin inbox transaction"
	s := x.s
	if err := s.enter(ctx, op, RoleInbox); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &inboxTx{tx: s.begin(true), group: group, marks: marks, states: make([]outlast.Seen, len(marks))}
	order := make([]int, len(marks))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(marks[a].ID, marks[b].ID), cmp.Compare(marks[a].Source, marks[b].Source))
	})
	fresh := make([]bool, len(marks))
	for _, i := range order {
		var err error
		if fresh[i], err = s.insertMark(ctx, t.tx, group, marks[i]); err != nil {
			t.tx.end(false)
			return nil, err
		}
	}
	for i, m := range marks { // after every wait, so that what was waited for is seen
		t.states[i] = s.seen(group, m, fresh[i])
	}
	return t, nil
}

// insertMark reports whether the mark was not there; it is called with mu held.
func (s *Store) insertMark(ctx context.Context, t *Tx, group string, m outlast.Mark) (bool, error) {
	k := markKey{group, m.Source, m.ID}
	for {
		have := s.marks[k]
		if have == nil {
			break
		}
		if have.by == nil || have.by == t {
			t.ops = append(t.ops, op{apply: func() { delete(s.suspect, k) }})
			return false, nil
		}
		if err := s.await(ctx, "begin inbox transaction", t, have.by); err != nil {
			return false, err
		}
	}
	fresh := &mark{state: outlast.SeenHandled, hash: m.Hash, enqueuedAt: m.EnqueuedAt, by: t}
	if fresh.enqueuedAt.IsZero() {
		fresh.enqueuedAt = time.Now()
	}
	s.marks[k] = fresh
	t.ops = append(t.ops, op{
		apply: func() {
			fresh.by, fresh.handledAt = nil, time.Now()
			delete(s.suspect, k)
		},
		undo: func() { delete(s.marks, k) },
	})
	return true, nil
}

func (s *Store) seen(group string, m outlast.Mark, fresh bool) outlast.Seen {
	have := s.marks[markKey{group, m.Source, m.ID}]
	switch {
	case fresh && m.Key != "" && s.keyWaits(group, m.Key, 0):
		return outlast.SeenBehind
	case fresh:
		return outlast.SeenNew
	case have.hash != m.Hash:
		return outlast.SeenConflict
	default:
		return have.state
	}
}

// keyWaits reports whether an ordered message of the key waits, one before seq
// when that is not 0.
func (s *Store) keyWaits(group, key string, seq int64) bool {
	for _, w := range s.retries {
		if seq != 0 && w.Seq >= seq {
			return false
		}
		if w.Ordered && w.Group == group && w.Message.Envelope.Key == key {
			return true
		}
	}
	return false
}

func (t *inboxTx) Tx() outlast.Tx         { return t.tx }
func (t *inboxTx) States() []outlast.Seen { return slices.Clone(t.states) }
func (t *inboxTx) Rollback()              { _ = t.tx.rollback() }

func (t *inboxTx) Commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		t.Rollback()
		return unavailable("commit inbox transaction", err)
	}
	return t.tx.commit("commit inbox transaction")
}

func (t *inboxTx) Wait(ctx context.Context, w *outlast.Waiting) error {
	s := t.tx.store
	if err := s.enter(ctx, "record waiting message", RoleInbox); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	r := &waiting{Waiting: *w, next: now.Add(w.Wait), last: now}
	r.Message = clone(w.Message)
	r.Group, r.FirstAt, r.Seq = t.group, now, s.nextSeq()
	r.Wait = 0
	t.tx.ops = append(t.tx.ops, op{apply: func() {
		if r.Attempts > 0 && r.Reason == "failed" {
			s.note(outlast.FactFailed, r.Group, r.Message, r.Attempts, r.Reason, r.Error)
		}
		s.retries.insert(r)
		s.setState(r.key(), outlast.SeenWaiting)
	}})
	return nil
}

// setState changes a mark that is there; it is called with mu held.
func (s *Store) setState(k markKey, state outlast.Seen) {
	if m := s.marks[k]; m != nil {
		m.state, m.handledAt = state, time.Now()
	}
	delete(s.suspect, k)
}

func (t *inboxTx) Bury(ctx context.Context, d *outlast.DeadLetterRecord) error {
	s := t.tx.store
	if err := s.enter(ctx, "record dead letter", RoleInbox); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	r := s.newDead(t.group, d, now)
	conflict := false
	for i, m := range t.marks {
		if m.Source == d.Message.Source && m.ID == d.Message.ID {
			r.hash = m.Hash
			conflict = conflict || t.states[i] == outlast.SeenConflict
		}
	}
	t.tx.ops = append(t.tx.ops, op{apply: func() {
		s.bury(r)
		if !conflict { // else the mark belongs to the other message
			s.setState(r.key(), outlast.SeenDead)
		}
	}})
	return nil
}

func (s *Store) newDead(group string, d *outlast.DeadLetterRecord, now time.Time) *dead {
	r := &dead{DeadLetterRecord: *d, seq: s.nextSeq(), lastAt: now}
	r.Message, r.Group = clone(d.Message), group
	if r.FirstAt.IsZero() {
		r.FirstAt = now
	}
	return r
}

// bury files a dead letter; one that came again in the same state takes no new
// place. It is called with mu held.
func (s *Store) bury(r *dead) {
	s.note(outlast.FactFailed, r.Group, r.Message, r.Attempts, r.Reason, r.Error)
	for _, have := range s.dead {
		if have.key() == r.key() && have.hash == r.hash {
			s.dead.remove(have.seq)
			break
		}
	}
	s.dead.insert(r)
}

func (x inbox) Purge(ctx context.Context, p outlast.PurgeRequest) (int, error) {
	if err := x.s.enter(ctx, "purge inbox", RoleInbox); err != nil {
		return 0, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	n, before := 0, time.Now().Add(-p.Age)
	for k, m := range x.s.marks {
		if n >= p.Limit {
			break
		}
		if k.group == p.Group && k.source == p.Source && m.by == nil && m.state == outlast.SeenHandled &&
			m.enqueuedAt.Before(p.SettledBefore) && m.handledAt.Before(before) {
			delete(x.s.marks, k)
			n++
		}
	}
	if n > 0 && before.After(x.s.forgot[p.Group]) {
		x.s.forgot[p.Group] = before.Add(p.Age / 24)
	}
	return n, nil
}

func (x inbox) Alive(ctx context.Context, group, instance string) ([]outlast.Instance, error) {
	if err := x.s.enter(ctx, "renew instance", RoleInbox); err != nil {
		return nil, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	g := x.s.alive[group]
	if g == nil {
		g = map[string]time.Time{}
		x.s.alive[group] = g
	}
	now := time.Now()
	g[instance] = now
	var others []outlast.Instance
	for name, at := range g {
		if name != instance {
			others = append(others, outlast.Instance{Name: name, Age: now.Sub(at)})
		}
	}
	sort.Slice(others, func(i, j int) bool { return others[i].Name < others[j].Name })
	return others, nil
}

func (x inbox) Leave(ctx context.Context, group, instance string) error {
	if err := x.s.enter(ctx, "end instance", RoleInbox); err != nil {
		return err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	delete(x.s.alive[group], instance)
	return nil
}

func (x inbox) Suspect(ctx context.Context, group, source, id string) (int, error) {
	if err := x.s.enter(ctx, "count suspect", RoleInbox); err != nil {
		return 0, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	k := markKey{group, source, id}
	x.s.suspect[k]++
	return x.s.suspect[k], nil
}

func (x inbox) Unsuspect(ctx context.Context, group, source, id string) (bool, error) {
	if err := x.s.enter(ctx, "take a count of suspect back", RoleInbox); err != nil {
		return false, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	k := markKey{group, source, id}
	if x.s.suspect[k]--; x.s.suspect[k] <= 0 {
		delete(x.s.suspect, k)
	}
	return true, nil
}

func (x inbox) Paused(ctx context.Context, group string) (bool, error) {
	if err := x.s.enter(ctx, "read pause", RoleInbox); err != nil {
		return false, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	_, paused := x.s.paused[group]
	return paused, nil
}
