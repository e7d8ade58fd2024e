package outlasttest

import (
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
)

var settleTests = []storeTest{
	{name: "F25_Identify_refuses_another_service", run: (*storeFixture).identify},
	{name: "F23_Settle_deletes_what_was_sent", run: (*storeFixture).settleSent},
	{name: "F22_Settle_holds_with_every_reason", run: (*storeFixture).settleHolds},
	{name: "Settle_changes_what_is_held", run: (*storeFixture).settleUpdates},
	{name: "Settle_releases_under_a_new_seq", run: (*storeFixture).settleReleases},
	{name: "F15_Settle_does_nothing_for_a_stale_lease", run: (*storeFixture).settleStale},
	{name: "F16_Settle_of_a_dead_owner_does_nothing_after_a_takeover", run: (*storeFixture).settleExpired},
	{name: "Settle_applies_current_leases_beside_stale_ones", run: (*storeFixture).settleMixed},
	{name: "Settle_may_be_repeated", run: (*storeFixture).settleRepeated},
	{name: "F25_Settle_leaves_alone_what_has_gone", run: (*storeFixture).settleGone},
}

func (f *storeFixture) identify() {
	r := f.s.Relay()
	f.must(r.Identify(f.ctx, "orders"))
	f.must(r.Identify(f.ctx, "orders"))
	f.wantCode(r.Identify(f.ctx, "billing"), outlast.CodeConflict)
}

func (f *storeFixture) settleSent() {
	leases := f.lease("a")
	msgs := batch(4, "k")
	f.publish(msgs...)
	rows := f.pending(leases)
	f.hold(leases, outlast.HeldBackoff, 0, rows[3])
	f.settle(&outlast.Settlement{Leases: leases, Sent: []*outlast.Row{rows[1]}})
	wantRows(f, f.pending(leases), msgs[0], msgs[2])
	held := f.held(outlast.HeldQuery{Leases: leases, Due: true}).Rows
	wantRows(f, held, msgs[3])
	f.settle(&outlast.Settlement{Leases: leases, Sent: held})
	wantRows(f, f.held(outlast.HeldQuery{Leases: leases, Due: true}).Rows)
	f.settle(&outlast.Settlement{Leases: leases})
}

// find returns the held row of a message by whatever query fits its reason.
func (f *storeFixture) find(leases []outlast.Lease, m *outlast.Message, slot int) *outlast.Row {
	f.Helper()
	route := m.Route()
	for _, q := range []outlast.HeldQuery{
		{Due: true}, {Key: &outlast.SlotKey{Slot: slot, Key: m.Envelope.Key}}, {Route: &route},
	} {
		q.Leases = leases
		for _, r := range f.held(q).Rows {
			if r.ID == m.ID {
				return r
			}
		}
	}
	f.Fatalf("message %s is not held", m.ID)
	return nil
}

var reasons = []outlast.HeldReason{
	outlast.HeldDue, outlast.HeldBackoff, outlast.HeldRefused, outlast.HeldBehind, outlast.HeldUnroutable, outlast.HeldRoute,
}

func (f *storeFixture) settleHolds() {
	leases := f.lease("a")
	for i, reason := range reasons {
		m := full()
		m.Envelope.Key = "key of " + string(reason)
		f.publish(m)
		row := f.pending(leases)[0]
		f.settle(&outlast.Settlement{Leases: leases, Hold: []outlast.Hold{
			{Row: row, Reason: reason, Wait: 0, Attempts: i + 1, Error: "because of\n\"this\""}}})
		wantRows(f, f.pending(leases))
		got := f.find(leases, m, row.Slot)
		wantMessage(f, &got.Message, m)
		want(f, "in held", got.InHeld, true)
		want(f, "reason", got.Reason, reason)
		want(f, "attempts", got.Attempts, i+1)
		want(f, "seq", got.Seq, row.Seq)
		want(f, "slot", got.Slot, row.Slot)
		if !got.EnqueuedAt.Equal(row.EnqueuedAt) {
			f.Fatalf("%s: enqueued %v, was %v", reason, got.EnqueuedAt, row.EnqueuedAt)
		}
		item, err := f.s.Operator().Outbox().Show(f.ctx, m.ID)
		f.must(err)
		want(f, "error", item.Error, "because of\n\"this\"")
	}
}

