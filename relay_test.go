package outlast_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// relayRig is an outbox in memory, a broker in memory and relays between them,
// under a fake clock.
type relayRig struct {
	t      *testing.T
	store  *memory.Store
	broker *memory.Broker
	outbox *outlast.Outbox
	ends   []func()
	books  []func() []string // what each relay has in its books
	trace  *relayTrace
}

// relayTrace keeps the story of every message, to be told when a test fails.
type relayTrace struct {
	mu    sync.Mutex
	lines []string
}

func (tr *relayTrace) add(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.lines = append(tr.lines, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// Write takes the relays' logs.
func (tr *relayTrace) Write(line []byte) (int, error) {
	tr.add(" * %s", line)
	return len(line), nil
}

// relayWitness is the hook of one relay.
type relayWitness struct {
	tr   *relayTrace
	name string
}

func (w relayWitness) OnPublished(row *outlast.Row, o outlast.Outcome, err error, _ time.Duration) {
	w.tr.add("%s %.20s seq %d held %v (%s): %s", w.name, row.Body, row.Seq, row.InHeld, row.Reason, o)
}

func (w relayWitness) OnSettled(s *outlast.Settlement, stale []outlast.Lease) {
	for _, row := range s.Sent {
		w.tr.add("%s %.20s settled sent; stale %v", w.name, row.Body, stale)
	}
	for _, h := range s.Hold {
		w.tr.add("%s %.20s settled hold %s (was held %v); stale %v", w.name, h.Row.Body, h.Reason, h.Row.InHeld, stale)
	}
}

func (w relayWitness) OnRoute(route outlast.Route, open bool, reason string) {
	w.tr.add("%s * route %s open %v: %s", w.name, route, open, reason)
}

func (w relayWitness) OnLink(_ string, l outlast.Link) {
	w.tr.add("%s * link %s: %s", w.name, l.State, l.Reason)
}

func (w relayWitness) OnLeases(_, _ string, held, owners int) {
	w.tr.add("%s * %d slots, %d relays", w.name, held, owners)
}

// tell logs the story of a key: what was done with its messages, and to all.
func (g *relayRig) tell(key string) {
	for _, line := range g.trace.lines {
		if strings.Contains(line, `"`+key+`/`) || strings.Contains(line, " * ") {
			g.t.Log(line)
		}
	}
}

func newRelayRig(t *testing.T, opts ...memory.BrokerOption) *relayRig {
	g := &relayRig{t: t, store: memory.NewStore(), broker: memory.NewBroker(opts...), trace: &relayTrace{}}
	g.outbox = outlast.NewOutbox(g.store)
	t.Cleanup(g.stop) // a bubble must not leave goroutines behind
	return g
}

// start runs one more relay and returns a function that ends it.
func (g *relayRig) start(change ...func(*outlast.RelayConfig)) (end func()) {
	g.t.Helper()
	conf := outlast.RelayConfig{Source: "shop", Store: g.store, Broker: g.broker}
	conf.Logger = slog.New(slog.NewTextHandler(g.trace, &slog.HandlerOptions{Level: slog.LevelDebug}))
	conf.Hooks = []outlast.Hook{relayWitness{g.trace, fmt.Sprintf("relay%d", len(g.ends))}}
	for _, c := range change {
		c(&conf)
	}
	relay, err := outlast.NewRelay(conf)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan error)
	go func() {
		done <- relay.RunInspected(ctx, func(inspect func() []string) {
			g.trace.mu.Lock()
			defer g.trace.mu.Unlock()
			g.books = append(g.books, inspect)
		})
	}()
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			g.t.Errorf("Run: %v", err)
		}
	}
	g.ends = append(g.ends, end)
	return end
}

// stop ends all relays.
func (g *relayRig) stop() {
	for _, end := range g.ends {
		end()
	}
}

func (g *relayRig) bind(group string, types ...string) {
	g.t.Helper()
	topo := outlast.GroupTopology{Group: group, Partitions: 1}
	for _, typ := range types {
		topo.Bindings = append(topo.Bindings, outlast.Binding{Exchange: outlast.EventExchange, Type: typ})
	}
	t := outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}, {Name: outlast.CommandExchange}}, Groups: []outlast.GroupTopology{topo}}
	if err := g.broker.Topology().Apply(g.t.Context(), t); err != nil {
		g.t.Fatal(err)
	}
}

func (g *relayRig) publish(msgs ...outlast.Message) {
	g.t.Helper()
	tx := g.store.Begin()
	if err := g.outbox.Publish(g.t.Context(), tx, msgs...); err != nil {
		g.t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		g.t.Fatal(err)
	}
}

