package outlasttest

import (
	"fmt"

	"github.com/outlastmq/outlast"
)

var subscribeTests = []brokerTest{
	{name: "Ack_removes_the_message", run: (*brokerFixture).ackRemoves},
	{name: "F68_Unacked_messages_come_again_in_order", run: (*brokerFixture).redelivers},
	{name: "F50_An_ack_after_its_session_does_nothing", run: (*brokerFixture).lateAck},
	{name: "F66_Prefetch_bounds_what_is_unsettled", run: (*brokerFixture).prefetch},
	{name: "Consumers_of_a_queue_share_it", run: (*brokerFixture).shares},
	{name: "An_ordered_queue_serves_one_consumer_after_the_other", run: (*brokerFixture).singleActive, needs: needsSingleActive},
	{name: "Partitions_get_their_share_of_the_buckets", run: (*brokerFixture).partitions},
	{name: "Every_group_gets_every_event", run: (*brokerFixture).twoGroups},
	{name: "A_foreign_queue_is_understood", run: (*brokerFixture).foreign, needs: needsForeign},
	{name: "A_foreign_message_that_breaks_a_limit_has_a_problem", run: (*brokerFixture).foreignProblem, needs: needsForeign},
	{name: "A_subscriber_waits_for_its_queue", run: (*brokerFixture).waitsForQueue},
	{name: "Links_are_reported", run: (*brokerFixture).links},
}

func (f *brokerFixture) ackRemoves() {
	g := f.group("billing", "placed")
	sub := f.hear(g, 0, 0)
	msgs := f.messages(5, "placed", "k")
	f.publisher().confirm(0, msgs...)
	for _, d := range sub.wait(5) {
		d.Ack()
		d.Ack() // harmless
	}
	last := f.message("placed", "k")
	f.publisher().confirm(0, last) // after it has come, the acks have arrived too
	sub.wait(6)
	sub.stop(f)
	wantDeliveries(f, f.hear(g, 0, 0).wait(1), last)
}

func (f *brokerFixture) redelivers() {
	g := f.group("billing", "placed")
	sub := f.hear(g, 0, 0)
	msgs := f.messages(10, "placed", "k")
	f.publisher().confirm(0, msgs...)
	ds := sub.wait(10)
	wantDeliveries(f, ds, msgs...)
	ds[0].Ack()
	ds[4].Ack()
	left := append(append([]*outlast.Message(nil), msgs[1:4]...), msgs[5:]...)
	sub.stop(f)
	again := f.hear(g, 0, 0)
	ds = again.wait(len(left))
	wantDeliveries(f, ds, left...)
	for _, d := range ds {
		want(f, "redelivered", d.Redelivered, true)
	}
	fresh := f.message("placed", "k")
	f.publisher().confirm(0, fresh)
	want(f, "redelivered a fresh one", again.wait(len(left) + 1)[len(left)].Redelivered, false)
}

func (f *brokerFixture) lateAck() {
	g := f.group("billing", "placed")
	sub := f.hear(g, 0, 0)
	msgs := f.messages(3, "placed", "k")
	f.publisher().confirm(0, msgs...)
	old := sub.wait(3)
	sub.stop(f)
	again := f.hear(g, 0, 0)
	wantDeliveries(f, again.wait(3), msgs...)
	for _, d := range old {
		d.Ack() // its number may be that of another message on the new session
	}
	again.settled()
	again.stop(f)
	wantDeliveries(f, f.hear(g, 0, 0).wait(3), msgs...)
}

func (f *brokerFixture) prefetch() {
	g := f.group("billing", "placed")
	sub := f.hear(g, 0, 5)
	msgs := f.messages(20, "placed", "k")
	f.publisher().confirm(0, msgs...)
	sub.wait(5)
	want(f, "deliveries without an ack", len(sub.settled()), 5)
	sub.deliveries()[0].Ack()
	sub.wait(6)
	want(f, "deliveries after one ack", len(sub.settled()), 6)
	for i := 1; i < len(msgs); i++ {
		sub.f.eventually("the next one comes", func() bool { return len(sub.deliveries()) > i })
		sub.deliveries()[i].Ack()
	}
	wantDeliveries(f, sub.wait(20), msgs...)
}

