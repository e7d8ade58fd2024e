package outlast_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// TestRelayChaos draws faults of the broker, of the database and of relays from a
// seed while messages are published, then heals everything: nothing may be lost,
// nothing may overtake within its key, nothing may stay behind.
func TestRelayChaos(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { relayChaos(t, seed) })
		})
	}
}

func relayChaos(t *testing.T, seed uint64) {
	const keys, rounds = 8, 150
	rng := rand.New(rand.NewPCG(seed, 1))
	g := newRelayRig(t, memory.Seed(seed), memory.Reorder(0.2))
	g.bind("sink", "a.b.v1", "c.d.v1")
	g.start()
	ends := map[int]func(){}
	bound := true
	for i := range rounds {
		var batch []outlast.Message
		for k := range keys {
			batch = append(batch, message("a.b.v1", fmt.Sprintf("k%d", k), i))
		}
		g.publish(batch...)
		switch rng.IntN(24) {
		case 0:
			g.broker.Die()
		case 1, 2:
			g.broker.Revive()
		case 3:
			g.broker.Inject(memory.DropConfirm(rng.Float64() / 4))
		case 4:
			g.broker.Inject(memory.Nack(rng.Float64() / 2))
		case 5:
			g.broker.Block("chaos")
		case 6, 7:
			g.broker.Unblock()
		case 8:
			if bound {
				must(t, g.broker.Unbind("sink.0", outlast.EventExchange, "a.b.v1.*"))
				bound = false
			}
		case 9, 10:
			must(t, g.broker.Bind("sink.0", outlast.EventExchange, "a.b.v1.*"))
			bound = true
		case 11:
			must(t, g.broker.SickQueue("sink.0", true))
		case 12, 13:
			must(t, g.broker.SickQueue("sink.0", false))
		case 14:
			if ends[0] == nil {
				ends[0] = g.start()
			}
		case 15:
			if ends[0] != nil {
				ends[0]()
				ends[0] = nil
			}
		case 16:
			g.broker.Inject(memory.DropConfirm(0), memory.Nack(0))
		}
		time.Sleep(time.Duration(rng.IntN(4000)) * time.Millisecond)
	}
	g.broker.Inject(memory.DropConfirm(0), memory.Nack(0))
	must(t, g.broker.SickQueue("sink.0", false))
	must(t, g.broker.Bind("sink.0", outlast.EventExchange, "a.b.v1.*"))
	g.broker.Unblock()
	g.broker.Revive()
	time.Sleep(30 * time.Minute)
	g.wantOrder(g.bodies("sink.0"), keys, rounds)
	g.wantAtRest()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
