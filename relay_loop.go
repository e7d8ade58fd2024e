package outlast

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// relayRun is the state of one Run of a relay. One goroutine, loop, owns all of
// it: it takes events from its mailbox, changes state, and starts jobs. Jobs (a
// pick, a settlement, a query of the held, a lease call) run beside it, at most
// one of a kind (two settlements), and post their results to the mailbox. So
// reading, publishing and settling overlap, and nothing here needs a lock.
//
// The life of a row in here (the states of a flight):
//
//	picked -> queued (behind its key, or for its route's window) -> sent
//	sent -> settling   confirmed: delete; unroutable, failed: move to the held
//	sent -> queued     unknown or not sent: again, same id, still first of its key
//	sent -> suspect    the broker closed the channel over one of its messages:
//	                   again, alone, until the culprit is known
//	any  -> gone       its slot's lease is lost: another relay has it now
type relayRun struct {
	*Relay
	reader OutboxReader
	pub    Publisher
	mail   *mailbox
	jobs   sync.WaitGroup
	jobCtx context.Context

	stopping bool
	stopBy   time.Time
	link     Link

	leases  relayLeases
	flights relayFlights
	picks   relayPicks
	held    relayHeld
	settle  relaySettle
}

func newRelayRun(r *Relay, jobCtx context.Context) *relayRun {
	run := &relayRun{Relay: r, reader: r.conf.Store.Relay().Reader(), mail: newMailbox(), jobCtx: jobCtx}
	run.link = Link{State: LinkDown, Since: time.Now()}
	run.leases.slots = map[int]*slotState{}
	run.flights.init(r.conf.Lanes)
	run.held.inMemory = map[int64]bool{}
	run.pub = r.conf.Broker.Publisher(PublisherConfig{
		Results: func(rs []Result) {
			run.mail.post(func(now time.Time) { run.results(now, rs) })
		},
		Link: func(l Link) {
			run.mail.post(func(now time.Time) { run.linkChanged(now, l) })
		},
		Logger: r.conf.Logger,
	})
	return run
}

// run works until the loop ends, then ends all that works for it.
func (r *relayRun) run(ctx context.Context, endJobs context.CancelFunc) {
	var beside sync.WaitGroup
	beside.Go(func() {
		if err := r.pub.Run(r.jobCtx); err != nil && r.jobCtx.Err() == nil {
			r.conf.Logger.Error("the publisher ended", "error", err)
		}
	})
	beside.Go(func() { r.keepSettledBefore(r.jobCtx) })
	beside.Go(func() { r.keepSentLog(r.jobCtx) })
	beside.Go(func() { r.listen(ctx) })
	r.loop(ctx)
	endJobs()
	beside.Wait()
	r.jobs.Wait()
}

// mailbox hands functions to the loop. Posting never blocks.
type mailbox struct {
	mu     sync.Mutex
	fns    []func(now time.Time)
	notify chan struct{}
}

func newMailbox() *mailbox { return &mailbox{notify: make(chan struct{}, 1)} }

