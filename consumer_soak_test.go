package outlast_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// Whatever fails, each message takes effect once, and those of a key in order.
func TestConsumerPromises(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		for _, batch := range []int{1, 8} {
			bubble(t, fmt.Sprintf("seed_%d_batch_%d", seed, batch), func(t *testing.T) { soak(t, seed, batch) })
		}
	}
}

func soak(t *testing.T, seed uint64, batch int) {
	const keys, each = 6, 25
	rng, luck := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
	conf := outlast.ConsumerConfig{Partitions: 2, Workers: 4, Batch: batch, Retry: outlast.RetryPolicy{Attempts: 1000, Longest: time.Minute}, DedupWindow: 300 * time.Hour}
	r := newRig(t, conf)
	r.broker = memory.NewBroker(memory.Duplicate(0.1), memory.Seed(seed))
	r.conf.Broker = r.broker
	var calm atomic.Bool
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		r.mu.Lock()
		dice, long := luck.IntN(100), luck.IntN(500)
		r.mu.Unlock()
		time.Sleep(time.Duration(long) * time.Millisecond)
		if !calm.Load() {
			switch {
			case dice < 8:
				r.effect(tx, "never.0")
				return errors.New("by chance")
			case dice < 10:
				panic("by chance")
			case dice < 12:
				return outlast.Snooze(time.Second)
			case dice < 14:
				return outlast.Unavailable(errors.New("by chance"))
			case dice < 17:
				return fmt.Errorf("deadlock: %w", &outlast.Error{Op: "update", Code: outlast.CodeUnavailable})
			}
		}
		return r.record(ctx, tx, m)
	})
	r.conf.Instance = "one"
	stopOne := r.start()
	r.conf.Instance = "two"
	stopTwo := r.start()
	for n := 1; n <= each; n++ {
		for key := range keys {
			r.send(orders(fmt.Sprintf("k%d.", key), n, n)...)
		}
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		switch rng.IntN(12) {
		case 0:
			r.store.Inject(memory.FailNext(memory.RoleInbox, rng.IntN(20)))
		case 1:
			r.store.Inject(memory.CommitUnknown(1+rng.IntN(3), rng.IntN(2) == 0))
		case 2:
			r.store.Inject(memory.FailNext(memory.RoleCommit, rng.IntN(5)))
		case 3:
			r.broker.Die()
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
			r.broker.Revive()
			time.Sleep(2 * time.Second)
		case 4:
			stopTwo()
			r.conf.Instance = "two" + strconv.Itoa(n)
			stopTwo = r.start()
		}
	}
	calm.Store(true)
	time.Sleep(20 * time.Minute)
	stopOne()
	stopTwo()
	last := map[string]int{}
	for _, e := range r.seen() {
		key, text, _ := strings.Cut(e, ".")
		if n, err := strconv.Atoi(text); err != nil || n != last[key]+1 {
			t.Fatalf("%s after %d of its key", e, last[key])
		}
		last[key]++
	}
	if n := len(r.seen()); n != keys*each {
		t.Errorf("%d effects, want %d; waiting %d, dead %+v", n, keys*each, len(r.waiting()), r.dead())
	}
	r.empty()
}
