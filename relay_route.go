package outlast

import (
	"context"
	"errors"
	"time"
)

// routeState is what the relay knows of one route: how much is in flight, and
// whether it takes messages.
//
//	open      windowed publishing
//	slow      a confirm is overdue: one at a time on a lane of its own, until one comes
//	closed    its rows wait in the held table; one probe now and then
//	draining  works again: held rows go first, later ones follow them
//
// open -> slow -> open; open, slow, draining -> closed -> draining -> open.
type routeState struct {
	Route
	state  routeStatus
	reason HeldReason // while closed or draining
	fault  string
	since  time.Time

	ready         []*flight
	inTurn        bool
	inFlight      int
	inFlightBytes int
	answered      time.Time // the last result of a message of this route
	worked        time.Time // its last confirm
	nacks         int       // in a row

	lane    int // of its own, while slow or closed; 0 is none
	probe   *flight
	probeAt time.Time
	probes  int

	loading  bool // a page of its held rows is being read
	loadAt   time.Time
	loadedTo int64       // the Seq up to which they were read, while draining
	moves    int         // rows moved to the held because of it so far
	moving   int         // of these, not committed yet
	lowMoved int64       // the lowest Seq of them since the page was asked for; 0 is none
	rewinds  int         // see rewind
	waiters  []*keyState // held keys whose first row waits for the end of the drain
}

type routeStatus int

const (
	routeOpen routeStatus = iota
	routeSlow
	routeClosed
	routeDraining
)

// stallLimit is how long a route may answer nothing while it fills the buffer,
// before its rows are moved out of the way of others.
const stallLimit = 3 * time.Second

var errOverdue = errors.New("no confirm in time")

const (
	heldPage  = 256
	probePage = 16
)

func (r *relayRun) route(id Route) *routeState {
	rt := r.flights.routes[id]
	if rt == nil {
		rt = &routeState{Route: id, answered: time.Now()}
		r.flights.routes[id] = rt
	}
	return rt
}

// hasRoom reports whether one more message may be in flight.
func (rt *routeState) hasRoom(c *RelayConfig) bool {
	switch rt.state {
	case routeSlow:
		return rt.inFlight == 0
	case routeClosed:
		return true // what is ready is moved away, not sent
	default:
		return rt.inFlight < c.InFlight && rt.inFlightBytes < c.InFlightBytes
	}
}

// turnsAway reports whether a row must wait in the held table for this route. While
// the route drains, rows that wait for it go first, in the order of Seq; later ones
// join them.
func (rt *routeState) turnsAway(row *Row) bool {
	return rt.state == routeClosed || (rt.state == routeDraining && !row.InHeld)
}

// ownLane returns the lane that only this route uses.
func (rt *routeState) ownLane(fl *relayFlights) int {
	if rt.lane == 0 {
		rt.lane = fl.newLane()
	}
	return rt.lane
}

// dropOwnLane closes it; the next use takes a fresh one.
func (r *relayRun) dropOwnLane(rt *routeState) {
	if rt.lane != 0 {
		r.pub.Drop(rt.lane)
		rt.lane = 0
	}
}

// closeRoute stops sending on a route and moves its ready rows to the held.
func (r *relayRun) closeRoute(now time.Time, rt *routeState, reason HeldReason, fault string) {
	rt.answered = now
	if rt.state == routeClosed {
		if rt.reason != reason || rt.fault != fault {
			rt.reason, rt.fault = reason, fault
			r.flights.routesChanged = true
		}
		return
	}
	r.wakeKeys(rt)
	rt.state, rt.reason, rt.fault, rt.since = routeClosed, reason, fault, now
	rt.probes = 0
	r.planProbe(now, rt)
	r.flights.closed++
	r.flights.routesChanged = true
	r.conf.Logger.Warn("a route takes no messages; its rows are held and will be delivered when it does", "route", rt.Route.String(), "reason", fault)
	eachHook(&r.hooks, func(h HookRoute) { h.OnRoute(rt.Route, false, fault) })
	ready := rt.ready
	rt.ready = nil
	for _, f := range ready {
		if f.state == flightQueued && !r.offer(now, f) {
			r.leaveKey(now, f)
		}
	}
}

