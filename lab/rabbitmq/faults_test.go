package rabbitmq_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
)

// TestF48_KilledNode: what was in flight is unknown, nothing is called confirmed that the
// broker has not got, and everything flows again when the node is back.
func TestF48_KilledNode(t *testing.T) {
	t.Parallel()
	c := cluster(t, "")
	b := broker(c.URL())
	g := group("billing", "order.placed.v1")
	sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true, Prefetch: 1000})
	sub.autoAck = true
	p, r := publisher(t, b)
	sub.link(outlast.LinkUp)
	r.link(outlast.LinkUp)
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	var all []*outlast.Publishing
	for range 10 {
		batch := messages(2_000, "order.placed.v1")
		all = append(all, batch...)
		p.Send(0, batch)
	}
	r.until("some confirms", func() bool { return len(r.results) > 1_000 })
	if err := c.Node(0).Kill(); err != nil {
		t.Fatal(err)
	}
	r.link(outlast.LinkDown)
	sub.link(outlast.LinkDown)
	r.all(len(all))
	tally := r.tally()
	if tally[outlast.OutcomeUnknown] == 0 || tally[outlast.OutcomeConfirmed]+tally[outlast.OutcomeUnknown]+tally[outlast.OutcomeNotSent] != len(all) {
		t.Errorf("outcomes %v", tally)
	}
	down := message("order.placed.v1")
	p.Send(0, []*outlast.Publishing{down})
	if got := r.result(down).Outcome; got != outlast.OutcomeNotSent {
		t.Errorf("while down: %v", got)
	}

	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.link(outlast.LinkUp)
	sub.link(outlast.LinkUp)
	var again []*outlast.Publishing
	for _, x := range append(all, down) {
		if r.result(x).Outcome != outlast.OutcomeConfirmed {
			copy := *x
			again = append(again, &copy)
		}
	}
	p.Send(0, again)
	for _, x := range again {
		if got := r.result(x); got.Outcome != outlast.OutcomeConfirmed {
			t.Fatalf("sent again: %v, %v", got.Outcome, got.Err)
		}
	}
	seen := map[string]bool{}
	sub.until("every message", func() bool {
		for _, d := range sub.deliveries {
			seen[d.Message.ID] = true
		}
		return len(seen) == len(all)+1
	})
}

// TestBlocked: a resource alarm is shown, and Send does not wait for its end.
func TestBlocked(t *testing.T) {
	t.Parallel()
	c := cluster(t, "")
	b := broker(c.URL())
	apply(t, b, group("heard", "heard.v1"))
	p, r := publisher(t, b)
	r.link(outlast.LinkUp)
	if _, err := c.Ctl(t.Context(), "set_vm_memory_high_watermark", "0.00000001"); err != nil {
		t.Fatal(err)
	}
	first := message("heard.v1") // the broker tells a connection when it publishes
	p.Send(0, []*outlast.Publishing{first})
	r.link(outlast.LinkBlocked)
	r.mu.Lock()
	reason := r.links[len(r.links)-1].Reason
	r.mu.Unlock()
	if !strings.Contains(reason, "memory") {
		t.Errorf("reason %q", reason)
	}
	batch := messages(5_000, "heard.v1")
	p.Send(0, batch)
	p.Send(5, batch[:0])
	for _, x := range batch {
		if got := r.result(x); got.Outcome != outlast.OutcomeNotSent || outlast.CodeOf(got.Err) != outlast.CodeUnavailable {
			t.Fatalf("while blocked: %v, %v", got.Outcome, got.Err)
		}
	}
	findings, err := b.Topology().Examine(t.Context())
	if err != nil || len(findings) == 0 {
		t.Errorf("examine: %v, %v", findings, err)
	}
	if _, err := c.Ctl(t.Context(), "set_vm_memory_high_watermark", "0.4"); err != nil {
		t.Fatal(err)
	}
	r.link(outlast.LinkUp)
	if got := r.result(first); got.Outcome != outlast.OutcomeConfirmed && got.Outcome != outlast.OutcomeNotSent {
		t.Errorf("the message that met the alarm: %v, %v", got.Outcome, got.Err)
	}
	last := message("heard.v1")
	p.Send(0, []*outlast.Publishing{last})
	if got := r.result(last); got.Outcome != outlast.OutcomeConfirmed {
		t.Errorf("after the alarm: %v, %v", got.Outcome, got.Err)
	}
}

// TestBlockedStop: Run returns although the broker reads nothing.
func TestBlockedStop(t *testing.T) {
	t.Parallel()
	c := cluster(t, "")
	b := broker(c.URL())
	apply(t, b, group("heard", "heard.v1"))
	r := newRecorder(t)
	p := b.Publisher(outlast.PublisherConfig{Results: r.onResults, Link: r.onLink, Logger: quiet})
	stop := start(t, p.Run)
	r.link(outlast.LinkUp)
	if _, err := c.Ctl(t.Context(), "set_vm_memory_high_watermark", "0.00000001"); err != nil {
		t.Fatal(err)
	}
	var all []*outlast.Publishing
	for range 20 {
		x := message("heard.v1")
		x.Message.Body = make([]byte, 1<<20)
		all = append(all, x)
	}
	p.Send(0, all)
	r.link(outlast.LinkBlocked)
	stop()
	r.all(len(all))
}

