package outlasttest

import (
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

var journalTests = []storeTest{
	{name: "Settle_notes_what_was_sent", run: (*storeFixture).sentLog},
	{name: "Settle_notes_nothing_for_a_stale_lease", run: (*storeFixture).sentLogFenced},
	{name: "Settle_notes_a_row_once", run: (*storeFixture).sentLogOnce},
	{name: "Settle_leaves_the_sent_log_alone_when_told_to", run: (*storeFixture).untracked},
	{name: "Facts_find_a_message_wherever_it_is", run: (*storeFixture).factsEverywhere},
	{name: "Facts_find_by_flow_and_business_key", run: (*storeFixture).factsByKey},
	{name: "Facts_beyond_the_limit_are_the_oldest", run: (*storeFixture).factsNewest},
	{name: "IDs_go_on_by_key_through_all_tables", run: (*storeFixture).idsByKey},
	{name: "Facts_keep_what_the_rows_forget", run: (*storeFixture).factsKept},
	{name: "Facts_are_cut_at_the_limit", run: (*storeFixture).factsLimited},
	{name: "Failures_are_grouped_by_fingerprint", run: (*storeFixture).failures},
	{name: "Failures_go_on_by_key_where_times_tie", run: (*storeFixture).failuresTie},
	{name: "The_sent_log_tells_since_when_it_is_whole", run: (*storeFixture).wholeSince},
	{name: "Hear_keeps_the_first_time", run: (*storeFixture).hearing},
	{name: "Keep_drops_nothing_young", run: (*storeFixture).keepYoung},
	{name: "Waiting_rows_of_each_reason_are_moved_by_one", run: (*storeFixture).oneMover},
	{name: "Held_rows_of_each_reason_are_read_by_one_query", run: (*storeFixture).oneReaper},
}

// facts returns what is known of a query, as "kind" or "kind/group", sorted.
func (f *storeFixture) facts(q outlast.FactQuery) []string {
	f.Helper()
	page, err := f.s.Journal().Facts(f.ctx, q)
	f.must(err)
	var kinds []string
	for _, x := range page.Facts {
		kind := string(x.Kind)
		if x.Group != "" {
			kind += "/" + x.Group
		}
		if x.Now {
			kind += " now"
		}
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return kinds
}

func (f *storeFixture) wantFacts(q outlast.FactQuery, kinds ...string) {
	f.Helper()
	wantList(f, "facts", f.facts(q), kinds)
}

func of(msgs ...*outlast.Message) outlast.FactQuery {
	q := outlast.FactQuery{}
	for _, m := range msgs {
		q.IDs = append(q.IDs, m.ID)
	}
	return q
}

func (f *storeFixture) sentLog() {
	f.must(f.s.Relay().Identify(f.ctx, "orders"))
	f.must(f.s.Journal().Tracking(f.ctx))
	leases := f.lease("a")
	m := full()
	m.Headers = nil
	f.publish(m)
	row := f.pending(leases)[0]
	f.settle(&outlast.Settlement{Leases: leases, Sent: []*outlast.Row{row}, Fates: []outlast.Fate{outlast.FateSent}})
	page, err := f.s.Journal().Facts(f.ctx, of(m))
	f.must(err)
	f.wantFacts(of(m), "committed", "sent")
	for _, x := range page.Facts {
		want(f, "source", x.Source, "orders")
		if x.Kind != outlast.FactCommitted {
			if x.At.Before(row.EnqueuedAt) {
				f.Fatalf("sent at %v, enqueued at %v", x.At, row.EnqueuedAt)
			}
			continue
		}
		e := x.Envelope
		want(f, "id", e.ID, m.ID)
		want(f, "type", e.Type, m.Type)
		want(f, "kind", e.Kind, m.Kind)
		want(f, "key", e.Key, m.Envelope.Key)
		want(f, "flow", e.CorrelationID, m.CorrelationID)
		want(f, "cause", e.CausationID, m.CausationID)
		want(f, "trace", e.TraceParent, m.TraceParent)
		want(f, "within", e.Within, m.Within)
		want(f, "business keys", len(e.Find), len(m.Find))
		if !e.EnqueuedAt.Equal(row.EnqueuedAt) || !x.At.Equal(row.EnqueuedAt) {
			f.Fatalf("enqueued at %v, was %v", e.EnqueuedAt, row.EnqueuedAt)
		}
	}
	for fate, kind := range map[outlast.Fate]string{outlast.FateExpired: "expired", outlast.FateUnheard: "unheard"} {
		m := message("")
		f.publish(m)
		f.settle(&outlast.Settlement{Leases: leases, Sent: f.pending(leases), Fates: []outlast.Fate{fate}})
		f.wantFacts(of(m), "committed", kind)
	}
	held := message("k")
	f.publish(held)
	f.hold(leases, outlast.HeldRoute, 0, f.pending(leases)[0])
	f.wantFacts(of(held), "committed", "held now")
	f.settle(&outlast.Settlement{Leases: leases, Sent: []*outlast.Row{f.find(leases, held, row.Slot)}})
	f.wantFacts(of(held), "committed", "sent")
}

func (f *storeFixture) sentLogFenced() {
	old := f.lease("a")
	m := message("k")
	f.publish(m)
	row := f.pending(old)[0]
	f.release(outlast.RelayScope, "a")
	f.lease("b")
	stale, err := f.s.Relay().Settle(f.ctx, &outlast.Settlement{Leases: []outlast.Lease{leaseOf(old, row.Slot)}, Sent: []*outlast.Row{row}})
	f.must(err)
	want(f, "stale leases", len(stale), 1)
	f.wantFacts(of(m), "committed now")
}

func (f *storeFixture) sentLogOnce() {
	leases := f.lease("a")
	m := message("")
	m.Find = map[string]string{"order_id": "o-1"}
	f.publish(m)
	rows := f.pending(leases)
	for range 3 {
		f.settle(&outlast.Settlement{Leases: leases, Sent: rows})
	}
	f.wantFacts(of(m), "committed", "sent")
	f.wantFacts(outlast.FactQuery{Keys: []string{"o-1"}}, "committed", "sent")
}

func (f *storeFixture) untracked() {
	leases := f.lease("a")
	m := message("")
	f.publish(m)
	f.settle(&outlast.Settlement{Leases: leases, Sent: f.pending(leases), Untracked: true})
	wantRows(f, f.pending(leases))
	f.wantFacts(of(m))
}

func (f *storeFixture) factsEverywhere() {
	leases := f.lease("a")
	pending, due := message(""), message("")
	due.Delay = time.Hour
	f.publish(pending, due)
	handled, waiting, dead, discarded := received(""), received("k"), received(""), received("")
	f.handle(handled)
	f.wait(waiting, time.Hour)
	f.bury(dead)
	f.bury(discarded)
	_, err := f.s.Operator().Dead().Discard(f.ctx, outlast.Filter{IDs: []string{discarded.ID}}, outlast.Action{Who: "ann", Reason: "spam"})
	f.must(err)
	f.wantFacts(of(pending), "committed now")
	f.wantFacts(of(due), "committed", "held now")
	f.wantFacts(of(handled), "handled/"+group+" now")
	f.wantFacts(of(waiting), "failed/"+group, "waiting/"+group+" now")
	f.wantFacts(of(dead), "dead/"+group, "dead/"+group+" now", "failed/"+group)
	f.wantFacts(of(discarded), "dead/"+group, "discarded/"+group, "failed/"+group)
	all, err := f.s.Journal().Facts(f.ctx, of(pending, due, handled, waiting, dead, discarded, message("")))
	f.must(err)
	want(f, "facts of all", len(all.Facts), 1+2+1+2+3+3)
	want(f, "facts of nothing", len(f.facts(outlast.FactQuery{})), 0)
	want(f, "facts of no uuid", len(f.facts(outlast.FactQuery{IDs: []string{"'; DROP TABLE x; --"}})), 0)
	wantRows(f, f.pending(leases), pending)
}

// factsNewest: a limit leaves out the oldest, and what several conditions find counts once.
func (f *storeFixture) factsNewest() {
	leases := f.lease("a")
	var sent []*outlast.Message
	for range 5 {
		m := message("many")
		m.Find = map[string]string{"customer": "many"}
		f.publish(m)
		f.settle(&outlast.Settlement{Leases: leases, Sent: f.pending(leases)})
		sent = append(sent, m)
	}
	for _, limit := range []int{2, 4, 5} {
		page, err := f.s.Journal().Facts(f.ctx, outlast.FactQuery{Keys: []string{"many"}, Limit: limit})
		f.must(err)
		want(f, "there are more", page.More, limit < 5)
		want(f, "facts", len(page.Facts), 2*limit)
		for _, x := range page.Facts {
			want(f, "one of the newest", slices.ContainsFunc(sent[5-limit:], func(m *outlast.Message) bool { return m.ID == x.ID }), true)
		}
	}
}

func (f *storeFixture) factsByKey() {
	leases := f.lease("a")
	root := message("ord-1")
	root.Find = map[string]string{"order_id": "o \"1\" 50%_x", "n": "7"}
	child := message("")
	child.CorrelationID, child.CausationID = root.ID, root.ID
	other := message("ord-2")
	other.Find = map[string]string{"order_id": "o \"1\" 50"}
	f.publish(root, child, other)
	in := received("ord-1")
	in.CorrelationID, in.Find = root.ID, root.Find
	f.wait(in, time.Hour)
	queries := []struct {
		q    outlast.FactQuery
		want int // messages
	}{
		{outlast.FactQuery{Flows: []string{root.ID}}, 3},
		{outlast.FactQuery{Keys: []string{"ord-1"}}, 2},
		{outlast.FactQuery{Keys: []string{"o \"1\" 50%_x"}}, 2},
		{outlast.FactQuery{Keys: []string{"o \"1\" 50"}}, 1},
		{outlast.FactQuery{Keys: []string{"7"}}, 2},
		{outlast.FactQuery{Keys: []string{"order_id", "o"}}, 0},
	}
	check := func(where string) {
		f.Helper()
		for _, c := range queries {
			page, err := f.s.Journal().Facts(f.ctx, c.q)
			f.must(err)
			ids := map[string]bool{}
			for _, x := range page.Facts {
				ids[x.ID] = true
			}
			if len(ids) != c.want {
				f.Fatalf("%s: %+v finds %d messages, want %d: %v", where, c.q, len(ids), c.want, f.facts(c.q))
			}
		}
	}
	check("pending")
	rows := f.pending(leases)
	f.hold(leases, outlast.HeldRoute, 0, rows...)
	check("held")
	for _, r := range rows {
		r.InHeld = true
	}
	f.settle(&outlast.Settlement{Leases: leases, Sent: rows})
	check("sent")
}

// idsByKey reads the messages of a flow and of a key from every table, two at a time.
func (f *storeFixture) idsByKey() {
	leases := f.lease("a")
	root := message("")
	flow := func(m *outlast.Message) *outlast.Message {
		m.CorrelationID, m.Find = root.ID, map[string]string{"customer": "many"}
		return m
	}
	var all []*outlast.Message
	for range 3 {
		m := flow(message(""))
		f.publish(m)
		f.settle(&outlast.Settlement{Leases: leases, Sent: f.pending(leases)})
		all = append(all, m)
	}
	both := flow(received("")) // two tables have it
	both.ID, both.CorrelationID = all[0].ID, root.ID
	f.bury(both)
	due := flow(message(""))
	due.Delay = time.Hour
	f.publish(due)
	waiting, dead, foreign := flow(received("")), flow(received("")), flow(received(""))
	foreign.ID = "Foreign/7"
	f.wait(waiting, time.Hour)
	f.bury(dead)
	f.bury(foreign)
	pending := flow(message(""))
	root.Find = map[string]string{"customer": "many"}
	f.publish(root, pending, message("other"))
	all = append(all, root, due, waiting, dead, foreign, pending)
	var wanted []string
	for _, m := range all {
		wanted = append(wanted, m.ID)
	}
	slices.Sort(wanted)
	slices.Reverse(wanted)
	for name, q := range map[string]outlast.FactQuery{
		"flow": {Flows: []string{root.ID}}, "key": {Keys: []string{"many"}}, "ids": {IDs: wanted},
		"all of it": {Flows: []string{root.ID}, Keys: []string{"many"}, IDs: wanted[:1]},
	} {
		q.Limit = 2
		var got []string
		for before := ""; ; before = got[len(got)-1] {
			page, err := f.s.Journal().IDs(f.ctx, q, before)
			f.must(err)
			if len(page) == 0 {
				break
			}
			want(f, name+": ids of a page", len(page) <= 2, true)
			got = append(got, page...)
		}
		if !slices.Equal(got, wanted) {
			f.Fatalf("%s: the ids are\n%v, want\n%v", name, got, wanted)
		}
	}
	for _, q := range []outlast.FactQuery{{}, {IDs: []string{"'; DROP TABLE x; --"}}, {Keys: []string{"man"}}} {
		ids, err := f.s.Journal().IDs(f.ctx, q, "")
		f.must(err)
		want(f, "ids of nothing", len(ids), 0)
	}
}

func (f *storeFixture) factsKept() {
	leases := f.lease("a")
	m := message("")
	f.publish(m)
	rows := f.pending(leases)
	f.hold(leases, outlast.HeldBackoff, 0, rows...)
	n, _, err := f.s.Operator().Outbox().Withdraw(f.ctx, outlast.Filter{IDs: []string{m.ID}}, outlast.Action{Who: "ann", Reason: "wrong order"})
	f.must(err)
	want(f, "withdrawn", n, 1)
	f.wantFacts(of(m), "failed", "withdrawn")
	d := received("")
	f.bury(d)
	_, err = f.s.Operator().Dead().Replay(f.ctx, outlast.Filter{IDs: []string{d.ID}}, outlast.Action{Who: "bob", Reason: "fixed"})
	f.must(err)
	f.handleRetryOf(d)
	f.wantFacts(of(d), "failed/"+group, "handled/"+group+" now", "replayed/"+group)
	page, err := f.s.Journal().Facts(f.ctx, of(m, d))
	f.must(err)
	for _, x := range page.Facts {
		switch x.Kind {
		case outlast.FactWithdrawn:
			want(f, "who", x.Code, "ann")
			want(f, "why", x.Detail, "wrong order")
		case outlast.FactReplayed:
			want(f, "who", x.Code, "bob")
		case outlast.FactFailed:
			if x.Group != "" && !strings.Contains(x.Detail, "card expired") {
				f.Fatalf("the failure says %q", x.Detail)
			}
		}
	}
}

func (f *storeFixture) factsLimited() {
	f.lease("a")
	var q outlast.FactQuery
	for range 4 {
		m := message("")
		f.publish(m)
		q.IDs = append(q.IDs, m.ID)
	}
	q.Limit = 3
	page, err := f.s.Journal().Facts(f.ctx, q)
	f.must(err)
	want(f, "facts", len(page.Facts), 3)
	want(f, "more", page.More, true)
	q.Limit = 4
	page, err = f.s.Journal().Facts(f.ctx, q)
	f.must(err)
	want(f, "more", page.More, false)
}

// buryAs buries a message of a type with a fingerprint.
func (f *storeFixture) buryAs(print, typ string) {
	f.Helper()
	m := received("")
	m.Type = typ
	tx := f.mark(m)
	d := deadOf(m)
	d.Fingerprint = print
	f.must(tx.Bury(f.ctx, d))
	f.must(tx.Commit(f.ctx))
}

// failuresTie goes on behind groups that may have been seen at the very time of others: a
// group of that time is behind those whose keys are less, and behind no others.
func (f *storeFixture) failuresTie() {
	f.buryAs("bbbb", "a.v1")
	f.buryAs("aaaa", "b.v1")
	f.buryAs("aaaa", "B.v1")
	f.buryAs("cccc", "a.v1")
	all, err := f.s.Journal().Failures(f.ctx, outlast.FailureQuery{})
	f.must(err)
	want(f, "groups", len(all), 4)
	want(f, "in the order of failures", slices.IsSortedFunc(all, outlast.Failure.Compare), true)
	after := func(before outlast.Failure, key outlast.FailureKey) []outlast.Failure {
		f.Helper()
		list, err := f.s.Journal().Failures(f.ctx, outlast.FailureQuery{Before: before.LastSeen, After: key})
		f.must(err)
		return list
	}
	for i, x := range all {
		want(f, "behind itself", slices.Equal(after(x, x.Key()), all[i+1:]), true)
		for _, c := range []struct {
			key  outlast.FailureKey
			from int
		}{
			{outlast.FailureKey{Fingerprint: "0", Group: "z", Type: "z"}, i}, {outlast.FailureKey{Fingerprint: "f", Group: "a", Type: "a"}, i + 1},
			{outlast.FailureKey{Fingerprint: x.Fingerprint, Group: "A", Type: "z"}, i}, {outlast.FailureKey{Fingerprint: x.Fingerprint, Group: "z", Type: "A"}, i + 1},
			{outlast.FailureKey{Fingerprint: x.Fingerprint, Group: group, Type: "A"}, i}, {outlast.FailureKey{Fingerprint: x.Fingerprint, Group: group, Type: "z"}, i + 1},
		} {
			if got := after(x, c.key); !slices.Equal(got, all[c.from:]) {
				f.Fatalf("behind %v at the time of %v are %v, want %v", c.key, x.Key(), got, all[c.from:])
			}
		}
	}
	var walked []outlast.Failure
	for q := (outlast.FailureQuery{Limit: 1}); len(walked) <= len(all); {
		page, err := f.s.Journal().Failures(f.ctx, q)
		f.must(err)
		if len(page) == 0 {
			break
		}
		walked = append(walked, page...)
		q.Before, q.After = page[0].LastSeen, page[0].Key()
	}
	want(f, "groups one at a time", slices.Equal(walked, all), true)
}

func (f *storeFixture) failures() {
	f.buryAs("aaaa", "a.v1")
	f.buryAs("bbbb", "a.v1")
	f.buryAs("aaaa", "a.v1")
	f.buryAs("aaaa", "b.v1")
	list, err := f.s.Journal().Failures(f.ctx, outlast.FailureQuery{})
	f.must(err)
	counts := map[string]int{}
	for _, x := range list {
		counts[x.Fingerprint+" "+x.Type] = x.Count
		want(f, "group", x.Group, group)
		if x.FirstSeen.After(x.LastSeen) || x.FirstSeen.IsZero() {
			f.Fatalf("seen from %v to %v", x.FirstSeen, x.LastSeen)
		}
	}
	want(f, "groups", len(list), 3)
	want(f, "of one cause", counts["aaaa a.v1"], 2)
	list, err = f.s.Journal().Failures(f.ctx, outlast.FailureQuery{Group: "nobody"})
	f.must(err)
	want(f, "groups of nobody", len(list), 0)
	list, err = f.s.Journal().Failures(f.ctx, outlast.FailureQuery{Limit: 1})
	f.must(err)
	rest, err := f.s.Journal().Failures(f.ctx, outlast.FailureQuery{Before: list[0].LastSeen})
	f.must(err)
	for _, x := range rest {
		if !x.LastSeen.Before(list[0].LastSeen) {
			f.Fatalf("%v is not before %v", x.LastSeen, list[0].LastSeen)
		}
	}
}

// since is the instant from which the sent log says that it is whole.
func (f *storeFixture) since() time.Time {
	f.Helper()
	page, err := f.s.Journal().Facts(f.ctx, outlast.FactQuery{})
	f.must(err)
	return page.Since
}

// wholeSince: nothing is known before somebody keeps the log; what a relay without tracking
// sends it lacks, and it says so from before the row goes; a log that begins anew does not
// remember what the one before it had. And an inbox tells when its messages were enqueued.
func (f *storeFixture) wholeSince() {
	leases := f.lease("a")
	settle := func(untracked bool) *outlast.Row {
		f.publish(message(""))
		rows := f.pending(leases)
		f.settle(&outlast.Settlement{Leases: leases, Sent: rows, Untracked: untracked})
		return rows[0]
	}
	keep := func() time.Time {
		f.Helper()
		_, err := f.s.Journal().Keep(f.ctx, outlast.Retention{})
		f.must(err)
		return f.since()
	}
	row := settle(false)
	want(f, "nobody has kept it, and it is whole", f.since(), time.Time{})
	began := keep()
	if began.Before(row.EnqueuedAt) {
		f.Fatalf("whole since %v, and nobody had kept it at %v", began, row.EnqueuedAt)
	}
	settle(false)
	want(f, "it stays whole", keep().Equal(began), true)
	row = settle(true)
	if since := f.since(); !since.After(row.EnqueuedAt) || !since.After(began) {
		f.Fatalf("whole since %v, but a row of %v is not in it", since, row.EnqueuedAt)
	}
	f.must(f.s.Migrations().Down(f.ctx, 1))
	f.must(f.s.Migrations().Up(f.ctx, 0))
	f.must(f.s.Journal().Tracking(f.ctx))
	want(f, "it is another one", f.since(), time.Time{})

	in := received("")
	in.EnqueuedAt = began.Add(-time.Hour).UTC().Truncate(time.Millisecond)
	f.handle(in)
	page, err := f.s.Journal().Facts(f.ctx, of(in))
	f.must(err)
	want(f, "facts of the inbox", len(page.Facts), 1)
	want(f, "enqueued as the inbox says", page.Facts[0].EnqueuedAt.Equal(in.EnqueuedAt), true)
	page, err = f.s.Journal().Facts(f.ctx, outlast.FactQuery{IDs: []string{""}})
	f.must(err)
	want(f, "facts of no message", len(page.Facts), 0)
}

func (f *storeFixture) hearing() {
	j := f.s.Journal()
	hearers := func() []outlast.Hearer {
		f.Helper()
		list, err := j.Hearers(f.ctx)
		f.must(err)
		return list
	}
	f.must(j.Hear(f.ctx, group, []string{"a.v1", "b.v1"}))
	first := hearers()
	want(f, "hearers", len(first), 2)
	f.must(j.Hear(f.ctx, group, []string{"a.v1", "b.v1"}))
	want(f, "since", hearers()[0].Since.Equal(first[0].Since), true)
	f.must(j.Unhear(f.ctx, group, "a.v1", outlast.Action{Who: "ann"}))
	want(f, "ended", hearers()[0].Until.IsZero(), false)
	want(f, "the other ended", hearers()[1].Until.IsZero(), true)
	f.must(j.Hear(f.ctx, group, []string{"a.v1"}))
	want(f, "ended after it began again", hearers()[0].Until.IsZero(), true)
}

func (f *storeFixture) keepYoung() {
	leases := f.lease("a")
	m := message("")
	f.publish(m)
	f.settle(&outlast.Settlement{Leases: leases, Sent: f.pending(leases)})
	for _, books := range []bool{true, false} {
		kept, err := f.s.Journal().Keep(f.ctx, outlast.Retention{Books: books, Bytes: 1})
		f.must(err)
		want(f, "dropped", kept.Dropped, 0)
	}
	f.wantFacts(of(m), "committed", "sent")
}

// oneReaper: of the queries by which a relay moves held rows on, a row of each reason is
// selected by exactly one; rows that only their key or a person moves, by none but the
// query of their key. So nothing lies where nobody looks.
func (f *storeFixture) oneReaper() {
	leases := f.lease("a")
	queries := map[outlast.HeldReason]string{
		outlast.HeldDue: "due", outlast.HeldBackoff: "due", outlast.HeldUnroutable: "route", outlast.HeldRoute: "route",
		outlast.HeldBehind: "key", outlast.HeldRefused: "key",
	}
	for _, reason := range outlast.HeldReasons {
		want := queries[reason]
		m := message("key of " + string(reason))
		m.Type = "of." + string(reason) + ".v1"
		f.publish(m)
		row := f.pending(leases)[0]
		f.hold(leases, reason, 0, row)
		has := func(rows []*outlast.Row) bool {
			return slices.ContainsFunc(rows, func(r *outlast.Row) bool { return r.ID == m.ID })
		}
		route := m.Route()
		var by []string
		if has(f.pending(leases)) {
			by = append(by, "pick")
		}
		if has(f.held(outlast.HeldQuery{Leases: leases, Due: true}).Rows) {
			by = append(by, "due")
		}
		if has(f.held(outlast.HeldQuery{Leases: leases, Route: &route}).Rows) {
			by = append(by, "route")
		}
		key := outlast.SlotKey{Slot: row.Slot, Key: m.Envelope.Key}
		if len(by) == 0 && has(f.held(outlast.HeldQuery{Leases: leases, Key: &key}).Rows) {
			by = append(by, "key")
		}
		wantList(f, "queries for a row that is held: "+string(reason), by, []string{want})
	}
}

// oneMover: a message that waits is moved by exactly one: by the scheduler as soon as it is
// due, whatever it waits for; behind another one of its key by that one's end; and one that
// holds its key by a person, who makes it due. Nothing lies where nobody looks.
func (f *storeFixture) oneMover() {
	const years = 10 * 365 * 24 * time.Hour // as for what only a person moves
	claimed := func(m *outlast.Message) bool {
		tx, _, err := f.s.Inbox().BeginRetry(f.ctx, group, ourTypes)
		f.must(err)
		if tx == nil {
			return false
		}
		defer tx.Rollback()
		return tx.Waiting().Message.ID == m.ID
	}
	for _, reason := range outlast.WaitReasons {
		m := received("key of " + reason)
		hold := func(m *outlast.Message, reason string, wait time.Duration) {
			tx := f.mark(m)
			w := waitingOf(m, wait)
			w.Ordered, w.Reason, w.Attempts = true, reason, 1
			f.must(tx.Wait(f.ctx, w))
			f.must(tx.Commit(f.ctx))
		}
		var by []string
		note := func(what string, ok bool) {
			if ok {
				by = append(by, what)
			}
		}
		wants := "scheduler"
		switch reason {
		case outlast.WaitBehind:
			wants = "next of the key"
			first := received("key of " + reason)
			hold(first, outlast.WaitFailed, 0)
			hold(m, reason, 0)
			note("scheduler", claimed(m))
			f.handleRetryOf(first)
			note(wants, claimed(m))
		case outlast.WaitSpent:
			wants = "person"
			hold(m, reason, years)
			note("scheduler", claimed(m))
			want(f, "for a person", f.status().Retry[0].Spent, 1)
			n, err := f.s.Operator().Retries().Now(f.ctx, outlast.Filter{IDs: []string{m.ID}, Group: group}, outlast.Action{Who: "ann"})
			f.must(err)
			want(f, "made due", n, 1)
			note(wants, claimed(m))
			want(f, "for a person when it is due", f.status().Retry[0].Spent, 0)
		default:
			hold(m, reason, 0)
			note(wants, claimed(m))
		}
		wantList(f, "who moves a message that waits: "+reason, by, []string{wants})
		f.handleRetryOf(m)
	}
}
