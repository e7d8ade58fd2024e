package outlasttest

import (
	"context"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

var bookTests = []storeTest{
	{name: "Closed_waits_for_what_is_pending", run: (*storeFixture).booksClosed},
	{name: "Due_lists_minutes_until_they_are_closed", run: (*storeFixture).booksDue},
	{name: "Seen_and_Known_tell_what_a_group_has", run: (*storeFixture).booksSeen},
	{name: "Books_are_replaced_until_they_are_signed", run: (*storeFixture).booksWritten},
	{name: "Reopen_has_balanced_minutes_looked_at_again", run: (*storeFixture).reopen},
	{name: "Resend_enqueues_with_the_same_id_and_content", run: (*storeFixture).resend},
}

func (f *storeFixture) closed() time.Time {
	f.Helper()
	t, err := f.s.Books().Closed(f.ctx)
	f.must(err)
	return t
}

func (f *storeFixture) booksClosed() {
	leases := f.lease("a")
	m := message("")
	f.publish(m)
	row := f.pending(leases)[0]
	for range 5 {
		if t := f.closed(); t.After(row.EnqueuedAt) {
			f.Fatalf("closed until %v, but a row of %v is pending", t, row.EnqueuedAt)
		}
	}
	f.settle(&outlast.Settlement{Leases: leases, Sent: []*outlast.Row{row}})
	f.eventually("time goes on", func() bool { return f.closed().After(row.EnqueuedAt) })
	held := message("")
	f.publish(held)
	heldRow := f.pending(leases)[0]
	f.hold(leases, outlast.HeldRefused, -1, heldRow)
	f.eventually("the held are left out", func() bool { return f.closed().After(heldRow.EnqueuedAt) })
}

// sendNow publishes and settles messages, and returns their minutes.
func (f *storeFixture) sendNow(leases []outlast.Lease, msgs ...*outlast.Message) map[string]time.Time {
	f.Helper()
	f.publish(msgs...)
	rows := f.pending(leases)
	f.settle(&outlast.Settlement{Leases: leases, Sent: rows})
	minutes := map[string]time.Time{}
	for _, r := range rows {
		minutes[r.ID] = r.EnqueuedAt.UTC().Truncate(time.Minute)
	}
	return minutes
}

func (f *storeFixture) due() map[time.Time]int {
	f.Helper()
	list, err := f.s.Books().Due(f.ctx, time.Now().Add(10*time.Minute), 100)
	f.must(err)
	due := map[time.Time]int{}
	for _, m := range list {
		due[m.Minute] = m.Held
	}
	return due
}

func (f *storeFixture) booksDue() {
	leases := f.lease("a")
	want(f, "due at first", len(f.due()), 0)
	m := message("")
	minute := f.sendNow(leases, m)[m.ID]
	held, isDue := f.due()[minute]
	want(f, "due", isDue, true)
	want(f, "held", held, 0)
	list, err := f.s.Books().Due(f.ctx, minute, 100)
	f.must(err)
	want(f, "due before the minute", len(list), 0)

	var sent []outlast.SentMessage
	f.must(f.s.Books().Sent(f.ctx, minute, func(m outlast.SentMessage) error { sent = append(sent, m); return nil }))
	if !slices.Contains(sent, outlast.SentMessage{ID: m.ID, Type: m.Type}) {
		f.Fatalf("the minute has %v", sent)
	}
	for _, c := range []struct {
		state outlast.MinuteState
		due   bool
	}{{outlast.MinuteOpen, true}, {outlast.MinuteUnbalanced, true}, {outlast.MinuteBalanced, false}} {
		f.must(f.s.Books().Write(f.ctx, outlast.BookMinute{Minute: minute, State: c.state, Sent: 1}, nil))
		_, isDue := f.due()[minute]
		want(f, "due while "+string(c.state), isDue, c.due)
	}
	late := message("")
	f.publish(late)
	row := f.pending(leases)[0]
	f.hold(leases, outlast.HeldRefused, -1, row)
	if at := row.EnqueuedAt.UTC().Truncate(time.Minute); !at.Equal(minute) {
		want(f, "held of the minute", f.due()[at], 1)
	}
}

func (f *storeFixture) booksSeen() {
	minute := time.Now().Add(-10 * time.Minute).UTC().Truncate(time.Minute)
	at := func(d time.Duration) *outlast.Message {
		m := received("")
		m.EnqueuedAt = minute.Add(d)
		return m
	}
	first, last, before, after, foreign := at(0), at(time.Minute-time.Microsecond), at(-time.Microsecond), at(time.Minute), at(time.Second)
	waiting, dead, discarded := at(time.Second), at(2*time.Second), at(3*time.Second)
	foreign.Source = "returns"
	for _, m := range []*outlast.Message{first, last, before, after, foreign} {
		f.handle(m)
	}
	f.wait(waiting, time.Hour)
	f.bury(dead)
	f.bury(discarded)
	_, err := f.s.Operator().Dead().Discard(f.ctx, outlast.Filter{IDs: []string{discarded.ID}}, outlast.Action{Who: "test"})
	f.must(err)
	var got, wanted []string
	f.must(f.s.Journal().Seen(f.ctx, group, "orders", minute, func(id string) error { got = append(got, id); return nil }))
	for _, m := range []*outlast.Message{first, last, waiting, dead, discarded} {
		wanted = append(wanted, m.ID)
	}
	slices.Sort(got)
	slices.Sort(wanted)
	wantList(f, "seen", got, wanted)
	stop := context.Canceled
	if err := f.s.Journal().Seen(f.ctx, group, "orders", minute, func(string) error { return stop }); err == nil {
		f.Fatal("the error of yield is lost")
	}
	known, err := f.s.Journal().Known(f.ctx, group, "orders", []string{first.ID, foreign.ID, "none", dead.ID})
	f.must(err)
	slices.Sort(known)
	wanted = []string{first.ID, dead.ID}
	slices.Sort(wanted)
	wantList(f, "known", known, wanted)
}

func (f *storeFixture) booksWritten() {
	b := f.s.Books()
	minute := time.Now().UTC().Truncate(time.Minute)
	lines := []outlast.BookLine{
		{Type: "a.v1", Group: "billing", Sent: 3, Received: 1, Missing: []string{"x", "y"}, More: true},
		{Type: "a.v1", Group: "stock", Sent: 3, Received: -1},
	}
	for _, sent := range []int{2, 3} {
		f.must(b.Write(f.ctx, outlast.BookMinute{Minute: minute, State: outlast.MinuteUnbalanced, Sent: sent}, lines))
	}
	f.must(b.Write(f.ctx, outlast.BookMinute{Minute: minute.Add(-time.Minute), State: outlast.MinuteBalanced, Sent: 1}, nil))
	list, err := b.Minutes(f.ctx, outlast.MinuteQuery{})
	f.must(err)
	want(f, "minutes", len(list), 2)
	want(f, "the newest first", list[0].Minute.Equal(minute), true)
	want(f, "sent", list[0].Sent, 3)
	list, err = b.Minutes(f.ctx, outlast.MinuteQuery{State: outlast.MinuteBalanced, Before: minute, Limit: 1})
	f.must(err)
	want(f, "balanced minutes", len(list), 1)
	got, err := b.Lines(f.ctx, minute)
	f.must(err)
	want(f, "lines", len(got), 2)
	want(f, "received", got[0].Received, 1)
	want(f, "more", got[0].More, true)
	wantList(f, "missing", got[0].Missing, []string{"x", "y"})
	want(f, "received of one that was not asked", got[1].Received, -1)
	n, err := b.SignOff(f.ctx, []time.Time{minute, minute.Add(-time.Minute), minute.Add(-time.Hour)}, outlast.Action{Who: "ann", Reason: "known outage"})
	f.must(err)
	want(f, "signed", n, 1)
	f.must(b.Write(f.ctx, outlast.BookMinute{Minute: minute, State: outlast.MinuteUnbalanced, Sent: 9}, nil))
	list, err = b.Minutes(f.ctx, outlast.MinuteQuery{Limit: 1})
	f.must(err)
	want(f, "state", list[0].State, outlast.MinuteSigned)
	want(f, "who", list[0].Who, "ann")
	want(f, "reason", list[0].Reason, "known outage")
	want(f, "sent", list[0].Sent, 3)
}

func (f *storeFixture) reopen() {
	b := f.s.Books()
	first := time.Now().UTC().Truncate(time.Minute).Add(-time.Hour)
	states := []outlast.MinuteState{outlast.MinuteBalanced, outlast.MinuteBalanced, outlast.MinuteUnbalanced, outlast.MinuteSigned, outlast.MinuteBalanced, outlast.MinuteBalanced}
	for i, state := range states {
		m := outlast.BookMinute{Minute: first.Add(time.Duration(i) * time.Minute), State: state, Sent: 1}
		if state == outlast.MinuteSigned {
			m.State = outlast.MinuteUnbalanced
		}
		f.must(b.Write(f.ctx, m, nil))
		if state == outlast.MinuteSigned {
			_, err := b.SignOff(f.ctx, []time.Time{m.Minute}, outlast.Action{Who: "ann", Reason: "test messages"})
			f.must(err)
		}
	}
	reopen := func(since, until time.Time, opened int, now ...outlast.MinuteState) {
		f.Helper()
		n, err := b.Reopen(f.ctx, since, until, outlast.Action{Who: "bob", Reason: "a backup was restored"})
		f.must(err)
		want(f, "opened", n, opened)
		list, err := b.Minutes(f.ctx, outlast.MinuteQuery{})
		f.must(err)
		var got []outlast.MinuteState
		for _, m := range slices.Backward(list) {
			got = append(got, m.State)
		}
		wantList(f, "states", got, now)
	}
	const open, balanced, unbalanced, signed = outlast.MinuteOpen, outlast.MinuteBalanced, outlast.MinuteUnbalanced, outlast.MinuteSigned
	reopen(first.Add(time.Minute), first.Add(5*time.Minute), 2, balanced, open, unbalanced, signed, open, balanced)
	reopen(first.Add(time.Minute), time.Time{}, 1, balanced, open, unbalanced, signed, open, open)
	actions, err := f.s.Operator().Actions(f.ctx, outlast.ActionQuery{Limit: 1})
	f.must(err)
	want(f, "action", actions[0].What, "books reopen")
	want(f, "who", actions[0].Who, "bob")
	want(f, "why", actions[0].Reason, "a backup was restored")
}

func (f *storeFixture) resend() {
	leases := f.lease("a")
	m, plain := full(), message("")
	f.sendNow(leases, m, plain)
	r, err := f.s.Books().Resend(f.ctx, []string{m.ID, plain.ID, outlast.NewID(), "no uuid"}, outlast.Action{Who: "ann", Reason: "lost"})
	f.must(err)
	want(f, "sent again", len(r.Sent), 2)
	want(f, "unknown", len(r.Unknown), 2)
	rows := f.pending(leases)
	want(f, "pending", len(rows), 2)
	for _, row := range rows {
		if row.ID == m.ID {
			wantMessage(f, &row.Message, m)
			continue
		}
		want(f, "id", row.ID, plain.ID)
		want(f, "body", string(row.Body), string(plain.Body))
		if row.Time.IsZero() {
			f.Fatal("the time of the fact is lost")
		}
	}
	if facts := f.facts(of(m)); !slices.Contains(facts, string(outlast.FactResent)) {
		f.Fatalf("facts: %v", facts)
	}
	actions, err := f.s.Operator().Actions(f.ctx, outlast.ActionQuery{Limit: 1})
	f.must(err)
	want(f, "action", actions[0].What, "books resend")
}
