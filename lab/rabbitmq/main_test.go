// Package rabbitmq_test proves the rabbitmq adapter on real brokers.
package rabbitmq_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/rabbitmq"
)

func TestMain(m *testing.M) { servers.Main(m) }

// patience bounds every wait of these tests; nothing asserts how long a step takes.
const patience = 90 * time.Second

var quiet = slog.New(slog.DiscardHandler)

func broker(url string, opts ...rabbitmq.Option) outlast.Broker {
	return rabbitmq.Broker(url, append([]rabbitmq.Option{rabbitmq.Logger(quiet), rabbitmq.MaxBackoff(200 * time.Millisecond)}, opts...)...)
}

// cluster starts a broker that the test may break.
func cluster(t *testing.T, config string) *servers.RabbitCluster {
	t.Helper()
	c, err := servers.RabbitMQ(t.Context(), servers.RabbitConfig{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// admin is a channel of the bare library, for what the tests arrange.
func admin(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) // an error says only that the test broke it
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// recorder collects what a publisher or a subscriber reports.
type recorder struct {
	t testing.TB

	mu         sync.Mutex
	changed    chan struct{}
	results    map[*outlast.Publishing]outlast.Result
	order      []*outlast.Publishing
	twice      int
	links      []outlast.Link
	deliveries []*outlast.Delivery
	autoAck    bool
}

func newRecorder(t testing.TB) *recorder {
	return &recorder{t: t, changed: make(chan struct{}), results: map[*outlast.Publishing]outlast.Result{}}
}

func (r *recorder) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *recorder) onResults(rs []outlast.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range rs {
		if _, ok := r.results[x.P]; ok {
			r.twice++
		}
		r.results[x.P] = x
		r.order = append(r.order, x.P)
	}
	r.notify()
}

func (r *recorder) onLink(l outlast.Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links = append(r.links, l)
	r.notify()
}

func (r *recorder) onDelivery(d *outlast.Delivery) {
	if r.autoAck {
		d.Ack()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deliveries = append(r.deliveries, d)
	r.notify()
}

// until waits until cond, which is called with r locked, is true.
func (r *recorder) until(what string, cond func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		ok, changed := cond(), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("waited in vain for: %s (results %d, links %v, deliveries %d)", what, len(r.results), r.links, len(r.deliveries))
		}
	}
}

func (r *recorder) link(state outlast.LinkState) {
	r.t.Helper()
	r.until("link "+string(state), func() bool { return len(r.links) > 0 && r.links[len(r.links)-1].State == state })
}

func (r *recorder) all(n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d results", n), func() bool { return len(r.results) >= n })
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.twice != 0 {
		r.t.Errorf("%d results came twice", r.twice)
	}
}

func (r *recorder) result(p *outlast.Publishing) outlast.Result {
	r.t.Helper()
	r.until("a result", func() bool { _, ok := r.results[p]; return ok })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.results[p]
}

func (r *recorder) tally() map[outlast.Outcome]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := map[outlast.Outcome]int{}
	for _, x := range r.results {
		n[x.Outcome]++
	}
	return n
}

// publisher runs one until the test ends.
func publisher(t testing.TB, b outlast.Broker) (outlast.Publisher, *recorder) {
	t.Helper()
	r := newRecorder(t)
	p := b.Publisher(outlast.PublisherConfig{Results: r.onResults, Link: r.onLink, Logger: quiet})
	start(t, p.Run)
	return p, r
}

func subscriber(t testing.TB, b outlast.Broker, c outlast.SubscriberConfig) (*recorder, func()) {
	t.Helper()
	r := newRecorder(t)
	c.Deliver, c.Link, c.Logger = r.onDelivery, r.onLink, quiet
	if c.Prefetch == 0 {
		c.Prefetch = 100
	}
	stop := start(t, b.Subscriber(c).Run)
	return r, stop
}

// start runs f until stop is called or the test ends, and waits for its return.
func start(t testing.TB, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not return")
		}
	})
	t.Cleanup(stop)
	return stop
}

func group(name string, types ...string) outlast.GroupTopology {
	g := outlast.GroupTopology{Group: name, Partitions: 1}
	for _, typ := range types {
		g.Bindings = append(g.Bindings, outlast.Binding{Exchange: outlast.EventExchange, Type: typ})
	}
	return g
}

func message(typ string) *outlast.Publishing {
	m := &outlast.Message{Body: []byte(`{"n":1}`)}
	m.ID, m.Type, m.Source, m.EnqueuedAt = outlast.NewID(), typ, "lab", time.Now()
	m.Headers = outlast.Headers{"tenant": "blue"}
	return &outlast.Publishing{Message: m, Exchange: outlast.EventExchange, RoutingKey: m.Address()}
}

func messages(n int, typ string) []*outlast.Publishing {
	ps := make([]*outlast.Publishing, 0, n)
	for range n {
		ps = append(ps, message(typ))
	}
	return ps
}

func apply(t testing.TB, b outlast.Broker, gs ...outlast.GroupTopology) {
	t.Helper()
	want := outlast.Topology{Groups: gs, Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}, {Name: outlast.CommandExchange}}}
	if err := b.Topology().Apply(t.Context(), want); err != nil {
		t.Fatal(err)
	}
}
