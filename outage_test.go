package outlast_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
)

// TestF39_F49_OutageOfHours: for two hours no broker answers. To enqueue takes no time at
// all, and when the broker is back everything is delivered and handled once.
func TestF39_F49_OutageOfHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, outlast.ConsumerConfig{})
		r.onOrder(r.record)
		g := &relayRig{t: t, store: r.store, broker: r.broker, outbox: outlast.NewOutbox(r.store), trace: &relayTrace{}}
		g.start()
		defer g.stop()
		defer r.start()()
		const n = 120
		r.broker.Die()
		for i := 1; i <= n; i++ {
			began := time.Now()
			g.publish(orders("a", i, i)...)
			if waited := time.Since(began); waited != 0 {
				t.Fatalf("message %d: the transaction waited %s for a broker that is down", i, waited)
			}
			time.Sleep(time.Minute)
		}
		r.want()
		if pending, held := g.left(); pending != n || held != 0 {
			t.Errorf("%d pending and %d held after the outage, want %d and 0", pending, held, n)
		}
		r.broker.Revive()
		time.Sleep(time.Minute)
		if got := r.seen(); len(got) != n || got[0] != "a1" || got[n-1] != "a120" {
			t.Errorf("%d effects, want %d in their order: %q", len(got), n, got)
		}
		g.wantAtRest()
		if d, err := r.broker.Topology().Depth(context.Background(), "billing.0"); err != nil || d.Messages != 0 {
			t.Errorf("left at the broker: %+v, %v", d, err)
		}
	})
}
