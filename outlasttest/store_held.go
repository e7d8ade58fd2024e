package outlasttest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
)

var heldTests = []storeTest{
	{name: "HeldIndex_names_blocked_keys_and_routes", run: (*storeFixture).heldIndex},
	{name: "Held_pages_in_order", run: (*storeFixture).heldPages},
	{name: "Held_finds_what_is_due", run: (*storeFixture).heldDue},
	{name: "Held_finds_the_rows_of_a_key", run: (*storeFixture).heldKey},
	{name: "Held_finds_the_rows_of_a_route", run: (*storeFixture).heldRoute},
	{name: "Held_keeps_to_the_leased_slots", run: (*storeFixture).heldLeased},
}

var settledBeforeTests = []storeTest{
	{name: "SettledBefore_is_never_after_an_unsettled_row", run: (*storeFixture).settledBefore},
	{name: "SettledBefore_waits_for_open_transactions", run: (*storeFixture).settledBeforeOpen, concurrent: true},
}

// holdOne publishes a message and holds it.
func (f *storeFixture) holdOne(leases []outlast.Lease, m *outlast.Message, reason outlast.HeldReason, wait time.Duration) *outlast.Row {
	f.Helper()
	f.publish(m)
	row := f.pending(leases)[0]
	f.hold(leases, reason, wait, row)
	return row
}

func (f *storeFixture) heldIndex() {
	leases := f.lease("a")
	slots := map[string]int{}
	for _, reason := range reasons {
		for range 2 {
			m := message("key of " + string(reason))
			m.Type = "type.of." + string(reason)
			slots[m.Envelope.Key] = f.holdOne(leases, m, reason, time.Hour).Slot
		}
	}
	f.holdOne(leases, message(""), outlast.HeldBackoff, time.Hour)
	index, err := f.s.Relay().HeldIndex(f.ctx, leases)
	f.must(err)
	keys := map[string]int{}
	for _, k := range index.Keys {
		if _, twice := keys[k.Key]; twice {
			f.Fatalf("key %q is there twice", k.Key)
		}
		keys[k.Key] = k.Slot
	}
	for _, reason := range reasons {
		key := "key of " + string(reason)
		slot, ok := keys[key]
		want(f, fmt.Sprintf("blocked %q", key), ok, reason.BlocksKey())
		if ok {
			want(f, "slot", slot, slots[key])
		}
	}
	want(f, "keys", len(keys), 3)
	counts := map[outlast.HeldRouteCount]bool{}
	for _, r := range index.Routes {
		counts[r] = true
	}
	want(f, "routes", len(counts), 2)
	for _, reason := range []outlast.HeldReason{outlast.HeldUnroutable, outlast.HeldRoute} {
		route := outlast.Route{Exchange: outlast.EventExchange, Type: "type.of." + string(reason)}
		if !counts[outlast.HeldRouteCount{Route: route, Reason: reason, Count: 2}] {
			f.Fatalf("routes %+v miss %s with 2 rows", index.Routes, route)
		}
	}
}

func (f *storeFixture) heldPages() {
	leases := f.lease("a")
	msgs := batch(9, "k")
	for _, m := range msgs {
		m.Body = bytes.Repeat([]byte{'1'}, 1000)
	}
	f.publish(msgs...)
	rows := f.pending(leases)
	f.hold(leases, outlast.HeldBackoff, 0, rows[4:]...)
	f.hold(leases, outlast.HeldBehind, -1, rows[:4]...)
	key := &outlast.SlotKey{Slot: rows[0].Slot, Key: "k"}
	var got []*outlast.Row
	for _, n := range []int{2, 1, 3} {
		q := outlast.HeldQuery{Leases: leases, Key: key, MaxRows: n}
		if len(got) > 0 {
			q.After = got[len(got)-1].Seq
		}
		page := f.held(q).Rows
		want(f, "rows of a page", len(page), n)
		got = append(got, page...)
	}
	q := outlast.HeldQuery{Leases: leases, Key: key, After: got[5].Seq, MaxBytes: 2500}
	page := f.held(q).Rows
	want(f, "rows within 2500 bytes", len(page), 2)
	q.After, q.MaxBytes = page[1].Seq, 1
	got = append(append(got, page...), f.held(q).Rows...)
	wantRows(f, got, msgs...)
	q.After = got[8].Seq
	wantRows(f, f.held(q).Rows)
}

