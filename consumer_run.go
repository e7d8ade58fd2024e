package outlast

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// consumerRun is one Run of a consumer.
type consumerRun struct {
	c *Consumer
	// stop ends when nothing new may start; work when what was started is cut.
	stop context.Context
	work context.Context
	cut  context.CancelCauseFunc

	queue    *workQueue
	gate     *gate
	batch    *batchSize
	peers    *peers
	suspects *suspects
	purge    *purger
	retries  *retryLoop
	subs     *subscriptions
	leased   bool // queues are shared by leases
	paused   atomic.Bool

	given     givenUp
	leases    []Lease   // as hooks were told last
	leaseEnds time.Time // by this process's clock, early rather than late
	shown     [2]int    // held and owners, as hooks were told last
	logged    string    // the queues served here and elsewhere, as logged last
}

// farewell bounds each call by which a consumer says that it is leaving.
const farewell = 2 * time.Second

func newConsumerRun(c *Consumer, ctx context.Context) *consumerRun {
	r := &consumerRun{
		c: c, stop: ctx,
		queue:    newWorkQueue(),
		batch:    &batchSize{now: c.conf.Batch, max: c.conf.Batch},
		peers:    newPeers(3 * c.conf.HeartbeatInterval),
		suspects: newSuspects(),
		purge:    &purger{before: map[string]time.Time{}},
		leased:   c.ordered,
	}
	r.work, r.cut = context.WithCancelCause(context.WithoutCancel(ctx))
	r.gate = newGate(func(slow bool) {
		c.updateStatus(func(h *ConsumerHealth) { h.Slow = slow })
		if slow {
			c.log.Warn("handlers say that something outside is down: one probe at a time")
		} else {
			c.log.Info("a handler succeeded again: back to full speed")
		}
	})
	r.retries = newRetryLoop(r)
	r.subs = &subscriptions{r: r, bySub: map[int]*subscription{}}
	for _, h := range c.handlers {
		if h.limit != nil {
			h.limit.reset()
		}
	}
	return r
}

// prepare waits until the database can be asked whether this consumer may work on
// it, and learns of the other instances before anything is delivered.
func (r *consumerRun) prepare() error {
	if v, ok := r.c.conf.Broker.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return err
		}
	}
	for n := 0; ; n++ {
		err := inTime(r.stop, r.c.conf.Store.Check)
		if err == nil {
			err = r.beat(r.stop)
		}
		if r.stop.Err() != nil {
			return r.stop.Err()
		}
		if err != nil && !Retryable(err) {
			return err // not noted, as nothing is tried again
		}
		r.c.noteStore(partBeat, err)
		if err == nil {
			r.hear()
			return nil
		}
		if !sleep(r.stop, jitter(doubling(holdFirst, holdLongest, n)), nil) {
			return r.stop.Err()
		}
	}
}

// hear tells the books of the senders what this group hears. It is not worth waiting
// for: what was recorded before stays.
func (r *consumerRun) hear() {
	err := inTime(r.stop, func(ctx context.Context) error { return r.c.conf.Store.Journal().Hear(ctx, r.c.conf.Group, r.c.types) })
	if err != nil && r.stop.Err() == nil {
		r.c.log.Warn("record what the group hears, for the books", "error", err)
	}
}

func (r *consumerRun) run() {
	var loops sync.WaitGroup
	for range r.c.conf.Workers {
		loops.Go(r.worker)
	}
	loops.Go(func() { r.retries.run(r.stop, r.work) })
	loops.Go(func() { r.purgeLoop(r.stop) })
	loops.Go(func() {
		for sleep(r.stop, r.c.conf.HeartbeatInterval/2, nil) {
			r.takeBack()
		}
	})
	r.keep(r.stop)

	// Drain, grace, cut.
	grace := time.AfterFunc(max(r.c.conf.Grace, 0), func() { r.cut(errGrace) })
	beats, stopBeats := context.WithCancel(r.work)
	var beating sync.WaitGroup
	beating.Go(func() { r.stayAlive(beats) })
	r.gate.close()
	r.queue.close()
	r.subs.endAll()
	loops.Wait()
	stopBeats()
	beating.Wait()
	grace.Stop()
	r.leave()
}

// worker settles tasks until the queue is closed.
func (r *consumerRun) worker() {
	for {
		ts := r.queue.take(r.batch.get())
		if ts == nil {
			return
		}
		first := ts[0]
		if r.gate.enter(first.suspect, func() bool { return r.queue.void(first) }) {
			r.settleAll(r.work, slices.DeleteFunc(slices.Clone(ts), r.queue.void))
			r.gate.leave()
		}
		r.queue.done(ts)
	}
}

// keep looks after the group's state until ctx ends.
func (r *consumerRun) keep(ctx context.Context) {
	for sleep(ctx, r.beatIn(), nil) {
		if err := r.beat(ctx); ctx.Err() == nil {
			r.c.noteStore(partBeat, err)
		}
	}
}

