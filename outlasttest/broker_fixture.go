package outlasttest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

type brokerFixture struct {
	*testing.T
	ctx context.Context
	u   BrokerUnderTest
	b   outlast.Broker
	id  string // makes names unique
}

func (f *brokerFixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("unexpected error: %v", err)
	}
}

func (f *brokerFixture) eventually(what string, ok func() bool) {
	f.Helper()
	eventually(f.T, what, ok)
}

// typ returns a type of this test's own.
func (f *brokerFixture) typ(name string) string { return fmt.Sprintf("t%s.%s.v1", f.id, name) }

// group returns a group that hears types of this test.
func (f *brokerFixture) group(name string, types ...string) outlast.GroupTopology {
	g := outlast.GroupTopology{Group: fmt.Sprintf("%s-%s", name, f.id), Partitions: 1, Generation: 1}
	for _, t := range types {
		g.Bindings = append(g.Bindings, outlast.Binding{Exchange: outlast.EventExchange, Type: f.typ(t)})
	}
	return g
}

func topologyOf(groups ...outlast.GroupTopology) outlast.Topology {
	return outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}, Groups: groups}
}

// apply declares the groups.
func (f *brokerFixture) apply(groups ...outlast.GroupTopology) {
	f.Helper()
	f.must(f.b.Topology().Apply(f.ctx, topologyOf(groups...)))
}

// message makes a message of one of this test's types.
func (f *brokerFixture) message(typ, key string) *outlast.Message {
	m := message(key)
	m.Type = f.typ(typ)
	m.Source = "orders"
	return m
}

func (f *brokerFixture) messages(n int, typ, key string) []*outlast.Message {
	msgs := make([]*outlast.Message, n)
	for i := range msgs {
		msgs[i] = f.message(typ, key)
	}
	return msgs
}

// running is a Run in a goroutine.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (f *brokerFixture) start(run func(ctx context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.ctx))
	r := &running{cancel, make(chan struct{})}
	go func() {
		defer close(r.done)
		_ = run(ctx) // how it ends is not what is tested: that it ends is
	}()
	f.Cleanup(func() { r.stop(f.T) })
	return r
}

// stop ends the context and waits for Run to return.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	select {
	case <-r.done:
	case <-time.After(time.Until(giveUp(t))):
		t.Errorf("Run did not return after its context had ended")
	}
}

// testPublisher collects what a publisher reports.
type testPublisher struct {
	*running
	p       outlast.Publisher
	f       *brokerFixture
	mu      sync.Mutex
	results map[*outlast.Publishing][]outlast.Result
	links   []outlast.Link
}

func (f *brokerFixture) publisher() *testPublisher {
	f.Helper()
	t := &testPublisher{f: f, results: map[*outlast.Publishing][]outlast.Result{}}
	t.p = f.b.Publisher(outlast.PublisherConfig{
		Logger: slog.New(slog.DiscardHandler),
		Results: func(rs []outlast.Result) {
			t.mu.Lock()
			defer t.mu.Unlock()
			for _, r := range rs {
				t.results[r.P] = append(t.results[r.P], r)
			}
		},
		Link: func(l outlast.Link) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.links = append(t.links, l)
		},
	})
	t.running = f.start(t.p.Run)
	t.waitLink(outlast.LinkUp)
	return t
}

func (t *testPublisher) link() outlast.Link {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.links) == 0 {
		return outlast.Link{}
	}
	return t.links[len(t.links)-1]
}

func (t *testPublisher) waitLink(state outlast.LinkState) {
	t.f.Helper()
	t.f.eventually(fmt.Sprintf("the publisher's link is %s", state), func() bool { return t.link().State == state })
}

func publishing(m *outlast.Message) *outlast.Publishing {
	return &outlast.Publishing{Message: m, Exchange: m.Route().Exchange, RoutingKey: m.Address(), Owner: m.ID}
}

// send publishes on a lane and returns what to wait for.
func (t *testPublisher) send(lane int, msgs ...*outlast.Message) []*outlast.Publishing {
	ps := make([]*outlast.Publishing, len(msgs))
	for i, m := range msgs {
		ps[i] = publishing(m)
	}
	t.p.Send(lane, ps)
	return ps
}