func (f *storeFixture) settleUpdates() {
	leases := f.lease("a")
	m := message("k")
	f.publish(m)
	row := f.pending(leases)[0]
	f.hold(leases, outlast.HeldBackoff, 0, row)
	row = f.find(leases, m, row.Slot)
	f.settle(&outlast.Settlement{Leases: leases, Hold: []outlast.Hold{
		{Row: row, Reason: outlast.HeldRefused, Wait: -1, Attempts: 7, Error: "second"}}})
	p := f.held(outlast.HeldQuery{Leases: leases, Due: true})
	wantRows(f, p.Rows)
	if p.NextDue >= 0 {
		f.Fatalf("a refused row comes due in %v", p.NextDue)
	}
	got := f.find(leases, m, row.Slot)
	want(f, "reason", got.Reason, outlast.HeldRefused)
	want(f, "attempts", got.Attempts, 7)
	want(f, "seq", got.Seq, row.Seq)
}

func (f *storeFixture) settleReleases() {
	leases, r := f.lease("a"), f.s.Relay().Reader()
	held, later := message("k"), message("k")
	f.publish(held)
	row := f.pickUntil(r, leases, 1)[0]
	f.hold(leases, outlast.HeldBehind, -1, row)
	r.Forget([]*outlast.Row{row})
	f.publish(later)
	last := f.pickUntil(r, leases, 1)[0]
	f.settle(&outlast.Settlement{Leases: leases, Release: []*outlast.Row{f.find(leases, held, row.Slot)}})
	again := f.pickUntil(r, leases, 1)[0]
	wantMessage(f, &again.Message, held)
	want(f, "in held", again.InHeld, false)
	want(f, "slot", again.Slot, row.Slot)
	if again.Seq <= last.Seq || again.EnqueuedAt.Before(last.EnqueuedAt) {
		f.Fatalf("released with seq %d at %v, after seq %d at %v", again.Seq, again.EnqueuedAt, last.Seq, last.EnqueuedAt)
	}
	wantRows(f, f.pending(leases), later, held)
	wantRows(f, f.held(outlast.HeldQuery{Leases: leases, Key: &outlast.SlotKey{Slot: row.Slot, Key: "k"}}).Rows)
}

// wantAllStale checks that a settlement of old leases changes nothing.
func (f *storeFixture) wantAllStale(old []outlast.Lease, rows []*outlast.Row, held *outlast.Row) {
	f.Helper()
	var of []outlast.Lease
	slots := map[int]bool{}
	for _, r := range append(rows[:len(rows):len(rows)], held) {
		if !slots[r.Slot] {
			slots[r.Slot] = true
			of = append(of, leaseOf(old, r.Slot))
		}
	}
	stale, err := f.s.Relay().Settle(f.ctx, &outlast.Settlement{Leases: of, Sent: rows[:1],
		Hold: []outlast.Hold{{Row: rows[1], Reason: outlast.HeldRefused, Wait: -1}}, Release: []*outlast.Row{held}})
	f.must(err)
	want(f, "stale leases", len(stale), len(of))
	for _, l := range stale {
		want(f, "stale lease", l, leaseOf(of, l.Slot))
	}
}

func (f *storeFixture) settleStale() {
	old := f.lease("a")
	msgs := batch(3, "k")
	f.publish(msgs...)
	rows := f.pending(old)
	f.hold(old, outlast.HeldBackoff, 0, rows[2])
	held := f.find(old, msgs[2], rows[2].Slot)
	f.release(outlast.RelayScope, "a")
	now := f.lease("b")
	f.wantAllStale(old, rows[:2], held)
	wantRows(f, f.pending(now), msgs[:2]...)
	want(f, "reason", f.find(now, msgs[2], rows[2].Slot).Reason, outlast.HeldBackoff)
	f.settle(&outlast.Settlement{Leases: now, Sent: append(rows[:2], held)})
	wantRows(f, f.pending(now))
}