func (f *brokerFixture) shares() {
	g := f.group("billing", "placed")
	one, two := f.hear(g, 0, 1), f.hear(g, 0, 1)
	f.publisher().confirm(0, f.messages(20, "placed", "")...)
	one.wait(1)
	two.wait(1) // with one unsettled each, neither can take everything
	seen := map[string]bool{}
	acked := map[*outlast.Delivery]bool{}
	f.eventually("all have come", func() bool {
		for _, s := range []*testSubscriber{one, two} {
			for _, d := range s.deliveries() {
				if !acked[d] {
					if seen[d.Message.ID] {
						f.Fatalf("message %s came twice", d.Message.ID)
					}
					acked[d], seen[d.Message.ID] = true, true
					d.Ack()
				}
			}
		}
		return len(seen) == 20
	})
}

func (f *brokerFixture) singleActive() {
	g := f.group("billing", "placed")
	g.Ordered = true
	first := f.hear(g, 0, 10)
	second := f.hear(g, 0, 10)
	msgs := f.messages(20, "placed", "k")
	pub := f.publisher()
	pub.confirm(0, msgs[:15]...)
	ds := first.wait(10)
	wantDeliveries(f, ds, msgs[:10]...)
	want(f, "deliveries to the second consumer", len(second.settled()), 0)
	for _, d := range ds[:4] {
		d.Ack()
	}
	first.wait(14)
	first.stop(f)
	pub.confirm(0, msgs[15:]...)
	for i := 4; i < 20; i++ {
		f.eventually("the second consumer takes over", func() bool { return len(second.deliveries()) > i-4 })
		d := second.deliveries()[i-4]
		want(f, fmt.Sprintf("message %d", i), d.Message.ID, msgs[i].ID)
		want(f, "redelivered", d.Redelivered, i < 14)
		d.Ack()
	}
}

func (f *brokerFixture) partitions() {
	g := f.group("billing", "placed", "cancelled")
	g.Partitions = 4
	subs := make([]*testSubscriber, g.Partitions)
	for p := range subs {
		subs[p] = f.hear(g, p, 0)
	}
	pub := f.publisher()
	wanted := make([][]*outlast.Message, g.Partitions)
	for i := range 100 {
		m := f.message([]string{"placed", "cancelled"}[i%2], fmt.Sprintf("key-%d", i))
		if i%10 == 0 {
			m = f.message("placed", "")
		}
		p := outlast.Bucket(m.Envelope.Key, m.ID) % g.Partitions
		wanted[p] = append(wanted[p], m)
		pub.confirm(0, m)
	}
	for p, sub := range subs {
		if len(wanted[p]) < 5 {
			f.Fatalf("the test has only %d messages for partition %d", len(wanted[p]), p)
		}
		wantDeliveries(f, sub.wait(len(wanted[p])), wanted[p]...)
		want(f, "queue", sub.deliveries()[0].Queue, g.Queue(p))
	}
	for p, sub := range subs {
		want(f, "deliveries afterwards", len(sub.deliveries()), len(wanted[p]))
	}
}

func (f *brokerFixture) twoGroups() {
	billing, shipping := f.group("billing", "placed"), f.group("shipping", "placed", "cancelled")
	one, two := f.hear(billing, 0, 0), f.hear(shipping, 0, 0)
	pub := f.publisher()
	msgs := f.messages(10, "placed", "k")
	cancelled := f.message("cancelled", "k")
	pub.confirm(0, msgs...)
	pub.confirm(0, cancelled)
	wantDeliveries(f, one.wait(10), msgs...)
	wantDeliveries(f, two.wait(11), append(msgs, cancelled)...)
	want(f, "deliveries to the group that does not handle it", len(one.settled()), 10)
}

