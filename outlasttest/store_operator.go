package outlasttest

import (
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

var operatorTests = []storeTest{
	{name: "Operator_lists_the_outbox_in_order", run: (*storeFixture).listOutbox},
	{name: "Operator_shows_a_message_with_its_body", run: (*storeFixture).showOutbox},
	{name: "Operator_filters_the_outbox", run: (*storeFixture).filterOutbox},
	{name: "Operator_releases_what_is_held", run: (*storeFixture).releaseHeld},
	{name: "Operator_withdraws_and_says_what_is_uncertain", run: (*storeFixture).withdrawRows},
	{name: "Operator_makes_waiting_messages_due", run: (*storeFixture).retryNow},
	{name: "Operator_counts_what_waits", run: (*storeFixture).countStatus},
	{name: "Operator_counts_what_nobody_works_on", run: (*storeFixture).countNeglected},
	{name: "Operator_actions_are_recorded", run: (*storeFixture).recordActions},
}

var by = outlast.Action{Who: "ann", Reason: "because"}

func (f *storeFixture) status() *outlast.StoreStatus {
	f.Helper()
	st, err := f.s.Operator().Status(f.ctx)
	f.must(err)
	return st
}

// wantItems checks a listing's ids, in order.
func (f *storeFixture) wantItems(items []outlast.Item, msgs ...*outlast.Message) {
	f.Helper()
	var got, wanted []string
	for _, i := range items {
		got = append(got, i.Envelope.ID)
		if i.Body != nil || i.BodyBytes != nil {
			f.Fatalf("a listing has the body of %s", i.Envelope.ID)
		}
	}
	for _, m := range msgs {
		wanted = append(wanted, m.ID)
	}
	wantList(f, "items", got, wanted)
}

func (f *storeFixture) listed(filter outlast.Filter) []outlast.Item {
	f.Helper()
	items, err := f.s.Operator().Outbox().List(f.ctx, filter)
	f.must(err)
	return items
}

func (f *storeFixture) listOutbox() {
	leases := f.lease("a")
	msgs := batch(6, "k")
	f.publish(msgs...)
	rows := f.pending(leases)
	f.hold(leases, outlast.HeldBackoff, time.Hour, rows[1], rows[4])
	items := f.listed(outlast.Filter{})
	f.wantItems(items, msgs...)
	for i, item := range items {
		held := i == 1 || i == 4
		want(f, "held", item.Where == "held", held)
		want(f, "pending", item.Where == "pending", !held)
		want(f, "seq", item.Seq, rows[i].Seq)
		want(f, "type", item.Envelope.Type, msgs[i].Type)
		want(f, "body size", item.BodySize, len(msgs[i].Body))
		if held {
			want(f, "reason", item.Reason, "backoff")
			want(f, "error", item.Error, "held by a test")
			want(f, "attempts", item.Attempts, 1)
			want(f, "next try shown", item.NextAt.IsZero(), false)
		}
	}
	var paged []outlast.Item
	for {
		page := f.listed(outlast.Filter{Limit: 4, After: lastSeq(paged)})
		if len(page) == 0 {
			break
		}
		paged = append(paged, page...)
	}
	f.wantItems(paged, msgs...)
	_, err := f.s.Operator().Outbox().List(f.ctx, outlast.Filter{Limit: 10_001})
	f.wantCode(err, outlast.CodeInvalid)
	_, err = f.s.Operator().Outbox().List(f.ctx, outlast.Filter{Limit: -1})
	f.wantCode(err, outlast.CodeInvalid)
}

func lastSeq(items []outlast.Item) int64 {
	if len(items) == 0 {
		return 0
	}
	return items[len(items)-1].Seq
}

func (f *storeFixture) showOutbox() {
	out := f.s.Operator().Outbox()
	m, raw := full(), message("")
	raw.Body = []byte{0, 1, 0xff}
	raw.ContentType = "application/octet-stream"
	f.publish(m, raw)
	item, err := out.Show(f.ctx, m.ID)
	f.must(err)
	shown := &outlast.Message{Envelope: item.Envelope, Body: item.Body}
	if string(shown.Body) != string(m.Body) {
		f.Logf("the body is shown as %s", shown.Body) // a store may write JSON in its own way
		shown.Body = m.Body
	}
	wantMessage(f, shown, m)
	want(f, "where", item.Where, "pending")
	item, err = out.Show(f.ctx, raw.ID)
	f.must(err)
	want(f, "raw body", string(item.BodyBytes), string(raw.Body))
	_, err = out.Show(f.ctx, outlast.NewID())
	f.wantCode(err, outlast.CodeNotFound)
	_, err = out.Show(f.ctx, "no id at all")
	f.wantCode(err, outlast.CodeNotFound)
}

func (f *storeFixture) filterOutbox() {
	leases := f.lease("a")
	a, b, c := message("1"), message("2"), message("1")
	b.Type = "order.cancelled.v1"
	f.publish(a, b, c)
	for _, r := range f.pending(leases) {
		if r.ID == c.ID {
			f.hold(leases, outlast.HeldRefused, -1, r)
		}
	}
	for _, x := range []struct {
		filter outlast.Filter
		want   []*outlast.Message
	}{
		{outlast.Filter{}, []*outlast.Message{a, b, c}},
		{outlast.Filter{IDs: []string{c.ID, a.ID}}, []*outlast.Message{a, c}},
		{outlast.Filter{IDs: []string{"no id at all"}}, nil},
		{outlast.Filter{Type: b.Type}, []*outlast.Message{b}},
		{outlast.Filter{Key: "1"}, []*outlast.Message{a, c}},
		{outlast.Filter{Reason: "refused"}, []*outlast.Message{c}},
		{outlast.Filter{Key: "2", Reason: "refused"}, nil},
		{outlast.Filter{NewerThan: time.Hour}, []*outlast.Message{a, b, c}},
		{outlast.Filter{OlderThan: time.Hour}, nil},
		{outlast.Filter{Limit: 2}, []*outlast.Message{a, b}},
	} {
		f.Logf("filter %+v", x.filter)
		f.wantItems(f.listed(x.filter), x.want...)
	}
}

func (f *storeFixture) releaseHeld() {
	leases := f.lease("a")
	held := map[outlast.HeldReason]*outlast.Message{}
	for _, reason := range reasons {
		m := message("key of " + string(reason))
		held[reason] = m
		f.holdOne(leases, m, reason, time.Hour)
	}
	out := f.s.Operator().Outbox()
	n, err := out.Release(f.ctx, outlast.Filter{Reason: "refused"}, by)
	f.must(err)
	want(f, "released", n, 1)
	wantRows(f, f.held(outlast.HeldQuery{Leases: leases, Due: true}).Rows, held[outlast.HeldRefused])
	n, err = out.Release(f.ctx, outlast.Filter{}, by)
	f.must(err)
	if n < 3 || n > 4 { // the refused one may be released again
		f.Fatalf("released %d, want backoff, unroutable and route, but neither due nor behind", n)
	}
	due := map[string]bool{}
	for _, r := range f.held(outlast.HeldQuery{Leases: leases, Due: true}).Rows {
		due[r.ID] = true
	}
	for _, r := range f.pending(leases) {
		due[r.ID] = true
	}
	for _, reason := range reasons {
		want(f, "eligible "+string(reason), due[held[reason].ID], reason != outlast.HeldDue && reason != outlast.HeldBehind)
	}
}

func (f *storeFixture) withdrawRows() {
	out := f.s.Operator().Outbox()
	alone := message("k")
	f.publish(alone)
	n, uncertain, err := out.Withdraw(f.ctx, outlast.Filter{IDs: []string{alone.ID}}, by)
	f.must(err)
	want(f, "withdrawn", n, 1)
	want(f, "uncertain with no relay", len(uncertain), 0)
	leases := f.lease("a")
	wantRows(f, f.pending(leases))

	held, sent, kept := message("k"), message("k"), message("other")
	f.holdOne(leases, held, outlast.HeldRefused, -1)
	for _, reason := range []outlast.HeldReason{outlast.HeldUnroutable, outlast.HeldDue} {
		alone := message("k " + string(reason))
		f.holdOne(leases, alone, reason, time.Hour)
		n, uncertain, err := out.Withdraw(f.ctx, outlast.Filter{IDs: []string{alone.ID}}, by)
		f.must(err)
		want(f, "withdrawn "+string(reason), n, 1)
		want(f, "uncertain "+string(reason), len(uncertain), 0)
	}
	f.publish(sent, kept)
	n, uncertain, err = out.Withdraw(f.ctx, outlast.Filter{Key: "k"}, by)
	f.must(err)
	want(f, "withdrawn", n, 2)
	wantList(f, "uncertain", uncertain, []string{sent.ID})
	f.wantItems(f.listed(outlast.Filter{}), kept)
}

func (f *storeFixture) retryNow() {
	retries := f.s.Operator().Retries()
	a, b, c := received("a"), received("b"), received("c")
	b.Type = "order.cancelled.v1"
	for _, m := range []*outlast.Message{a, b, c} {
		f.wait(m, time.Hour)
	}
	items, err := retries.List(f.ctx, outlast.Filter{Group: group})
	f.must(err)
	f.wantItems(items, a, b, c)
	want(f, "where", items[0].Where, "retry")
	want(f, "group", items[0].Group, group)
	want(f, "reason", items[0].Reason, "failed")
	want(f, "error", items[0].Error, "boom\n\"quoted\"")
	want(f, "attempts", items[0].Attempts, 1)
	items, err = retries.List(f.ctx, outlast.Filter{Limit: 2, After: items[0].Seq})
	f.must(err)
	f.wantItems(items, b, c)
	items, err = retries.List(f.ctx, outlast.Filter{Group: "shipping"})
	f.must(err)
	f.wantItems(items)
	item, err := retries.Show(f.ctx, group, a.ID)
	f.must(err)
	want(f, "body size", item.BodySize, len(a.Body))
	want(f, "body shown", len(item.Body) > 0, true)
	_, err = retries.Show(f.ctx, "shipping", a.ID)
	f.wantCode(err, outlast.CodeNotFound)
	n, err := retries.Now(f.ctx, outlast.Filter{Type: b.Type}, by)
	f.must(err)
	want(f, "made due", n, 1)
	f.handleRetryOf(b)
	f.noRetry()
}

func (f *storeFixture) countStatus() {
	f.must(f.s.Relay().Identify(f.ctx, "orders"))
	leases := f.lease("relay one")
	for i := range 5 {
		m := message(fmt.Sprint(i))
		if i > 2 {
			m.Type = "order.cancelled.v1"
		}
		f.publish(m)
	}
	rows := f.pending(leases)
	f.hold(leases, outlast.HeldUnroutable, -1, rows[0])
	f.wait(received(""), time.Hour)
	f.wait(received(""), time.Hour)
	f.bury(received(""))
	st := f.status()
	want(f, "source", st.Source, "orders")
	want(f, "clock shown", st.Now.IsZero(), false)
	pending, held := 0, 0
	for _, p := range st.Pending {
		pending += p.Count
	}
	for _, h := range st.Held {
		held += h.Count
		want(f, "reason", h.Reason, outlast.HeldUnroutable)
		want(f, "error", h.Error, "held by a test")
	}
	want(f, "pending", pending, 4)
	want(f, "pending types", len(st.Pending), 2)
	want(f, "held", held, 1)
	waits := outlast.GroupStatus{Group: group, Type: "order.placed.v1", Count: 2}
	for _, g := range [][]outlast.GroupStatus{st.Retry, st.Dead} {
		want(f, "groups", len(g), 1)
		g[0].Oldest = 0
		want(f, "group", g[0], waits)
		waits.Count = 1
	}
	want(f, "relays", len(st.Relays), 1)
	want(f, "relay", st.Relays[0], outlast.RelayStatus{Owner: "relay one", Slots: f.s.Slots()})
}

// countNeglected counts what nobody works on.
func (f *storeFixture) countNeglected() {
	for range 3 {
		f.publish(message(""))
	}
	want(f, "pending without a relay", f.status().Unattended.Count, 3)
	f.lease("relay one")
	want(f, "pending with a relay", f.status().Unattended, outlast.Backlog{})
	f.must(f.s.Leases().Release(f.ctx, outlast.RelayScope, "relay one", nil))
	want(f, "pending when it has gone", f.status().Unattended.Count, 3)
	f.wait(received(""), -2*outlast.OverdueAfter)
	f.wait(received(""), time.Hour)
	first := received("ordered")
	f.wait(first, time.Hour)
	f.wait(received("ordered"), -2*outlast.OverdueAfter)
	overdue := 0
	for _, g := range f.status().Retry {
		overdue += g.Overdue
	}
	want(f, "overdue", overdue, 1)
}

func (f *storeFixture) recordActions() {
	op := f.s.Operator()
	dead := received("")
	f.bury(dead)
	_, _, err := op.Outbox().Withdraw(f.ctx, outlast.Filter{Type: "no.such.v1"}, by)
	f.must(err)
	_, err = op.Dead().Replay(f.ctx, outlast.Filter{IDs: []string{dead.ID}}, by)
	f.must(err)
	_, err = op.Retries().Now(f.ctx, outlast.Filter{IDs: []string{dead.ID}}, by)
	f.must(err)
	f.must(op.SetPaused(f.ctx, group, true, outlast.Action{Who: "bob"}))
	all, err := op.Actions(f.ctx, outlast.ActionQuery{})
	f.must(err)
	i := slices.IndexFunc(all, func(a outlast.ActionRecord) bool { return a.What == "dead replay" })
	if i < 0 {
		f.Fatalf("no replay among the actions %+v", all)
	}
	replay := all[i]
	want(f, "who", replay.Who, "ann")
	want(f, "reason", replay.Reason, "because")
	want(f, "count", replay.Count, 1)
	want(f, "at", replay.At.IsZero(), false)
	if replay.Target == "" {
		f.Fatalf("the record does not say what was replayed")
	}
	newest, err := op.Actions(f.ctx, outlast.ActionQuery{Limit: 1})
	f.must(err)
	want(f, "actions", len(newest), 1)
	want(f, "who was last", newest[0].Who, "bob")
	rest, err := op.Actions(f.ctx, outlast.ActionQuery{Before: newest[0].Seq})
	f.must(err)
	want(f, "the others", len(rest), len(all)-1)
	want(f, "the next one", rest[0], all[1])
}
