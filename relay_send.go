package outlast

import (
	"time"

	"github.com/outlastmq/outlast/internal/planted"
)

// push makes a flight ready on its route, at the end or, for one that was sent
// before, at the front.
func (r *relayRun) push(rt *routeState, f *flight, front bool) {
	if front {
		rt.ready = append([]*flight{f}, rt.ready...)
	} else {
		rt.ready = append(rt.ready, f)
	}
	if !rt.inTurn {
		rt.inTurn = true
		r.flights.turn = append(r.flights.turn, rt)
	}
}

// pump sends what is ready, a little of each route in turn, within the windows.
func (r *relayRun) pump(now time.Time) {
	if r.link.State != LinkUp || r.stopping || !r.leases.valid(now) {
		return
	}
	r.pumpSuspect(now)
	fl := &r.flights
	batches := map[int][]*Publishing{}
	turn := fl.turn
	fl.turn = nil
	for _, rt := range turn {
		rt.inTurn = false
		r.pumpRoute(now, rt, batches)
		if len(rt.ready) > 0 && !rt.inTurn {
			rt.inTurn = true
			fl.turn = append(fl.turn, rt)
		}
	}
	for lane, ps := range batches {
		r.pub.Send(lane, ps)
		if planted.On(planted.MarkBeforeConfirm) {
			for _, p := range ps {
				r.confirmed(now, p.Owner.(*flight))
			}
		}
	}
}

// pumpRoute moves flights of a route into the batches of their lanes.
func (r *relayRun) pumpRoute(now time.Time, rt *routeState, batches map[int][]*Publishing) {
	for len(rt.ready) > 0 && rt.hasRoom(&r.conf) {
		f := rt.ready[0]
		rt.ready[0] = nil
		rt.ready = rt.ready[1:]
		if f.state != flightQueued {
			continue
		}
		if rt.state == routeClosed {
			if !r.offer(now, f) {
				r.leaveKey(now, f)
			}
			continue
		}
		lane := r.flights.lanes[Bucket(f.row.Envelope.Key, f.row.ID)%len(r.flights.lanes)]
		if rt.state == routeSlow {
			lane = rt.ownLane(&r.flights)
		}
		batches[lane] = append(batches[lane], r.send(now, f, lane))
	}
	if len(rt.ready) == 0 {
		rt.ready = nil
	}
}

// send notes that a flight is on its way and returns what to publish.
func (r *relayRun) send(now time.Time, f *flight, lane int) *Publishing {
	f.state = flightSent
	f.lane = lane
	f.sentAt = now
	f.overdue = false
	f.outstanding++
	f.number++
	if f.route.inFlight == 0 {
		f.route.answered = now // it owed no answer until now
	}
	f.route.inFlight++
	f.route.inFlightBytes += len(f.row.Body)
	r.flights.sent++
	r.flights.inFlight[f] = struct{}{}
	// With the first publish only: that may still be read when the second one is made.
	if before := r.before.Load(); before != 0 && f.number == 1 {
		f.row.SettledBefore = time.UnixMicro(before)
	}
	if !r.hooks.none() {
		eachHook(&r.hooks, func(h HookSending) { h.OnSending(Try{f.row, f.lease, f.number}, lane) })
	}
	return &Publishing{Message: &f.row.Message, Exchange: f.route.Exchange, RoutingKey: f.row.Address(), Owner: f, Try: f.number, sent: now}
}

// unsend takes a flight out of the windows.
func (r *relayRun) unsend(f *flight) {
	f.route.inFlight--
	f.route.inFlightBytes -= len(f.row.Body)
	r.flights.sent--
	delete(r.flights.inFlight, f)
	if r.flights.suspect == f {
		r.flights.suspect = nil
	}
	if f.route.probe == f {
		f.route.probe = nil
	}
}

// pumpSuspect sends the next suspect, alone, on a lane of its own, once nothing
// else of its kind is unresolved.
func (r *relayRun) pumpSuspect(now time.Time) {
	fl := &r.flights
	for fl.suspect == nil && len(fl.suspects) > 0 {
		f := fl.suspects[0]
		fl.suspects = fl.suspects[1:]
		if f.state != flightSuspect {
			continue
		}
		if f.route.state == routeClosed {
			f.state = flightQueued
			if !r.offer(now, f) {
				r.leaveKey(now, f)
			}
			continue
		}
		fl.suspect = f
		r.pub.Send(r.suspectLane(), []*Publishing{r.send(now, f, r.suspectLane())})
	}
}

// suspectLane is a lane that only suspects use.
func (r *relayRun) suspectLane() int { return -1 }

// results takes what became of publishes.
func (r *relayRun) results(now time.Time, rs []Result) {
	for _, res := range rs {
		f := res.P.Owner.(*flight)
		f.outstanding--
		r.result(now, f, res)
	}
	r.tellResults(rs)
}

// tellResults tells the hooks what became of publishes that were answered together.
func (r *relayRun) tellResults(rs []Result) {
	if r.hooks.none() {
		return
	}
	var list []Published
	eachHook(&r.hooks, func(h HookResults) {
		if list == nil {
			list = make([]Published, len(rs))
			for i, res := range rs {
				list[i] = Published{Row: res.P.Owner.(*flight).row, Outcome: res.Outcome, Err: res.Err, Sent: res.P.sent}
			}
		}
		h.OnResults(list)
	})
}