// beatIn is the time until the next beat, which must not miss the end of the leases.
func (r *consumerRun) beatIn() time.Duration {
	every := r.c.conf.HeartbeatInterval / 2
	if left := time.Until(r.leaseEnds); r.leased && left > 0 {
		return min(every, left)
	}
	return every
}

// beat gives a sign of life and follows what the database says: which instances
// there are, whether the group is paused, which queues are this instance's.
func (r *consumerRun) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.beatIn()) // a database that hangs is one that is down
	defer cancel()
	err := r.follow(ctx)
	if err != nil && r.leased && !time.Now().Before(r.leaseEnds) {
		r.subs.want(nil) // somebody else may have the queues now
		r.tellLeases(LeaseGrant{})
		r.logged = ""
	}
	return err
}

func (r *consumerRun) follow(ctx context.Context) error {
	inbox, group := r.c.inbox, r.c.conf.Group
	others, err := inbox.Alive(ctx, group, r.c.conf.Instance)
	if err != nil {
		return err
	}
	r.peers.look(others)
	for _, name := range r.peers.forgotten() {
		if err := inbox.Leave(ctx, group, name); err != nil {
			return err
		}
	}
	paused, err := inbox.Paused(ctx, group)
	if err != nil {
		return err
	}
	if r.notePaused(paused); paused {
		r.subs.want(nil)
		r.logged = ""
		return nil
	}
	if !r.leased {
		r.subs.want(allSlots(r.c.slots()))
		return nil
	}
	return r.share(ctx)
}

func (r *consumerRun) notePaused(paused bool) {
	if r.paused.Swap(paused) == paused {
		return
	}
	r.c.updateStatus(func(h *ConsumerHealth) { h.Paused = paused })
	if paused {
		r.c.log.Info("the group is paused")
	} else {
		r.c.log.Info("the group is not paused any more")
		r.retries.due(0)
	}
}

func allSlots(n int) []Lease {
	leases := make([]Lease, n)
	for i := range leases {
		leases[i].Slot = i
	}
	return leases
}

// share renews the leases and serves the queues that this instance holds, giving
// up what is above its share.
func (r *consumerRun) share(ctx context.Context) error {
	asked := time.Now()
	grant, err := r.c.conf.Store.Leases().Lease(ctx, LeaseRequest{
		Scope: r.c.scope(), Owner: r.c.conf.Instance, TTL: r.c.conf.LeaseTTL, Total: r.c.slots(),
	})
	if err != nil {
		return err
	}
	r.leaseEnds = asked.Add(r.c.conf.LeaseTTL * 9 / 10)
	grant.Held = slices.DeleteFunc(slices.Clone(grant.Held), r.given.has)
	r.tellLeases(grant)
	held := slices.Clone(grant.Held)
	slices.SortFunc(held, func(a, b Lease) int { return a.Slot - b.Slot })
	wanted := held[:min(len(held), grant.Share)]
	r.subs.want(wanted)
	r.logShare(wanted, grant.Owners)
	r.noteShare(len(held), grant.Owners)
	return r.giveBackSpare(ctx, held[len(wanted):])
}

// giveBackSpare releases the leases above this instance's share whose queues it does not
// serve. A subscription gives its lease back when it ends; but that may fail, or a lease was
// taken anew and given up before anything was subscribed under it. An instance that lives
// renews whatever it holds, so that nobody would ever serve such a queue.
func (r *consumerRun) giveBackSpare(ctx context.Context, above []Lease) error {
	serves := r.subs.slots()
	spare := slices.DeleteFunc(slices.Clone(above), func(l Lease) bool { return serves[l.Slot] })
	spare = append(spare, r.given.unsure()...)
	if len(spare) == 0 || r.stop.Err() != nil {
		return nil
	}
	return r.release(ctx, spare)
}

// release gives leases back, for good: a release without an answer may still happen, so
// that they are not served again before another epoch shows that it did.
func (r *consumerRun) release(ctx context.Context, leases []Lease) error {
	r.given.add(leases)
	r.c.tellReleased(leases)
	err := r.c.conf.Store.Leases().Release(ctx, r.c.scope(), r.c.conf.Instance, leases)
	if err == nil {
		r.given.done(leases)
	}
	return err
}

// givenUp is what this instance has given back: the last epoch of each slot, which nobody
// has after it, and whether the database has said so.
type givenUp struct {
	mu     sync.Mutex
	epochs map[int]int64
	sure   map[int]bool
}

func (g *givenUp) add(leases []Lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.epochs == nil {
		g.epochs, g.sure = map[int]int64{}, map[int]bool{}
	}
	for _, l := range leases {
		g.epochs[l.Slot], g.sure[l.Slot] = l.Epoch, false
	}
}

func (g *givenUp) done(leases []Lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range leases {
		if g.epochs[l.Slot] == l.Epoch {
			g.sure[l.Slot] = true
		}
	}
}

