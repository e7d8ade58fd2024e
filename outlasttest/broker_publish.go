package outlasttest

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

var publishTests = []brokerTest{
	{name: "A_message_arrives_as_it_was_sent", run: (*brokerFixture).arrives},
	{name: "Bodies_of_all_sizes_arrive", run: (*brokerFixture).bodies},
	{name: "F33_Unroutable_is_reported_and_never_confirmed", run: (*brokerFixture).unroutable},
	{name: "F45_Many_in_flight_resolve_each_once", run: (*brokerFixture).manyInFlight},
	{name: "A_lane_keeps_its_order", run: (*brokerFixture).laneOrder},
	{name: "Lanes_fail_apart", run: (*brokerFixture).lanesApart},
	{name: "Drop_resolves_what_is_open_and_frees_the_lane", run: (*brokerFixture).drop},
	{name: "The_end_of_a_publisher_resolves_everything", run: (*brokerFixture).publisherEnds},
}

// whole makes a message with every field that travels.
func (f *brokerFixture) whole() *outlast.Message {
	m := full()
	m.Kind = outlast.KindEvent
	m.Type = f.typ("placed")
	m.Source = "orders"
	m.EnqueuedAt = time.Date(2031, 2, 3, 4, 5, 7, 123_456_000, time.UTC)
	m.ExpiresAt = m.EnqueuedAt.Add(time.Hour)
	m.SettledBefore = m.EnqueuedAt.Add(-time.Hour)
	return m
}

// wantArrived compares with what was sent. A message without a time travels with
// that of its enqueue.
func wantArrived(f *brokerFixture, d *outlast.Delivery, m *outlast.Message) {
	f.Helper()
	if d.Problem != nil {
		f.Fatalf("problem: %v", d.Problem)
	}
	sent := *m
	if sent.Time.IsZero() {
		sent.Time = sent.EnqueuedAt
	}
	wantMessage(f, d.Message, &sent)
	want(f, "source", d.Message.Source, m.Source)
	for name, x := range map[string][2]time.Time{
		"enqueued": {d.Message.EnqueuedAt, m.EnqueuedAt}, "expires": {d.Message.ExpiresAt, m.ExpiresAt},
		"settled before": {d.Message.SettledBefore, m.SettledBefore},
	} {
		if !x[0].Equal(x[1]) {
			f.Fatalf("%s: got %v, want %v", name, x[0], x[1])
		}
	}
}

func (f *brokerFixture) arrives() {
	g := f.group("billing", "placed")
	sub := f.hear(g, 0, 0)
	pub := f.publisher()
	m, plain := f.whole(), f.message("placed", "")
	crowded := f.message("placed", "k")
	crowded.Headers = outlast.Headers{}
	for i := range outlast.MaxHeaders {
		crowded.Headers[fmt.Sprintf("name-%03d", i)] = strings.Repeat("ü", 100)
	}
	sent := maps.Clone(crowded.Headers)
	pub.confirm(0, m, plain, crowded)
	ds := sub.wait(3)
	wantArrived(f, ds[0], m)
	wantArrived(f, ds[1], plain)
	wantArrived(f, ds[2], crowded)
	want(f, "headers", maps.Equal(ds[2].Message.Headers, sent), true)
	for _, d := range ds {
		want(f, "queue", d.Queue, g.Queue(0))
		want(f, "redelivered", d.Redelivered, false)
		// Some brokers have no exchanges: theirs is the beginning of the key.
		want(f, "place", strings.TrimPrefix(d.Exchange+"."+d.RoutingKey, "."), d.Message.Route().Exchange+"."+d.Message.Address())
		d.Ack()
	}
}

func (f *brokerFixture) bodies() {
	g := f.group("billing", "placed")
	sub := f.hear(g, 0, 0)
	pub := f.publisher()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for i, body := range [][]byte{
		{}, {0}, every, []byte(`{"a":"\u0000"}`), bytes.Repeat(every, 16), bytes.Repeat(every, 512),
		bytes.Repeat(every, outlast.DefaultMaxBody/256),
	} {
		m := f.message("placed", "")
		m.Body = body
		pub.confirm(0, m)
		d := sub.wait(i + 1)[i]
		wantArrived(f, d, m)
		d.Ack()
	}
}

func (f *brokerFixture) unroutable() {
	f.apply()
	pub := f.publisher()
	lost := f.message("placed", "k")
	r := pub.outcome(pub.send(0, lost)[0])
	want(f, "outcome with no queue", r.Outcome, outlast.OutcomeUnroutable)
	g := f.group("billing", "placed")
	f.apply(g)
	f.eventually("a bound queue makes it routable", func() bool {
		return pub.outcome(pub.send(0, lost)[0]).Outcome == outlast.OutcomeConfirmed
	})
	sub := f.hear(g, 0, 0)
	wantDeliveries(f, sub.wait(1), lost)
	other := f.message("cancelled", "k")
	want(f, "outcome of another type", pub.outcome(pub.send(0, other)[0]).Outcome, outlast.OutcomeUnroutable)
}