func (m *mailbox) post(f func(now time.Time)) {
	m.mu.Lock()
	m.fns = append(m.fns, f)
	m.mu.Unlock()
	select {
	case m.notify <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []func(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fns := m.fns
	m.fns = nil
	return fns
}

// job runs f beside the loop; what it returns is posted to the mailbox.
func (r *relayRun) job(timeout time.Duration, f func(ctx context.Context) func(now time.Time)) {
	r.jobs.Go(func() {
		ctx, cancel := context.WithTimeout(r.jobCtx, timeout)
		defer cancel()
		r.mail.post(f(ctx))
	})
}

// loop works until ctx has ended and everything sent is settled or given up.
func (r *relayRun) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	done := ctx.Done()
	for {
		now := time.Now()
		next := r.step(now)
		if r.stopping && r.ended(now) {
			return
		}
		timer.Reset(time.Until(next))
		select {
		case <-r.mail.notify:
		case <-timer.C:
		case <-r.wake:
			r.picks.burst(time.Now())
		case <-r.look:
			r.glance(time.Now(), 0)
		case <-r.soon:
			r.glance(time.Now(), commitTime)
		case <-done:
			done = nil
			r.stop(time.Now())
		}
		for _, f := range r.mail.take() {
			f(time.Now())
		}
	}
}

// maxNap bounds a pause of the loop, in case a wake-up time was overlooked.
const maxNap = time.Second

// step does all that can be done now and returns when to look again.
func (r *relayRun) step(now time.Time) time.Time {
	next := now.Add(maxNap)
	soon := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	soon(r.stepLeases(now))
	if len(r.leases.slots) > 0 && r.leases.valid(now) {
		soon(r.stepDeadlines(now))
		soon(r.stepWaiting(now))
		soon(r.stepRoutes(now))
		r.pump(now)
		soon(r.stepHeld(now))
		soon(r.stepPick(now))
	}
	soon(r.stepSettle(now))
	r.publishStatus(now)
	if next.Before(now.Add(time.Millisecond)) {
		next = now.Add(time.Millisecond)
	}
	return next
}

// stop begins the shutdown: no row is taken any more, nothing more is sent.
func (r *relayRun) stop(now time.Time) {
	r.stopping = true
	r.stopBy = now.Add(r.conf.Grace)
}

// ended reports whether nothing is left to wait for. Then, or when the grace is
// over, the leases have been given back.
func (r *relayRun) ended(now time.Time) bool {
	late := !now.Before(r.stopBy)
	if !late && (r.flights.sent > 0 || len(r.settle.underWay) > 0 || !r.settle.pending.empty()) {
		return false
	}
	if r.leases.released || (late && now.After(r.stopBy.Add(r.conf.LeaseTTL))) {
		return true
	}
	r.releaseAll()
	return false
}

// linkChanged takes a change of the publisher's connection.
func (r *relayRun) linkChanged(now time.Time, l Link) {
	was := r.link.State
	r.link = l
	r.flights.lastConfirm = now
	if l.State == LinkUp && was != LinkUp {
		r.flights.linkUp = now
		r.picks.burst(now)
	}
	eachHook(&r.hooks, func(h HookLink) { h.OnLink("relay", l) })
	switch {
	case l.State == was:
	case l.State == LinkUp:
		r.conf.Logger.Info("connected to the broker", "broker", r.conf.Broker.Address())
	default:
		r.conf.Logger.Warn("cannot publish; rows wait in the outbox", "broker", r.conf.Broker.Address(), "state", l.State, "reason", l.Reason)
	}
}

func (r *relayRun) publishStatus(now time.Time) {
	idle := r.flights.count == 0 && (r.picks.empty || r.leases.paused) && r.link.State == LinkUp
	r.updateStatus(func(s *RelayHealth) {
		s.Link = r.link
		s.Slots = len(r.leases.slots)
		s.Relays = r.leases.owners
		s.Paused = r.leases.paused
		s.Buffered = r.flights.count
		if idle || r.settle.progress.After(s.Progress) {
			s.Progress = now
		}
		if len(s.Closed) != r.flights.closed || r.flights.routesChanged {
			s.Closed = r.closedRoutes()
			r.flights.routesChanged = false
		}
	})
}

// relayPicks decides when the outbox is read next.
type relayPicks struct {
	busy   bool
	began  time.Time     // of the last pick
	at     time.Time     // the next sweep
	pause  time.Duration // the pause before it; grows while nothing is found
	empty  bool          // the last sweep found nothing, and no look since
	wanted time.Time     // a burst that was asked for while a pick was under way, which may not have seen why
	rested time.Time     // no wake-up has a pick begin before: the database has had a pause as long as the last, or of two firstPauses
	// notBefore: no pick begins before.
	notBefore time.Time

	hotAt    time.Time     // the next look at the hot slots (see relay_hot.go); zero: none
	hotPause time.Duration // the pause before the one after it
	sweepBy  time.Time     // a sweep comes by then: what was hot may commit later; zero: none

	// failures are picks in a row that the database refused.
	failures int
}

const (
	firstPause = 4 * time.Millisecond
	commitTime = 2 * time.Millisecond // from a publish to its commit, as most are
	pickRows   = 1000
)

// burst makes the next sweep happen at a time, or sooner, and more of them follow quickly: the
// transaction that woke us may commit a little later.
func (p *relayPicks) burst(at time.Time) {
	p.pause = firstPause
	if p.busy {
		p.wanted = earliest(p.wanted, at)
		return
	}
	if at.Before(p.rested) {
		at = p.rested
	}
	p.at = earliest(p.at, at)
}

// room returns how many rows may be read now, at most most: 0 while there is not room
// for least, or for a quarter of the buffer.
func (r *relayRun) room(least, most int) int {
	free := r.conf.Buffer - r.flights.count
	if free < max(min(r.conf.Buffer/4, least), 1) {
		return 0
	}
	return min(free, most)
}

// stepPick starts a pick when it is time and there is room.
func (r *relayRun) stepPick(now time.Time) time.Time {
	p := &r.picks
	if p.busy || r.stopping || r.link.State != LinkUp {
		return time.Time{}
	}
	rows := r.room(pickRows, pickRows)
	bytes := 2*r.conf.InFlightBytes - r.flights.bytes
	if rows == 0 || bytes <= 0 {
		return time.Time{} // a result or a settlement makes room and wakes the loop
	}
	if now.Before(p.nextPick()) {
		return p.nextPick()
	}
	leases := r.leases.active()
	if len(leases) == 0 {
		return time.Time{} // a lease wakes the loop
	}
	leases, hot := r.pickOf(now, leases)
	if len(leases) == 0 {
		return p.nextPick()
	}
	p.busy, p.began = true, now
	slots := maps.Clone(r.leases.slots)
	r.job(time.Minute, func(ctx context.Context) func(time.Time) {
		picked, err := r.reader.Pick(ctx, leases, rows, bytes)
		return func(now time.Time) { r.picked(now, slots, picked, hot, takenBy(picked, rows, bytes), err) }
	})
	return time.Time{}
}

// setBack tells a person what nothing in the database tells any more.
func (r *relayRun) setBack(err error) {
	r.conf.Logger.Warn("the database was set back, as by a failover that lost commits; the outbox is read anew", "error", err,
		"means", "messages of the lost commits may have been sent, and receivers have acted on them",
		"todo", "compare what receivers have seen with this database: docs/operations.md, After a failover that lost commits")
}

// picked takes the rows of a pick and plans the next one. Rows of slots that were
// lost since it began are left alone, and when such a slot came back meanwhile the
// reader is told, which may remember them as returned.
func (r *relayRun) picked(now time.Time, slots map[int]*slotState, rows []*Row, hot bool, taken pickTaken, err error) {
	p := &r.picks
	wanted := p.wanted
	p.busy, p.wanted, p.rested = false, time.Time{}, now.Add(min(now.Sub(p.began), 2*firstPause))
	if errors.Is(err, ErrSetBack) {
		r.setBack(err)
		rows, err = nil, nil
	}
	r.noteStore(err)
	var changed []int
	for slot, s := range slots {
		if r.leases.slots[slot] != s {
			changed = append(changed, slot)
		}
	}
	if len(changed) > 0 {
		r.reader.Drop(changed)
	}
	if err != nil {
		p.empty = false
		pause := doubling(firstPause, min(r.conf.Interval, holdLongest), p.failures)
		p.failures++
		p.at = now.Add(pause/2 + jitter(pause))
		p.notBefore = p.at // no wake-up cuts it short
		return
	}
	p.failures = 0
	p.empty = len(rows) == 0 && (p.empty || !hot)
	for _, row := range rows {
		if s := r.leases.slots[row.Slot]; s != nil && s == slots[row.Slot] && !s.leaving {
			r.admit(now, row)
		}
	}
	switch {
	case !hot:
		r.swept(now, rows, taken)
	case taken == tookAll:
		p.at, p.pause = now, firstPause // a backlog is for sweeps
	default:
		p.lookAgain(now, len(rows) > 0)
	}
	if !wanted.IsZero() {
		p.burst(wanted)
	}
}
