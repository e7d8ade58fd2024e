package sqlite_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/sqlite"
)

// TestForeignWriter enqueues as a program in another language would.
func TestForeignWriter(t *testing.T) {
	t.Parallel()
	db, s, path := fresh(t)
	const insert = `INSERT INTO outlast_outbox (type, ordering_key, body) VALUES ('order.placed.v1', 'order-7', '{"order_id":"order-7"}')`
	if shell, err := exec.LookPath("sqlite3"); err == nil {
		if out, err := exec.CommandContext(t.Context(), shell, path, insert).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	} else if _, err := db.ExecContext(t.Context(), insert); err != nil {
		t.Fatal(err)
	}
	rows := pick(t, s)
	if len(rows) != 1 {
		t.Fatalf("picked %d rows", len(rows))
	}
	r := rows[0]
	must(t, r.Validate(0))
	if r.Kind != outlast.KindEvent || r.Envelope.Key != "order-7" || string(r.Body) != `{"order_id":"order-7"}` {
		t.Errorf("picked %+v", r)
	}
	if d := time.Since(r.EnqueuedAt); d < -time.Minute || d > time.Minute {
		t.Errorf("enqueued %v ago", d)
	}
	if r.ID[14] != '7' {
		t.Errorf("id %q is no UUIDv7", r.ID)
	}
	const due = `INSERT INTO outlast_outbox (type, body_bytes, due_at) VALUES ('a.v1', x'00ff', (unixepoch() + 3600) * 1000000)`
	if _, err := db.ExecContext(t.Context(), due); err != nil {
		t.Fatal(err)
	}
	page, err := s.Relay().Held(t.Context(), outlast.HeldQuery{Leases: lease(t, s), Due: true, MaxRows: 10, MaxBytes: 1000})
	must(t, err)
	if len(page.Rows) != 0 || page.NextDue < 50*time.Minute || page.NextDue > 61*time.Minute {
		t.Errorf("held page: %+v", page)
	}
}

func lease(t testing.TB, s outlast.Store) []outlast.Lease {
	t.Helper()
	g, err := s.Leases().Lease(t.Context(), outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: "relay", TTL: time.Hour, Total: 1})
	must(t, err)
	return g.Held
}

func pick(t testing.TB, s outlast.Store) []*outlast.Row {
	t.Helper()
	rows, err := s.Relay().Reader().Pick(t.Context(), lease(t, s), 1000, 1<<20)
	must(t, err)
	return rows
}

func TestLimitsAreNamed(t *testing.T) {
	t.Parallel()
	db, _, _ := fresh(t)
	for field, values := range map[string]string{
		"type":          `('a..b', '{}', NULL, NULL, NULL, NULL)`,
		"body":          `('a', NULL, NULL, NULL, NULL, NULL)`,
		"ordering_key":  `('a', '{}', printf('%0256d', 1), NULL, NULL, NULL)`,
		"subject":       `('a', '{}', NULL, 'x' || char(7), NULL, NULL)`,
		"headers":       `('a', '{}', NULL, NULL, '[1]', NULL)`,
		"id":            `('a', '{}', NULL, NULL, NULL, 'no uuid')`,
		"subject, NUL":  `('a', '{}', NULL, 'x' || char(0) || 'y', NULL, NULL)`,
		"type, 201":     `(printf('%0201d', 1), '{}', NULL, NULL, NULL, NULL)`,
		"headers, text": `('a', '{}', NULL, NULL, 'x', NULL)`,
	} {
		_, err := db.ExecContext(t.Context(), `INSERT INTO outlast_outbox (type, body, ordering_key, subject, headers, id)
			SELECT column1, column2, column3, column4, column5, coalesce(column6, '018f4e9a-0000-7000-8000-000000000000') FROM (VALUES `+values+`)`)
		if err == nil {
			t.Errorf("%s: was accepted", field)
		}
	}
	// Through the store the same limits come as fields.
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	defer func() { _ = tx.Rollback() }()
	m := &outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: "a..b"}, Body: []byte("{}")}
	err = sqlite.Store(db).Outbox().Insert(t.Context(), tx, []*outlast.Message{m})
	e, ok := err.(*outlast.Error)
	if !ok || e.Code != outlast.CodeInvalid || len(e.Fields) != 1 || e.Fields[0].Field != "type" {
		t.Errorf("Insert = %v", err)
	}
}

