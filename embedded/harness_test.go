package embedded

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/nats"
)

// deadline only ends a test that would hang for ever.
const deadline = 20 * time.Second

// TestMain is also the child process: with a directory in the environment it only
// runs a server until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("OUTLAST_TEST_SERVE"); dir != "" {
		serveForEver(dir)
	}
	goleak.VerifyTestMain(m)
}

func serveForEver(dir string) {
	s, err := Start(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	s.Wait()
	os.Exit(0)
}

func startServer(t *testing.T) *Server {
	t.Helper()
	s, err := Start(t.TempDir(), WithoutSync())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// running is a publisher whose results can be waited for.
type running struct {
	outlast.Publisher
	t    *testing.T
	stop func()

	mu      sync.Mutex
	news    chan struct{} // closed and replaced at every change
	link    outlast.Link
	results map[string]outlast.Result
	twice   []string
}

func publisher(t *testing.T, b outlast.Broker) *running {
	t.Helper()
	r := &running{t: t, results: map[string]outlast.Result{}, news: make(chan struct{})}
	r.Publisher = b.Publisher(outlast.PublisherConfig{Results: r.got, Link: func(l outlast.Link) {
		r.change(func() { r.link = l })
	}})
	r.stop = background(t, r.Run)
	r.until("the publisher is up", func() bool { return r.link.State == outlast.LinkUp })
	return r
}

// background runs f until the returned function is called, or the test ends.
func background(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (r *running) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.news)
	r.news = make(chan struct{})
}

func (r *running) got(results []outlast.Result) {
	r.change(func() {
		for _, x := range results {
			id := x.P.Message.ID
			if _, again := r.results[id]; again {
				r.twice = append(r.twice, id)
			}
			r.results[id] = x
		}
	})
}

func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	timeout := time.After(deadline)
	for {
		r.mu.Lock()
		good, news := ok(), r.news
		r.mu.Unlock()
		if good {
			return
		}
		select {
		case <-news:
		case <-timeout:
			r.t.Fatalf("not in time: %s", what)
		}
	}
}

// outcome sends messages on lane 0 and returns what became of each.
func (r *running) outcomes(ps ...*outlast.Publishing) []outlast.Result {
	r.t.Helper()
	r.Send(0, ps)
	var results []outlast.Result
	r.until("all results", func() bool {
		results = nil
		for _, p := range ps {
			if x, ok := r.results[p.Message.ID]; ok {
				results = append(results, x)
			}
		}
		return len(results) == len(ps)
	})
	return results
}

func (r *running) confirm(ps ...*outlast.Publishing) {
	r.t.Helper()
	for _, x := range r.outcomes(ps...) {
		if x.Outcome != outlast.OutcomeConfirmed {
			r.t.Fatalf("%s: %v, %v", x.P.RoutingKey, x.Outcome, x.Err)
		}
	}
}

const testType = "order.placed.v1"

// messages makes n messages of one key, numbered by their subject.
func messages(from, n int) []*outlast.Publishing {
	var ps []*outlast.Publishing
	for i := range n {
		m := &outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: testType, Key: "k", Source: "test",
			Subject: fmt.Sprint(from + i)}, Body: []byte(`{}`)}
		ps = append(ps, &outlast.Publishing{Message: m, Exchange: outlast.EventExchange, RoutingKey: m.Address()})
	}
	return ps
}

func group(name string, ordered bool) outlast.GroupTopology {
	return outlast.GroupTopology{Group: name, Partitions: 1, Ordered: ordered,
		Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: testType}}}
}

func apply(t *testing.T, b outlast.Broker, groups ...outlast.GroupTopology) {
	t.Helper()
	top := outlast.Topology{Groups: groups, Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}, {Name: outlast.CommandExchange}}}
	if err := b.Topology().Apply(testContext(t), top); err != nil {
		t.Fatal(err)
	}
}

// inbox is a subscriber whose deliveries can be waited for.
type inbox struct {
	t    *testing.T
	b    outlast.Broker
	stop func()

	mu   sync.Mutex
	news chan struct{}
	up   int // how often the link came up
	link outlast.Link
	got  []*outlast.Delivery
	ack  bool // at once
}

func subscribe(t *testing.T, b outlast.Broker, g outlast.GroupTopology, prefetch int, ack bool) *inbox {
	t.Helper()
	in := &inbox{t: t, b: b, news: make(chan struct{}), ack: ack}
	s := b.Subscriber(outlast.SubscriberConfig{Group: g, Prefetch: prefetch, Declare: true, Deliver: in.deliver, Link: func(l outlast.Link) {
		in.change(func() {
			if in.link = l; l.State == outlast.LinkUp {
				in.up++
			}
		})
	}})
	in.stop = background(t, s.Run)
	in.until("subscribed", func() bool { return in.up > 0 })
	return in
}

func (in *inbox) change(f func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	f()
	close(in.news)
	in.news = make(chan struct{})
}

func (in *inbox) deliver(d *outlast.Delivery) {
	var ack bool
	in.change(func() { in.got, ack = append(in.got, d), in.ack })
	if ack {
		d.Ack()
	}
}

func (in *inbox) until(what string, ok func() bool) {
	in.t.Helper()
	timeout := time.After(deadline)
	for {
		in.mu.Lock()
		good, news := ok(), in.news
		in.mu.Unlock()
		if good {
			return
		}
		select {
		case <-news:
		case <-timeout:
			in.mu.Lock()
			defer in.mu.Unlock()
			in.t.Fatalf("not in time: %s (link %v, got %v)", what, in.link, numbers(in.got))
		}
	}
}

// numbersAfter waits for n deliveries and returns their numbers.
func (in *inbox) numbersAfter(n int) []string {
	in.t.Helper()
	in.until(fmt.Sprintf("%d deliveries", n), func() bool { return len(in.got) >= n })
	in.mu.Lock()
	defer in.mu.Unlock()
	return numbers(in.got)
}

func numbers(ds []*outlast.Delivery) []string {
	var ns []string
	for _, d := range ds {
		ns = append(ns, d.Message.Envelope.Subject)
	}
	return ns
}

func count(from, n int) []string {
	var ns []string
	for i := range n {
		ns = append(ns, fmt.Sprint(from+i))
	}
	return ns
}

func brokerAt(s *Server, opts ...nats.Option) outlast.Broker { return nats.Broker(s.URL(), opts...) }
