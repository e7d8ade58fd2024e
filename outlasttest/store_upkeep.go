package outlasttest

import (
	"bytes"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

var upkeepTests = []storeTest{
	{name: "F59_Purge_forgets_only_what_is_old_and_settled", run: (*storeFixture).purge},
	{name: "Purge_tells_what_it_forgot", run: (*storeFixture).purgeTells},
	{name: "S41_Purge_never_forgets_what_waits_or_is_dead", run: (*storeFixture).purgeKeeps},
	{name: "Alive_shows_those_who_did_not_leave", run: (*storeFixture).aliveLeave},
	{name: "Suspect_counts_until_the_message_is_settled", run: (*storeFixture).suspect},
	{name: "Paused_follows_the_operator", run: (*storeFixture).pausing},
}

var migrationTests = []storeTest{
	{name: "Migrations_go_up_and_down_and_up", run: (*storeFixture).migrate},
	{name: "Migrations_can_be_printed", run: (*storeFixture).printMigrations},
}

func (f *storeFixture) purgeNow(p outlast.PurgeRequest) int {
	f.Helper()
	p.Group = group
	if p.Source == "" {
		p.Source = "orders"
	}
	if p.Limit == 0 {
		p.Limit = 1000
	}
	n, err := f.s.Inbox().Purge(f.ctx, p)
	f.must(err)
	return n
}

func (f *storeFixture) purge() {
	old, young, other := received(""), received(""), received("")
	base := time.Now().Add(-24 * time.Hour).Truncate(time.Microsecond)
	old.EnqueuedAt, young.EnqueuedAt, other.EnqueuedAt = base, base.Add(2*time.Hour), base
	other.Source = "returns"
	for _, m := range []*outlast.Message{old, young, other} {
		f.handle(m)
	}
	time.Sleep(5 * time.Millisecond) // so that they were handled longer ago than no time
	middle := base.Add(time.Hour)
	want(f, "purged with no word of the producer", f.purgeNow(outlast.PurgeRequest{}), 0)
	want(f, "purged before their age", f.purgeNow(outlast.PurgeRequest{SettledBefore: middle, Age: time.Hour}), 0)
	want(f, "purged that was enqueued at that instant", f.purgeNow(outlast.PurgeRequest{SettledBefore: base}), 0)
	f.eventually("the old one is purged", func() bool {
		return f.purgeNow(outlast.PurgeRequest{SettledBefore: middle}) == 1
	})
	f.wantSeen(old, outlast.SeenNew)
	f.wantSeen(young, outlast.SeenHandled)
	f.wantSeen(other, outlast.SeenHandled)
	tx, err := f.s.Inbox().Begin(f.ctx, "shipping", []outlast.Mark{markOf(old)})
	f.must(err)
	f.must(tx.Commit(f.ctx))
	want(f, "purged of another group", f.purgeNow(outlast.PurgeRequest{SettledBefore: middle}), 0)
	for range 5 {
		m := received("")
		m.EnqueuedAt = base
		f.handle(m)
	}
	time.Sleep(5 * time.Millisecond)
	want(f, "purged with a limit", f.purgeNow(outlast.PurgeRequest{SettledBefore: middle, Limit: 3}), 3)
	want(f, "purged of the rest", f.purgeNow(outlast.PurgeRequest{SettledBefore: middle, Limit: 3}), 2)
}

// purgeTells: a group that forgot something says up to when it may have, those that forgot
// nothing do not.
func (f *storeFixture) purgeTells() {
	j := f.s.Journal()
	f.must(j.Hear(f.ctx, group, []string{"a.v1", "b.v1"}))
	f.must(j.Hear(f.ctx, "shipping", []string{"a.v1"}))
	forgot := func(of string) time.Time {
		f.Helper()
		list, err := j.Hearers(f.ctx)
		f.must(err)
		h := list[slices.IndexFunc(list, func(h outlast.Hearer) bool { return h.Group == of })]
		return h.Forgot
	}
	purge := func(age time.Duration) {
		f.Helper()
		f.handle(received(""))
		handled := time.Now()
		f.eventually("it is purged", func() bool {
			return f.purgeNow(outlast.PurgeRequest{SettledBefore: time.Now().Add(time.Hour), Age: age}) == 1
		})
		if at := forgot(group); at.Before(handled.Add(-50*time.Millisecond)) || at.After(time.Now().Add(age)) {
			f.Fatalf("it may have forgotten what is before %v, and what was handled at %v is purged", at, handled)
		}
	}
	want(f, "nothing to purge", f.purgeNow(outlast.PurgeRequest{SettledBefore: time.Now().Add(time.Hour), Age: time.Hour}), 0)
	want(f, "forgot", forgot(group), time.Time{})
	purge(0)
	first := forgot(group)
	purge(24 * time.Millisecond)
	if second := forgot(group); !second.After(first) {
		f.Fatalf("forgot up to %v, and then %v", first, second)
	}
	want(f, "another group forgot", forgot("shipping"), time.Time{})
}

func (f *storeFixture) purgeKeeps() {
	waiting, dead, discarded := received(""), received(""), received("")
	f.wait(waiting, time.Hour)
	f.bury(dead)
	f.bury(discarded)
	n, err := f.s.Operator().Dead().Discard(f.ctx, outlast.Filter{IDs: []string{discarded.ID}}, outlast.Action{Who: "test"})
	f.must(err)
	want(f, "discarded", n, 1)
	time.Sleep(5 * time.Millisecond)
	want(f, "purged", f.purgeNow(outlast.PurgeRequest{SettledBefore: time.Now().Add(time.Hour)}), 0)
	f.wantSeen(waiting, outlast.SeenWaiting)
	f.wantSeen(dead, outlast.SeenDead)
	f.wantSeen(discarded, outlast.SeenDead)
}

func (f *storeFixture) aliveLeave() {
	in := f.s.Inbox()
	others := func(name string) []string {
		f.Helper()
		list, err := in.Alive(f.ctx, group, name)
		f.must(err)
		var names []string
		for _, i := range list {
			if i.Age < 0 || i.Age > time.Hour {
				f.Fatalf("age of %s is %v", i.Name, i.Age)
			}
			names = append(names, i.Name)
		}
		return names
	}
	wantList(f, "others", others("a"), nil)
	wantList(f, "others", others("b"), []string{"a"})
	_, err := in.Alive(f.ctx, "shipping", "c")
	f.must(err)
	wantList(f, "others", others("a"), []string{"b"})
	time.Sleep(20 * time.Millisecond)
	list, err := in.Alive(f.ctx, group, "a")
	f.must(err)
	if len(list) != 1 || list[0].Age < 10*time.Millisecond {
		f.Fatalf("b was silent for 20ms, but is shown as %+v", list)
	}
	f.must(in.Leave(f.ctx, group, "b"))
	wantList(f, "others", others("a"), nil)
	f.must(in.Leave(f.ctx, group, "never seen"))
}

func (f *storeFixture) suspect() {
	in := f.s.Inbox()
	f.redelivered = true
	count := func(m *outlast.Message) int {
		f.Helper()
		n, err := in.Suspect(f.ctx, group, m.Source, m.ID)
		f.must(err)
		return n
	}
	for name, settle := range map[string]func(m *outlast.Message){
		"handled": f.handle,
		"waiting": func(m *outlast.Message) { f.wait(m, time.Hour) },
		"dead":    f.bury,
	} {
		m, other := received(""), received("")
		want(f, "first count", count(m), 1)
		want(f, "second count", count(m), 2)
		want(f, "count of another message", count(other), 1)
		tx := f.mark(m)
		tx.Rollback()
		want(f, "count after a rollback", count(m), 3)
		settle(m)
		want(f, "count after it was "+name, count(m), 1)
		want(f, "count of another message", count(other), 2)
		takeBack := func() {
			f.Helper()
			done, err := in.Unsuspect(f.ctx, group, other.Source, other.ID)
			f.must(err)
			want(f, "taken back", done, true)
		}
		takeBack()
		want(f, "count of another message after one was taken back", count(other), 2)
		for range 3 { // one more than there are
			takeBack()
		}
		want(f, "count of another message after all were taken back", count(other), 1)
	}
}

func (f *storeFixture) pausing() {
	paused := func(group string) bool {
		f.Helper()
		p, err := f.s.Inbox().Paused(f.ctx, group)
		f.must(err)
		return p
	}
	want(f, "paused at first", paused(group), false)
	by := outlast.Action{Who: "ann", Reason: "incident"}
	for range 2 {
		f.must(f.s.Operator().SetPaused(f.ctx, group, true, by))
	}
	want(f, "paused", paused(group), true)
	want(f, "another group paused", paused("shipping"), false)
	st := f.status()
	want(f, "paused groups", len(st.Groups), 1)
	want(f, "group", st.Groups[0].Group, group)
	want(f, "who", st.Groups[0].Who, "ann")
	want(f, "reason", st.Groups[0].Reason, "incident")
	f.must(f.s.Operator().SetPaused(f.ctx, group, false, by))
	want(f, "paused after all", paused(group), false)
	want(f, "paused groups", len(f.status().Groups), 0)
}

func (f *storeFixture) migrate() {
	m := f.s.Migrations()
	version := func() int {
		f.Helper()
		v, err := m.Version(f.ctx)
		f.must(err)
		return v
	}
	if m.Latest() < 1 {
		f.Fatalf("the latest version is %d", m.Latest())
	}
	want(f, "version", version(), m.Latest())
	f.must(m.Up(f.ctx, 0))
	f.must(m.Down(f.ctx, 0))
	want(f, "version after all went down", version(), 0)
	f.wantCode(f.s.Check(f.ctx), outlast.CodeSchema)
	for v := 1; v <= m.Latest(); v++ {
		f.must(m.Up(f.ctx, v))
		want(f, "version", version(), v)
	}
	f.must(f.s.Check(f.ctx))
	one := message("")
	f.publish(one)
	wantRows(f, f.pending(f.lease("a")), one)
	f.must(m.Down(f.ctx, 1))
	want(f, "version", version(), 1)
	f.worksOnOldTables()
	f.must(m.Up(f.ctx, 0))
	want(f, "version", version(), m.Latest())
	f.must(f.s.Journal().Tracking(f.ctx))
}

// worksOnOldTables: what newer tables add is left out while they are not there, and
// everything else is done.
func (f *storeFixture) worksOnOldTables() {
	f.Helper()
	f.must(f.s.Check(f.ctx))
	f.wantCode(f.s.Journal().Tracking(f.ctx), outlast.CodeSchema)
	leases := f.lease("a")
	old, held := full(), message("")
	f.publish(old, held)
	sent := &outlast.Settlement{Leases: leases}
	for _, r := range f.pending(leases) {
		if r.ID == held.ID {
			sent.Hold = append(sent.Hold, outlast.Hold{Row: r, Reason: outlast.HeldRefused, Wait: -1, Error: "by a test"})
		} else {
			sent.Sent = append(sent.Sent, r)
		}
	}
	f.settle(sent)
	wantRows(f, f.pending(leases))
	f.handle(received(""))
	f.wait(received(""), 0)
	dead := received("")
	f.bury(dead)
	_, err := f.s.Operator().Dead().Replay(f.ctx, outlast.Filter{IDs: []string{dead.ID}}, outlast.Action{Who: "test"})
	f.must(err)
	f.must(f.s.Journal().Hear(f.ctx, group, []string{"a.v1"}))
	page, err := f.s.Journal().Facts(f.ctx, outlast.FactQuery{IDs: []string{held.ID, dead.ID}})
	f.must(err)
	want(f, "facts without a sent log", len(page.Facts), 3)
}

func (f *storeFixture) printMigrations() {
	m := f.s.Migrations()
	var all, again bytes.Buffer
	f.must(m.Print(&all, 0, m.Latest()))
	if all.Len() == 0 {
		f.Fatalf("nothing was printed")
	}
	for v := range m.Latest() {
		f.must(m.Print(&again, v, v+1))
	}
	if again.Len() < all.Len()/2 {
		f.Fatalf("the steps have %d bytes, all at once %d", again.Len(), all.Len())
	}
}
