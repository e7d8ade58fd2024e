package outlast

import (
	"context"
	"time"
)

// relayHeld decides when the held table is read: what a new slot holds back, what
// has come due, and the rows behind a key that is free again.
type relayHeld struct {
	busy    bool
	indexAt time.Time
	due     time.Time
	keys    []*keyState
	// inMemory are the held rows that are in hand, by Seq: they are not taken twice.
	inMemory map[int64]bool
}

const (
	heldPoll  = 3 * time.Second  // producers and people put rows there without telling us
	indexPoll = 15 * time.Second // finds keys whose first row a person withdrew
	indexIdle = time.Minute      // when nothing but scheduled rows is held
	keyPage   = 64
)

// wantKey asks for the rows behind a key whose rows in hand are done.
func (h *relayHeld) wantKey(k *keyState) {
	if !k.loading {
		k.loading = true
		h.keys = append(h.keys, k)
	}
}

// rest keeps the picks back for a moment, so that rows on their way to the held
// arrive there and a drain can end.
func (p *relayPicks) rest(now time.Time) {
	if until := now.Add(50 * time.Millisecond); p.at.Before(until) {
		p.at = until
	}
}

// stepHeld starts the most urgent query of the held.
func (r *relayRun) stepHeld(now time.Time) time.Time {
	h := &r.held
	if h.busy || r.stopping {
		return time.Time{}
	}
	if !now.Before(h.indexAt) {
		r.loadIndex(now)
		return time.Time{}
	}
	if r.link.State != LinkUp {
		return h.indexAt
	}
	if !now.Before(h.due) {
		r.loadDue(now)
		return time.Time{}
	}
	for len(h.keys) > 0 {
		k := h.keys[0]
		h.keys = h.keys[1:]
		s := r.leases.slots[k.id.Slot]
		if s == nil || s.loading || r.flights.keys[k.id] != k || k.moving > 0 {
			k.loading = false // rows on their way there ask again when they arrive
			continue
		}
		r.loadKey(k, s.lease)
		return time.Time{}
	}
	return earliest(h.due, h.indexAt)
}

// query runs a held query as the one job of its kind.
func (r *relayRun) query(f func(ctx context.Context) (func(now time.Time), error)) {
	r.held.busy = true
	r.job(time.Minute, func(ctx context.Context) func(time.Time) {
		then, err := f(ctx)
		return func(now time.Time) {
			r.held.busy = false
			r.noteStore(err)
			then(now)
		}
	})
}

// loadIndex learns which keys and routes have rows in the held: for new slots
// before anything of them is picked, for all of them from time to time.
func (r *relayRun) loadIndex(now time.Time) {
	h := &r.held
	h.indexAt = now.Add(indexPoll)
	leases := make([]Lease, 0, len(r.leases.slots))
	for _, s := range r.leases.slots {
		leases = append(leases, s.lease)
	}
	r.query(func(ctx context.Context) (func(time.Time), error) {
		index, err := r.conf.Store.Relay().HeldIndex(ctx, leases)
		return func(now time.Time) {
			if err != nil {
				h.indexAt = now.Add(r.conf.Interval)
				return
			}
			r.indexed(now, leases, index)
		}, err
	})
}

func (r *relayRun) indexed(now time.Time, leases []Lease, index HeldIndex) {
	if len(index.Keys)+len(index.Routes) == 0 {
		r.held.indexAt = now.Add(indexIdle)
	}
	for _, l := range leases {
		if s := r.leases.slots[l.Slot]; s != nil && s.lease == l && s.loading {
			s.loading = false
			r.picks.burst(now)
		}
	}
	for _, id := range index.Keys {
		if s := r.leases.slots[id.Slot]; s == nil || s.leaving {
			continue
		}
		k := r.key(id)
		if k.held && (k.busy != nil || len(k.queue) > 0) {
			continue
		}
		k.held, k.blocked = true, false
		r.held.wantKey(k)
	}
	for _, c := range index.Routes {
		r.routeHolds(now, r.route(c.Route), c.Reason)
	}
}