func (f *brokerFixture) manyInFlight() {
	g := f.group("billing", "placed")
	sub := f.hear(g, 0, 5000)
	pub := f.publisher()
	const n = 1200
	var ps []*outlast.Publishing
	confirmed := map[string]bool{}
	for i := 0; i < n; i += 40 {
		lane := i / 40 % 2
		msgs := f.messages(39, "placed", "")
		msgs = append(msgs[:20:20], append([]*outlast.Message{f.message("unheard", "")}, msgs[20:]...)...)
		ps = append(ps, pub.send(lane, msgs...)...)
	}
	counts := pub.wantOneResultEach(ps)
	want(f, "confirmed", counts[outlast.OutcomeConfirmed], n-n/40)
	want(f, "unroutable", counts[outlast.OutcomeUnroutable], n/40)
	for _, p := range ps {
		heard := p.Message.Type == f.typ("placed")
		want(f, "confirmed "+p.Message.Type, pub.outcome(p).Outcome == outlast.OutcomeConfirmed, heard)
		if heard {
			confirmed[p.Message.ID] = true
		}
	}
	for _, d := range sub.wait(len(confirmed)) {
		if !confirmed[d.Message.ID] {
			f.Fatalf("message %s came twice or was never confirmed", d.Message.ID)
		}
		delete(confirmed, d.Message.ID)
	}
}

func (f *brokerFixture) laneOrder() {
	g := f.group("billing", "placed")
	sub := f.hear(g, 0, 1000)
	pub := f.publisher()
	msgs := f.messages(300, "placed", "k")
	for i := 0; i < len(msgs); i += 7 {
		pub.send(3, msgs[i:min(i+7, len(msgs))]...)
	}
	wantDeliveries(f, sub.wait(len(msgs)), msgs...)
}

func (f *brokerFixture) lanesApart() {
	g := f.group("billing", "placed")
	f.apply(g)
	pub := f.publisher()
	astray := f.message("placed", "")
	astray.Exchange = "no.such.exchange." + f.id
	for range 3 {
		bad := pub.send(0, astray)[0]
		pub.confirm(1, f.messages(5, "placed", "")...)
		r := pub.outcome(bad)
		switch r.Outcome {
		case outlast.OutcomeLaneError:
			want(f, "fault of the route", r.RouteFault, true)
		case outlast.OutcomeUnroutable, outlast.OutcomeNacked, outlast.OutcomeRefused: // a broker without exchanges
		default:
			f.Fatalf("a message to an exchange that is not there: %s, %v", r.Outcome, r.Err)
		}
	}
	pub.confirm(0, f.message("placed", "")) // the lane opens again
	want(f, "link", pub.link().State, outlast.LinkUp)
}

func (f *brokerFixture) drop() {
	g := f.group("billing", "placed")
	f.apply(g)
	pub := f.publisher()
	var all []*outlast.Publishing
	for range 3 {
		ps := pub.send(0, f.messages(300, "placed", "")...)
		pub.p.Drop(0)
		all = append(all, ps...)
		beside := pub.send(1, f.message("placed", ""))
		counts := pub.wantOneResultEach(ps)
		if n := counts[outlast.OutcomeConfirmed] + counts[outlast.OutcomeUnknown] + counts[outlast.OutcomeNotSent]; n != len(ps) {
			f.Fatalf("outcomes of a dropped lane: %v", counts)
		}
		want(f, "outcome on the other lane", pub.outcome(beside[0]).Outcome, outlast.OutcomeConfirmed)
	}
	pub.p.Drop(77) // never used
	pub.confirm(0, f.message("placed", ""))
	pub.stop(f)
	for _, p := range all { // the end does not resolve them again
		pub.outcome(p)
	}
}

func (f *brokerFixture) publisherEnds() {
	g := f.group("billing", "placed")
	f.apply(g)
	pub := f.publisher()
	ps := pub.send(0, f.messages(300, "placed", "")...)
	pub.stop(f)
	for _, p := range ps { // Run has returned: everything was reported
		pub.mu.Lock()
		n := len(pub.results[p])
		pub.mu.Unlock()
		want(f, "results", n, 1)
		if o := pub.outcome(p).Outcome; o != outlast.OutcomeConfirmed && o != outlast.OutcomeUnknown && o != outlast.OutcomeNotSent {
			f.Fatalf("outcome %s", o)
		}
	}
}
