package outlasttest

import (
	"strings"

	"github.com/outlastmq/outlast"
)

var topologyTests = []brokerTest{
	{name: "Topology_Apply_brings_what_Check_misses", run: (*brokerFixture).applyTopology},
	{name: "Topology_Apply_changes_nothing_that_exists", run: (*brokerFixture).applyConflict, needs: needsSingleActive},
	{name: "Topology_Depth_counts_messages_and_consumers", run: (*brokerFixture).queueDepth},
	{name: "Topology_Peek_takes_nothing", run: (*brokerFixture).peek},
	{name: "Topology_Examine_finds_something_to_say", run: (*brokerFixture).examine},
}

var outageTests = []brokerTest{
	{name: "Confirmed_messages_survive_a_restart", run: (*brokerFixture).restart, needs: needsOutage},
	{name: "Without_a_connection_nothing_is_sent", run: (*brokerFixture).outage, needs: needsOutage},
	{name: "F48_Subscribers_come_back_after_an_outage", run: (*brokerFixture).resubscribe, needs: needsOutage},
}

func (f *brokerFixture) check(groups ...outlast.GroupTopology) []outlast.TopologyDifference {
	f.Helper()
	diffs, err := f.b.Topology().Check(f.ctx, topologyOf(groups...))
	f.must(err)
	return diffs
}

func (f *brokerFixture) applyTopology() {
	g := f.group("billing", "placed", "cancelled")
	g.Partitions = 3
	diffs := f.check(g)
	if len(diffs) == 0 {
		f.Fatalf("nothing is declared, but nothing is missing")
	}
	named := false
	for _, d := range diffs {
		named = named || strings.Contains(d.String(), g.Queue(0))
	}
	want(f, "the missing queue is named", named, true)
	f.apply(g)
	if diffs := f.check(g); len(diffs) > 0 {
		f.Fatalf("after Apply: %v", diffs)
	}
	f.apply(g)
	more := f.group("billing", "placed", "cancelled", "renamed")
	more.Partitions = 3
	if diffs := f.check(more); len(diffs) == 0 {
		f.Fatalf("a binding is missing, but no difference is shown")
	}
	f.apply(more)
	if diffs := f.check(more); len(diffs) > 0 {
		f.Fatalf("after the second Apply: %v", diffs)
	}
}

func (f *brokerFixture) applyConflict() {
	g := f.group("billing", "placed")
	f.apply(g)
	m := f.message("placed", "k")
	f.publisher().confirm(0, m)
	ordered := g
	ordered.Ordered = true
	if diffs := f.check(ordered); len(diffs) == 0 {
		f.Fatalf("a queue with other arguments shows no difference")
	}
	err := f.b.Topology().Apply(f.ctx, topologyOf(ordered))
	want(f, "code", outlast.CodeOf(err), outlast.CodeConflict)
	if !strings.Contains(err.Error(), g.Queue(0)) {
		f.Fatalf("the error does not name the queue: %v", err)
	}
	wantDeliveries(f, f.hear(g, 0, 0).wait(1), m) // it is as it was
	sub := f.subscribe(outlast.SubscriberConfig{Group: ordered, Prefetch: 1, Declare: true})
	sub.waitLink(outlast.LinkDown)
	ordered.Generation = 2
	f.apply(ordered)
}

func (f *brokerFixture) queueDepth() {
	g := f.group("billing", "placed")
	_, err := f.b.Topology().Depth(f.ctx, g.Queue(0))
	want(f, "code for a queue that is not there", outlast.CodeOf(err), outlast.CodeNotFound)
	f.apply(g)
	f.depth(g.Queue(0), 0)
	f.publisher().confirm(0, f.messages(7, "placed", "k")...)
	f.depth(g.Queue(0), 7)
	sub := f.hear(g, 0, 3)
	f.eventually("the consumer is counted", func() bool {
		d, err := f.b.Topology().Depth(f.ctx, g.Queue(0))
		f.must(err)
		return d.Consumers == 1 && d.Queue == g.Queue(0)
	})
	sub.wait(3)
	f.depth(g.Queue(0), 4)
}

