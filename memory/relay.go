package memory

import (
	"context"
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
)

type relay struct{ s *Store }

func (x relay) Identify(ctx context.Context, source string) error {
	op := fmt.Sprintf("identify outbox as %q", source)
	if err := x.s.enter(ctx, op, RoleRelay); err != nil {
		return err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	if x.s.source != "" && x.s.source != source {
		return &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: fmt.Errorf("it belongs to %q", x.s.source)}
	}
	x.s.source = source
	return nil
}

// current reports whether the lease is held under that epoch; called with mu held.
func (s *Store) current(l outlast.Lease) bool {
	sc := s.scopes[outlast.RelayScope]
	if sc == nil || l.Slot < 0 || l.Slot >= len(sc.slots) {
		return false
	}
	have := sc.slots[l.Slot]
	return have.owner != "" && have.epoch == l.Epoch
}

func (x relay) Settle(ctx context.Context, set *outlast.Settlement) ([]outlast.Lease, error) {
	const op = "settle"
	s := x.s
	if err := s.enter(ctx, op, RoleRelay); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.awaitWithdrawals(ctx, op, set); err != nil {
		return nil, err
	}
	apply, err := s.commitFault(op)
	if !apply {
		return nil, err
	}
	var stale []outlast.Lease
	fenced := map[int]bool{}
	for _, l := range set.Leases {
		if fenced[l.Slot] = s.current(l); !fenced[l.Slot] {
			stale = append(stale, l)
		}
	}
	now := time.Now()
	for i, r := range set.Sent {
		if !fenced[r.Slot] {
			continue
		}
		if set.Untracked {
			s.wholeAfter(now)
		} else {
			fate := outlast.FateSent
			if i < len(set.Fates) {
				fate = set.Fates[i]
			}
			s.log(r, fate, now)
		}
		s.removeRow(r)
	}
	for i := range set.Hold {
		if h := &set.Hold[i]; fenced[h.Row.Slot] {
			if !set.Untracked {
				s.logFailure(h, now)
			}
			s.hold(h, now)
		}
	}
	for _, r := range set.Release {
		if fenced[r.Slot] {
			s.release(r, now)
		}
	}
	if err != nil {
		return nil, err
	}
	return stale, nil
}

// awaitWithdrawals waits, with no lock of its own, until no open transaction
// withdraws a row of the settlement.
func (s *Store) awaitWithdrawals(ctx context.Context, op string, set *outlast.Settlement) error {
	busy := func(v *outlast.Row) *Tx {
		if r, ok := s.held.get(v.Seq); ok {
			return r.lock
		}
		return nil
	}
	next := func() *Tx {
		for _, rows := range [][]*outlast.Row{set.Sent, set.Release} {
			for _, r := range rows {
				if t := busy(r); t != nil {
					return t
				}
			}
		}
		for _, h := range set.Hold {
			if t := busy(h.Row); t != nil {
				return t
			}
		}
		return nil
	}
	for t := next(); t != nil; t = next() {
		if err := s.await(ctx, op, nil, t); err != nil {
			return err
		}
	}
	return nil
}

// stored finds the row that v is a view of.
func (s *Store) stored(v *outlast.Row) (*row, bool) {
	if r, ok := s.outbox[v.Slot].get(v.Seq); ok && r.msg.ID == v.ID {
		return r, true
	}
	if r, ok := s.held.get(v.Seq); ok && r.msg.ID == v.ID {
		return r, true
	}
	return nil, false
}

func (s *Store) removeRow(v *outlast.Row) {
	if r, ok := s.stored(v); ok {
		s.take(r)
	}
}

// take removes the row from where it is filed.
func (s *Store) take(r *row) {
	if r.held {
		s.held.remove(r.seq)
	} else {
		s.outbox[r.slot].remove(r.seq)
	}
}

func (s *Store) hold(h *outlast.Hold, now time.Time) {
	r, ok := s.stored(h.Row)
	if !ok {
		return // settled or withdrawn meanwhile
	}
	s.take(r)
	if !r.held {
		r.held, r.since = true, now
	}
	r.reason, r.attempts, r.err = h.Reason, h.Attempts, h.Error
	r.next = time.Time{}
	if h.Wait >= 0 {
		r.next = now.Add(h.Wait)
	}
	s.put(r)
}