// TestF42_TooLargeBody: the broker closes the lane, and says nothing about the route.
func TestF42_TooLargeBody(t *testing.T) {
	t.Parallel()
	c := cluster(t, "max_message_size = 65536")
	b := broker(c.URL())
	apply(t, b, group("heard", "heard.v1"))
	p, r := publisher(t, b)
	r.link(outlast.LinkUp)
	large := message("heard.v1")
	large.Message.Body = make([]byte, 70_000)
	p.Send(0, []*outlast.Publishing{large})
	other := message("heard.v1")
	p.Send(1, []*outlast.Publishing{other})
	got := r.result(large)
	if got.Outcome != outlast.OutcomeLaneError || got.RouteFault || !strings.Contains(got.Err.Error(), "larger than") {
		t.Errorf("%v, route fault %v, %v", got.Outcome, got.RouteFault, got.Err)
	}
	if got := r.result(other); got.Outcome != outlast.OutcomeConfirmed {
		t.Errorf("the other lane: %v, %v", got.Outcome, got.Err)
	}
}

// TestDeniedRoute: a missing right to publish is the route's fault.
func TestDeniedRoute(t *testing.T) {
	t.Parallel()
	c := cluster(t, "")
	b := broker(c.URL())
	apply(t, b, group("heard", "heard.v1"))
	ctl(t, c, "add_user", "poor", "pw")
	ctl(t, c, "set_permissions", "poor", "^$", "^$", ".*")
	poor := broker(strings.Replace(c.URL(), "guest:guest", "poor:pw", 1))
	p, r := publisher(t, poor)
	r.link(outlast.LinkUp) // although it may not declare
	x := message("heard.v1")
	p.Send(0, []*outlast.Publishing{x})
	if got := r.result(x); got.Outcome != outlast.OutcomeLaneError || !got.RouteFault || outlast.CodeOf(got.Err) != outlast.CodeDenied {
		t.Errorf("%v, route fault %v, %v", got.Outcome, got.RouteFault, got.Err)
	}
	findings, err := poor.Topology().Examine(t.Context())
	if err != nil || !slices.ContainsFunc(findings, func(f outlast.Finding) bool { return f.Level == outlast.FindingWarn }) {
		t.Errorf("examine: %v, %v", findings, err)
	}
	sub, _ := subscriber(t, poor, outlast.SubscriberConfig{Group: group("heard", "heard.v1"), Declare: true})
	sub.until("a refusal", func() bool {
		return len(sub.links) > 0 && sub.links[0].State == outlast.LinkDown && strings.Contains(sub.links[0].Reason, "ACCESS_REFUSED")
	})
}

func ctl(t *testing.T, c *servers.RabbitCluster, args ...string) {
	t.Helper()
	if _, err := c.Ctl(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

// TestF54_F53_NothingLeaks: goroutines and files are flat over many lost connections.
func TestF54_F53_NothingLeaks(t *testing.T) {
	c := cluster(t, "")
	b := broker(c.URL())
	g := group("billing", "order.placed.v1")
	sub, stopSub := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true})
	sub.autoAck = true
	r := newRecorder(t)
	p := b.Publisher(outlast.PublisherConfig{Results: r.onResults, Link: r.onLink, Logger: quiet})
	stopPub := start(t, p.Run)

	cycle := func(i int) {
		sub.link(outlast.LinkUp)
		r.link(outlast.LinkUp)
		p.Send(0, messages(50, "order.placed.v1"))
		p.Send(1, messages(50, "order.placed.v1"))
		subs, pubs := count(sub), count(r)
		ctl(t, c, "close_all_connections", "test")
		sub.until("loss", func() bool { return len(sub.links) > subs })
		r.until("loss", func() bool { return len(r.links) > pubs })
	}
	settle := func() (int, int) {
		sub.link(outlast.LinkUp)
		r.link(outlast.LinkUp)
		time.Sleep(100 * time.Millisecond) // what is ending ends; too short a wait only makes the test stricter
		runtime.GC()
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(files)
	}
	for i := range 5 {
		cycle(i)
	}
	goroutines, files := settle()
	for i := range 45 {
		cycle(i)
	}
	if g2, f2 := settle(); g2 > goroutines+5 || f2 > files+3 {
		t.Errorf("after 45 more losses: goroutines %d -> %d, files %d -> %d", goroutines, g2, files, f2)
	}
	stopSub()
	stopPub()
}

func count(r *recorder) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.links)
}

// TestS23_ErrorsHoldNoSecret: what a person reads about a failed login names the cause
// and not the password.
func TestS23_ErrorsHoldNoSecret(t *testing.T) {
	t.Parallel()
	url := servers.SharedRabbitMQ(t).URL()
	for name, bad := range map[string]string{
		"password": strings.Replace(url, "guest:guest", "guest:hunter2", 1),
		"vhost":    strings.Replace(url, "guest:guest", "guest:guest", 1) + "hunter1-missing",
		"port":     strings.Replace(url, "guest:guest", "guest:hunter2", 1)[:strings.LastIndex(url, ":")+2] + "1/",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := broker(bad)
			_, err := b.Topology().Depth(t.Context(), "q")
			if err == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, b), "hunter2") {
				t.Errorf("%v", err)
			}
			want := outlast.CodeDenied
			if name == "port" {
				want = outlast.CodeUnavailable
			}
			if outlast.CodeOf(err) != want {
				t.Errorf("%q: %v", outlast.CodeOf(err), err)
			}
			t.Log(err)
		})
	}
}
