package outlast

import (
	"context"
	"slices"
	"time"
)

// relayLeases is what this relay holds.
type relayLeases struct {
	slots    map[int]*slotState
	until    time.Time // by our monotonic clock, counted from before the renewal was sent
	next     time.Time // the next call
	busy     bool
	owners   int
	paused   bool // by an operator: our share is none
	leaving  int  // slots to be given back
	released bool
	// anew are leases that were given up while their epochs may still count, and with them
	// what is being written. They are given back before any is taken again, under new epochs.
	anew []Lease
}

// slotState is one slot in our hands.
type slotState struct {
	lease   Lease
	loading bool // what it holds back is not known yet: nothing is picked
	leaving bool // to be given back: nothing is picked, what was sent is awaited
	flights int
}

// valid reports whether the leases surely last a little longer. A relay that was
// stopped and continued finds out here, before it sends anything.
func (l *relayLeases) valid(now time.Time) bool { return now.Before(l.until) }

func (l *relayLeases) holds(x Lease) bool {
	s := l.slots[x.Slot]
	return s != nil && s.lease == x
}

// active returns the leases whose slots may be picked.
func (l *relayLeases) active() []Lease {
	list := make([]Lease, 0, len(l.slots))
	for _, s := range l.slots {
		if !s.loading && !s.leaving {
			list = append(list, s.lease)
		}
	}
	return list
}

// stepLeases drops what has run out and renews what will.
func (r *relayRun) stepLeases(now time.Time) time.Time {
	l := &r.leases
	if len(l.slots) > 0 && !l.valid(now) {
		r.conf.Logger.Warn("leases ran out before they could be renewed; starting anew", "slots", len(l.slots))
		for slot, s := range l.slots {
			l.anew = append(l.anew, s.lease)
			r.loseSlot(slot)
		}
		r.leasesChanged()
	}
	r.releaseLeft()
	var until time.Time
	if len(l.slots) > 0 {
		until = l.until
	}
	if l.busy || r.stopping {
		return until
	}
	if now.Before(l.next) {
		return earliest(l.next, until)
	}
	r.askLeases(now)
	return until
}

// askLeases renews what is held and takes a share.
func (r *relayRun) askLeases(now time.Time) {
	l := &r.leases
	l.busy = true
	anew := slices.Clone(l.anew)
	for _, lease := range anew {
		r.tellLease(LeaseReleased, lease)
	}
	r.job(r.conf.LeaseTTL, func(ctx context.Context) func(time.Time) {
		leases := r.conf.Store.Leases()
		if len(anew) > 0 {
			if err := leases.Release(ctx, RelayScope, r.conf.Owner, anew); err != nil {
				return func(got time.Time) { r.granted(got, now, LeaseGrant{}, err) }
			}
		}
		grant, err := leases.Lease(ctx, LeaseRequest{
			Scope: RelayScope, Owner: r.conf.Owner, TTL: r.conf.LeaseTTL, Total: r.conf.Store.Slots(),
		})
		return func(got time.Time) {
			if err == nil && len(l.anew) > len(anew) {
				// It was asked for before the slots were given up.
				l.busy, l.next = false, got
				return
			}
			if err == nil {
				l.anew = nil
			}
			r.granted(got, now, grant, err)
		}
	})
}

// granted takes the answer to a lease call that was sent at asked.
func (r *relayRun) granted(now, asked time.Time, g LeaseGrant, err error) {
	l := &r.leases
	l.busy = false
	third := r.conf.LeaseTTL / 3
	r.noteStore(err)
	if err != nil {
		l.next = now.Add(jitter(third))
		return
	}
	if r.stopping {
		return
	}
	// A tenth is kept back: what we send must have left before another may begin.
	l.until = asked.Add(r.conf.LeaseTTL - r.conf.LeaseTTL/10)
	l.next = asked.Add(third)
	if len(g.Held) < g.Share && g.Owners > 1 {
		l.next = asked.Add(third / 2) // somebody is about to give some back
	}
	r.notePaused(g.Share == 0)
	changed := l.owners != g.Owners
	l.owners = g.Owners
	held := map[int]Lease{}
	for _, x := range g.Held {
		held[x.Slot] = x
	}
	for slot, s := range l.slots {
		if held[slot] != s.lease || g.Lost {
			r.loseSlot(slot)
			changed = true
		}
	}
	var taken []int
	for slot, x := range held {
		if l.slots[slot] == nil {
			l.slots[slot] = &slotState{lease: x, loading: true}
			taken = append(taken, slot)
			changed = true
		}
	}
	if len(taken) > 0 {
		r.reader.Drop(taken)
		r.held.indexAt = now
	}
	r.tellGrant(g, taken)
	r.giveBack(len(held) - g.Share)
	if changed {
		r.leasesChanged()
	}
}

