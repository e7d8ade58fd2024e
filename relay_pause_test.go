package outlast_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// running is one more relay, whose health can be looked at, until stop.
func (g *relayRig) running(conf outlast.RelayConfig) (relay *outlast.Relay, stop func()) {
	g.t.Helper()
	conf.Source, conf.Store, conf.Broker = "shop", g.store, g.broker
	relay, err := outlast.NewRelay(conf)
	if err != nil {
		g.t.Fatal(err)
	}
	done := make(chan error)
	ctx, cancel := context.WithCancel(g.t.Context())
	go func() { done <- relay.Run(ctx) }()
	return relay, func() {
		cancel()
		if err := <-done; err != nil {
			g.t.Error(err)
		}
	}
}

func (g *relayRig) setPaused(paused bool) {
	g.t.Helper()
	if err := g.store.Operator().SetPaused(g.t.Context(), outlast.RelaySwitch, paused, outlast.Action{Who: "ann", Reason: "the broker moves"}); err != nil {
		g.t.Fatal(err)
	}
}

// slots returns how many relays are alive, and how many slots they hold.
func (g *relayRig) slots() (relays, slots int) {
	g.t.Helper()
	s, err := g.store.Operator().Status(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	for _, r := range s.Relays {
		slots += r.Slots
	}
	return len(s.Relays), slots
}

// noticed is how long relays may take to see the switch: a third of their leases, and a
// little for what was sent.
const noticed = 10*time.Second/3 + 200*time.Millisecond

// keepPublishing publishes a message of each of ten keys every 50 ms.
func (g *relayRig) keepPublishing(from, to int) {
	g.t.Helper()
	for i := from; i < to; i++ {
		var batch []outlast.Message
		for _, key := range []string{"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"} {
			batch = append(batch, message("a.b.v1", key, i))
		}
		g.publish(batch...)
		time.Sleep(50 * time.Millisecond)
	}
}

// While an operator has paused them, relays send nothing, of what was committed before and
// of what comes, through restarts; afterwards everything is sent once and in order.
func TestRelayPause(t *testing.T) {
	t.Parallel()
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { t.Parallel(); synctest.Test(t, f) })
	}
	run("all_relays_obey_and_nothing_is_lost", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		g.start()
		g.start()
		g.keepPublishing(0, 200)
		g.setPaused(true)
		g.keepPublishing(200, 200+int(noticed/(50*time.Millisecond))+1)
		first := 200 + int(noticed/(50*time.Millisecond)) + 1
		then := len(g.bodies("sink.0"))
		if relays, slots := g.slots(); relays != 2 || slots != 0 {
			t.Errorf("%d relays are alive with %d slots, want 2 without any", relays, slots)
		}
		g.keepPublishing(first, first+100)
		g.publish(message("a.b.v1", "later", 0, outlast.At(time.Now().Add(time.Second))))
		g.stop() // restarts
		g.start()
		g.start()
		g.start()
		time.Sleep(10 * time.Minute)
		if now := len(g.bodies("sink.0")); now != then {
			t.Errorf("%d messages were sent while paused", now-then)
		}
		if p, h := g.left(); p < 1000 || h != 1 {
			t.Errorf("%d pending and %d held, want at least 1000 and 1", p, h)
		}
		g.setPaused(false)
		time.Sleep(2 * noticed)
		bodies := g.bodies("sink.0")
		for i, b := range bodies {
			if b == "later/0" {
				bodies = append(bodies[:i], bodies[i+1:]...)
				break
			}
		}
		if repeats := g.wantOrder(bodies, 10, first+100); repeats != 0 {
			t.Errorf("%d messages came twice without any fault", repeats)
		}
		g.wantAtRest()
	})
	run("while_confirms_are_lost_and_the_broker_goes", func(t *testing.T) {
		g := newRelayRig(t, memory.DropConfirm(0.2))
		g.bind("sink", "a.b.v1")
		g.start()
		g.start()
		g.keepPublishing(0, 60)
		g.setPaused(true)
		g.keepPublishing(60, 80)
		g.broker.Die()
		time.Sleep(time.Minute)
		if relays, slots := g.slots(); relays != 2 || slots != 0 {
			t.Errorf("%d relays are alive with %d slots, want 2 without any", relays, slots)
		}
		g.broker.Revive()
		g.broker.Inject(memory.DropConfirm(0))
		then := len(g.bodies("sink.0"))
		time.Sleep(time.Minute)
		if now := len(g.bodies("sink.0")); now != then {
			t.Errorf("%d messages were sent while paused", now-then)
		}
		g.setPaused(false)
		g.keepPublishing(80, 100)
		time.Sleep(5 * time.Minute)
		g.wantOrder(g.bodies("sink.0"), 10, 100)
		g.wantAtRest()
	})
	// A paused relay with a backlog makes no progress, and is not stuck either: `outlast
	// relay` would give up by this.
	run("one_with_a_backlog_is_not_stuck", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		g.publishKeys("a.b.v1", 10, 20_000)
		g.store.Inject(memory.Slow(memory.RoleRelay, 500*time.Millisecond))
		relay, stop := g.running(outlast.RelayConfig{InFlight: 16, Buffer: 64})
		time.Sleep(noticed)
		g.setPaused(true)
		time.Sleep(time.Hour)
		if pending, _ := g.left(); pending == 0 {
			t.Fatal("there was no backlog")
		}
		if h := relay.Health(); !h.Paused || h.Buffered != 0 || time.Since(h.Progress) > time.Minute {
			t.Errorf("it has %d in hand, progress %v ago: %+v", h.Buffered, time.Since(h.Progress), h)
		}
		stop()
	})
	// Nor is one whose last reading before the pause failed: nobody reads again while it
	// holds no slots, so that it never hears that nothing waits.
	run("one_that_could_not_read_is_not_stuck", func(t *testing.T) {
		g := newRelayRig(t)
		relay, stop := g.running(outlast.RelayConfig{})
		time.Sleep(time.Second)
		g.store.Inject(memory.FailNext(memory.RoleRelay, 1_000_000))
		time.Sleep(time.Minute)
		if h := relay.Health(); h.Paused || time.Since(h.Progress) < 50*time.Second {
			t.Errorf("it makes progress although it cannot read: %+v", h)
		}
		g.setPaused(true)
		time.Sleep(time.Hour)
		if h := relay.Health(); !h.Paused || h.Slots != 0 || time.Since(h.Progress) > time.Minute {
			t.Errorf("its progress was %v ago: %+v", time.Since(h.Progress), h)
		}
		stop()
	})
	run("its_health_tells_of_it", func(t *testing.T) {
		g := newRelayRig(t)
		relay, stop := g.running(outlast.RelayConfig{})
		time.Sleep(noticed)
		if h := relay.Health(); h.Paused || h.Slots != 256 {
			t.Errorf("before: %+v", h)
		}
		g.setPaused(true)
		time.Sleep(noticed)
		g.publish(message("a.b.v1", "k0", 0))
		time.Sleep(time.Hour)
		if h := relay.Health(); !h.Paused || h.Slots != 0 || time.Since(h.Progress) > time.Minute {
			t.Errorf("while paused: %+v", h)
		}
		g.setPaused(false)
		time.Sleep(noticed)
		if h := relay.Health(); h.Paused || h.Slots != 256 {
			t.Errorf("afterwards: %+v", h)
		}
		stop()
	})
}
