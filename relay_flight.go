package outlast

import (
	"slices"
	"time"
)

// flight is one row in the relay's hands.
type flight struct {
	row   *Row
	route *routeState
	key   *keyState // nil without an ordering key
	state flightState
	fate  Fate // when it is settled as sent

	invalid     error // a limit that the row breaks; it is refused when its turn comes
	tries       int   // nacks in a row, while it is retried in memory
	outstanding int   // publishes of it that have no result yet
	number      int   // publishes of it so far
	lease       Lease // under which it was claimed
	lane        int
	sentAt      time.Time
	overdue     bool
}

type flightState int

const (
	flightQueued   flightState = iota // in its key's queue or its route's
	flightSent                        // published, no result yet
	flightWaiting                     // nacked; again after a short pause
	flightSuspect                     // to be sent alone
	flightSettling                    // decided; the settlement is not committed yet
	flightGone                        // not ours any more, or done
)

// relayFlights is everything in hand.
type relayFlights struct {
	count, bytes  int // all flights
	sent          int // with a result to come
	keys          map[SlotKey]*keyState
	routes        map[Route]*routeState
	turn          []*routeState // routes with something ready, in the order of their turns
	closed        int
	routesChanged bool
	waiting       []*flight
	suspects      []*flight
	suspect       *flight // the one being tried alone
	lanes         []int   // the lane number now in use for each of the normal lanes
	nextLane      int
	retired       []retiredLane
	lastConfirm   time.Time
	linkUp        time.Time // since when the broker can be expected to answer
	inFlight      map[*flight]struct{}
	deadline      time.Time // no confirm is overdue before: what is sent later is due later
}

// retiredLane is a lane that is not used any more because a confirm on it is overdue.
type retiredLane struct {
	lane   int
	dropAt time.Time
}

func (f *relayFlights) init(lanes int) {
	f.keys = map[SlotKey]*keyState{}
	f.routes = map[Route]*routeState{}
	f.inFlight = map[*flight]struct{}{}
	for range lanes {
		f.lanes = append(f.lanes, f.nextLane)
		f.nextLane++
	}
}

func (f *relayFlights) newLane() int {
	f.nextLane++
	return f.nextLane - 1
}

// keyState is an ordering key with rows in hand or held. At most one of its
// messages is unconfirmed at any time.
type keyState struct {
	id    SlotKey
	queue []*flight // in order, without the busy one
	busy  *flight   // the one that is sent, ready to be sent, or waiting for its retry

	// held means that rows of the key wait in the held table, and later ones must
	// follow them there.
	held    bool
	blocked bool // by a row that waits for its time or a person: no use to look
	loading bool
	moves   int   // rows of it moved to the held so far; changes tell that a page is stale
	moving  int   // of these, how many are not committed yet
	due     int64 // the Seq of its first row whose backoff is over, 0 when none is known
	after   int64 // the Seq up to which all held rows of it are in hand, while more are looked for
}

// admit takes a row that was picked from the outbox.
func (r *relayRun) admit(now time.Time, row *Row) {
	f := r.newFlight(row)
	if row.NotDue {
		r.holdFlight(f, Hold{Reason: HeldDue})
		return
	}
	r.enqueue(now, f)
}

func (r *relayRun) newFlight(row *Row) *flight {
	row.Source = r.conf.Source
	f := &flight{row: row, route: r.route(row.Route()), invalid: row.Validate(MaxBody)}
	if row.Envelope.Key != "" {
		f.key = r.key(SlotKey{row.Slot, row.Envelope.Key})
	}
	r.flights.count++
	r.flights.bytes += len(row.Body)
	s := r.leases.slots[row.Slot]
	s.flights++
	f.lease = s.lease
	if !r.hooks.none() {
		eachHook(&r.hooks, func(h HookClaimed) { h.OnClaimed(row, f.lease) })
	}
	if row.InHeld {
		r.held.inMemory[row.Seq] = true
	}
	return f
}

// removeFlight takes a flight out of the books of this process.
func (r *relayRun) removeFlight(f *flight) {
	if f.state == flightGone {
		return
	}
	if f.state == flightSent {
		r.unsend(f)
	}
	f.state = flightGone
	r.flights.count--
	r.flights.bytes -= len(f.row.Body)
	if s := r.leases.slots[f.row.Slot]; s != nil {
		s.flights--
	}
	if f.row.InHeld {
		delete(r.held.inMemory, f.row.Seq)
	}
}

