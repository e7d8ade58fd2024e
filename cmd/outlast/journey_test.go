package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/sqlite"
)

// pair is two services with a database each: orders sends, billing receives.
type pair struct {
	*shell
	orders, billing outlast.Store
	db              *sql.DB
	leases          []outlast.Lease
}

func newPair(t *testing.T) *pair {
	t.Helper()
	s := withTables(t)
	f := &pair{shell: s}
	f.db, f.orders = openStore(t, filepath.Join(s.dir, "orders.db"))
	billing := "sqlite:" + filepath.Join(s.dir, "billing.db")
	s.ok("migrate", "up", "--service", "billing", "--database", billing)
	_, f.billing = openStore(t, filepath.Join(s.dir, "billing.db"))
	s.env[placesEnv] = billing
	g, err := f.orders.Leases().Lease(t.Context(), outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: "a", TTL: time.Hour, Total: 1})
	f.must(err)
	f.leases = g.Held
	return f
}

func openStore(t *testing.T, file string) (*sql.DB, outlast.Store) {
	t.Helper()
	db, err := sql.Open("sqlite", sqlite.DSN(file))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db, sqlite.Store(db)
}

func (f *pair) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// send publishes a message in the past, as another program may, and settles it.
func (f *pair) send(id, key string, ago time.Duration) {
	f.t.Helper()
	_, err := f.db.ExecContext(f.t.Context(), `INSERT INTO outlast_outbox (id, type, ordering_key, correlation_id, body, headers, enqueued_at)
		VALUES (?, 'order.placed.v1', 'ada', ?, '{}', json_object('outlast-find', json_object('order_id', ?)), ?)`,
		id, id, key, time.Now().Add(-ago).UnixMicro())
	f.must(err)
	rows, err := f.orders.Relay().Reader().Pick(f.t.Context(), f.leases, 100, 1<<20)
	f.must(err)
	_, err = f.orders.Relay().Settle(f.t.Context(), &outlast.Settlement{Leases: f.leases, Sent: rows})
	f.must(err)
}

// receive marks a message as handled by billing.
func (f *pair) receive(id string, ago time.Duration) {
	f.t.Helper()
	tx, err := f.billing.Inbox().Begin(f.t.Context(), "billing", []outlast.Mark{{Source: "orders", ID: id, EnqueuedAt: time.Now().Add(-ago)}})
	f.must(err)
	f.must(tx.Commit(f.t.Context()))
}

func TestFindAndFlow(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	root, child := outlast.NewID(), outlast.NewID()
	f.send(root, "o-7", time.Second)
	f.receive(root, time.Second)
	_, err := f.db.ExecContext(t.Context(), `INSERT INTO outlast_outbox (id, type, correlation_id, causation_id, body) VALUES (?, 'order.billed.v1', ?, ?, '{}')`, child, root, root)
	f.must(err)
	for _, text := range []string{"o-7", root, "ada"} {
		contains(t, f.ok("find", text), "order.placed.v1", root, "order_id=o-7", "orders: sent", "billing: handled")
	}
	contains(t, f.ok("flow", child), "order.placed.v1", "\n   order.billed.v1", "orders: pending")
	contains(t, f.ok("flow", root, "--format", "mermaid"), "flowchart TD", "m0 --> m1", "order.billed.v1")
	contains(t, f.ok("flow", root, "--format", "svg"), "<svg ", "order.billed.v1", "</svg>")
	found := decode[journey.Found](f.shell, "find", "o-7")
	if len(found.Stories) != 1 || found.Stories[0].Send.State != journey.Sent || found.Stories[0].Groups[0].State != journey.Handled {
		t.Errorf("found %+v", found)
	}
	f.fails(1, []string{"no message"}, "find", "o-8")
	f.fails(exitUsage, []string{"--format"}, "find", "o-7", "--format", "pdf")
}

// TestFindTellsPastDeaths: that a person brought a message back does not hide why it had died.
func TestFindTellsPastDeaths(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	id := outlast.NewID()
	f.send(id, "o-7", time.Second)
	f.bury(id, "card\nexpired")
	contains(t, f.ok("dead", "replay", id, "--group", "billing", "--database", f.env[placesEnv], "--reason", "a new card"), "1")
	if got := f.ok("find", id); !regexp.MustCompile(`(?m)^   billing: waiting .*\n   billing: died once before \(last: card expired\), replayed 20\S+Z$`).MatchString(got) {
		t.Errorf("find says\n%s", got)
	}
}