// message names itself "key/number" in its body.
func message(typ, key string, n int, opts ...outlast.MessageOption) outlast.Message {
	m := outlast.Message{Envelope: outlast.Envelope{Type: typ, Key: key}, Body: fmt.Appendf(nil, "%q", fmt.Sprintf("%s/%d", key, n))}
	for _, o := range opts {
		o(&m)
	}
	return m
}

// bodies lists what is in a queue, as published by message.
func (g *relayRig) bodies(queue string) []string {
	g.t.Helper()
	ds, err := g.broker.Topology().Peek(g.t.Context(), queue, 1_000_000)
	if err != nil {
		g.t.Fatal(err)
	}
	list := make([]string, len(ds))
	for i, d := range ds {
		list[i] = strings.Trim(string(d.Message.Body), `"`)
	}
	return list
}

func (g *relayRig) left() (pending, held int) {
	g.t.Helper()
	s, err := g.store.Operator().Status(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	for _, p := range s.Pending {
		pending += p.Count
	}
	for _, h := range s.Held {
		held += h.Count
	}
	return pending, held
}

func (g *relayRig) wantEmpty() {
	g.t.Helper()
	if p, h := g.left(); p+h > 0 {
		items, _ := g.store.Operator().Outbox().List(g.t.Context(), outlast.Filter{Limit: 5})
		g.t.Errorf("%d pending and %d held rows are left, first %+v", p, h, items)
	}
}

// wantAtRest checks that nothing is left, in the outbox or in the relays' books.
func (g *relayRig) wantAtRest() {
	g.t.Helper()
	g.wantEmpty()
	for i, books := range g.books {
		if left := books(); len(left) > 0 {
			g.t.Errorf("relay %d has in its books: %v", i, left)
		}
	}
}

// wantOrder checks that per key the numbers 0..n-1 are there, in order once
// repeats are dropped, and returns the number of repeats.
func (g *relayRig) wantOrder(bodies []string, keys, n int) (repeats int) {
	t := g.t
	t.Helper()
	next := map[string]int{}
	seen := map[string]bool{}
	for _, b := range bodies {
		if seen[b] {
			repeats++
			continue
		}
		seen[b] = true
		key, number, _ := strings.Cut(b, "/")
		if want := fmt.Sprint(next[key]); number != want {
			g.tell(key)
			t.Fatalf("key %s: got %s, want %s next", key, number, want)
		}
		next[key]++
	}
	for k := range keys {
		if got := next[fmt.Sprintf("k%d", k)]; got != n {
			t.Errorf("key k%d: %d messages arrived, want %d", k, got, n)
		}
	}
	return repeats
}

func (g *relayRig) publishKeys(typ string, keys, n int) {
	for i := range n {
		var batch []outlast.Message
		for k := range keys {
			batch = append(batch, message(typ, fmt.Sprintf("k%d", k), i))
		}
		g.publish(batch...)
	}
}

func TestRelay(t *testing.T) {
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { t.Parallel(); synctest.Test(t, f) })
	}

	run("F28_delivers_everything_once_and_in_key_order", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		g.start()
		g.publishKeys("a.b.v1", 20, 50)
		time.Sleep(10 * time.Second)
		if repeats := g.wantOrder(g.bodies("sink.0"), 20, 50); repeats != 0 {
			t.Errorf("%d messages came twice without any fault", repeats)
		}
		g.wantAtRest()
	})

	run("F12_TwoRelaysNeverSendOneRow_and_hand_over_without_repeats", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		g.start()
		var ends []func()
		for i := range 60 {
			switch i {
			case 10, 20:
				ends = append(ends, g.start())
			case 40:
				ends[0]()
			case 50:
				ends[1]()
			}
			var batch []outlast.Message
			for k := range 40 {
				batch = append(batch, message("a.b.v1", fmt.Sprintf("k%d", k), i))
			}
			g.publish(batch...)
			time.Sleep(500 * time.Millisecond)
		}
		time.Sleep(30 * time.Second)
		if repeats := g.wantOrder(g.bodies("sink.0"), 40, 60); repeats != 0 {
			t.Errorf("%d messages came twice without any fault", repeats)
		}
		g.wantAtRest()
	})

	run("F32_republishes_after_a_lost_confirm", func(t *testing.T) {
		g := newRelayRig(t, memory.DropConfirm(1))
		g.bind("sink", "a.b.v1")
		g.start()
		g.publishKeys("a.b.v1", 5, 5)
		time.Sleep(time.Minute)
		g.broker.Inject(memory.DropConfirm(0))
		time.Sleep(2 * time.Minute)
		if repeats := g.wantOrder(g.bodies("sink.0"), 5, 5); repeats == 0 {
			t.Error("no message came twice although confirms were lost")
		}
		g.wantAtRest()
	})

	run("F33_holds_what_nobody_hears_and_delivers_it_when_a_binding_appears", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "heard.v1")
		g.start()
		g.publishKeys("unheard.v1", 10, 10)
		g.publishKeys("heard.v1", 10, 10)
		time.Sleep(10 * time.Second)
		g.wantOrder(g.bodies("sink.0"), 10, 10)
		if p, h := g.left(); p != 0 || h != 100 {
			t.Errorf("%d pending and %d held, want 0 and 100", p, h)
		}
		s, _ := g.store.Operator().Status(t.Context())
		for _, h := range s.Held {
			if h.Reason != outlast.HeldUnroutable {
				t.Errorf("held as %q, want unroutable", h.Reason)
			}
		}
		g.bind("late", "unheard.v1")
		time.Sleep(10 * time.Second)
		g.wantOrder(g.bodies("late.0"), 10, 10)
		g.wantAtRest()
	})

	run("keeps_order_while_a_route_drains_and_more_comes", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("other", "x.v1")
		g.start()
		for i := range 400 {
			if i == 200 {
				g.bind("sink", "a.b.v1")
			}
			var batch []outlast.Message
			for k := range 10 {
				batch = append(batch, message("a.b.v1", fmt.Sprintf("k%d", k), i))
			}
			g.publish(batch...)
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(30 * time.Second)
		g.wantOrder(g.bodies("sink.0"), 10, 400)
		g.wantAtRest()
	})

	run("settles_what_may_be_unheard", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("other", "x.v1")
		g.start()
		m := message("nobody.cares.v1", "k", 0)
		m.MayBeUnheard = true
		g.publish(m)
		time.Sleep(5 * time.Second)
		g.wantAtRest()
	})

	run("F42_F20_parks_only_the_message_that_closes_the_channel", func(t *testing.T) {
		g := newRelayRig(t, memory.MaxMessage(1000))
		g.bind("sink", "a.b.v1")
		g.start()
		big := message("a.b.v1", "k0", 0)
		big.Body = []byte(`"` + strings.Repeat("x", 2000) + `"`)
		var batch []outlast.Message
		for k := 1; k < 100; k++ {
			batch = append(batch, message("a.b.v1", fmt.Sprintf("k%d", k), 0))
		}
		g.publish(append(batch[:50:50], append([]outlast.Message{big, message("a.b.v1", "k0", 1)}, batch[50:]...)...)...)
		time.Sleep(5 * time.Second)
		if got := len(g.bodies("sink.0")); got < 99 {
			t.Errorf("%d messages arrived, want the 99 healthy ones", got)
		}
		items, err := g.store.Operator().Outbox().List(t.Context(), outlast.Filter{})
		if err != nil || len(items) != 2 {
			t.Fatalf("left: %v %v, want the big one and the one behind it", items, err)
		}
		if items[0].Reason != string(outlast.HeldBackoff) || items[1].Reason != string(outlast.HeldBehind) || items[0].Error == "" {
			t.Errorf("left as %q (%s) and %q, want backoff with an error, and behind", items[0].Reason, items[0].Error, items[1].Reason)
		}
		g.broker.Inject(memory.MaxMessage(0))
		time.Sleep(20 * time.Minute)
		bodies := g.bodies("sink.0")
		if last := bodies[len(bodies)-1]; last != "k0/1" {
			t.Errorf("last is %.20q, want the one that waited behind the big one", last)
		}
		g.wantAtRest()
	})

	run("frees_a_key_when_its_first_row_is_withdrawn", func(t *testing.T) {
		g := newRelayRig(t, memory.MaxMessage(1000))
		g.bind("sink", "a.b.v1")
		g.start()
		big := message("a.b.v1", "k", 0)
		big.Body, big.ID = []byte(`"`+strings.Repeat("x", 2000)+`"`), outlast.NewID()
		g.publish(big, message("a.b.v1", "k", 1), message("a.b.v1", "k", 2))
		time.Sleep(5 * time.Second)
		n, _, err := g.store.Operator().Outbox().Withdraw(t.Context(), outlast.Filter{IDs: []string{big.ID}}, outlast.Action{Who: "test"})
		if n != 1 || err != nil {
			t.Fatalf("withdraw: %d, %v", n, err)
		}
		time.Sleep(30 * time.Second)
		if got := strings.Join(g.bodies("sink.0"), " "); got != "k/1 k/2" {
			t.Errorf("arrived: %s, want k/1 k/2", got)
		}
		g.wantAtRest()
	})

	run("F21_an_outage_costs_no_attempt_and_heals", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		g.start()
		g.publishKeys("a.b.v1", 10, 10)
		time.Sleep(time.Second)
		g.broker.Die()
		for i := 10; i < 20; i++ {
			var batch []outlast.Message
			for k := range 10 {
				batch = append(batch, message("a.b.v1", fmt.Sprintf("k%d", k), i))
			}
			g.publish(batch...)
			time.Sleep(6 * time.Minute)
		}
		if _, held := g.left(); held != 0 {
			t.Errorf("%d rows were held because of an outage", held)
		}
		g.broker.Revive()
		time.Sleep(10 * time.Second)
		g.wantOrder(g.bodies("sink.0"), 10, 20)
		g.wantAtRest()
	})

	run("F38_waits_while_the_broker_blocks", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		g.start()
		time.Sleep(time.Second)
		g.broker.Block("low on memory")
		g.publishKeys("a.b.v1", 10, 10)
		time.Sleep(time.Minute)
		if p, h := g.left(); p != 100 || h != 0 {
			t.Errorf("%d pending and %d held while blocked, want 100 and 0", p, h)
		}
		g.broker.Unblock()
		time.Sleep(10 * time.Second)
		g.wantOrder(g.bodies("sink.0"), 10, 10)
		g.wantAtRest()
	})

	run("F40_a_full_queue_is_waited_for", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("full", "a.b.v1")
		g.bind("sink", "other.v1")
		if err := g.broker.MaxLength("full.0", 5); err != nil {
			t.Fatal(err)
		}
		g.start()
		g.publishKeys("a.b.v1", 50, 2)
		g.publishKeys("other.v1", 50, 2)
		time.Sleep(30 * time.Second)
		g.wantOrder(g.bodies("sink.0"), 50, 2)
		if err := g.broker.MaxLength("full.0", 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute)
		g.wantOrder(g.bodies("full.0"), 50, 2)
		g.wantAtRest()
	})

	run("F27_one_sick_queue_stalls_nobody", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sick", "sick.v1")
		g.bind("sink", "well.v1")
		if err := g.broker.SickQueue("sick.0", true); err != nil {
			t.Fatal(err)
		}
		g.start(func(c *outlast.RelayConfig) { c.InFlight, c.Buffer = 16, 64 })
		g.publishKeys("sick.v1", 300, 2)
		g.publishKeys("well.v1", 20, 20)
		time.Sleep(time.Minute)
		g.wantOrder(g.bodies("sink.0"), 20, 20)
		if err := g.broker.SickQueue("sick.0", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		g.wantOrder(g.bodies("sick.0"), 300, 2)
		g.wantAtRest()
	})

	run("sends_scheduled_messages_when_due_and_drops_expired_ones", func(t *testing.T) {
		g := newRelayRig(t)
		g.bind("sink", "a.b.v1")
		g.start()
		g.publish(message("a.b.v1", "late", 0, outlast.After(10*time.Minute)), message("a.b.v1", "now", 0))
		time.Sleep(9 * time.Minute)
		if got := strings.Join(g.bodies("sink.0"), " "); got != "now/0" {
			t.Errorf("after 9 minutes: %s", got)
		}
		time.Sleep(61 * time.Second)
		if got := strings.Join(g.bodies("sink.0"), " "); got != "now/0 late/0" {
			t.Errorf("after 10 minutes: %s", got)
		}
		g.broker.Die()
		g.publish(message("a.b.v1", "brief", 0, outlast.ExpiresIn(time.Minute)))
		time.Sleep(2 * time.Minute)
		g.broker.Revive()
		time.Sleep(10 * time.Second)
		if got := strings.Join(g.bodies("sink.0"), " "); got != "now/0 late/0" {
			t.Errorf("an expired message was sent: %s", got)
		}
		g.wantAtRest()
	})

	run("a_restart_takes_up_what_is_held", func(t *testing.T) {
		g := newRelayRig(t, memory.MaxMessage(1000))
		g.bind("sink", "a.b.v1")
		end := g.start()
		big := message("a.b.v1", "k0", 0)
		big.Body = []byte(`"k0/0"` + strings.Repeat(" ", 2000))
		g.publish(big)
		g.publishKeys("unheard.v1", 3, 3)
		time.Sleep(5 * time.Second)
		end()
		g.publish(message("a.b.v1", "k0", 1), message("a.b.v1", "k1", 0))
		g.start()
		time.Sleep(5 * time.Second)
		if got := strings.Join(g.bodies("sink.0"), " "); got != "k1/0" {
			t.Errorf("while k0 waits: %s, want k1/0 alone", got)
		}
		g.broker.Inject(memory.MaxMessage(0))
		g.bind("late", "unheard.v1")
		time.Sleep(20 * time.Minute)
		bodies := g.bodies("sink.0")
		if len(bodies) != 3 || strings.TrimSpace(bodies[2]) != "k0/1" {
			t.Errorf("arrived: %.80q, want k1/0, k0/0, k0/1", bodies)
		}
		g.wantOrder(g.bodies("late.0"), 3, 3)
		g.wantAtRest()
	})
}