// notePaused takes what the grant says of an operator's pause. With a share of none every
// slot is given back: what was sent is awaited, nothing else is sent any more.
func (r *relayRun) notePaused(paused bool) {
	if r.leases.paused == paused {
		return
	}
	r.leases.paused = paused
	if paused {
		r.conf.Logger.Info("the relays of this outbox are paused")
	} else {
		r.conf.Logger.Info("the relays of this outbox are not paused any more")
	}
}

// giveBack marks n slots as leaving, idle ones first: another relay waits for them.
func (r *relayRun) giveBack(n int) {
	for _, s := range r.leases.slots {
		if s.leaving {
			n--
		}
	}
	for _, busy := range []bool{false, true} {
		for slot, s := range r.leases.slots {
			if n <= 0 {
				break
			}
			if s.leaving || (s.flights > 0) != busy {
				continue
			}
			s.leaving = true
			r.leases.leaving++
			n--
			r.dropQueued(slot)
		}
	}
}

// releaseLeft gives back the leaving slots that have nothing in flight. No lease call
// runs beside it: its answer could still name them as ours when another relay has
// them already.
func (r *relayRun) releaseLeft() {
	if r.leases.leaving == 0 || r.leases.busy {
		return
	}
	var slots []int
	var leases []Lease
	for slot, s := range r.leases.slots {
		if s.leaving && s.flights == 0 {
			slots, leases = append(slots, slot), append(leases, s.lease)
			r.leases.leaving--
			r.tellLease(LeaseReleased, s.lease)
			delete(r.leases.slots, slot)
			r.dropSlot(slot)
		}
	}
	if len(slots) == 0 {
		return
	}
	r.reader.Drop(slots)
	r.leasesChanged()
	r.leases.busy = true
	r.job(r.conf.LeaseTTL/3, func(ctx context.Context) func(time.Time) {
		// When this fails the leases run out by themselves with this owner's record,
		// or come back to us with the next grant.
		err := r.conf.Store.Leases().Release(ctx, RelayScope, r.conf.Owner, leases)
		return func(time.Time) {
			r.leases.busy = false
			r.noteStore(err)
		}
	})
}

// loseSlot forgets a slot: its rows are another relay's now, or ours anew.
func (r *relayRun) loseSlot(slot int) {
	if s := r.leases.slots[slot]; s != nil {
		if s.leaving {
			r.leases.leaving--
		}
		r.tellLease(LeaseLost, s.lease)
	}
	delete(r.leases.slots, slot)
	r.dropSlot(slot)
	r.reader.Drop([]int{slot})
}

// releaseAll gives everything back, once, at the end.
func (r *relayRun) releaseAll() {
	if r.leases.busy {
		return
	}
	r.leases.busy = true
	for _, s := range r.leases.slots {
		r.tellLease(LeaseReleased, s.lease)
	}
	for _, lease := range r.leases.anew { // by our clock they ran out; by the database's they may not have
		r.tellLease(LeaseReleased, lease)
	}
	r.job(r.conf.LeaseTTL, func(ctx context.Context) func(time.Time) {
		err := r.conf.Store.Leases().Release(ctx, RelayScope, r.conf.Owner, nil)
		return func(time.Time) {
			r.noteStore(err)
			r.leases.released = true
		}
	})
}

func (r *relayRun) leasesChanged() {
	held, owners := len(r.leases.slots), r.leases.owners
	r.conf.Logger.Debug("leases", "slots", held, "relays", owners)
	eachHook(&r.hooks, func(h HookLeases) { h.OnLeases(RelayScope, r.conf.Owner, held, owners) })
}

// tellGrant tells hooks of a grant and of the slots taken by it.
func (r *relayRun) tellGrant(g LeaseGrant, taken []int) {
	if r.hooks.none() {
		return
	}
	c := LeaseChange{Scope: r.toldScope(), Owner: r.conf.Owner, What: LeaseRenewed, Now: g.Now, Expires: g.Expires}
	eachHook(&r.hooks, func(h HookLease) { h.OnLease(c) })
	if len(taken) == 0 {
		return
	}
	c.What = LeaseGained
	for _, slot := range taken {
		c.Leases = append(c.Leases, r.leases.slots[slot].lease)
	}
	eachHook(&r.hooks, func(h HookLease) { h.OnLease(c) })
}

// tellLease tells hooks of a lease that goes.
func (r *relayRun) tellLease(what LeaseWhat, l Lease) {
	if r.hooks.none() {
		return
	}
	c := LeaseChange{Scope: r.toldScope(), Owner: r.conf.Owner, What: what, Leases: []Lease{l}}
	eachHook(&r.hooks, func(h HookLease) { h.OnLease(c) })
}

// toldScope is the relays' scope as hooks are told it: that of one outbox.
func (r *relayRun) toldScope() string { return RelayScope + ":" + r.conf.Source }
