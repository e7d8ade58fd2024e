package outlast

import (
	"context"
	"sync"
	"time"
)

// subscription is one queue that this process serves.
type subscription struct {
	slot  int
	queue string
	epoch int64
	stop  context.CancelFunc
	// session and leaves are guarded by the workQueue's mutex. A session is a number
	// that changes when the broker takes back what it has delivered.
	session int
	leaves  bool
	leaving chan struct{} // closed when leaves becomes true
}

// subscriptions are the queues that this process serves now, by slot.
type subscriptions struct {
	r    *consumerRun
	runs sync.WaitGroup

	mu     sync.Mutex
	bySub  map[int]*subscription
	wanted map[int]int64 // the epochs of the leases, by slot
}

// want starts and stops subscriptions so that those of the leases remain. A lease
// taken anew under another epoch is another one: in between somebody else may have
// had the queue.
func (s *subscriptions) want(leases []Lease) {
	epochs := make(map[int]int64, len(leases))
	for _, l := range leases {
		epochs[l.Slot] = l.Epoch
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = epochs
	for slot, sub := range s.bySub {
		if epoch, ok := epochs[slot]; !ok || epoch != sub.epoch {
			s.end(sub)
		}
	}
	for _, l := range leases {
		if s.bySub[l.Slot] == nil {
			s.start(l)
		}
	}
}

// slots returns the queues that are served or being given up.
func (s *subscriptions) slots() map[int]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := make(map[int]bool, len(s.bySub))
	for slot := range s.bySub {
		slots[slot] = true
	}
	return slots
}

// start is called with mu held.
func (s *subscriptions) start(l Lease) {
	r := s.r
	// It outlives the consumer's context: what was started must still be acknowledged.
	ctx, stop := context.WithCancel(context.WithoutCancel(r.stop))
	sub := &subscription{slot: l.Slot, queue: r.c.queueName(l.Slot), epoch: l.Epoch, stop: stop, leaving: make(chan struct{})}
	s.bySub[l.Slot] = sub
	subscriber := r.c.conf.Broker.Subscriber(r.subscriberConfig(sub))
	r.c.noteSubscription(l.Slot, func(h *SubscriptionHealth) {
		h.Standby = false
		h.Link = Link{State: LinkDown, Since: time.Now(), Reason: "subscribing"}
	})
	s.runs.Go(func() {
		if err := subscriber.Run(ctx); err != nil && ctx.Err() == nil {
			r.c.log.Error("a subscriber ended", "queue", sub.queue, "error", err)
		}
		r.queue.lost(sub)
		s.ended(sub)
	})
}

// end gives a queue up: start nothing more, settle what was started, and only then
// close its channel, so that the next consumer gets what follows. It is called with
// mu held, and returns at once.
func (s *subscriptions) end(sub *subscription) {
	select {
	case <-sub.leaving:
		return
	default:
	}
	s.r.queue.leave(sub)
	s.r.gate.poke()
	s.runs.Go(func() {
		s.r.queue.wait(sub)
		sub.stop()
	})
}

// ended is called when a subscriber has returned.
func (s *subscriptions) ended(sub *subscription) {
	sub.stop()
	s.mu.Lock()
	delete(s.bySub, sub.slot)
	epoch, ours := s.wanted[sub.slot]
	s.mu.Unlock()
	s.r.c.noteSubscription(sub.slot, func(h *SubscriptionHealth) {
		h.Standby = s.r.leased
		h.Link = Link{State: LinkDown, Since: time.Now(), Reason: "not subscribed"}
	})
	if ours && epoch != sub.epoch {
		return // the slot was lost and is ours again: that lease is another one
	}
	s.r.giveBack(Lease{sub.slot, sub.epoch})
}

// endAll gives every queue up and returns when no subscriber is alive.
func (s *subscriptions) endAll() {
	s.want(nil)
	s.runs.Wait()
}

func (r *consumerRun) subscriberConfig(sub *subscription) SubscriberConfig {
	c := r.c
	conf := SubscriberConfig{
		Group:    c.topology,
		Prefetch: c.conf.Prefetch,
		Declare:  c.conf.Declare == DeclareOwn,
		Logger:   c.conf.Logger,
	}
	if n := sub.slot - c.topology.Partitions; n >= 0 {
		conf.Foreign, conf.Declare = &c.conf.Foreign[n], false
	} else {
		conf.Partition = sub.slot
	}
	conf.Deliver = func(d *Delivery) {
		if !c.hooks.none() {
			eachHook(&c.hooks, func(h HookDelivered) { h.OnDelivered(c.conf.Group, d) })
		}
		r.queue.offer(c.newTask(d, sub, conf.Foreign), d.Redelivered && r.peers.anyDead())
	}
	conf.Link = func(l Link) {
		if l.State != LinkUp {
			r.queue.lost(sub)
			r.gate.poke()
		} else {
			eachHook(&c.hooks, func(h HookSubscribed) { h.OnSubscribed(c.topology, sub.queue, conf.Foreign != nil) })
		}
		c.noteSubscription(sub.slot, func(h *SubscriptionHealth) { h.Link = l })
		eachHook(&c.hooks, func(h HookLink) { h.OnLink(sub.queue, l) })
	}
	return conf
}

func (c *Consumer) noteSubscription(slot int, change func(*SubscriptionHealth)) {
	c.updateStatus(func(h *ConsumerHealth) {
		if slot < len(h.Subscriptions) {
			change(&h.Subscriptions[slot])
		}
	})
}

// scope names the leases on the group's queues.
func (c *Consumer) scope() string { return "group:" + c.conf.Group }

// giveBack releases a queue's lease, so that another instance need not wait for
// the lease to end. A consumer that leaves gives everything back at once, later:
// until then it renews its leases, and would take this one again.
func (r *consumerRun) giveBack(l Lease) {
	if !r.leased || r.stop.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(r.work, farewell)
	defer cancel()
	if err := r.release(ctx, []Lease{l}); err != nil && ctx.Err() == nil {
		r.c.log.Warn("a queue could not be given back: it is tried again with the next renewal", "queue", r.c.queueName(l.Slot), "error", err)
	}
}