func (f *storeFixture) settleExpired() {
	old := f.leaseIn(outlast.RelayScope, "a", 2*time.Second, f.s.Slots()).Held
	msgs := batch(3, "k")
	f.publish(msgs...)
	rows := f.pending(old)
	f.hold(old, outlast.HeldBackoff, 0, rows[2])
	held := f.find(old, msgs[2], rows[2].Slot)
	var now []outlast.Lease
	f.eventually("the dead relay's slots are taken over", func() bool {
		now = f.lease("b")
		return len(now) == f.s.Slots()
	})
	f.wantAllStale(old, rows[:2], held)
	wantRows(f, f.pending(now), msgs[:2]...)
}

func (f *storeFixture) settleMixed() {
	if f.s.Slots() < 2 {
		f.Skip("a store with one slot has no two leases")
	}
	mine := f.lease("a")
	for i := range 20 {
		f.publish(message(fmt.Sprint(i)))
	}
	rows := f.pending(mine)
	gone, kept := rows[0], rows[1]
	for _, r := range rows[1:] {
		if r.Slot != gone.Slot {
			kept = r
		}
	}
	f.release(outlast.RelayScope, "a", leaseOf(mine, gone.Slot))
	theirs := f.lease("b")
	want(f, "slots of the other relay", len(theirs), 1)
	stale, err := f.s.Relay().Settle(f.ctx, &outlast.Settlement{
		Leases: []outlast.Lease{leaseOf(mine, gone.Slot), leaseOf(mine, kept.Slot)}, Sent: []*outlast.Row{gone, kept}})
	f.must(err)
	wantList(f, "stale leases", stale, []outlast.Lease{leaseOf(mine, gone.Slot)})
	left := map[string]bool{}
	for _, r := range f.pending(append(mine, theirs...)) {
		left[r.ID] = true
	}
	if !left[gone.ID] || left[kept.ID] {
		f.Fatalf("the row of the stale lease is left: %t; the row of the current one: %t", left[gone.ID], left[kept.ID])
	}
}

func (f *storeFixture) settleRepeated() {
	leases := f.lease("a")
	msgs := batch(4, "k")
	f.publish(msgs...)
	rows := f.pending(leases)
	f.hold(leases, outlast.HeldBehind, -1, rows[2])
	s := &outlast.Settlement{Leases: leases, Sent: rows[:1],
		Hold:    []outlast.Hold{{Row: rows[1], Reason: outlast.HeldRefused, Wait: -1, Attempts: 2, Error: "x"}},
		Release: []*outlast.Row{f.find(leases, msgs[2], rows[2].Slot)}}
	for range 3 {
		f.settle(s)
	}
	wantRows(f, f.pending(leases), msgs[3], msgs[2])
	key := &outlast.SlotKey{Slot: rows[0].Slot, Key: "k"}
	held := f.held(outlast.HeldQuery{Leases: leases, Key: key}).Rows
	wantRows(f, held, msgs[1])
	want(f, "attempts", held[0].Attempts, 2)
}

func (f *storeFixture) settleGone() {
	leases := f.lease("a")
	msgs := batch(2, "k")
	f.publish(msgs...)
	rows := f.pending(leases)
	f.hold(leases, outlast.HeldBackoff, 0, rows[1])
	held := f.find(leases, msgs[1], rows[1].Slot)
	f.settle(&outlast.Settlement{Leases: leases, Sent: []*outlast.Row{rows[0], held}})
	f.hold(leases, outlast.HeldBackoff, 0, rows[0], held)
	f.settle(&outlast.Settlement{Leases: leases, Release: []*outlast.Row{held}})
	wantRows(f, f.pending(leases))
	wantRows(f, f.held(outlast.HeldQuery{Leases: leases, Due: true}).Rows)
	// Numbers may come again, after a failover that lost commits: another message has it now.
	later := message("k")
	f.publish(later)
	other := *f.pending(leases)[0]
	other.ID = outlast.NewID()
	f.settle(&outlast.Settlement{Leases: leases, Sent: []*outlast.Row{&other}})
	f.hold(leases, outlast.HeldBackoff, 0, &other)
	wantRows(f, f.pending(leases), later)
	wantRows(f, f.held(outlast.HeldQuery{Leases: leases, Due: true}).Rows)
}