func (f *storeFixture) heldDue() {
	leases := f.lease("a")
	p := f.held(outlast.HeldQuery{Leases: leases, Due: true})
	wantRows(f, p.Rows)
	if p.NextDue >= 0 {
		f.Fatalf("nothing is held, but something comes due in %v", p.NextDue)
	}
	for _, reason := range []outlast.HeldReason{outlast.HeldRefused, outlast.HeldBehind} {
		f.holdOne(leases, message("k"), reason, -1)
	}
	first, second, later := message("1"), message("2"), message("3")
	f.holdOne(leases, later, outlast.HeldBackoff, time.Hour)
	p = f.held(outlast.HeldQuery{Leases: leases, Due: true})
	wantRows(f, p.Rows)
	if p.NextDue <= 0 || p.NextDue > time.Hour {
		f.Fatalf("next due in %v, want up to an hour", p.NextDue)
	}
	f.holdOne(leases, first, outlast.HeldBackoff, 0)
	f.holdOne(leases, second, outlast.HeldDue, 0)
	p = f.held(outlast.HeldQuery{Leases: leases, Due: true})
	wantRows(f, p.Rows, first, second)
	if p.NextDue <= 0 || p.NextDue > time.Hour {
		f.Fatalf("next due in %v, want up to an hour", p.NextDue)
	}
	p = f.held(outlast.HeldQuery{Leases: leases, Due: true, MaxRows: 1})
	wantRows(f, p.Rows, first)
	want(f, "next due with a row left over", max(p.NextDue, 0), 0)
	if p.NextDue < 0 {
		f.Fatalf("a due row was left over, but NextDue says that there is none")
	}
	soon := message("4")
	f.holdOne(leases, soon, outlast.HeldBackoff, 20*time.Millisecond)
	f.eventually("a short backoff is over", func() bool {
		return len(f.held(outlast.HeldQuery{Leases: leases, Due: true}).Rows) == 3
	})
}

func (f *storeFixture) heldKey() {
	leases := f.lease("a")
	var blocked []*outlast.Message
	var slot int
	for _, reason := range []outlast.HeldReason{outlast.HeldRefused, outlast.HeldBehind, outlast.HeldBackoff} {
		m := message("k")
		blocked = append(blocked, m)
		slot = f.holdOne(leases, m, reason, time.Hour).Slot
	}
	f.holdOne(leases, message("k"), outlast.HeldDue, time.Hour)
	f.holdOne(leases, message("other"), outlast.HeldBehind, -1)
	rows := f.held(outlast.HeldQuery{Leases: leases, Key: &outlast.SlotKey{Slot: slot, Key: "k"}}).Rows
	wantRows(f, rows, blocked...)
	wantRows(f, f.held(outlast.HeldQuery{Leases: leases, Key: &outlast.SlotKey{Slot: slot, Key: "none"}}).Rows)
}

