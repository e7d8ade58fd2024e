package rabbitmq_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
)

func TestSubscriber(t *testing.T) {
	t.Parallel()
	t.Run("gives back in order what was not acknowledged", func(t *testing.T) {
		t.Parallel()
		b := broker(servers.NewVHost(t).URL())
		g := group("billing", "order.placed.v1")
		g.Ordered = true
		first, stop := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true, Prefetch: 20})
		first.link(outlast.LinkUp)
		second, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true, Prefetch: 20})
		second.autoAck = true
		second.link(outlast.LinkUp)
		p, r := publisher(t, b)
		r.link(outlast.LinkUp)
		all := messages(100, "order.placed.v1")
		p.Send(0, all)
		r.all(100)
		first.until("a prefetch", func() bool { return len(first.deliveries) == 20 })
		for _, d := range first.deliveries[:5] {
			d.Ack()
			d.Ack() // the second does nothing
		}
		first.until("room for five more", func() bool { return len(first.deliveries) == 25 })
		stop()
		second.until("the rest", func() bool { return len(second.deliveries) == 95 })
		for i, d := range second.deliveries {
			if d.Message.ID != all[i+5].Message.ID {
				t.Fatalf("delivery %d is out of order", i)
			}
		}
		stale := b.(interface{ StaleAcks() uint64 })
		before := stale.StaleAcks()
		for _, d := range first.deliveries[5:] {
			d.Ack()
		}
		if got := stale.StaleAcks() - before; got != 20 {
			t.Errorf("%d stale acknowledgements counted, want 20", got)
		}
	})

	t.Run("F51_comes back when its queue is deleted", func(t *testing.T) {
		t.Parallel()
		vhost := servers.NewVHost(t)
		b := broker(vhost.URL())
		g := group("billing", "order.placed.v1")
		g.Partitions = 2
		sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Partition: 1, Declare: true})
		sub.autoAck = true
		sub.link(outlast.LinkUp)
		ch := admin(t, vhost.URL())
		if _, err := ch.QueueDelete("billing.1", false, false, false); err != nil {
			t.Fatal(err)
		}
		sub.until("down and up", func() bool { return len(sub.links) >= 3 && sub.links[len(sub.links)-1].State == outlast.LinkUp })
		p, r := publisher(t, b)
		r.link(outlast.LinkUp)
		x := message("order.placed.v1")
		x.RoutingKey = "order.placed.v1.37" // an odd bucket: partition 1
		p.Send(0, []*outlast.Publishing{x})
		if got := r.result(x); got.Outcome != outlast.OutcomeConfirmed {
			t.Errorf("%v, %v", got.Outcome, got.Err)
		}
		sub.until("the message", func() bool { return len(sub.deliveries) == 1 })
		x = message("order.placed.v1")
		x.RoutingKey = "order.placed.v1.36"
		p.Send(0, []*outlast.Publishing{x})
		if got := r.result(x); got.Outcome != outlast.OutcomeUnroutable {
			t.Errorf("the other partition's bucket: %v, %v", got.Outcome, got.Err)
		}
	})

	t.Run("F52_names queue, argument and both values of a conflict", func(t *testing.T) {
		t.Parallel()
		vhost := servers.NewVHost(t)
		b := broker(vhost.URL())
		ch := admin(t, vhost.URL())
		if _, err := ch.QueueDeclare("classic.0", true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := ch.QueueDeclare("small.0", true, false, false, false,
			amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": int64(20)}); err != nil {
			t.Fatal(err)
		}
		apply(t, b, group("unordered", "x.v1"))
		ordered := group("unordered", "x.v1")
		ordered.Ordered = true
		for _, c := range []struct {
			g    outlast.GroupTopology
			want []string
		}{
			{group("classic", "x.v1"), []string{`queue "classic.0"`, "x-queue-type", "quorum"}},
			{group("small", "x.v1"), []string{`queue "small.0"`, "x-delivery-limit", "1000000000", "20"}},
			{ordered, []string{`queue "unordered.0"`, "x-single-active-consumer", "true"}},
		} {
			err := b.Topology().Apply(t.Context(), outlast.Topology{Groups: []outlast.GroupTopology{c.g}})
			wantAll(t, fmt.Sprint(err), c.want)
			if outlast.CodeOf(err) != outlast.CodeConflict {
				t.Errorf("%q: %v", outlast.CodeOf(err), err)
			}
			diffs, err := b.Topology().Check(t.Context(), outlast.Topology{Groups: []outlast.GroupTopology{c.g}})
			if err != nil || len(diffs) != 1 {
				t.Fatalf("check: %v, %v", diffs, err)
			}
			wantAll(t, diffs[0].String(), c.want)
			t.Log(diffs[0], "|", err)
		}
		sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: ordered, Declare: true})
		sub.until("the conflict", func() bool {
			return len(sub.links) > 0 && strings.Contains(sub.links[0].Reason, "x-single-active-consumer")
		})
		if _, err := ch.QueueDelete("unordered.0", false, false, false); err != nil {
			t.Fatal(err)
		}
		sub.link(outlast.LinkUp)
	})

	t.Run("reads foreign messages", func(t *testing.T) {
		t.Parallel()
		vhost := servers.NewVHost(t)
		b := broker(vhost.URL())
		ch := admin(t, vhost.URL())
		if _, err := ch.QueueDeclare("legacy", true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		sub, _ := subscriber(t, b, outlast.SubscriberConfig{Foreign: &outlast.ForeignQueue{
			Queue: "legacy", Type: "legacy.v1", IDHeader: "order-no", KeyHeader: "correlation-id", DeriveID: true}})
		sub.link(outlast.LinkUp)
		deep := amqp.Table{"x": int32(1)}
		for range 12 {
			deep = amqp.Table{"n": deep, "list": []any{int64(1), "two"}}
		}
		for _, m := range []amqp.Publishing{
			{Headers: amqp.Table{"order-no": int64(1 << 40), "when": nil, "price": amqp.Decimal{Scale: 2, Value: 999}}, CorrelationId: "k1", ContentType: "text/plain", Body: []byte("a")},
			{Body: []byte("b")},
			{Body: []byte("b")},
			{Headers: deep, MessageId: "deep", Body: []byte("c")},
			{MessageId: "\xff\x00", Type: "bad\nname", ContentType: "a\x00b", Body: []byte("d")},
		} {
			if err := ch.Publish("", "legacy", true, false, m); err != nil {
				t.Fatal(err)
			}
		}
		sub.until("five", func() bool { return len(sub.deliveries) == 5 })
		d := sub.deliveries
		if m := d[0].Message; d[0].Problem != nil || m.ID != fmt.Sprint(1<<40) || m.Envelope.Key != "k1" || m.Type != "legacy.v1" || m.Source != "legacy" || m.ContentType != "text/plain" {
			t.Errorf("%+v, %v", m, d[0].Problem)
		}
		if d[1].Message.ID == "" || d[1].Message.ID != d[2].Message.ID {
			t.Errorf("derived ids %q and %q", d[1].Message.ID, d[2].Message.ID)
		}
		if d[3].Problem == nil || !strings.Contains(d[3].Problem.Error(), "nested deeper than 8") || string(d[3].Message.Body) != "c" {
			t.Errorf("deep headers: %v", d[3].Problem)
		}
		if d[4].Problem == nil ||
			!clean(d[4].Message.ID+d[4].Message.Type+d[4].Message.ContentType) {
			t.Errorf("unsafe properties: %+v, %v", d[4].Message, d[4].Problem)
		}
		sub.mu.Lock()
		defer sub.mu.Unlock()
		if len(sub.links) != 1 {
			t.Errorf("the connection did not outlive hostile headers: %v", sub.links)
		}
	})
}

