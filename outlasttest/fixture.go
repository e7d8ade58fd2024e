package outlasttest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// patience bounds every wait for something that must happen. It is no measure of
// speed: a passing test never waits that long.
const patience = 30 * time.Second

// giveUp returns when a wait that begins now has been in vain: early enough for the
// test to say so before -timeout ends it without a word.
func giveUp(t testing.TB) time.Time {
	end := time.Now().Add(patience)
	if d, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if at, ok := d.Deadline(); ok && at.Add(-2*time.Second).Before(end) {
			return at.Add(-2 * time.Second)
		}
	}
	return end
}

// settling is how long a test watches that something does not happen.
const settling = 150 * time.Millisecond

// plenty is a bound that no test reaches.
const plenty = 1 << 30

type storeFixture struct {
	*testing.T
	ctx context.Context
	u   StoreUnderTest
	s   outlast.Store
	// redelivered: marks are of messages that were delivered before.
	redelivered bool
}

// must stops the test on an error.
func (f *storeFixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("unexpected error: %v", err)
	}
}

func (f *storeFixture) begin() ProducerTx {
	f.Helper()
	tx, err := f.u.Begin(f.ctx)
	f.must(err)
	f.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

// publish commits the messages in one transaction.
func (f *storeFixture) publish(msgs ...*outlast.Message) {
	f.Helper()
	tx := f.begin()
	f.must(f.s.Outbox().Insert(f.ctx, tx, msgs))
	f.must(tx.Commit())
}

// message makes a message with a body of its own.
func message(key string) *outlast.Message {
	m := &outlast.Message{}
	m.ID = outlast.NewID()
	m.Type = "order.placed.v1"
	m.Kind = outlast.KindEvent
	m.ContentType = "application/json"
	m.CorrelationID = m.ID
	m.Envelope.Key = key
	m.Body = fmt.Appendf(nil, `{"id":%q}`, m.ID)
	return m
}

// batch makes n messages of one key.
func batch(n int, key string) []*outlast.Message {
	msgs := make([]*outlast.Message, n)
	for i := range msgs {
		msgs[i] = message(key)
	}
	return msgs
}

// lease takes the relay's slots for owner, as many as it may have.
func (f *storeFixture) lease(owner string) []outlast.Lease {
	f.Helper()
	g, err := f.s.Leases().Lease(f.ctx, outlast.LeaseRequest{
		Scope: outlast.RelayScope, Owner: owner, TTL: time.Hour, Total: f.s.Slots()})
	f.must(err)
	return g.Held
}

func slotsOf(leases []outlast.Lease) []int {
	var s []int
	for _, l := range leases {
		s = append(s, l.Slot)
	}
	return s
}

func leaseOf(leases []outlast.Lease, slot int) outlast.Lease {
	for _, l := range leases {
		if l.Slot == slot {
			return l
		}
	}
	return outlast.Lease{Slot: -1}
}

// pick calls Pick once.
func (f *storeFixture) pick(r outlast.OutboxReader, leases []outlast.Lease, maxRows int) []*outlast.Row {
	f.Helper()
	rows, err := r.Pick(f.ctx, leases, maxRows, plenty)
	f.must(err)
	return rows
}

// pickUntil picks until n rows have come. Late commits may take a reader some time.
func (f *storeFixture) pickUntil(r outlast.OutboxReader, leases []outlast.Lease, n int) []*outlast.Row {
	f.Helper()
	var rows []*outlast.Row
	f.eventually(fmt.Sprintf("%d rows are picked", n), func() bool {
		rows = append(rows, f.pick(r, leases, 1000)...)
		return len(rows) >= n
	})
	if len(rows) > n {
		f.Fatalf("picked %d rows, want %d", len(rows), n)
	}
	return rows
}

// pending returns all pending rows, by a reader with no memory.
func (f *storeFixture) pending(leases []outlast.Lease) []*outlast.Row {
	f.Helper()
	r := f.s.Relay().Reader()
	var all []*outlast.Row
	for {
		rows := f.pick(r, leases, 1000)
		if len(rows) == 0 {
			return all
		}
		all = append(all, rows...)
	}
}

// settle applies a settlement of which nothing may be stale.
func (f *storeFixture) settle(s *outlast.Settlement) {
	f.Helper()
	stale, err := f.s.Relay().Settle(f.ctx, s)
	f.must(err)
	if len(stale) > 0 {
		f.Fatalf("Settle found leases stale that are current: %v", stale)
	}
}

// hold moves the rows to the held with one reason.
func (f *storeFixture) hold(leases []outlast.Lease, reason outlast.HeldReason, wait time.Duration, rows ...*outlast.Row) {
	f.Helper()
	s := &outlast.Settlement{Leases: leases}
	for _, r := range rows {
		s.Hold = append(s.Hold, outlast.Hold{Row: r, Reason: reason, Wait: wait, Attempts: 1, Error: "held by a test"})
	}
	f.settle(s)
}

// held runs a query without bounds.
func (f *storeFixture) held(q outlast.HeldQuery) outlast.HeldPage {
	f.Helper()
	if q.MaxRows == 0 {
		q.MaxRows = 1000
	}
	if q.MaxBytes == 0 {
		q.MaxBytes = plenty
	}
	p, err := f.s.Relay().Held(f.ctx, q)
	f.must(err)
	return p
}

// eventually waits until ok holds.
func (f *storeFixture) eventually(what string, ok func() bool) {
	f.Helper()
	eventually(f.T, what, ok)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := giveUp(t); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// wantCode checks an error's code.
func (f *storeFixture) wantCode(err error, code outlast.Code) {
	f.Helper()
	if outlast.CodeOf(err) != code {
		f.Fatalf("error %v has code %q, want %q", err, outlast.CodeOf(err), code)
	}
}

// wantRows checks that rows are the messages, in order.
func wantRows(t testing.TB, rows []*outlast.Row, msgs ...*outlast.Message) {
	t.Helper()
	var got, want []string
	for _, r := range rows {
		got = append(got, r.ID)
	}
	for _, m := range msgs {
		want = append(want, m.ID)
	}
	wantList(t, "rows", got, want)
}

func wantList[E comparable](t testing.TB, what string, got, want []E) {
	t.Helper()
	same := len(got) == len(want)
	for i := range got {
		same = same && got[i] == want[i]
	}
	if !same {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func want[E comparable](t testing.TB, what string, got, want E) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// wantMessage checks that all that was written came back.
func wantMessage(t testing.TB, got, wanted *outlast.Message) {
	t.Helper()
	texts := []struct{ field, got, want string }{
		{"id", got.ID, wanted.ID},
		{"type", got.Type, wanted.Type},
		{"kind", string(got.Kind), string(wanted.Kind)},
		{"subject", got.Envelope.Subject, wanted.Envelope.Subject},
		{"key", got.Envelope.Key, wanted.Envelope.Key},
		{"content type", got.ContentType, wanted.ContentType},
		{"data schema", got.DataSchema, wanted.DataSchema},
		{"correlation id", got.CorrelationID, wanted.CorrelationID},
		{"causation id", got.CausationID, wanted.CausationID},
		{"trace parent", got.TraceParent, wanted.TraceParent},
		{"trace state", got.TraceState, wanted.TraceState},
	}
	for _, x := range texts {
		want(t, x.field, x.got, x.want)
	}
	if !got.Time.Equal(wanted.Time) {
		t.Fatalf("time: got %v, want %v", got.Time, wanted.Time)
	}
	if !maps.Equal(got.Headers, wanted.Headers) {
		t.Fatalf("headers: got %v, want %v", got.Headers, wanted.Headers)
	}
	if !maps.Equal(got.Find, wanted.Find) {
		t.Fatalf("business keys: got %v, want %v", got.Find, wanted.Find)
	}
	if !slices.Equal(got.Show, wanted.Show) {
		t.Fatalf("fields to show: got %v, want %v", got.Show, wanted.Show)
	}
	want(t, "within", got.Within, wanted.Within)
	if !bytes.Equal(got.Body, wanted.Body) {
		t.Fatalf("body: got %d bytes %.60q, want %d bytes %.60q", len(got.Body), got.Body, len(wanted.Body), wanted.Body)
	}
}