// routeWorks notes that a message of the route was confirmed.
func (r *relayRun) routeWorks(now time.Time, rt *routeState) {
	rt.nacks = 0
	rt.answered, rt.worked = now, now
	switch rt.state {
	case routeSlow:
		rt.state = routeOpen
	case routeClosed:
		r.reopen(now, rt)
		r.conf.Logger.Info("a route takes messages again", "route", rt.Route.String(), "after", now.Sub(rt.since).Round(time.Millisecond))
	}
}

// reopen lets a closed route drain.
func (r *relayRun) reopen(now time.Time, rt *routeState) {
	r.drainRoute(now, rt)
	r.flights.closed--
	r.flights.routesChanged = true
	eachHook(&r.hooks, func(h HookRoute) { h.OnRoute(rt.Route, true, "") })
}

// drainRoute sends the held rows of a route before any later one.
func (r *relayRun) drainRoute(now time.Time, rt *routeState) {
	rt.state = routeDraining
	rt.rewind()
	rt.loadAt = now
	if !rt.reason.OfRoute() {
		rt.reason = HeldRoute
	}
}

// rewind makes the drain read from the start again, and disbelieve a page that is
// under way: rows have come to wait for the route whose place may be before what
// was read already.
func (rt *routeState) rewind() {
	rt.loadedTo = 0
	rt.rewinds++
}

// move notes that a row is on its way to those that wait for the route.
func (rt *routeState) move(row *Row) {
	rt.moves++
	rt.moving++
	if row.InHeld || row.Seq <= rt.loadedTo {
		rt.rewind()
	}
	if rt.lowMoved == 0 || row.Seq < rt.lowMoved {
		rt.lowMoved = row.Seq
	}
}

// wakeKeys lets the keys go on that waited for the end of the route's drain.
func (r *relayRun) wakeKeys(rt *routeState) {
	for _, k := range rt.waiters {
		if r.flights.keys[k.id] == k && k.held {
			k.blocked = false
			r.held.wantKey(k)
		}
	}
	rt.waiters = nil
}

// planProbe sets the time of the next probe: every few seconds in the long run.
func (r *relayRun) planProbe(now time.Time, rt *routeState) {
	wait := doubling(500*time.Millisecond, 4*time.Second, rt.probes)
	rt.probeAt = now.Add(wait/2 + jitter(wait/2))
	rt.probes++
}

// stepRoutes looks after the routes that are not simply open.
func (r *relayRun) stepRoutes(now time.Time) time.Time {
	if r.link.State != LinkUp || r.stopping {
		return time.Time{}
	}
	full := r.room(pickRows, pickRows) == 0
	var next time.Time
	for _, rt := range r.flights.routes {
		switch rt.state {
		case routeClosed:
			next = earliest(next, r.stepClosed(now, rt))
		case routeDraining:
			next = earliest(next, r.stepDraining(now, rt))
		default:
			if full && rt.inFlight > 0 && now.Sub(rt.answered) > stallLimit && now.Sub(r.flights.lastConfirm) < stallLimit {
				// Others are answered, this one is not: it must not fill the buffer.
				r.closeRoute(now, rt, HeldRoute, "no confirm from "+rt.Route.String()+" for "+stallLimit.String())
			} else if full && rt.state == routeSlow && now.Sub(rt.since) > stallLimit {
				r.closeRoute(now, rt, HeldRoute, "no confirm from "+rt.Route.String()+" within "+r.conf.ConfirmDeadline.String())
			}
		}
	}
	if full {
		next = earliest(next, now.Add(stallLimit/4))
	}
	return next
}

