package outlast_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
)

// slowPages is a store that, once slow is set, says when it is asked for the held rows
// of a route and answers a second later, and whose releases answer long after they
// have happened. While shut is set it gives no leases.
type slowPages struct {
	outlast.Store
	slow  atomic.Bool
	shut  atomic.Bool
	asked chan struct{}
}

func (s *slowPages) Relay() outlast.RelayStore  { return slowHeld{s.Store.Relay(), s} }
func (s *slowPages) Leases() outlast.LeaseStore { return slowLeases{s.Store.Leases(), s} }

type slowHeld struct {
	outlast.RelayStore
	s *slowPages
}

func (h slowHeld) Held(ctx context.Context, q outlast.HeldQuery) (outlast.HeldPage, error) {
	if h.s.slow.Load() && q.Route != nil {
		select {
		case h.s.asked <- struct{}{}:
		default:
		}
		time.Sleep(time.Second)
	}
	return h.RelayStore.Held(ctx, q)
}

type slowLeases struct {
	outlast.LeaseStore
	s *slowPages
}

func (l slowLeases) Lease(ctx context.Context, q outlast.LeaseRequest) (outlast.LeaseGrant, error) {
	if l.s.shut.Load() {
		return outlast.LeaseGrant{}, &outlast.Error{Op: "lease", Code: outlast.CodeUnavailable}
	}
	return l.LeaseStore.Lease(ctx, q)
}

func (l slowLeases) Release(ctx context.Context, scope, owner string, leases []outlast.Lease) error {
	err := l.LeaseStore.Release(ctx, scope, owner, leases)
	if l.s.slow.Load() {
		time.Sleep(10 * time.Second)
	}
	return err
}

// countedBroker counts the messages that a relay sends. With freeze set, the relay stops
// in the middle of the next send for longer than its lease lasts, as by SIGSTOP.
type countedBroker struct {
	outlast.Broker
	sent   atomic.Int64
	freeze atomic.Bool
}

func (b *countedBroker) Publisher(c outlast.PublisherConfig) outlast.Publisher {
	return countedPublisher{b.Broker.Publisher(c), b}
}

type countedPublisher struct {
	outlast.Publisher
	b *countedBroker
}

func (p countedPublisher) Send(lane int, ps []*outlast.Publishing) {
	p.b.sent.Add(int64(len(ps)))
	if p.b.freeze.CompareAndSwap(true, false) {
		time.Sleep(5 * time.Second)
	}
	p.Publisher.Send(lane, ps)
}

// A page of held rows says nothing any more when the lease is over under which it was
// asked for: the next owner may hold an earlier row of the key by then.
func TestRelayProbesOnlyUnderItsLease(t *testing.T) {
	t.Parallel()
	t.Run("that_ran_out_while_it_was_frozen", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			p := newProbeRig(t)
			p.slow.shut.Store(true)
			p.counted.freeze.Store(true)
			p.publish(message("c.d.v1", "other", 1))
			p.wantSent(1)
		})
	})
	t.Run("that_was_given_back", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			p := newProbeRig(t)
			var ending sync.WaitGroup
			ending.Go(p.ends[0])
			p.wantSent(0)
			ending.Wait()
		})
	})
}

// probeRig is a relay that has just asked for a row to probe a route with.
type probeRig struct {
	*relayRig
	slow    *slowPages
	counted *countedBroker
	before  int64
}

func newProbeRig(t *testing.T) *probeRig {
	p := &probeRig{relayRig: newRelayRig(t)}
	p.slow = &slowPages{Store: p.store, asked: make(chan struct{}, 1)}
	p.counted = &countedBroker{Broker: p.broker}
	p.bind("other", "c.d.v1")
	p.start(func(c *outlast.RelayConfig) {
		c.Store, c.Broker, c.LeaseTTL, c.Interval = p.slow, p.counted, 2*time.Second, 10*time.Millisecond
	})
	p.publish(message("a.b.v1", "k", 1))
	time.Sleep(10 * time.Second)
	p.slow.slow.Store(true)
	<-p.slow.asked
	p.before = p.counted.sent.Load()
	if p.before < 2 {
		t.Fatalf("%d probes of a route that nobody is bound to", p.before)
	}
	return p
}

// wantSent waits until the page has come and been dealt with.
func (p *probeRig) wantSent(n int64) {
	p.t.Helper()
	time.Sleep(8 * time.Second)
	if got := p.counted.sent.Load() - p.before; got != n {
		p.t.Errorf("%d messages were sent, want %d: no probe without a lease", got, n)
	}
	p.slow.slow.Store(false)
	p.slow.shut.Store(false)
}