func (r *relayRun) result(now time.Time, f *flight, res Result) {
	if !r.hooks.none() {
		took := now.Sub(f.sentAt)
		eachHook(&r.hooks, func(h HookPublished) { h.OnPublished(f.row, res.Outcome, res.Err, took) })
		eachHook(&r.hooks, func(h HookAnswered) { h.OnAnswered(Try{f.row, f.lease, res.P.Try}, res.Outcome, res.Err) })
	}
	if f.state == flightGone || f.state == flightSettling {
		return
	}
	alone := r.flights.suspect == f || f.route.probe == f
	if planted.On(planted.AttemptsBurnt) && (res.Outcome == OutcomeNotSent || res.Outcome == OutcomeUnknown) {
		r.failFlight(f, HeldBackoff, res.Err)
		r.leaveKey(now, f)
		return
	}
	switch res.Outcome {
	case OutcomeConfirmed:
		r.confirmed(now, f)
	case OutcomeUnroutable:
		r.unroutable(now, f)
	case OutcomeNacked:
		r.nacked(now, f, res.Err)
	case OutcomeRefused:
		r.failFlight(f, HeldRefused, res.Err)
		r.leaveKey(now, f)
	case OutcomeLaneError:
		r.laneError(now, f, res, alone)
	case OutcomeNotSent: // an outage, which costs no attempt; not at once, lest we spin
		if f.state == flightSent && f.outstanding == 0 {
			r.pause(f, now.Add(50*time.Millisecond))
		}
	default: // unknown: sent again with the same id
		r.again(now, f)
	}
}

// confirmed settles a flight. Only a message's own confirm, with no return before
// it, comes here; a late one of an earlier publish of it counts as well.
func (r *relayRun) confirmed(now time.Time, f *flight) {
	r.flights.lastConfirm = now
	rt := f.route
	r.settleSent(f, FateSent)
	r.routeWorks(now, rt)
	r.leaveKey(now, f)
}

// unroutable takes a returned message: nobody is bound to its route.
func (r *relayRun) unroutable(now time.Time, f *flight) {
	r.flights.lastConfirm = now // the broker answers
	if f.row.MayBeUnheard {
		r.settleSent(f, FateUnheard)
		r.leaveKey(now, f)
		return
	}
	r.closeRoute(now, f.route, HeldUnroutable, "no queue is bound to "+f.route.String())
	r.holdForRoute(f)
	r.leaveKey(now, f)
}

const (
	nacksToClose = 16 // refusals in a row, by different messages, that are the route's fault
	nacksToHold  = 4  // refusals of one message that are its own
)

// nacked takes a refusal. It is the queue's (full) when many messages in a row get
// one, and the message's own when others pass.
func (r *relayRun) nacked(now time.Time, f *flight, err error) {
	r.flights.lastConfirm = now
	if err == nil {
		err = &Error{Op: "publish " + f.row.Type, Code: CodeRefused}
	}
	rt := f.route
	f.tries++
	rt.nacks++
	switch {
	case rt.nacks >= nacksToClose || rt.state == routeClosed:
		r.closeRoute(now, rt, HeldRoute, "the broker refuses messages: "+err.Error())
		r.holdForRoute(f)
		r.leaveKey(now, f)
	case f.tries >= nacksToHold:
		r.failFlight(f, HeldBackoff, err)
		r.leaveKey(now, f)
	default:
		r.pause(f, now.Add(jitter(doubling(50*time.Millisecond, time.Second, f.tries))))
	}
}

// pause sends a flight again at a later time. It keeps its key's turn.
func (r *relayRun) pause(f *flight, until time.Time) {
	if f.state == flightSent {
		r.unsend(f)
	}
	f.state = flightWaiting
	f.sentAt = until
	r.flights.waiting = append(r.flights.waiting, f)
}

// stepWaiting sends nacked flights again when their pause is over.
func (r *relayRun) stepWaiting(now time.Time) time.Time {
	var next time.Time
	kept := r.flights.waiting[:0]
	for _, f := range r.flights.waiting {
		switch {
		case f.state != flightWaiting:
		case now.Before(f.sentAt):
			next = earliest(next, f.sentAt)
			kept = append(kept, f)
		default:
			r.again(now, f)
		}
	}
	r.flights.waiting = kept
	return next
}

// again puts a flight in front, to be sent with the same id. It stays the first of
// its key.
func (r *relayRun) again(now time.Time, f *flight) {
	if f.state == flightSent {
		if f.outstanding > 0 {
			return // another publish of it is still to be answered
		}
		r.unsend(f)
	}
	if f.state != flightQueued {
		r.requeue(now, f)
	}
}

// requeue puts a flight that is not out in front of its route.
func (r *relayRun) requeue(now time.Time, f *flight) {
	f.state = flightQueued
	if s := r.leases.slots[f.row.Slot]; s == nil || s.leaving {
		r.removeFlight(f) // the slot's next owner sends it
		r.leaveKey(now, f)
		return
	}
	if f.route.state == routeClosed {
		if !r.offer(now, f) {
			r.leaveKey(now, f)
		}
		return
	}
	r.push(f.route, f, true)
}

// laneError takes a flight that was on a lane which the broker closed because of
// one of its messages. Alone it is the culprit; among others it is a suspect.
func (r *relayRun) laneError(now time.Time, f *flight, res Result, alone bool) {
	if !alone {
		if f.state == flightSent {
			r.unsend(f)
			f.state = flightSuspect
			r.flights.suspects = append(r.flights.suspects, f)
		}
		return
	}
	if res.RouteFault {
		r.closeRoute(now, f.route, HeldRoute, CleanErrorText(res.Err.Error()))
		r.holdForRoute(f)
	} else {
		r.failFlight(f, HeldBackoff, res.Err)
	}
	r.leaveKey(now, f)
}