// TestFindDrawsGaps: what cannot be asked is unknown, in every format, and never fine.
func TestFindDrawsGaps(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	id := outlast.NewID()
	f.send(id, "o-7", time.Second)
	f.receive(id, time.Second)
	gone := "postgres://app:hunter22@127.0.0.1:1/none"
	for _, c := range [][]string{{"find", "o-7"}, {"flow", id}, {"find", "o-7", "--format", "svg"}, {"flow", id, "--format", "mermaid"}} {
		got := f.fails(1, []string{"gaps"}, append(c, "--in", gone)...)
		contains(t, got.out, "unknown")
		if strings.Contains(got.out+got.err, "hunter22") && !strings.Contains(got.err, "warning") {
			t.Errorf("%v shows a password:\n%s%s", c, got.out, got.err)
		}
	}
	got := f.run("find", "o-7", "--json", "--in", gone)
	var found journey.Found
	f.must(json.Unmarshal([]byte(got.out), &found))
	if len(found.Gaps()) != 1 || len(found.Stories) != 1 || len(found.Stories[0].Gaps) != 1 || strings.Contains(got.out, "hunter22") {
		t.Errorf("found %s", got.out)
	}
}

func TestBooks(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	const ago = 10 * time.Minute
	f.must(f.billing.Journal().Hear(t.Context(), "billing", []string{"order.placed.v1"}))
	db, _ := openStore(t, filepath.Join(f.dir, "billing.db"))
	_, err := db.ExecContext(t.Context(), "UPDATE outlast_hearer SET since = 0")
	f.must(err)
	at := time.Now().Add(-ago)
	minute := minuteText(at.Truncate(time.Minute))
	seen, lost := outlast.NewID(), outlast.NewID()
	f.send(seen, "o-1", time.Since(at))
	f.send(lost, "o-2", time.Since(at))
	f.receive(seen, time.Since(at))

	all := f.env[placesEnv]
	f.env[placesEnv] = ""
	contains(t, f.fails(1, []string{"1 type", "--in"}, "books", "close").out, "order.placed.v1 was sent", "0 balanced")
	f.env[placesEnv] = all
	got := f.fails(1, []string{"missing"}, "books", "close")
	contains(t, got.out, minute, "1 unbalanced")
	const lacks = "1 minute of orders is unbalanced: 1 message is missing"
	contains(t, f.ok("status", "--interval", "100ms"), "WARNING: books: "+lacks)
	contains(t, f.ok("status", "--interval", "100ms", "--json"), `"unbalanced":{"minutes":1,"missing":1}`)
	contains(t, f.run("doctor").out, "warn  books: "+lacks, "outlast books list --state unbalanced")
	contains(t, f.ok("books", "list", "--state", "unbalanced"), minute, "unbalanced")
	contains(t, f.ok("books", "show", minute), "missing in billing: "+lost)
	if strings.Contains(f.ok("books", "show", minute), seen) {
		t.Error("what was seen is named as missing")
	}
	contains(t, f.ok("find", "o-2", "--grace", "1ms"), "LOST")
	contains(t, f.ok("books", "resend", "--minute", minute, "--reason", "queue was deleted"), "1 message")
	contains(t, f.ok("outbox", "list"), lost)
	f.receive(lost, 0)
	contains(t, f.run("books", "close").out, "1 balanced")
	contains(t, f.ok("books", "list"), "balanced")
	contains(t, f.run("doctor").out, "books: no minute is unbalanced")
	if text := f.ok("status", "--interval", "100ms"); strings.Contains(text, "unbalanced") {
		t.Errorf("nothing is missing any more, and the status is %s", text)
	}
	f.fails(exitUsage, []string{"--until"}, "books", "reopen", "--since", minute, "--until", minute)
	f.fails(exitUsage, []string{"since"}, "books", "reopen")
	contains(t, f.ok("books", "reopen", "--since", minute, "--until", minuteText(at.Add(time.Minute)), "--reason", "billing was restored"), "opened again: 1 minute")
	contains(t, f.ok("books", "list"), "open")
	contains(t, f.ok("actions"), "books reopen", "since "+minute[:len(minute)-1], "billing was restored")
	inbox, _ := openStore(t, filepath.Join(f.dir, "billing.db"))
	_, err = inbox.ExecContext(t.Context(), "DELETE FROM outlast_inbox WHERE id = ?", seen)
	f.must(err)
	f.fails(1, []string{"missing"}, "books", "close")
	contains(t, f.ok("books", "show", minute), "missing in billing: "+seen)
	f.receive(seen, time.Since(at))
	contains(t, f.run("books", "close").out, "1 balanced")

	other := time.Now().Add(-2 * ago)
	f.send(outlast.NewID(), "o-3", time.Since(other))
	minute = minuteText(other.Truncate(time.Minute))
	f.run("books", "close")
	f.fails(exitUsage, []string{"--reason"}, "books", "sign-off", minute)
	contains(t, f.ok("actions"), "books resend", "queue was deleted")
	contains(t, f.ok("books", "hearers", "--database", f.env[placesEnv]), "billing", "order.placed.v1")
	f.ok("books", "unhear", "billing", "order.placed.v1", "--database", f.env[placesEnv])
	if list, err := f.billing.Journal().Hearers(context.Background()); err != nil || list[0].Until.IsZero() {
		t.Errorf("hearers %v, %v", list, err)
	}
}