func (f *brokerFixture) peek() {
	g := f.group("billing", "placed")
	f.apply(g)
	msgs := []*outlast.Message{f.whole(), f.message("placed", "k"), f.message("placed", "k")}
	f.publisher().confirm(0, msgs...)
	for _, n := range []int{2, 3, 10} {
		f.depth(g.Queue(0), 3) // what an earlier look took comes back in a moment, and only then in order
		var ds []*outlast.Delivery
		f.eventually("the messages can be seen", func() bool {
			var err error
			ds, err = f.b.Topology().Peek(f.ctx, g.Queue(0), n)
			f.must(err)
			return len(ds) >= min(n, 3)
		})
		wantDeliveries(f, ds, msgs[:min(n, 3)]...)
		wantArrived(f, ds[0], msgs[0])
		ds[0].Ack() // takes nothing either
	}
	f.depth(g.Queue(0), 3)
	wantDeliveries(f, f.hear(g, 0, 0).wait(3), msgs...)
}

func (f *brokerFixture) examine() {
	findings, err := f.b.Topology().Examine(f.ctx)
	f.must(err)
	if len(findings) == 0 {
		f.Fatalf("no findings at all")
	}
	for _, x := range findings {
		if x.Subject == "" || x.Text == "" || x.Level == "" {
			f.Fatalf("a finding without a subject, a level or a text: %+v", x)
		}
	}
	if f.b.Name() == "" || f.b.Address() == "" {
		f.Fatalf("name %q, address %q", f.b.Name(), f.b.Address())
	}
}

func (f *brokerFixture) restart() {
	g := f.group("billing", "placed")
	f.apply(g)
	pub := f.publisher()
	msgs := f.messages(50, "placed", "k")
	pub.confirm(0, msgs...)
	f.must(f.u.Stop(f.ctx))
	pub.waitLink(outlast.LinkDown)
	f.must(f.u.Start(f.ctx))
	pub.waitLink(outlast.LinkUp)
	after := f.message("placed", "k")
	pub.confirm(0, after)
	wantDeliveries(f, f.hear(g, 0, 0).wait(51), append(msgs, after)...)
}

func (f *brokerFixture) outage() {
	g := f.group("billing", "placed")
	f.apply(g)
	pub := f.publisher()
	f.must(f.u.Stop(f.ctx))
	pub.waitLink(outlast.LinkDown)
	if pub.link().Reason == "" {
		f.Fatalf("a link that is down gives no reason")
	}
	ps := pub.send(0, f.messages(20, "placed", "k")...)
	want(f, "not sent", pub.wantOneResultEach(ps)[outlast.OutcomeNotSent], 20)
	_, err := f.b.Topology().Depth(f.ctx, g.Queue(0))
	want(f, "code", outlast.CodeOf(err), outlast.CodeUnavailable)
	f.must(f.u.Start(f.ctx))
	pub.waitLink(outlast.LinkUp)
	m := f.message("placed", "k")
	pub.confirm(0, m)
	wantDeliveries(f, f.hear(g, 0, 0).wait(1), m)
}

func (f *brokerFixture) resubscribe() {
	g := f.group("billing", "placed")
	sub := f.hear(g, 0, 0)
	pub := f.publisher()
	first, second := f.message("placed", "k"), f.message("placed", "k")
	pub.confirm(0, first)
	old := sub.wait(1)[0]
	f.must(f.u.Stop(f.ctx))
	sub.waitLink(outlast.LinkDown)
	old.Ack() // too late
	f.must(f.u.Start(f.ctx))
	sub.waitLink(outlast.LinkUp)
	pub.waitLink(outlast.LinkUp)
	pub.confirm(0, second)
	ds := sub.wait(3)
	wantDeliveries(f, ds[1:], first, second)
	want(f, "redelivered", ds[1].Redelivered, true)
	want(f, "redelivered the other", ds[2].Redelivered, false)
}