// has reports whether a lease was given back; that it is held still shows that this was not done.
func (g *givenUp) has(l Lease) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch, found := g.epochs[l.Slot]; !found || epoch != l.Epoch {
		return false
	}
	g.sure[l.Slot] = false
	return true
}

// unsure are the leases that may be held still.
func (g *givenUp) unsure() (list []Lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for slot, epoch := range g.epochs {
		if !g.sure[slot] {
			list = append(list, Lease{slot, epoch})
		}
	}
	return list
}

// tellLeases tells hooks which leases have come and gone.
func (r *consumerRun) tellLeases(g LeaseGrant) {
	if r.c.hooks.none() {
		return
	}
	tell := func(what LeaseWhat, list []Lease, now, expires time.Time) {
		if len(list) == 0 && what != LeaseRenewed {
			return
		}
		c := LeaseChange{Scope: r.c.scope(), Owner: r.c.conf.Instance, What: what, Leases: list, Now: now, Expires: expires}
		eachHook(&r.c.hooks, func(h HookLease) { h.OnLease(c) })
	}
	in := func(list []Lease) func(Lease) bool {
		return func(l Lease) bool { return slices.Contains(list, l) }
	}
	tell(LeaseLost, slices.DeleteFunc(slices.Clone(r.leases), in(g.Held)), time.Time{}, time.Time{})
	if g.Expires.IsZero() { // all were given up
		r.leases = nil
		return
	}
	tell(LeaseRenewed, nil, g.Now, g.Expires)
	tell(LeaseGained, slices.DeleteFunc(slices.Clone(g.Held), in(r.leases)), g.Now, g.Expires)
	r.leases = slices.Clone(g.Held)
}

// tellReleased tells hooks of leases that are about to be given back.
func (c *Consumer) tellReleased(list []Lease) {
	if c.hooks.none() || len(list) == 0 {
		return
	}
	change := LeaseChange{Scope: c.scope(), Owner: c.conf.Instance, What: LeaseReleased, Leases: list}
	eachHook(&c.hooks, func(h HookLease) { h.OnLease(change) })
}

func (r *consumerRun) noteShare(held, owners int) {
	serving := r.subs.slots()
	r.c.updateStatus(func(h *ConsumerHealth) {
		for slot := range h.Subscriptions {
			h.Subscriptions[slot].Standby = !serving[slot]
		}
	})
	if r.shown == [2]int{held, owners} {
		return
	}
	r.shown = [2]int{held, owners}
	eachHook(&r.c.hooks, func(h HookLeases) { h.OnLeases(r.c.scope(), r.c.conf.Instance, held, owners) })
}

// logShare says, once per change, which queues this instance serves and which it
// waits for: without it a group that waits for the leases of a killed instance looks
// as if it hung.
func (r *consumerRun) logShare(leases []Lease, owners int) {
	var serves, waits []string
	for slot := range r.c.slots() {
		name := r.c.queueName(slot)
		if slices.ContainsFunc(leases, func(l Lease) bool { return l.Slot == slot }) {
			serves = append(serves, name)
		} else {
			waits = append(waits, name)
		}
	}
	state := fmt.Sprint(serves, waits)
	if state == r.logged {
		return
	}
	r.logged = state
	if len(serves) > 0 {
		r.c.log.Info("serves queues of the group", "queues", serves)
	}
	if len(waits) > 0 {
		r.c.log.Info("queues wait: another instance of the group has them; if it is dead, its leases end within lease_ttl",
			"queues", waits, "instances", owners, "lease_ttl", r.c.conf.LeaseTTL)
	}
}

// stayAlive renews the instance's record and its leases while it drains, so that
// nobody takes a queue whose messages are still in hand.
func (r *consumerRun) stayAlive(ctx context.Context) {
	for sleep(ctx, r.c.conf.HeartbeatInterval/2, nil) {
		_, err := r.c.inbox.Alive(ctx, r.c.conf.Group, r.c.conf.Instance)
		if err == nil && r.leased && len(r.subs.slots()) > 0 {
			_, err = r.c.conf.Store.Leases().Lease(ctx, LeaseRequest{
				Scope: r.c.scope(), Owner: r.c.conf.Instance, TTL: r.c.conf.LeaseTTL, Total: r.c.slots(),
			})
		}
		if ctx.Err() == nil {
			r.c.noteStore(partBeat, err)
		}
	}
}

// leave ends the instance's record and leases after a clean shutdown.
func (r *consumerRun) leave() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.stop), farewell)
	defer cancel()
	err := r.c.inbox.Leave(ctx, r.c.conf.Group, r.c.conf.Instance)
	if err == nil && r.leased {
		r.c.tellReleased(r.leases)
		err = r.c.conf.Store.Leases().Release(ctx, r.c.scope(), r.c.conf.Instance, nil)
	}
	if err != nil {
		r.c.log.Warn("say that this instance has left: its redelivered messages may run alone once", "error", err)
	}
	r.takeBack()
}