// stepClosed probes a closed route with one of its own rows.
func (r *relayRun) stepClosed(now time.Time, rt *routeState) time.Time {
	if rt.probe != nil || rt.loading || rt.moving > 0 {
		return time.Time{} // an earlier row may still be on its way to the held
	}
	if now.Before(rt.probeAt) {
		return rt.probeAt
	}
	r.loadRoute(rt, HeldQuery{Route: &rt.Route, MaxRows: probePage, MaxBytes: r.conf.InFlightBytes},
		func(now time.Time, rows []*Row, ours func(*Row) bool) {
			if rt.state == routeClosed {
				r.planProbe(now, rt)
				r.probeWith(now, rt, rows, ours)
			}
		})
	return time.Time{}
}

// probeWith sends alone the first row whose key allows it. When none waits, or all
// of them wait for their keys as well, it lets the route drain: the next message
// will tell. A page that comes when the lease is over, or given back, is not believed:
// the next owner may hold an earlier row of a key by then.
func (r *relayRun) probeWith(now time.Time, rt *routeState, rows []*Row, ours func(*Row) bool) {
	if r.stopping || !r.leases.valid(now) {
		return
	}
	passed := 0
	for _, row := range rows {
		if !ours(row) {
			continue
		}
		f := r.newFlight(row)
		if row.Expired || f.invalid != nil {
			r.offer(now, f)
			return
		}
		if k := f.key; k != nil {
			if k.held {
				r.removeFlight(f)
				passed++
				continue
			}
			if k.busy != nil {
				r.removeFlight(f)
				return
			}
			k.busy = f
		}
		rt.probe = f
		r.pub.Send(rt.ownLane(&r.flights), []*Publishing{r.send(now, f, rt.lane)})
		return
	}
	if passed == len(rows) && rt.moving == 0 {
		r.conf.Logger.Debug("no message waits for a closed route alone; the next one will tell whether it works", "route", rt.Route.String())
		r.reopen(now, rt)
	}
}

// stepDraining reads the next page of a draining route when there is room.
func (r *relayRun) stepDraining(now time.Time, rt *routeState) time.Time {
	room := r.room(heldPage/4, heldPage)
	if rt.loading || len(rt.ready) > heldPage || room == 0 {
		return time.Time{}
	}
	if now.Before(rt.loadAt) {
		return rt.loadAt
	}
	if rt.moving > 0 {
		// A page read now could hold a later row of a key and miss an earlier one. With
		// the picks resting they all arrive.
		r.picks.rest(now)
		return time.Time{}
	}
	moves, rewinds := rt.moves, rt.rewinds
	rt.lowMoved = 0
	r.loadRoute(rt, HeldQuery{Route: &rt.Route, After: rt.loadedTo, MaxRows: room, MaxBytes: r.conf.InFlightBytes},
		func(now time.Time, rows []*Row, ours func(*Row) bool) {
			if rt.state == routeDraining && rt.rewinds == rewinds {
				r.drained(now, rt, rows, ours, moves)
			}
		})
	return time.Time{}
}

// drained takes a page of a draining route. When nothing is left, and nothing was
// moved there since the page was asked for, the route is open: every row of it is
// in hand now, in order, and later ones queue behind.
func (r *relayRun) drained(now time.Time, rt *routeState, rows []*Row, ours func(*Row) bool, moves int) {
	r.conf.Logger.Debug("held rows of a route", "route", rt.Route.String(), "after", rt.loadedTo, "rows", len(rows), "moving", rt.moving)
	for _, row := range rows {
		if rt.lowMoved != 0 && row.Seq > rt.lowMoved {
			return // an earlier row of its key may not be in the page yet
		}
		rt.loadedTo = row.Seq
		if !ours(row) {
			continue
		}
		f := r.newFlight(row)
		f.state = flightQueued
		r.enqueue(now, f)
	}
	if len(rows) > 0 {
		return
	}
	if rt.moves == moves && rt.moving == 0 {
		r.wakeKeys(rt)
		rt.state = routeOpen
		rt.reason, rt.fault = "", ""
		rt.loadedTo = 0
		r.dropOwnLane(rt)
	}
}

