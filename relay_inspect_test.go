package outlast

import (
	"context"
	"fmt"
	"time"
)

// RunInspected is Run. It hands out a function that lists what the relay still has
// in its books; empty when it has nothing to do, and when it has ended.
func (r *Relay) RunInspected(ctx context.Context, handOut func(inspect func() []string)) error {
	if err := r.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	jobs, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	run := newRelayRun(r, jobs)
	handOut(func() []string {
		books := make(chan []string, 1)
		run.mail.post(func(time.Time) { books <- run.books() })
		select {
		case b := <-books:
			return b
		case <-jobs.Done():
			return nil
		}
	})
	run.run(ctx, cancel)
	return nil
}

// books lists what is not zero.
func (r *relayRun) books() []string {
	var list []string
	note := func(name string, n int) {
		if n != 0 {
			list = append(list, fmt.Sprintf("%s %d", name, n))
		}
	}
	f := &r.flights
	note("flights", f.count)
	note("bytes", f.bytes)
	note("sent", f.sent)
	note("in flight", len(f.inFlight))
	note("keys", len(f.keys))
	note("closed routes", f.closed)
	note("waiting", len(f.waiting))
	note("suspects", len(f.suspects))
	note("retired lanes", len(f.retired))
	note("held rows in hand", len(r.held.inMemory))
	note("held rows gone", len(r.held.reads.gone))
	note("held keys wanted", len(r.held.keys))
	note("settlements", len(r.settle.underWay)+r.settle.pending.size())
	note("leaving", r.leases.leaving)
	for id, rt := range f.routes {
		note(id.String()+" in flight", rt.inFlight)
		note(id.String()+" bytes", rt.inFlightBytes)
		note(id.String()+" moving", rt.moving)
		note(id.String()+" ready", len(rt.ready))
		if rt.state != routeSlow { // until the next message
			note(id.String()+" state", int(rt.state))
		}
		if rt.probe != nil {
			note(id.String()+" probe", 1)
		}
	}
	for slot, s := range r.leases.slots {
		note(fmt.Sprintf("slot %d flights", slot), s.flights)
	}
	if f.suspect != nil {
		note("suspect", 1)
	}
	return list
}