func (r *relayRun) key(id SlotKey) *keyState {
	k := r.flights.keys[id]
	if k == nil {
		k = &keyState{id: id}
		r.flights.keys[id] = k
	}
	return k
}

// has reports whether rows of the key for that route are in hand.
func (k *keyState) has(rt *routeState) bool {
	return (k.busy != nil && k.busy.route == rt) ||
		slices.ContainsFunc(k.queue, func(f *flight) bool { return f.route == rt })
}

// insert puts a flight into the queue of its key: one from the held before all later
// rows, any other at the end.
func (k *keyState) insert(f *flight) {
	at := len(k.queue)
	if f.row.InHeld {
		if i := slices.IndexFunc(k.queue, func(q *flight) bool { return q.row.Seq > f.row.Seq }); i >= 0 {
			at = i
		}
	}
	k.queue = slices.Insert(k.queue, at, f)
}

// enqueue puts a flight behind its key, or into the held when its key or its route
// waits there.
func (r *relayRun) enqueue(now time.Time, f *flight) {
	if k := f.key; k != nil {
		if k.held && !f.row.Reason.BlocksKey() {
			r.enterHeldKey(f)
			return
		}
		// It must not wait at its key for the route to open: held rows of the key that
		// are still to be read come before it. But it must not be held before an earlier
		// row that is in hand: should this process die, that one would come second.
		if f.route.turnsAway(f.row) && !k.has(f.route) {
			r.holdForRoute(f)
			return
		}
		k.insert(f)
		r.advance(now, k)
		return
	}
	r.offer(now, f)
}

// enterHeldKey takes a row of a key that holds others back. What waited for its route
// may come before rows of the key that are in hand: then it joins them in its place.
func (r *relayRun) enterHeldKey(f *flight) {
	k := f.key
	later := func(q *flight) bool { return q.row.Seq > f.row.Seq }
	if f.row.InHeld && (slices.ContainsFunc(k.queue, later) || k.busy != nil && later(k.busy)) {
		k.insert(f)
		return
	}
	r.holdFlight(f, Hold{Reason: HeldBehind, Wait: -1})
}

// offer makes a flight whose turn has come ready to be sent on its route. It
// returns false when there is nothing to send: the row has expired, breaks a limit,
// or its route takes nothing now.
func (r *relayRun) offer(now time.Time, f *flight) bool {
	rt := f.route
	if f.row.Expired {
		r.settleSent(f, FateExpired)
		return false
	}
	if f.invalid != nil {
		r.failFlight(f, HeldRefused, f.invalid)
		return false
	}
	if rt.turnsAway(f.row) {
		r.holdForRoute(f)
		return false
	}
	f.state = flightQueued
	r.push(rt, f, false)
	return true
}

// advance makes the first flight of a key ready when no other is unconfirmed.
func (r *relayRun) advance(now time.Time, k *keyState) {
	for k.busy == nil && len(k.queue) > 0 {
		f := k.queue[0]
		k.queue = k.queue[1:]
		if f.state != flightQueued {
			continue
		}
		if f.row.Reason.BlocksKey() && f.route.state == routeDraining {
			r.waitForDrain(k, f)
			return
		}
		k.busy = f
		if !r.offer(now, f) {
			k.busy = nil
		}
	}
	if k.busy != nil || len(k.queue) > 0 {
		return
	}
	k.queue = nil
	switch {
	case k.held:
		if !k.blocked {
			r.held.wantKey(k)
		}
	case k.moving == 0 && !k.loading:
		delete(r.flights.keys, k.id)
	}
}

// waitForDrain puts the rows of a held key away until the route of its first row has
// drained: an earlier row of the key may be among those that are still to be read
// there. Rows change from waiting for their route to waiting behind their key only
// while the route drains, and the other way only while it is closed, so that at any
// instant the tables tell the next owner which row is the first.
func (r *relayRun) waitForDrain(k *keyState, first *flight) {
	rt := first.route
	rt.waiters = append(rt.waiters, k)
	queue := k.queue
	k.queue, k.after, k.blocked = nil, 0, true
	if first.row.Reason != HeldBehind {
		k.due = first.row.Seq
	}
	for _, f := range append([]*flight{first}, queue...) {
		switch {
		case f.state != flightQueued:
		case f.row.Reason.BlocksKey():
			r.removeFlight(f) // it waits there already
		default:
			r.holdFlight(f, Hold{Reason: HeldBehind, Wait: -1})
		}
	}
}

