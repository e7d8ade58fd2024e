package outlast_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// laggard is a store whose answers are old when they arrive: a call waits before it
// does its work and again after it, each time up to lag, so that answers overtake
// each other. With lost, an answer of Settle is now and then an unknown outcome.
type laggard struct {
	outlast.Store
	mu   sync.Mutex
	rng  *rand.Rand
	lag  time.Duration
	lost float64
}

func newLaggard(s outlast.Store, seed uint64) *laggard {
	return &laggard{Store: s, rng: rand.New(rand.NewPCG(seed, 3))}
}

func (l *laggard) set(lag time.Duration, lost float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lag, l.lost = lag, lost
}

func (l *laggard) wait() {
	l.mu.Lock()
	d := time.Duration(0)
	if l.lag > 0 {
		d = time.Duration(l.rng.Int64N(int64(l.lag)))
	}
	l.mu.Unlock()
	time.Sleep(d)
}

func (l *laggard) loses() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.Float64() < l.lost
}

func (l *laggard) Relay() outlast.RelayStore  { return lagRelay{l.Store.Relay(), l} }
func (l *laggard) Leases() outlast.LeaseStore { return lagLeases{l.Store.Leases(), l} }

type lagRelay struct {
	outlast.RelayStore
	l *laggard
}

func (r lagRelay) Settle(ctx context.Context, s *outlast.Settlement) ([]outlast.Lease, error) {
	r.l.wait()
	stale, err := r.RelayStore.Settle(ctx, s)
	r.l.wait()
	if err == nil && r.l.loses() {
		return nil, &outlast.Error{Op: "settle", Code: outlast.CodeUnknown}
	}
	return stale, err
}

func (r lagRelay) HeldIndex(ctx context.Context, leases []outlast.Lease) (outlast.HeldIndex, error) {
	r.l.wait()
	defer r.l.wait()
	return r.RelayStore.HeldIndex(ctx, leases)
}

func (r lagRelay) Held(ctx context.Context, q outlast.HeldQuery) (outlast.HeldPage, error) {
	r.l.wait()
	defer r.l.wait()
	return r.RelayStore.Held(ctx, q)
}

func (r lagRelay) Reader() outlast.OutboxReader { return lagReader{r.RelayStore.Reader(), r.l} }

type lagReader struct {
	outlast.OutboxReader
	l *laggard
}

func (r lagReader) Pick(ctx context.Context, leases []outlast.Lease, maxRows, maxBytes int) ([]*outlast.Row, error) {
	r.l.wait()
	defer r.l.wait()
	return r.OutboxReader.Pick(ctx, leases, maxRows, maxBytes)
}

type lagLeases struct {
	outlast.LeaseStore
	l *laggard
}

func (r lagLeases) Lease(ctx context.Context, q outlast.LeaseRequest) (outlast.LeaseGrant, error) {
	r.l.wait()
	defer r.l.wait()
	return r.LeaseStore.Lease(ctx, q)
}

func (r lagLeases) Release(ctx context.Context, scope, owner string, leases []outlast.Lease) error {
	r.l.wait()
	defer r.l.wait()
	return r.LeaseStore.Release(ctx, scope, owner, leases)
}