func TestTopology(t *testing.T) {
	t.Parallel()
	vhost := servers.NewVHost(t)
	b := broker(vhost.URL())
	g := group("billing", "order.placed.v1")
	g.Partitions, g.Ordered = 2, true
	plain := group("plain", "order.placed.v1")
	want := outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}, {Name: outlast.CommandExchange}}, Groups: []outlast.GroupTopology{g, plain}}
	diffs, err := b.Topology().Check(t.Context(), want)
	if err != nil || len(diffs) != 5 {
		t.Fatalf("before: %v, %v", diffs, err)
	}
	for range 2 {
		if err := b.Topology().Apply(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	if diffs, err = b.Topology().Check(t.Context(), want); err != nil || len(diffs) != 0 {
		t.Errorf("after: %v, %v", diffs, err)
	}
	p, r := publisher(t, b)
	r.link(outlast.LinkUp)
	all := messages(30, "order.placed.v1")
	p.Send(0, all)
	r.all(30)
	for range 2 { // what was looked at is there again, in order
		seen, err := b.Topology().Peek(t.Context(), "plain.0", 10)
		if err != nil || len(seen) != 10 {
			t.Fatalf("peek: %d, %v", len(seen), err)
		}
		for i, d := range seen {
			if d.Message.ID != all[i].Message.ID {
				t.Fatalf("message %d is another one", i)
			}
		}
	}
	if seen, err := b.Topology().Peek(t.Context(), "billing.0", 1); err != nil || len(seen) != 1 {
		t.Errorf("peek into an ordered queue without a consumer: %d, %v", len(seen), err)
	}
	sub, stop := subscriber(t, b, outlast.SubscriberConfig{Group: g, Prefetch: 1})
	sub.until("one", func() bool { return len(sub.deliveries) == 1 })
	if _, err := b.Topology().Peek(t.Context(), "billing.0", 1); outlast.CodeOf(err) != outlast.CodeRefused {
		t.Errorf("peek into an ordered queue with a consumer: %v", err)
	}
	stop()
	if _, err := b.Topology().Peek(t.Context(), "nowhere", 1); outlast.CodeOf(err) != outlast.CodeNotFound {
		t.Errorf("peek into nothing: %v", err)
	}
	depth, err := b.Topology().Depth(t.Context(), "plain.0")
	if err != nil || depth.Messages != 30 {
		t.Errorf("depth %+v, %v", depth, err)
	}
	findings, err := b.Topology().Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Log(f.Level, f.Subject, f.Text, f.Hint)
		if f.Level != outlast.FindingOK {
			t.Errorf("%+v", f)
		}
	}
}

func wantAll(t *testing.T, text string, parts []string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in: %s", part, text)
		}
	}
}

func clean(s string) bool { return utf8.ValidString(s) && !strings.ContainsAny(s, "\x00\n") }