// outcome waits for the one result of a publishing.
func (t *testPublisher) outcome(p *outlast.Publishing) outlast.Result {
	t.f.Helper()
	var rs []outlast.Result
	t.f.eventually("a result comes", func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		rs = slices.Clone(t.results[p])
		return len(rs) > 0
	})
	if len(rs) > 1 {
		t.f.Fatalf("message %s has %d results: %v", p.Message.ID, len(rs), rs)
	}
	want(t.f, "owner", p.Owner, any(p.Message.ID))
	if (rs[0].Err == nil) != (rs[0].Outcome == outlast.OutcomeConfirmed) {
		t.f.Fatalf("outcome %s with error %v", rs[0].Outcome, rs[0].Err)
	}
	return rs[0]
}

// confirm publishes and waits until all are confirmed.
func (t *testPublisher) confirm(lane int, msgs ...*outlast.Message) {
	t.f.Helper()
	for _, p := range t.send(lane, msgs...) {
		r := t.outcome(p)
		if r.Outcome != outlast.OutcomeConfirmed {
			t.f.Fatalf("message %s: %s, %v", p.Message.ID, r.Outcome, r.Err)
		}
	}
}

// wantOneResultEach checks, a while later, that nothing was resolved twice.
func (t *testPublisher) wantOneResultEach(ps []*outlast.Publishing) map[outlast.Outcome]int {
	t.f.Helper()
	counts := map[outlast.Outcome]int{}
	for _, p := range ps {
		counts[t.outcome(p).Outcome]++
	}
	time.Sleep(settling)
	for _, p := range ps {
		t.outcome(p)
	}
	return counts
}

// testSubscriber collects deliveries.
type testSubscriber struct {
	*running
	f     *brokerFixture
	mu    sync.Mutex
	all   []*outlast.Delivery
	links []outlast.Link
}

func (f *brokerFixture) subscribe(c outlast.SubscriberConfig) *testSubscriber {
	t := &testSubscriber{f: f}
	if c.Prefetch == 0 {
		c.Prefetch = 1000
	}
	c.Logger = slog.New(slog.DiscardHandler)
	c.Deliver = func(d *outlast.Delivery) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.all = append(t.all, d)
	}
	c.Link = func(l outlast.Link) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.links = append(t.links, l)
	}
	t.running = f.start(f.b.Subscriber(c).Run)
	return t
}

// hear subscribes to a group's queue and waits until it is subscribed.
func (f *brokerFixture) hear(g outlast.GroupTopology, partition, prefetch int) *testSubscriber {
	f.Helper()
	t := f.subscribe(outlast.SubscriberConfig{Group: g, Partition: partition, Prefetch: prefetch, Declare: true})
	t.waitLink(outlast.LinkUp)
	return t
}

func (t *testSubscriber) link() outlast.Link {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.links) == 0 {
		return outlast.Link{}
	}
	return t.links[len(t.links)-1]
}

func (t *testSubscriber) waitLink(state outlast.LinkState) {
	t.f.Helper()
	t.f.eventually(fmt.Sprintf("the subscriber's link is %s", state), func() bool { return t.link().State == state })
}

func (t *testSubscriber) deliveries() []*outlast.Delivery {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.all)
}

// wait waits until n deliveries have come in all.
func (t *testSubscriber) wait(n int) []*outlast.Delivery {
	t.f.Helper()
	t.f.eventually(fmt.Sprintf("%d deliveries have come", n), func() bool { return len(t.deliveries()) >= n })
	ds := t.deliveries()
	if len(ds) > n {
		t.f.Fatalf("%d deliveries came, want %d", len(ds), n)
	}
	return ds
}

// settled waits a while and returns what has come.
func (t *testSubscriber) settled() []*outlast.Delivery {
	time.Sleep(settling)
	return t.deliveries()
}

// wantDeliveries checks that the deliveries are the messages, in order.
func wantDeliveries(t testing.TB, ds []*outlast.Delivery, msgs ...*outlast.Message) {
	t.Helper()
	var got, wanted []string
	for _, d := range ds {
		if d.Problem != nil {
			t.Fatalf("delivery with a problem: %v", d.Problem)
		}
		got = append(got, d.Message.ID)
	}
	for _, m := range msgs {
		wanted = append(wanted, m.ID)
	}
	wantList(t, "deliveries", got, wanted)
}

// depth waits until a queue has n messages ready.
func (f *brokerFixture) depth(queue string, n int) {
	f.Helper()
	f.eventually(fmt.Sprintf("queue %q has %d messages", queue, n), func() bool {
		d, err := f.b.Topology().Depth(f.ctx, queue)
		f.must(err)
		return d.Messages == n
	})
}