func (f *brokerFixture) foreignQueue(queue string) *outlast.ForeignQueue {
	return &outlast.ForeignQueue{Queue: queue, Type: "legacy.order.v1", IDHeader: "message-id", KeyHeader: "customer", DeriveID: true}
}

func (f *brokerFixture) foreign() {
	queue := "legacy-" + f.id
	f.must(f.u.DeclareForeign(f.ctx, queue))
	sub := f.subscribe(outlast.SubscriberConfig{Foreign: f.foreignQueue(queue), Prefetch: 100})
	sub.waitLink(outlast.LinkUp)
	with := []outlast.WireHeader{{Name: "message-id", Value: "order/17"}, {Name: "customer", Value: "c9"}, {Name: "colour", Value: "blau"}}
	body := []byte("<order/>")
	f.must(f.u.PublishForeign(f.ctx, queue, with, "text/xml", body))
	for range 2 {
		f.must(f.u.PublishForeign(f.ctx, queue, nil, "text/xml", body))
	}
	f.must(f.u.PublishForeign(f.ctx, queue, nil, "text/xml", []byte("<other/>")))
	ds := sub.wait(4)
	m := ds[0].Message
	want(f, "problem", ds[0].Problem, nil)
	want(f, "id", m.ID, "order/17")
	want(f, "key", m.Envelope.Key, "c9")
	want(f, "type", m.Type, "legacy.order.v1")
	want(f, "source", m.Source, queue)
	want(f, "header", m.Headers["colour"], "blau")
	want(f, "content type", m.ContentType, "text/xml")
	want(f, "body", string(m.Body), "<order/>")
	if ds[1].Message.ID == "" || ds[1].Message.ID != ds[2].Message.ID || ds[1].Message.ID == ds[3].Message.ID {
		f.Fatalf("derived ids: %q and %q of one content, %q of another", ds[1].Message.ID, ds[2].Message.ID, ds[3].Message.ID)
	}
	for _, d := range ds {
		d.Ack()
	}
}

func (f *brokerFixture) foreignProblem() {
	queue := "legacy-" + f.id
	f.must(f.u.DeclareForeign(f.ctx, queue))
	bad := []outlast.WireHeader{{Name: "ce-time", Value: "yesterday"}, {Name: "message-id", Value: "7"}}
	f.must(f.u.PublishForeign(f.ctx, queue, bad, "text/plain", []byte("x")))
	f.must(f.u.PublishForeign(f.ctx, queue, bad[1:], "text/plain", []byte("y")))
	sub := f.subscribe(outlast.SubscriberConfig{Foreign: f.foreignQueue(queue), Prefetch: 100})
	ds := sub.wait(2)
	want(f, "code", outlast.CodeOf(ds[0].Problem), outlast.CodeInvalid)
	want(f, "body", string(ds[0].Message.Body), "x")
	want(f, "problem of the other", ds[1].Problem, nil)
}

func (f *brokerFixture) waitsForQueue() {
	f.apply()
	g := f.group("billing", "placed")
	sub := f.subscribe(outlast.SubscriberConfig{Group: g, Prefetch: 10})
	sub.waitLink(outlast.LinkDown)
	if sub.link().Reason == "" {
		f.Fatalf("a link that is down gives no reason")
	}
	f.apply(g)
	sub.waitLink(outlast.LinkUp)
	m := f.message("placed", "")
	f.publisher().confirm(0, m)
	wantDeliveries(f, sub.wait(1), m)
}

func (f *brokerFixture) links() {
	g := f.group("billing", "placed")
	sub, pub := f.hear(g, 0, 1), f.publisher()
	for _, l := range []outlast.Link{sub.link(), pub.link()} {
		want(f, "state", l.State, outlast.LinkUp)
		if l.Since.IsZero() {
			f.Fatalf("the link does not say since when")
		}
	}
	sub.stop(f)
	pub.stop(f)
	want(f, "the subscriber's link after its end", sub.link().State, outlast.LinkDown)
	want(f, "the publisher's link after its end", pub.link().State, outlast.LinkDown)
}
