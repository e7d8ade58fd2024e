package rabbitmq_test

import (
	"errors"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
)

// TestPublisher/tells_returned_from_confirmed is the rule that a returned message is
// never called confirmed, with the two kinds mixed at full speed.
func TestPublisher(t *testing.T) {
	t.Parallel()
	t.Run("tells returned from confirmed", func(t *testing.T) {
		t.Parallel()
		b := broker(servers.NewVHost(t).URL())
		apply(t, b, group("heard", "heard.v1"))
		p, r := publisher(t, b)
		r.link(outlast.LinkUp)

		const n = 10_000
		var all []*outlast.Publishing
		for i := range n {
			typ := "heard.v1"
			if i%3 == 1 {
				typ = "unheard.v1"
			}
			all = append(all, message(typ))
		}
		for i := 0; i < n; i += 100 {
			p.Send(i/100%4, all[i:i+100])
		}
		r.all(n)
		for _, x := range all {
			want := outlast.OutcomeConfirmed
			if x.Message.Type == "unheard.v1" {
				want = outlast.OutcomeUnroutable
			}
			if got := r.result(x); got.Outcome != want {
				t.Fatalf("%s: %v (%v), want %v", x.Message.Type, got.Outcome, got.Err, want)
			}
		}
		depth, err := b.Topology().Depth(t.Context(), "heard.0")
		if err != nil || depth.Messages != n-n/3 {
			t.Errorf("depth %+v, %v; want %d messages", depth, err, n-n/3)
		}
	})

	t.Run("tells nacked from confirmed", func(t *testing.T) {
		t.Parallel()
		vhost := servers.NewVHost(t)
		b := broker(vhost.URL())
		p, r := publisher(t, b)
		r.link(outlast.LinkUp)
		ch := admin(t, vhost.URL())
		args := amqp.Table{"x-max-length": int64(10), "x-overflow": "reject-publish", "x-queue-type": "quorum"}
		if _, err := ch.QueueDeclare("full", true, false, false, false, args); err != nil {
			t.Fatal(err)
		}
		if err := ch.QueueBind("full", "full.v1.*", outlast.EventExchange, false, nil); err != nil {
			t.Fatal(err)
		}
		const n = 2_000
		all := messages(n, "full.v1")
		p.Send(0, all)
		r.all(n)
		tally := r.tally()
		depth, err := b.Topology().Depth(t.Context(), "full")
		if err != nil {
			t.Fatal(err)
		}
		if tally[outlast.OutcomeNacked] == 0 || tally[outlast.OutcomeConfirmed] != depth.Messages || tally[outlast.OutcomeConfirmed]+tally[outlast.OutcomeNacked] != n {
			t.Errorf("outcomes %v, while the queue holds %d", tally, depth.Messages)
		}
	})

	t.Run("blames the route for a missing exchange", func(t *testing.T) {
		t.Parallel()
		b := broker(servers.NewVHost(t).URL())
		apply(t, b, group("heard", "heard.v1"))
		p, r := publisher(t, b)
		r.link(outlast.LinkUp)
		lost := message("heard.v1")
		lost.Exchange = "nowhere"
		p.Send(1, []*outlast.Publishing{lost})
		got := r.result(lost)
		if got.Outcome != outlast.OutcomeLaneError || !got.RouteFault || outlast.CodeOf(got.Err) != outlast.CodeNotFound || !strings.Contains(got.Err.Error(), "nowhere") {
			t.Errorf("%v, route fault %v, %v", got.Outcome, got.RouteFault, got.Err)
		}
		for _, lane := range []int{0, 1} { // another lane, and the same one again
			ok := message("heard.v1")
			p.Send(lane, []*outlast.Publishing{ok})
			if got := r.result(ok); got.Outcome != outlast.OutcomeConfirmed {
				t.Errorf("lane %d: %v, %v", lane, got.Outcome, got.Err)
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.links) != 1 {
			t.Errorf("the connection did not outlive the channel: %v", r.links)
		}
	})

	t.Run("refuses what cannot be encoded", func(t *testing.T) {
		t.Parallel()
		b := broker(servers.NewVHost(t).URL())
		apply(t, b, group("heard", "heard.v1"))
		p, r := publisher(t, b)
		r.link(outlast.LinkUp)
		bad := map[string]*outlast.Publishing{}
		for name, spoil := range map[string]func(*outlast.Publishing){
			"routing_key":    func(p *outlast.Publishing) { p.RoutingKey = strings.Repeat("k", 256) },
			"correlation_id": func(p *outlast.Publishing) { p.Message.CorrelationID = strings.Repeat("c", 256) },
			"headers":        func(p *outlast.Publishing) { p.Message.Headers["big"] = strings.Repeat("h", 131_000) },
			"header CC":      func(p *outlast.Publishing) { p.Message.Headers["CC"] = "other" },
			"header name":    func(p *outlast.Publishing) { p.Message.Headers[strings.Repeat("n", 256)] = "x" },
		} {
			x := message("heard.v1")
			spoil(x)
			bad[name] = x
			p.Send(0, []*outlast.Publishing{x, message("heard.v1")})
		}
		r.all(2 * len(bad))
		for name, x := range bad {
			got := r.result(x)
			var e *outlast.Error
			if got.Outcome != outlast.OutcomeRefused || !errors.As(got.Err, &e) || len(e.Fields) == 0 || e.Fields[0].Field != name {
				t.Errorf("%s: %v, %v", name, got.Outcome, got.Err)
			}
		}
		if n := r.tally()[outlast.OutcomeConfirmed]; n != len(bad) {
			t.Errorf("%d of %d healthy messages were confirmed", n, len(bad))
		}
	})

	t.Run("sends the largest headers and bodies in many frames", func(t *testing.T) {
		t.Parallel()
		b := broker(servers.NewVHost(t).URL())
		g := group("big", "big.v1")
		p, r := publisher(t, b)
		c, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true})
		c.autoAck = true
		c.link(outlast.LinkUp)
		r.link(outlast.LinkUp)
		var all []*outlast.Publishing
		for _, size := range []int{0, 1, 131_064, 131_065, 1 << 20} {
			x := message("big.v1")
			x.Message.Body = []byte(strings.Repeat("b", size))
			x.Message.Headers["big"] = strings.Repeat("h", 30_000)
			all = append(all, x)
		}
		p.Send(0, all)
		r.all(len(all))
		c.until("deliveries", func() bool { return len(c.deliveries) == len(all) })
		for i, d := range c.deliveries {
			want := all[i].Message
			if d.Problem != nil || len(d.Message.Body) != len(want.Body) || d.Message.ID != want.ID || d.Message.Headers["big"] != want.Headers["big"] {
				t.Errorf("message %d: %d bytes, problem %v", i, len(d.Message.Body), d.Problem)
			}
		}
	})

	t.Run("drops a lane without disturbing others", func(t *testing.T) {
		t.Parallel()
		b := broker(servers.NewVHost(t).URL())
		apply(t, b, group("heard", "heard.v1"))
		p, r := publisher(t, b)
		r.link(outlast.LinkUp)
		dropped, kept := messages(3_000, "heard.v1"), messages(1_000, "heard.v1")
		p.Send(0, dropped)
		p.Send(1, kept)
		p.Drop(0)
		p.Drop(7)
		again := messages(10, "heard.v1")
		p.Send(0, again)
		r.all(len(dropped) + len(kept) + len(again))
		for _, x := range append(kept, again...) {
			if got := r.result(x); got.Outcome != outlast.OutcomeConfirmed {
				t.Fatalf("%v, %v", got.Outcome, got.Err)
			}
		}
		for _, x := range dropped {
			if got := r.result(x).Outcome; got != outlast.OutcomeConfirmed && got != outlast.OutcomeUnknown {
				t.Fatalf("dropped: %v", got)
			}
		}
	})
}
