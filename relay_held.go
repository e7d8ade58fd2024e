package outlast

import (
	"context"
	"maps"
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
	reads    heldReads
}

// heldReads knows which queries of the held run, so that a page that was read before
// a row left does not bring it back: the row counts as in hand until the last query
// that may have seen it has returned.
type heldReads struct {
	clock   int
	running map[int]struct{} // by the clock at their start
	gone    []goneRow        // ascending
}

type goneRow struct {
	seq   int64
	clock int
}

// begin notes a query and returns its name.
func (q *heldReads) begin() int {
	if q.running == nil {
		q.running = map[int]struct{}{}
	}
	q.clock++
	q.running[q.clock] = struct{}{}
	return q.clock
}

// left notes that a row has left the held for good.
func (h *relayHeld) left(seq int64) {
	if len(h.reads.running) > 0 {
		h.inMemory[seq] = true
		h.reads.gone = append(h.reads.gone, goneRow{seq, h.reads.clock})
	}
}

// end notes that the page of a query has been dealt with.
func (h *relayHeld) end(query int) {
	q := &h.reads
	delete(q.running, query)
	oldest := q.clock + 1
	for c := range q.running {
		oldest = min(oldest, c)
	}
	for len(q.gone) > 0 && q.gone[0].clock < oldest {
		delete(h.inMemory, q.gone[0].seq)
		q.gone = q.gone[1:]
	}
}

const (
	duePoll   = 100 * time.Millisecond // while what is due waits for its turn
	heldPoll  = 3 * time.Second        // producers and people put rows there without telling us
	indexPoll = 15 * time.Second       // finds keys whose first row a person withdrew
	indexIdle = time.Minute            // when nothing but scheduled rows is held
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
	p.notBefore = latest(p.notBefore, now.Add(50*time.Millisecond))
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
		if s == nil || s.loading || s.leaving || r.flights.keys[k.id] != k || k.moving > 0 {
			k.loading = false // rows on their way there ask again when they arrive
			continue
		}
		r.loadKey(k, s.lease)
		return time.Time{}
	}
	return earliest(h.due, h.indexAt)
}

// ours is asked when a query starts and tells, of the rows that it returns, which may
// be taken: they are not in hand, and their slot has been ours all the time.
func (r *relayRun) ours() func(*Row) bool {
	then := maps.Clone(r.leases.slots)
	return func(row *Row) bool {
		s := r.leases.slots[row.Slot]
		return s != nil && s == then[row.Slot] && !s.loading && !s.leaving && !r.held.inMemory[row.Seq]
	}
}

// query runs a held query as the one job of its kind.
func (r *relayRun) query(f func(ctx context.Context) (func(now time.Time), error)) {
	r.held.busy = true
	read := r.held.reads.begin()
	r.job(time.Minute, func(ctx context.Context) func(time.Time) {
		then, err := f(ctx)
		return func(now time.Time) {
			r.held.busy = false
			r.noteStore(err)
			then(now)
			r.held.end(read)
		}
	})
}

// loadIndex learns which keys and routes have rows in the held: for new slots
// before anything of them is picked, for all of them from time to time.
func (r *relayRun) loadIndex(now time.Time) {
	h := &r.held
	h.indexAt = now.Add(indexPoll)
	slots := maps.Clone(r.leases.slots)
	leases := make([]Lease, 0, len(slots))
	for _, s := range slots {
		leases = append(leases, s.lease)
	}
	r.query(func(ctx context.Context) (func(time.Time), error) {
		index, err := r.conf.Store.Relay().HeldIndex(ctx, leases)
		return func(now time.Time) {
			if err != nil {
				h.indexAt = now.Add(r.conf.Interval)
				return
			}
			r.indexed(now, slots, index)
		}, err
	})
}