func (f *storeFixture) heldRoute() {
	leases := f.lease("a")
	a, b, own, other := message("k"), message("k"), message("k"), message("k")
	own.Exchange, own.RoutingKey = "foreign", "queue.name"
	other.Type = "order.cancelled.v1"
	f.holdOne(leases, a, outlast.HeldUnroutable, -1)
	f.holdOne(leases, b, outlast.HeldRoute, time.Hour)
	f.holdOne(leases, own, outlast.HeldUnroutable, -1)
	f.holdOne(leases, other, outlast.HeldUnroutable, -1)
	f.holdOne(leases, message("k"), outlast.HeldBehind, -1)
	for _, c := range []struct {
		route outlast.Route
		want  []*outlast.Message
	}{
		{a.Route(), []*outlast.Message{a, b}},
		{outlast.Route{Exchange: "foreign", Type: "queue.name"}, []*outlast.Message{own}},
		{other.Route(), []*outlast.Message{other}},
		{outlast.Route{Exchange: "foreign", Type: "order.placed.v1"}, nil},
	} {
		wantRows(f, f.held(outlast.HeldQuery{Leases: leases, Route: &c.route}).Rows, c.want...)
	}
}

func (f *storeFixture) heldLeased() {
	leases := f.lease("a")
	m := message("k")
	row := f.holdOne(leases, m, outlast.HeldBackoff, 0)
	f.holdOne(leases, message("k"), outlast.HeldUnroutable, -1)
	var others []outlast.Lease
	for _, l := range leases {
		if l.Slot != row.Slot {
			others = append(others, l)
		}
	}
	p := f.held(outlast.HeldQuery{Leases: others, Due: true})
	wantRows(f, p.Rows)
	if p.NextDue >= 0 {
		f.Fatalf("next due in %v, but the row is of another slot", p.NextDue)
	}
	index, err := f.s.Relay().HeldIndex(f.ctx, others)
	f.must(err)
	want(f, "keys and routes of other slots", len(index.Keys)+len(index.Routes), 0)
}

// settledBeforeNow reads it, and checks that it never goes back.
func (f *storeFixture) settledBeforeNow(last *time.Time) time.Time {
	f.Helper()
	sb, err := f.s.Relay().SettledBefore(f.ctx)
	f.must(err)
	if sb.Before(*last) {
		f.Fatalf("settled-before went back from %v to %v", *last, sb)
	}
	*last = sb
	return sb
}

func (f *storeFixture) settledBefore() {
	leases := f.lease("a")
	f.must(f.s.Relay().Identify(f.ctx, "orders"))
	var last time.Time
	var open []*outlast.Row
	check := func() {
		f.Helper()
		sb := f.settledBeforeNow(&last)
		for _, r := range open {
			if sb.After(r.EnqueuedAt) {
				f.Fatalf("settled-before %v is after the enqueue of an unsettled row, %v", sb, r.EnqueuedAt)
			}
		}
	}
	check()
	f.publish(batch(6, "k")...)
	open = f.pending(leases)
	check()
	f.hold(leases, outlast.HeldBehind, -1, open[1], open[3])
	check()
	f.settle(&outlast.Settlement{Leases: leases, Sent: open[:1]})
	open = open[1:]
	check()
	f.settle(&outlast.Settlement{Leases: leases, Sent: []*outlast.Row{open[1], open[3], open[4]}})
	open = []*outlast.Row{open[0], open[2]}
	check()
	newest := open[1].EnqueuedAt
	f.settle(&outlast.Settlement{Leases: leases, Sent: open})
	open = nil
	f.eventually("settled-before passes what is settled", func() bool {
		return f.settledBeforeNow(&last).After(newest)
	})
}

func (f *storeFixture) settledBeforeOpen() {
	leases := f.lease("a")
	f.must(f.s.Relay().Identify(f.ctx, "orders"))
	var last time.Time
	m := message("k")
	tx := f.insertOpen(m)
	for range 5 {
		f.publish(message("k"))
		f.settle(&outlast.Settlement{Leases: leases, Sent: f.pending(leases)})
		f.settledBeforeNow(&last)
		time.Sleep(5 * time.Millisecond)
	}
	f.must(tx.Commit())
	rows := f.pending(leases)
	wantRows(f, rows, m)
	if last.After(rows[0].EnqueuedAt) {
		f.Fatalf("settled-before was %v while the transaction of a row enqueued at %v was open", last, rows[0].EnqueuedAt)
	}
}
