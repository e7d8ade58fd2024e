package outlasttest

import (
	"bytes"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

var outboxTests = []storeTest{
	{name: "Check_accepts_a_migrated_store", run: (*storeFixture).checkAccepts},
	{name: "F01_Insert_shows_at_commit_and_not_before", run: (*storeFixture).insertShowsAtCommit, concurrent: true},
	{name: "F01_Insert_of_a_rolled_back_transaction_leaves_nothing", run: (*storeFixture).insertRolledBack},
	{name: "Insert_keeps_every_field", run: (*storeFixture).insertKeepsFields},
	{name: "Insert_keeps_every_body", run: (*storeFixture).insertKeepsBodies},
	{name: "Insert_keeps_the_order_of_the_call", run: (*storeFixture).insertKeepsOrder},
	{name: "Insert_changes_no_message", run: (*storeFixture).insertChangesNothing},
	{name: "Insert_keeps_back_what_is_due_later", run: (*storeFixture).insertDue},
	{name: "Withdraw_cancels_what_waits_for_its_time", run: (*storeFixture).withdrawCancels},
	{name: "Withdraw_takes_part_in_the_transaction", run: (*storeFixture).withdrawRollsBack},
}

func (f *storeFixture) checkAccepts() {
	f.must(f.s.Check(f.ctx))
	if f.s.Slots() < 1 || f.s.Engine() == "" {
		f.Fatalf("engine %q with %d slots", f.s.Engine(), f.s.Slots())
	}
}

func (f *storeFixture) insertShowsAtCommit() {
	leases := f.lease("a")
	tx, m := f.begin(), message("")
	f.must(f.s.Outbox().Insert(f.ctx, tx, []*outlast.Message{m}))
	wantRows(f, f.pending(leases))
	f.must(tx.Commit())
	wantRows(f, f.pending(leases), m)
}

func (f *storeFixture) insertRolledBack() {
	leases := f.lease("a")
	due := message("")
	due.Delay = time.Hour
	tx := f.begin()
	f.must(f.s.Outbox().Insert(f.ctx, tx, []*outlast.Message{message(""), due}))
	f.must(tx.Rollback())
	wantRows(f, f.pending(leases))
	if p := f.held(outlast.HeldQuery{Leases: leases, Due: true}); p.NextDue >= 0 {
		f.Fatalf("a rolled back message waits for its time")
	}
}

// full makes a message that uses every field.
func full() *outlast.Message {
	m := message("ключ-鍵")
	m.Kind = outlast.KindCommand
	m.Envelope.Subject = "a subject with \"quotes\" and 'others' \\ and ünïcode 🙂"
	m.Time = time.Date(2031, 2, 3, 4, 5, 6, 789_123_000, time.UTC)
	m.ContentType = "application/vnd.shop+json; v=2"
	m.DataSchema = "https://schemas.example/order/1"
	m.CorrelationID, m.CausationID = outlast.NewID(), outlast.NewID()
	m.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	m.TraceState = "vendor=value"
	m.Find = map[string]string{"order_id": "o-\"7\" 鍵", "customer": "100% _me_ \\ 'x'"}
	m.Show = []string{"note", "lines.片"}
	m.Within = 90 * time.Second
	m.Headers = outlast.Headers{"tenant": "zürich", "a.b-c_d": "", "n": "2147483648", "json": `{"a":"b\\c"}`}
	m.Body = []byte(`{"note":"a\nb","path":"C:\\x","text":"ünïcode 🙂"}`)
	return m
}

func (f *storeFixture) insertKeepsFields() {
	m := full()
	m.Exchange, m.RoutingKey, m.MayBeUnheard = "foreign.exchange", "some.key", true
	plain := message("")
	plain.Headers = nil
	f.publish(m, plain)
	rows := f.pending(f.lease("a"))
	want(f, "rows", len(rows), 2)
	for _, r := range rows {
		if r.ID == plain.ID {
			wantMessage(f, &r.Message, plain)
			continue
		}
		wantMessage(f, &r.Message, m)
		want(f, "exchange", r.Exchange, m.Exchange)
		want(f, "routing key", r.RoutingKey, m.RoutingKey)
		want(f, "may be unheard", r.MayBeUnheard, true)
		want(f, "in held", r.InHeld, false)
		if r.EnqueuedAt.IsZero() || !r.ExpiresAt.IsZero() || r.NotDue || r.Expired || r.Seq == 0 {
			f.Fatalf("seq %d, enqueued %v, expires %v, not due %t, expired %t", r.Seq, r.EnqueuedAt, r.ExpiresAt, r.NotDue, r.Expired)
		}
	}
}

func (f *storeFixture) insertKeepsBodies() {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	bodies := map[string][]byte{
		"empty":      {},
		"one NUL":    {0},
		"all bytes":  every,
		"JSON":       []byte(`{"a":"\u0000","b":"\\x"}`),
		"backslash":  []byte(`\x41`),
		"not JSON":   []byte(`{"a":`),
		"text":       []byte("ünïcode 🙂 'quoted'\r\n\t"),
		"16 MiB":     bytes.Repeat([]byte("0123456789abcdef"), outlast.MaxBody/16),
		"16 MiB raw": bytes.Repeat([]byte{0xff, 0x00, 0xfe, 0x7f}, outlast.MaxBody/4),
	}
	leases := f.lease("a")
	r := f.s.Relay().Reader()
	for name, body := range bodies {
		m := message("")
		m.Body = body
		m.ContentType = "application/octet-stream"
		if strings.Contains(name, "JSON") {
			m.ContentType = "application/json"
		}
		f.publish(m)
		rows := f.pickUntil(r, leases, 1)
		f.Logf("body: %s", name)
		wantMessage(f, &rows[0].Message, m)
	}
}

func (f *storeFixture) insertKeepsOrder() {
	msgs := batch(50, "k")
	f.publish(msgs...)
	rows := f.pending(f.lease("a"))
	wantRows(f, rows, msgs...)
	for i := 1; i < len(rows); i++ {
		if rows[i].Seq <= rows[i-1].Seq {
			f.Fatalf("seq %d follows %d", rows[i].Seq, rows[i-1].Seq)
		}
	}
}

func (f *storeFixture) insertChangesNothing() {
	m := full()
	m.Delay, m.Lifetime = time.Hour, 2*time.Hour
	before := *m
	f.publish(m)
	wantMessage(f, m, &before)
	if m.Delay != before.Delay || m.Lifetime != before.Lifetime || !m.Due.IsZero() || !m.EnqueuedAt.IsZero() || !m.ExpiresAt.IsZero() || m.Source != "" {
		f.Fatalf("Insert set fields: %+v", m)
	}
}

func (f *storeFixture) insertDue() {
	leases := f.lease("a")
	now, past, soon, later := message(""), message(""), full(), message("")
	past.Due = time.Now().Add(-time.Hour)
	soon.Delay = 200 * time.Millisecond
	later.Due = time.Now().Add(time.Hour)
	f.publish(now, later, soon, past)
	pending := map[string]bool{}
	for _, r := range f.pending(leases) {
		pending[r.ID] = true
	}
	if !pending[now.ID] || !pending[past.ID] || len(pending) != 2 {
		f.Fatalf("pending are %v, want only %s and %s", pending, now.ID, past.ID)
	}
	index, err := f.s.Relay().HeldIndex(f.ctx, leases)
	f.must(err)
	if len(index.Keys) > 0 || len(index.Routes) > 0 {
		f.Fatalf("messages that wait for their time block others: %+v", index)
	}
	var page outlast.HeldPage
	f.eventually("the message with a short delay is due", func() bool {
		page = f.held(outlast.HeldQuery{Leases: leases, Due: true})
		return len(page.Rows) > 0
	})
	wantRows(f, page.Rows, soon)
	wantMessage(f, &page.Rows[0].Message, soon)
	want(f, "reason", page.Rows[0].Reason, outlast.HeldDue)
	want(f, "in held", page.Rows[0].InHeld, true)
	want(f, "not due", page.Rows[0].NotDue, false)
	if page.NextDue <= 0 || page.NextDue > time.Hour {
		f.Fatalf("next due in %v, want up to an hour", page.NextDue)
	}
}

func (f *storeFixture) withdraw(id string, commit bool) bool {
	f.Helper()
	tx := f.begin()
	did, err := f.s.Outbox().Withdraw(f.ctx, tx, id)
	f.must(err)
	if commit {
		f.must(tx.Commit())
	} else {
		f.must(tx.Rollback())
	}
	return did
}

func (f *storeFixture) withdrawCancels() {
	leases := f.lease("a")
	later, now := message("k"), message("k")
	later.Delay = time.Hour
	f.publish(later, now)
	want(f, "withdrawn a pending message", f.withdraw(now.ID, true), false)
	want(f, "withdrawn an unknown message", f.withdraw(outlast.NewID(), true), false)
	want(f, "withdrawn", f.withdraw(later.ID, true), true)
	want(f, "withdrawn again", f.withdraw(later.ID, true), false)
	if p := f.held(outlast.HeldQuery{Leases: leases, Due: true}); p.NextDue >= 0 {
		f.Fatalf("a withdrawn message still waits")
	}
	wantRows(f, f.pending(leases), now)
	rows := f.pending(leases)
	f.hold(leases, outlast.HeldBackoff, time.Hour, rows...)
	want(f, "withdrawn a message that backs off", f.withdraw(now.ID, true), false)
}

func (f *storeFixture) withdrawRollsBack() {
	m := message("")
	m.Delay = time.Hour
	f.publish(m)
	want(f, "withdrawn", f.withdraw(m.ID, false), true)
	want(f, "withdrawn after a rollback", f.withdraw(m.ID, true), true)

	own := message("")
	own.Delay = time.Hour
	tx := f.begin()
	f.must(f.s.Outbox().Insert(f.ctx, tx, []*outlast.Message{own}))
	did, err := f.s.Outbox().Withdraw(f.ctx, tx, own.ID)
	f.must(err)
	want(f, "withdrawn what the same transaction wrote", did, true)
	f.must(tx.Commit())
	if p := f.held(outlast.HeldQuery{Leases: f.lease("a"), Due: true}); p.NextDue >= 0 {
		f.Fatalf("a withdrawn message still waits")
	}
}
