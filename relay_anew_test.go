package outlast_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
)

// lateGrants is a store whose answers to one lease call come so late that the relay has
// given its slots up, although the database has renewed them; and whose settlements
// take as long. It notes the epochs under which one slot was read and settled.
type lateGrants struct {
	outlast.Store
	mu      sync.Mutex
	late    bool
	read    []int64
	settled []int64 // of settlements that changed something
	asked   chan struct{}
}

func (s *lateGrants) Relay() outlast.RelayStore  { return anewRelay{s.Store.Relay(), s} }
func (s *lateGrants) Leases() outlast.LeaseStore { return anewLeases{s.Store.Leases(), s} }

func (s *lateGrants) isLate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late
}

type anewLeases struct {
	outlast.LeaseStore
	s *lateGrants
}

func (l anewLeases) Lease(ctx context.Context, q outlast.LeaseRequest) (outlast.LeaseGrant, error) {
	g, err := l.LeaseStore.Lease(ctx, q)
	if l.s.isLate() {
		time.Sleep(1400 * time.Millisecond)
	}
	return g, err
}

type anewRelay struct {
	outlast.RelayStore
	s *lateGrants
}

func (r anewRelay) Settle(ctx context.Context, set *outlast.Settlement) ([]outlast.Lease, error) {
	if r.s.isLate() {
		r.s.asked <- struct{}{}
		time.Sleep(4 * time.Second)
	}
	stale, err := r.RelayStore.Settle(ctx, set)
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, l := range set.Leases {
		if err == nil && !slices.Contains(stale, l) {
			r.s.settled = append(r.s.settled, l.Epoch)
		}
	}
	return stale, err
}

func (r anewRelay) Reader() outlast.OutboxReader {
	return anewReader{r.RelayStore.Reader(), r.s}
}

type anewReader struct {
	outlast.OutboxReader
	s *lateGrants
}

func (r anewReader) Pick(ctx context.Context, leases []outlast.Lease, maxRows, maxBytes int) ([]*outlast.Row, error) {
	r.s.mu.Lock()
	if len(leases) > 0 {
		r.s.read = append(r.s.read, leases[0].Epoch)
	}
	r.s.mu.Unlock()
	return r.OutboxReader.Pick(ctx, leases, maxRows, maxBytes)
}

// A relay that could not renew its leases in time forgets what it had in hand. What it
// was writing then must not happen any more when it begins anew, even when the database
// has renewed its leases after all: a row of a key would move to the held after the
// held keys were read, and later ones would pass it.
func TestRelayBeginsAnewUnderNewEpochs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		s := &lateGrants{Store: g.store, asked: make(chan struct{}, 100)}
		g.start(func(c *outlast.RelayConfig) { c.Store, c.LeaseTTL = s, 2*time.Second })
		time.Sleep(5 * time.Second)
		s.mu.Lock()
		s.late = true
		first := s.read[len(s.read)-1]
		s.mu.Unlock()
		g.publish(message("a.b.v1", "k", 1))
		<-s.asked
		time.Sleep(3 * time.Second) // the leases ran out by the relay's clock, and an answer came
		s.mu.Lock()
		s.late = false
		s.mu.Unlock()
		time.Sleep(10 * time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		if last := s.read[len(s.read)-1]; last <= first {
			t.Errorf("rows are read under epoch %d again", last)
		}
		if len(s.settled) == 0 || slices.Contains(s.settled, first) {
			t.Errorf("settlements of epochs %v have happened, want none of %d", s.settled, first)
		}
		g.wantEmpty()
	})
}

// leaseLog notes what a relay tells of its leases.
type leaseLog struct {
	mu   sync.Mutex
	last map[outlast.Lease]outlast.LeaseWhat
}

func (l *leaseLog) OnLease(c outlast.LeaseChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range c.Leases {
		l.last[lease] = c.What
	}
}

// A relay whose leases run out by its own clock while it drains gives them back at its
// end, and another may have them before they are over by the database's. Who judges the
// history of both must be able to know.
func TestRelayTellsThatItGivesBackWhatRanOutInTheDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		s := &lateGrants{Store: g.store, asked: make(chan struct{}, 100)}
		told := &leaseLog{last: map[outlast.Lease]outlast.LeaseWhat{}}
		end := g.start(func(c *outlast.RelayConfig) {
			c.Store, c.LeaseTTL, c.Hooks = s, 2*time.Second, append(c.Hooks, told)
		})
		time.Sleep(5 * time.Second)
		s.mu.Lock()
		s.late = true
		s.mu.Unlock()
		g.publish(message("a.b.v1", "k", 1))
		<-s.asked
		end() // it waits for a settlement that takes longer than its leases last
		told.mu.Lock()
		defer told.mu.Unlock()
		if len(told.last) == 0 {
			t.Error("nothing is told of leases")
		}
		for lease, what := range told.last {
			if what != outlast.LeaseReleased {
				t.Fatalf("the last that is told of %v is %q", lease, what)
			}
		}
	})
}