// routeHolds takes the news that rows wait for a route.
func (r *relayRun) routeHolds(now time.Time, rt *routeState, reason HeldReason) {
	switch {
	case rt.state == routeClosed:
	case rt.state == routeDraining:
		rt.rewind() // they may be of a slot that came to us meanwhile
	case now.Sub(rt.worked) > stallLimit:
		r.closeRoute(now, rt, reason, "rows wait for "+rt.Route.String())
		rt.probeAt = now
	default:
		rt.reason = reason
		r.drainRoute(now, rt)
	}
}

// loadDue reads what has come due: scheduled messages, and failed ones whose
// backoff is over.
func (r *relayRun) loadDue(now time.Time) {
	h := &r.held
	q := HeldQuery{Leases: r.leases.active(), Due: true, MaxRows: heldPage, MaxBytes: r.conf.InFlightBytes}
	if len(q.Leases) == 0 || r.conf.Buffer-r.flights.count < heldPage/4 {
		h.due = now.Add(firstPause)
		return
	}
	h.due = now.Add(max(heldPoll, r.conf.Interval))
	r.query(func(ctx context.Context) (func(time.Time), error) {
		page, err := r.conf.Store.Relay().Held(ctx, q)
		return func(now time.Time) {
			if err != nil {
				return
			}
			if page.NextDue >= 0 {
				h.due = earliest(h.due, now.Add(max(page.NextDue, firstPause)))
			}
			if len(page.Rows) > 0 {
				h.due = now.Add(firstPause)
			}
			r.cameDue(now, page.Rows)
		}, err
	})
}

func (r *relayRun) cameDue(now time.Time, rows []*Row) {
	for _, row := range rows {
		s := r.leases.slots[row.Slot]
		if s == nil || s.leaving || r.held.inMemory[row.Seq] {
			continue
		}
		f := r.newFlight(row)
		if row.Reason == HeldDue {
			r.settleRelease(f)
			continue
		}
		f.state = flightQueued
		k := f.key
		if k == nil {
			r.offer(now, f)
			continue
		}
		k.held, k.blocked = true, false
		k.queue = append([]*flight{f}, k.queue...)
		r.advance(now, k)
	}
}

// loadKey reads the rows that block or wait behind a key.
func (r *relayRun) loadKey(k *keyState, lease Lease) {
	moves := k.moves
	q := HeldQuery{Leases: []Lease{lease}, Key: &k.id, MaxRows: keyPage, MaxBytes: r.conf.InFlightBytes}
	r.query(func(ctx context.Context) (func(time.Time), error) {
		page, err := r.conf.Store.Relay().Held(ctx, q)
		return func(now time.Time) {
			k.loading = false
			if r.flights.keys[k.id] != k {
				return
			}
			if err != nil {
				r.held.indexAt = earliest(r.held.indexAt, now.Add(r.conf.Interval))
				return
			}
			r.keyLoaded(now, k, page.Rows, moves)
		}, err
	})
}

// keyLoaded takes the rows behind a key, unless others were moved there since the
// page was asked for: they may belong before its rows. A first row with a reason of its own
// keeps the key back until its time or a person comes; the others are sent in
// order. When none is left, the key is free.
func (r *relayRun) keyLoaded(now time.Time, k *keyState, rows []*Row, moves int) {
	if k.busy != nil || len(k.queue) > 0 {
		return // its end asks again
	}
	if k.moves != moves {
		r.picks.rest(now)
		r.held.wantKey(k)
		return
	}
	for _, row := range rows {
		s := r.leases.slots[row.Slot]
		if s == nil || s.leaving || r.held.inMemory[row.Seq] {
			continue
		}
		if row.Reason != HeldBehind {
			if len(k.queue) == 0 {
				k.blocked = true
				return
			}
			break
		}
		f := r.newFlight(row)
		f.state = flightQueued
		k.queue = append(k.queue, f)
	}
	switch {
	case len(k.queue) > 0:
		r.advance(now, k)
	case len(rows) < keyPage:
		k.held = false
		r.advance(now, k)
	default: // a page of rows that are in hand: their end is near
		r.held.wantKey(k)
	}
}