func (s *Store) release(v *outlast.Row, now time.Time) {
	r, ok := s.stored(v)
	if !ok || !r.held {
		return
	}
	s.take(r)
	fresh := &row{msg: r.msg, seq: s.nextSeq(), slot: r.slot, since: now}
	fresh.msg.EnqueuedAt = now
	fresh.msg.Due = time.Time{}
	s.put(fresh)
}

func slotSet(ls []outlast.Lease) (set [slots]bool) {
	for _, l := range ls {
		if l.Slot >= 0 && l.Slot < slots {
			set[l.Slot] = true
		}
	}
	return set
}

func (x relay) HeldIndex(ctx context.Context, ls []outlast.Lease) (outlast.HeldIndex, error) {
	var index outlast.HeldIndex
	if err := x.s.enter(ctx, "read held index", RoleRelay); err != nil {
		return index, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	in := slotSet(ls)
	keys := map[outlast.SlotKey]bool{}
	routes := map[outlast.HeldRouteCount]int{} // position + 1
	for _, r := range x.s.held {
		if !in[r.slot] {
			continue
		}
		key := outlast.SlotKey{Slot: r.slot, Key: r.msg.Envelope.Key}
		if r.reason.BlocksKey() && key.Key != "" && !keys[key] {
			keys[key] = true
			index.Keys = append(index.Keys, key)
		}
		if r.reason.OfRoute() {
			id := outlast.HeldRouteCount{Route: r.msg.Route(), Reason: r.reason}
			if routes[id] == 0 {
				index.Routes = append(index.Routes, id)
				routes[id] = len(index.Routes)
			}
			index.Routes[routes[id]-1].Count++
		}
	}
	return index, nil
}

func (x relay) Held(ctx context.Context, q outlast.HeldQuery) (outlast.HeldPage, error) {
	page := outlast.HeldPage{NextDue: -1}
	if err := x.s.enter(ctx, "read held rows", RoleRelay); err != nil {
		return page, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	in, now, size := slotSet(q.Leases), time.Now(), 0
	full := false
	for _, r := range x.s.held {
		if !in[r.slot] || !selects(&q, r) {
			continue
		}
		if q.Due && r.next.After(now) {
			sooner(&page, r.next.Sub(now))
			continue
		}
		if r.seq <= q.After {
			continue
		}
		size += len(r.msg.Body)
		if full = full || len(page.Rows) >= q.MaxRows || size > q.MaxBytes && len(page.Rows) > 0; full {
			if q.Due {
				sooner(&page, 0)
			}
			continue
		}
		page.Rows = append(page.Rows, r.view(now))
	}
	return page, nil
}

func sooner(p *outlast.HeldPage, d time.Duration) {
	if p.NextDue < 0 || d < p.NextDue {
		p.NextDue = d
	}
}

func selects(q *outlast.HeldQuery, r *row) bool {
	switch {
	case q.Due:
		return (r.reason == outlast.HeldDue || r.reason == outlast.HeldBackoff) && !r.next.IsZero()
	case q.Key != nil:
		return r.reason.BlocksKey() && r.slot == q.Key.Slot && r.msg.Envelope.Key == q.Key.Key
	case q.Route != nil:
		return r.reason.OfRoute() && r.msg.Route() == *q.Route
	}
	return false
}

func (x relay) SettledBefore(ctx context.Context) (time.Time, error) {
	if err := x.s.enter(ctx, "read settled-before", RoleRelay); err != nil {
		return time.Time{}, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	oldest := time.Now()
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(oldest) {
			oldest = t
		}
	}
	for t := range x.s.open {
		earlier(t.inserted)
	}
	for i := range x.s.outbox {
		for _, r := range x.s.outbox[i] {
			earlier(r.msg.EnqueuedAt)
		}
	}
	for _, r := range x.s.held {
		if r.reason != outlast.HeldDue { // its enqueue is its release, yet to come
			earlier(r.msg.EnqueuedAt)
		}
	}
	return oldest, nil
}