// TestManyMessages passes the limit of parameters of one statement.
func TestManyMessages(t *testing.T) {
	t.Parallel()
	db, s, _ := fresh(t)
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	msgs := make([]*outlast.Message, 2500)
	for i := range msgs {
		msgs[i] = &outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: "a.v1"}, Body: []byte("{}"), Lifetime: time.Hour}
	}
	must(t, s.Outbox().Insert(t.Context(), tx, msgs))
	must(t, tx.Commit())
	r, leases, got := s.Relay().Reader(), lease(t, s), 0
	for {
		rows, err := r.Pick(t.Context(), leases, 1000, 1<<30)
		must(t, err)
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			if row.ID != msgs[got].ID || row.ExpiresAt.Sub(row.EnqueuedAt) != time.Hour {
				t.Fatalf("row %d is %+v", got, row)
			}
			got++
		}
	}
	if got != len(msgs) {
		t.Errorf("picked %d", got)
	}
}

// TestRescanFindsWhatTheCursorPassed lets a row appear below the cursor, as after a
// restored backup.
func TestRescanFindsWhatTheCursorPassed(t *testing.T) {
	t.Parallel()
	db, s, _ := fresh(t)
	insert := func(seq int) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), `INSERT INTO outlast_outbox (seq, type, body) VALUES (?, 'a.v1', '{}')`, seq)
		must(t, err)
	}
	insert(100)
	r, leases := s.Relay().Reader(), lease(t, s)
	next := func() []*outlast.Row {
		t.Helper()
		rows, err := r.Pick(t.Context(), leases, 10, 1<<20)
		must(t, err)
		return rows
	}
	if rows := next(); len(rows) != 1 || rows[0].Seq != 100 {
		t.Fatalf("picked %v", rows)
	}
	insert(7)
	deadline := time.Now().Add(time.Minute)
	for {
		rows := next()
		if len(rows) == 1 && rows[0].Seq == 7 {
			break
		}
		if len(rows) > 0 || time.Now().After(deadline) {
			t.Fatalf("picked %v", rows)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestTwoStoresContend lets two pools, as two processes have them, write at once:
// nobody fails, and the order of a key is the order of commits.
func TestTwoStoresContend(t *testing.T) {
	t.Parallel()
	_, s, path := fresh(t)
	other := sqlite.Store(open(t, sqlite.DSN(path)))
	const each = 60
	done := make(chan error, 4)
	for i, st := range []outlast.Store{s, other, s, other} {
		go func() { done <- handleMany(t.Context(), st, i, each) }()
	}
	for range 4 {
		must(t, <-done)
	}
	rows := pick(t, s)
	if len(rows) != 4*each {
		t.Fatalf("%d messages were enqueued, want %d", len(rows), 4*each)
	}
	seen := map[string]string{}
	for _, r := range rows {
		if seen[r.Envelope.Key] >= string(r.Body) {
			t.Fatalf("key %s: %s after %s", r.Envelope.Key, r.Body, seen[r.Envelope.Key])
		}
		seen[r.Envelope.Key] = string(r.Body)
	}
}

// handleMany handles n messages, each of which publishes one.
func handleMany(ctx context.Context, s outlast.Store, worker, n int) error {
	key := string(rune('a' + worker))
	for i := range n {
		tx, err := s.Inbox().Begin(ctx, "g", []outlast.Mark{{Source: key, ID: outlast.NewID(), Hash: 1}})
		if err != nil {
			return err
		}
		m := &outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: "a.v1", Key: key}, Body: []byte{byte('0' + i/10), byte('0' + i%10)}}
		if err := s.Outbox().Insert(ctx, tx.Tx(), []*outlast.Message{m}); err != nil {
			tx.Rollback()
			return err
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// TestSettledBeforeWaitsForOpenWriters holds a write transaction open whose rows
// nobody sees yet.
func TestSettledBeforeWaitsForOpenWriters(t *testing.T) {
	t.Parallel()
	db, s, _ := fresh(t)
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	m := &outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: "a.v1"}, Body: []byte("{}")}
	must(t, s.Outbox().Insert(t.Context(), tx, []*outlast.Message{m}))
	time.Sleep(20 * time.Millisecond) // so that a reader that sees no row answers with a later time
	type answer struct {
		at  time.Time
		err error
	}
	got := make(chan answer, 1)
	go func() {
		at, err := s.Relay().SettledBefore(t.Context())
		got <- answer{at, err}
	}()
	time.Sleep(50 * time.Millisecond)
	must(t, tx.Commit())
	a := <-got
	must(t, a.err)
	row := pick(t, s)[0]
	if a.at.After(row.EnqueuedAt) {
		t.Errorf("settled before %v, with a row of %v", a.at, row.EnqueuedAt)
	}
}