// loadRoute reads held rows of a route in a job.
func (r *relayRun) loadRoute(rt *routeState, q HeldQuery, then func(now time.Time, rows []*Row, ours func(*Row) bool)) {
	q.Leases = r.leases.active()
	ours := r.ours()
	rt.loading = true
	read := r.held.reads.begin()
	r.job(time.Minute, func(ctx context.Context) func(time.Time) {
		page, err := r.conf.Store.Relay().Held(ctx, q)
		return func(now time.Time) {
			defer r.held.end(read)
			rt.loading = false
			r.noteStore(err)
			if err != nil {
				rt.loadAt = now.Add(r.conf.Interval)
				rt.probeAt = rt.loadAt
				return
			}
			then(now, page.Rows, ours)
		}
	})
}

// stepDeadlines finds overdue confirms. Their outcome is unknown: the messages are
// sent again on another lane, with window 1, until one is confirmed. The old lane
// stays open a while, so that what else is on it can still be confirmed there.
func (r *relayRun) stepDeadlines(now time.Time) time.Time {
	fl := &r.flights
	r.dropRetired(now)
	if fl.sent == 0 || r.link.State != LinkUp {
		fl.deadline = time.Time{}
		return time.Time{}
	}
	if now.Before(fl.deadline) {
		return fl.deadline
	}
	var next time.Time
	late := map[int]bool{}
	for f := range fl.inFlight {
		deadline := f.sentAt.Add(r.conf.ConfirmDeadline)
		if f.sentAt.Before(fl.linkUp) { // it was blocked meanwhile
			deadline = fl.linkUp.Add(r.conf.ConfirmDeadline)
		}
		if now.Before(deadline) {
			next = earliest(next, deadline)
			continue
		}
		late[f.lane] = true
		r.overdue(now, f)
	}
	fl.deadline = next
	for i, lane := range fl.lanes {
		if late[lane] {
			fl.lanes[i] = fl.newLane()
			fl.retired = append(fl.retired, retiredLane{lane, now.Add(r.conf.ConfirmDeadline)})
		}
	}
	if late[r.suspectLane()] {
		r.pub.Drop(r.suspectLane())
	}
	return next
}

func (r *relayRun) overdue(now time.Time, f *flight) {
	rt := f.route
	if !r.hooks.none() {
		eachHook(&r.hooks, func(h HookAnswered) { h.OnAnswered(Try{f.row, f.lease, f.number}, OutcomeUnknown, errOverdue) })
	}
	r.conf.Logger.Warn("no confirm in time; the message is sent again", "id", f.row.ID, "type", f.row.Type, "deadline", r.conf.ConfirmDeadline, "trace_id", traceID(&f.row.Message))
	if f.lane == rt.lane && rt.lane != 0 {
		r.dropOwnLane(rt)
	}
	r.unsend(f)
	switch rt.state {
	case routeOpen:
		rt.state, rt.since = routeSlow, now
	case routeDraining: // its probes are the window of 1
		r.closeRoute(now, rt, HeldRoute, "no confirm from "+rt.Route.String()+" within "+r.conf.ConfirmDeadline.String())
	}
	r.requeue(now, f)
}

func (r *relayRun) dropRetired(now time.Time) {
	kept := r.flights.retired[:0]
	for _, l := range r.flights.retired {
		if now.Before(l.dropAt) {
			kept = append(kept, l)
			continue
		}
		r.pub.Drop(l.lane)
	}
	r.flights.retired = kept
}

// closedRoutes lists the closed routes for Health.
func (r *relayRun) closedRoutes() map[Route]string {
	closed := map[Route]string{}
	for id, rt := range r.flights.routes {
		if rt.state == routeClosed {
			closed[id] = rt.fault
		}
	}
	return closed
}