func (r *relayRun) indexed(now time.Time, slots map[int]*slotState, index HeldIndex) {
	if len(index.Keys)+len(index.Routes) == 0 {
		r.held.indexAt = now.Add(indexIdle)
	}
	for slot, s := range r.leases.slots {
		switch {
		case !s.loading:
		case slots[slot] == s:
			s.loading = false
			r.picks.burst(now)
		default:
			r.held.indexAt = now // it came while the query ran
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
	q := HeldQuery{Leases: r.leases.active(), Due: true, MaxRows: r.room(heldPage/4, heldPage), MaxBytes: r.conf.InFlightBytes}
	if len(q.Leases) == 0 || q.MaxRows == 0 {
		h.due = now.Add(firstPause)
		return
	}
	h.due = now.Add(max(heldPoll, r.conf.Interval))
	ours := r.ours()
	r.query(func(ctx context.Context) (func(time.Time), error) {
		page, err := r.conf.Store.Relay().Held(ctx, q)
		return func(now time.Time) {
			if err != nil {
				return
			}
			if page.NextDue >= 0 {
				h.due = earliest(h.due, now.Add(max(page.NextDue, duePoll)))
			}
			if r.cameDue(now, page.Rows, ours) {
				h.due = now.Add(firstPause)
			} else if len(page.Rows) > 0 {
				h.due = earliest(h.due, now.Add(duePoll))
			}
		}, err
	})
}

// cameDue takes rows that are due, and reports whether there were new ones. One that
// has a key is read again with what else waits of the key: only the first may go,
// and a person may have released a later one.
func (r *relayRun) cameDue(now time.Time, rows []*Row, ours func(*Row) bool) (fresh bool) {
	for _, row := range rows {
		if !ours(row) {
			continue
		}
		switch {
		case row.Reason == HeldDue:
			r.settleRelease(r.newFlight(row))
		case row.Envelope.Key == "":
			r.offer(now, r.newFlight(row))
		default:
			k := r.key(SlotKey{row.Slot, row.Envelope.Key})
			if k.due == 0 || row.Seq < k.due {
				k.due = row.Seq
			}
			k.held, k.blocked = true, false
			r.advance(now, k)
			continue
		}
		fresh = true
	}
	return fresh
}

// loadKey reads the rows that block or wait behind a key.
func (r *relayRun) loadKey(k *keyState, lease Lease) {
	moves := k.moves
	q := HeldQuery{Leases: []Lease{lease}, Key: &k.id, After: k.after, MaxRows: keyPage, MaxBytes: r.conf.InFlightBytes}
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
		k.after = 0
		r.picks.rest(now)
		r.held.wantKey(k)
		return
	}
	for i, row := range rows {
		s := r.leases.slots[row.Slot]
		if s == nil || s.leaving || r.held.inMemory[row.Seq] {
			continue
		}
		if row.Reason != HeldBehind && !(row.Seq == k.due && len(k.queue) == 0) {
			if len(k.queue) == 0 {
				k.blocked, k.due, k.after = true, 0, 0
				r.fallBehind(rows[i+1:])
				return
			}
			break
		}
		f := r.newFlight(row)
		f.state = flightQueued
		k.queue = append(k.queue, f)
		if row.Reason != HeldBehind {
			break // the others when it has gone
		}
	}
	switch {
	case len(k.queue) > 0:
		k.after, k.due = 0, 0
		r.advance(now, k)
	case len(rows) > 0: // all are in hand, or on their way out: more may follow
		k.after = rows[len(rows)-1].Seq
		r.held.wantKey(k)
	default:
		k.held, k.after, k.due = false, 0, 0
		r.advance(now, k)
	}
}

// fallBehind makes rows that are tried again at a time of their own wait for an
// earlier row of their key: it is to go first.
func (r *relayRun) fallBehind(rows []*Row) {
	for _, row := range rows {
		if row.Reason == HeldBackoff && !r.held.inMemory[row.Seq] {
			r.holdFlight(r.newFlight(row), Hold{Reason: HeldBehind, Wait: -1, Attempts: row.Attempts})
		}
	}
}