// leaveKey ends a flight's turn at its key.
func (r *relayRun) leaveKey(now time.Time, f *flight) {
	if k := f.key; k != nil && k.busy == f {
		k.busy = nil
		r.advance(now, k)
	}
}

// holdFlight moves a flight's row to the held, or leaves it there.
func (r *relayRun) holdFlight(f *flight, h Hold) {
	row := f.row
	if row.InHeld && row.Reason == h.Reason && !(h.Reason == HeldBackoff || h.Reason == HeldRefused) {
		r.removeFlight(f) // nothing to write: it waits there already
		return
	}
	h.Row = row
	r.held.indexAt = earliest(r.held.indexAt, time.Now().Add(indexPoll))
	if f.state == flightSent {
		r.unsend(f)
	}
	f.state = flightSettling
	if h.Reason.BlocksKey() && f.key != nil {
		f.key.moves++
		f.key.moving++
		f.key.after = 0
	}
	if h.Reason.OfRoute() {
		f.route.move(row)
	}
	r.settle.hold(f, h)
}

// holdForRoute moves a row to those that wait for its route.
func (r *relayRun) holdForRoute(f *flight) {
	r.holdFlight(f, Hold{Reason: f.route.reason, Wait: -1, Attempts: f.row.Attempts, Error: f.route.fault})
}

// failFlight is for a message that failed by itself: it waits in the held, and
// later rows of its key behind it.
func (r *relayRun) failFlight(f *flight, reason HeldReason, err error) {
	h := Hold{Reason: reason, Wait: -1, Attempts: f.row.Attempts + 1, Error: CleanErrorText(err.Error())}
	if reason == HeldBackoff {
		limit := doubling(time.Second, 10*time.Minute, f.row.Attempts)
		h.Wait = limit/2 + jitter(limit/2)
	}
	r.conf.Logger.Warn("a message cannot be sent now", "id", f.row.ID, "type", f.row.Type, "reason", reason, "attempts", h.Attempts, "error", err, "trace_id", traceID(&f.row.Message))
	k := f.key
	r.holdFlight(f, h)
	r.held.due = earliest(r.held.due, time.Now().Add(max(h.Wait, 0)+50*time.Millisecond))
	if k == nil {
		return
	}
	k.held, k.blocked = true, true
	queue := k.queue
	k.queue = nil
	if k.busy == f {
		k.busy = nil
	}
	for _, q := range queue {
		if q.state == flightQueued {
			r.holdFlight(q, Hold{Reason: HeldBehind, Wait: -1})
		}
	}
}

// dropSlot forgets all flights of a slot.
func (r *relayRun) dropSlot(slot int) {
	r.dropFlights(slot, true)
	for id, k := range r.flights.keys {
		if id.Slot == slot {
			delete(r.flights.keys, k.id)
		}
	}
}

// dropQueued forgets what is not sent yet of a slot that is to be given back.
func (r *relayRun) dropQueued(slot int) { r.dropFlights(slot, false) }

func (r *relayRun) dropFlights(slot int, sentToo bool) {
	drop := func(f *flight) {
		if f != nil && f.row.Slot == slot && (sentToo || (f.state != flightSent && f.state != flightSettling)) {
			r.removeFlight(f)
		}
	}
	for id, k := range r.flights.keys {
		if id.Slot != slot {
			continue
		}
		for _, f := range k.queue {
			drop(f)
		}
		k.queue = nil
		drop(k.busy)
		if k.busy != nil && k.busy.state == flightGone {
			k.busy = nil
		}
	}
	for _, rt := range r.flights.routes {
		for _, f := range rt.ready {
			drop(f)
		}
	}
	for _, list := range [][]*flight{r.flights.waiting, r.flights.suspects} {
		for _, f := range list {
			drop(f)
		}
	}
	if sentToo {
		for f := range r.flights.inFlight {
			drop(f)
		}
		r.settle.dropSlot(r, slot)
	}
}