func TestDoctorSaysThatNothingIsTracked(t *testing.T) {
	t.Parallel()
	s := withTables(t)
	contains(t, s.run("doctor").out, "into the sent log")
	s.ok("migrate", "down", "--to", "1", "--yes")
	contains(t, s.run("doctor").out, "nothing is tracked", "outlast migrate up")
	contains(t, s.ok("status"), "orders")
}

// TestDoctorSaysThatNobodyKeepsTheBooks: it is a note once what was sent is hours old.
func TestDoctorSaysThatNobodyKeepsTheBooks(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	const note = "ok    books: nobody keeps them"
	f.send(outlast.NewID(), "o-1", time.Minute)
	if text := f.run("doctor").out; strings.Contains(text, note) {
		t.Errorf("a minute after the first message doctor says %s", text)
	}
	f.send(outlast.NewID(), "o-2", 7*time.Hour)
	contains(t, f.run("doctor").out, note)
	f.must(f.orders.Books().Write(t.Context(), outlast.BookMinute{Minute: time.Now().UTC().Truncate(time.Minute), State: outlast.MinuteOpen}, nil))
	if text := f.run("doctor").out; strings.Contains(text, note) {
		t.Errorf("somebody keeps them, and doctor says %s", text)
	}
}

// TestFindBeyondTheLimit: what a limit leaves out is never held against what is shown.
func TestFindBeyondTheLimit(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	f.must(f.billing.Journal().Hear(t.Context(), "billing", []string{"order.placed.v1"}))
	db, _ := openStore(t, filepath.Join(f.dir, "billing.db"))
	_, err := db.ExecContext(t.Context(), "UPDATE outlast_hearer SET since = 0")
	f.must(err)
	var ids []string
	for i := range 30 {
		ids = append(ids, outlast.NewID())
		f.send(ids[i], "o-7", time.Hour-time.Duration(i)*time.Minute)
		f.receive(ids[i], time.Minute)
	}
	for _, format := range []string{"text", "json", "mermaid", "svg"} {
		out := f.ok("find", "o-7", "--limit", "10", "--grace", "1ms", "--format", format)
		for _, word := range []string{"LOST", "ORPHAN", "OVERDUE", `"lost"`, `"orphan"`, ids[19]} {
			if strings.Contains(out, word) {
				t.Errorf("find as %s says %s:\n%s", format, word, out)
			}
		}
		contains(t, out, ids[20:]...)
	}
	contains(t, f.ok("find", "o-7", "--limit", "10"), "20 more not shown", "these are the newest")
}

// TestFindWithoutTheSender: who was not asked is not unknown, and no gap.
func TestFindWithoutTheSender(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	id := outlast.NewID()
	f.send(id, "o-7", time.Second)
	f.receive(id, time.Second)
	out := f.ok("find", id, "--database", f.env[placesEnv])
	contains(t, out, "orders: not asked, its database was not named", "billing: handled")
	if strings.Contains(out, "unknown: ") {
		t.Errorf("find says\n%s", out)
	}
}
