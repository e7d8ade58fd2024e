package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

func TestMigrate(t *testing.T) {
	s := newShell(t)
	s.env[databaseServer.env] = "sqlite:" + filepath.Join(s.dir, "orders.db")
	up := decode[migrated](s, "migrate", "up", "--service", "orders")
	if up.Before == nil || *up.Before != 0 || up.Version != up.Latest || up.Latest < 1 || up.Service != "orders" {
		t.Errorf("up: %+v", up)
	}
	contains(t, s.ok("migrate", "up"), "already, nothing to do")
	contains(t, s.ok("migrate", "status"), fmt.Sprintf("version %d", up.Latest))
	s.fails(exitFailure, []string{"orders", "billing"}, "migrate", "up", "--service", "billing")
	s.fails(exitUsage, []string{"--to"}, "migrate", "down")
	s.fails(exitUsage, []string{"--yes", "deletes every message"}, "migrate", "down", "--to", "0")
	contains(t, s.ok("migrate", "down", "--to", "0", "--yes"), "to 0")
	s.fails(exitFailure, []string{"missing or older", "outlast migrate up"}, "migrate", "status")
	s.fails(exitFailure, []string{"outlast migrate up"}, "status")
	s.fails(exitUsage, []string{"SQLite, which has none"}, "migrate", "up", "--schema", "x")
}

func TestMigratePrintConnectsToNothing(t *testing.T) {
	s := newShell(t)
	contains(t, s.ok("migrate", "print", "--engine", "sqlite", "--prefix", "mq_"), "CREATE TABLE mq_outbox")
	contains(t, s.ok("migrate", "print", "--database", "postgres://app@127.0.0.1:1/none", "--schema", "messaging"), "messaging", "outlast_outbox")
	s.fails(exitUsage, []string{"--engine"}, "migrate", "print", "--engine", "oracle")
	s.fails(exitUsage, []string{"from < to"}, "migrate", "print", "--engine", "sqlite", "--from", "99")
	s.fails(exitUsage, []string{"--engine", "database URL"}, "migrate", "print")
	s.fails(exitUsage, []string{"schema"}, "migrate", "print", "--engine", "postgres", "--schema", `x"; DROP TABLE y`)
}

func TestPublishOne(t *testing.T) {
	s := withTables(t)
	id := outlast.NewID()
	contains(t, s.ok("publish", "--type", "order.placed.v1", "--key", "order-7", "--body", `{"a":1}`, "--id", id, "--header", "tenant=x=y"), "published "+id)
	shown := decode[outlast.Item](s, "outbox", "show", id)
	e := shown.Envelope
	if strings.Join(strings.Fields(string(shown.Body)), "") != `{"a":1}` {
		t.Errorf("body: %s", shown.Body)
	}
	if e.Type != "order.placed.v1" || e.Key != "order-7" || e.Headers["tenant"] != "x=y" || shown.Where != "pending" {
		t.Errorf("shown: %+v with body %s", shown, shown.Body)
	}
	contains(t, s.ok("outbox", "show", id), "tenant: x=y", `{"a":1}`, "order-7")
	contains(t, s.ok("publish", "--type", "order.placed.v1", "--body", "{}", "--delay", "1h"), "published ")
	items := decode[[]outlast.Item](s, "outbox", "list", "--why", "due")
	if len(items) != 1 || items[0].NextAt.IsZero() {
		t.Errorf("with a delay: %+v", items)
	}
	s.in = strings.NewReader("from stdin")
	s.ok("publish", "--type", "note.v1", "--body-file", "-", "--content-type", "text/plain")

	s.fails(exitFailure, []string{"type", "order..v1"}, "publish", "--type", "order..v1", "--body", "{}")
	s.fails(exitUsage, []string{"--type"}, "publish", "--body", "{}")
	s.fails(exitUsage, []string{"--body"}, "publish", "--type", "a.v1")
	s.fails(exitUsage, []string{"body", "not JSON", "text/plain"}, "publish", "--type", "a.v1", "--body", "order-7")
	s.fails(exitUsage, []string{"--due"}, "publish", "--type", "a.v1", "--body", "{}", "--due", "tomorrow")
	s.fails(exitUsage, []string{"no such file"}, "publish", "--file", filepath.Join(s.dir, "none"))
	s.fails(exitFailure, []string{"not found"}, "outbox", "show", outlast.NewID())
}

func (s *shell) file(name, text string) string {
	s.t.Helper()
	name = filepath.Join(s.dir, name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name
}

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"type":"order.placed.v1","key":"k%d","body":{"n":%d}}`+"\n", i%7, i)
	}
	return b.String()
}

// waiting counts what waits to be sent.
func (s *shell) waiting() int {
	s.t.Helper()
	report := decode[statusReport](s, "status", "--interval", "100ms")
	n, _ := toSend(report.StoreStatus)
	return n
}

func TestPublishFile(t *testing.T) {
	s := withTables(t)
	contains(t, s.ok("publish", "--file", s.file("good", lines(1050)+"\n\n"), "--batch", "100"), "published 1,050 messages (up to line 1,052)")
	if n := s.waiting(); n != 1050 {
		t.Errorf("%d wait, want 1050", n)
	}
	s.in = strings.NewReader(`{"type":"x.v1","body_text":"plain \u00e9","headers":{"a":"b"},"lifetime":"1h"}` + "\n" + `{"type":"x.v1","body_base64":"AAE=","due":"2020-01-01T00:00:00Z"}`)
	s.ok("publish", "--file", "-")
	items := decode[[]outlast.Item](s, "outbox", "list", "--type", "x.v1")
	if len(items) != 2 || items[0].Envelope.ContentType != "text/plain" || items[0].Envelope.Headers["a"] != "b" || items[0].Envelope.ExpiresAt.IsZero() {
		t.Errorf("from stdin: %+v", items)
	}
}

func TestPublishFileStopsAtABadLineAndContinues(t *testing.T) {
	s := withTables(t)
	text := strings.SplitAfter(lines(250), "\n")
	text[219] = `{"type":"order.placed.v1","boddy":{}}` + "\n"
	name := s.file("bad", strings.Join(text, ""))
	got := s.fails(exitFailure, []string{"line 220", "boddy", "--skip 200"}, "publish", "--file", name, "--batch", "100")
	contains(t, got.out, "published 200 messages")
	if n := s.waiting(); n != 200 {
		t.Errorf("%d wait, want 200", n)
	}
	text[219] = `{"type":"order.placed.v1","body":{}}` + "\n"
	name = s.file("bad", strings.Join(text, ""))
	contains(t, s.ok("publish", "--file", name, "--skip", "200"), "published 50 messages (up to line 250)")
	if n := s.waiting(); n != 250 {
		t.Errorf("%d wait, want 250", n)
	}
	for line, words := range map[string][]string{
		`{"type":"a.v1"}`:                                        {"exactly one of body"},
		`{"type":"a.v1","body":1,"body_text":""}`:                {"exactly one of body"},
		`{"type":"a v1","body":1}`:                               {"type", "a v1"},
		`{"type":"a.v1","body":1} x`:                             {"data after"},
		`{"type":7,"body":1}`:                                    {"member", "type"},
		`{"type":"a.v1","body":{`:                                {"line 1"},
		`{"type":"a.v1","body":1,"delay":"soon"}`:                {"delay", "10m"},
		`{"type":"a.v1","body":1,"id":"7"}`:                      {"id", "UUID"},
		`{"type":"a.v1","body_base64":"` + long(2<<20) + `"}`:    {"body", "at most 1048576 bytes"},
		`{"type":"a.v1","body":"` + long(outlast.MaxBody*2) + ``: {"longer than"},
	} {
		got := s.fails(exitFailure, append(words, "line 1"), "publish", "--file", s.file("line", line), "--dry-run")
		if len(got.err) > 1000 {
			t.Errorf("the error repeats the message: %d bytes", len(got.err))
		}
	}
	s.fails(exitUsage, []string{"--skip", "lines of the file"}, "publish", "--file", name, "--skip", "251")
}

func TestPublishFileNamesTheLinesThatTheDatabaseRefused(t *testing.T) {
	s := withTables(t)
	db, err := s.program(&syncBuffer{}, &syncBuffer{}).openDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	if _, err := db.sql.ExecContext(t.Context(), `CREATE TRIGGER refuse BEFORE INSERT ON outlast_outbox WHEN NEW.ordering_key = 'bad' BEGIN SELECT raise(ABORT, 'not on my watch'); END`); err != nil {
		t.Fatal(err)
	}
	text := lines(25) + `{"type":"order.placed.v1","key":"bad","body":1}` + "\n"
	got := s.fails(exitFailure, []string{"lines 21 to 26 were not written", "not on my watch", "--skip 20 continues"}, "publish", "--file", s.file("twice", text), "--batch", "10")
	contains(t, got.out, "published 20 messages")
	if n := s.waiting(); n != 20 {
		t.Errorf("%d wait, want 20", n)
	}
}

func long(n int) string { return strings.Repeat("A", n) }

func TestPublishInterruptedSaysHowFar(t *testing.T) {
	s := withTables(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.in = &cancelAfter{r: strings.NewReader(lines(5000)), n: 20_000, cancel: cancel}
	got := s.runContext(ctx, "publish", "--file", "-", "--batch", "10", "--json")
	if got.code != exitFailure {
		t.Errorf("exit code %d", got.code)
	}
	contains(t, got.err, "interrupted", "--skip ")
	n := s.waiting()
	contains(t, got.err, fmt.Sprintf("--skip %d continues", n))
	contains(t, got.out, fmt.Sprintf(`"count": %d`, n))
	if n == 0 || n == 5000 {
		t.Errorf("%d of 5000 were written: nothing was interrupted", n)
	}
}

// cancelAfter is a reader in the middle of which a person presses Ctrl-C.
type cancelAfter struct {
	r      *strings.Reader
	n      int
	cancel func()
}

func (c *cancelAfter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b[:min(len(b), 1000)])
	if c.n -= n; c.n < 0 {
		c.cancel()
	}
	return n, err
}

func TestProgressOnLongWork(t *testing.T) {
	s := withTables(t)
	name := s.file("many", lines(300))
	got := s.run("publish", "--file", name, "--dry-run", "--progress")
	contains(t, got.err, "checked 300")
	if got := s.run("publish", "--file", name, "--dry-run"); got.err != "" {
		t.Errorf("progress without a terminal: %q", got.err)
	}
}

func TestStatus(t *testing.T) {
	s := withTables(t)
	contains(t, s.ok("status"), "outbox of orders", "nothing waits to be sent", "no relay is alive")
	s.ok("publish", "--file", s.file("some", lines(30)))
	contains(t, s.ok("status", "--interval", "100ms", "--warn-pending", "29"), "30 to send", "not shrinking", "WARNING: 30 messages wait to be sent, above 29", "order.placed.v1")
	report := decode[statusReport](s, "status", "--interval", "100ms")
	if report.RatePerSecond == nil || *report.RatePerSecond != 0 || report.OutboxBytes == 0 || len(report.Warnings) != 0 {
		t.Errorf("report: %+v", report)
	}
	s.fails(exitUsage, []string{"--interval", "100ms to 1h"}, "status", "--interval", "1ms")
	s.fails(exitUsage, []string{"--warn-pending"}, "status", "--warn-pending", "-1")
}

// TestStatusShowsEveryGroup, also one for which nothing waits: one that runs, one that
// ended in good order, and one of which only its subscription or its inbox tells.
func TestStatusShowsEveryGroup(t *testing.T) {
	t.Parallel()
	s := withTables(t)
	if text := s.ok("status", "--interval", "100ms"); strings.Contains(text, "GROUP") {
		t.Errorf("there are no groups:\n%s", text)
	}
	_, store := openStore(t, filepath.Join(s.dir, "orders.db"))
	f := &pair{shell: s, billing: store}
	f.receive(outlast.NewID(), time.Minute) // by billing, which is not running
	f.must(store.Journal().Hear(t.Context(), "stock", []string{"order.placed.v1"}))
	for _, instance := range []string{"a", "b"} {
		_, err := store.Inbox().Alive(t.Context(), "mail", instance)
		f.must(err)
	}
	table := regexp.MustCompile(`(?m)^GROUP +INSTANCES +LAST SIGN +RETRY +DEAD\nbilling +0 +- +0 +0\nmail +2 +\d\S* +0 +0\nstock +0 +- +0 +0\n`)
	if text := s.ok("status", "--interval", "100ms"); !table.MatchString(text) {
		t.Errorf("the groups are not shown:\n%s", text)
	}
	s.ok("pause", "stock", "--reason", "inventory")
	f.wait(outlast.NewID(), "orders", 0)
	f.bury(outlast.NewID(), "no")
	f.must(store.Inbox().Leave(t.Context(), "mail", "a"))
	known := map[string]knownGroup{}
	for _, g := range decode[statusReport](s, "status", "--interval", "100ms").Known {
		if g.Quiet != nil && (*g.Quiet < 0 || *g.Quiet > time.Minute) {
			t.Errorf("the last sign of %s was %v ago", g.Group, *g.Quiet)
		}
		g.Quiet = nil
		known[g.Group] = g
	}
	if want := map[string]knownGroup{"billing": {Group: "billing", Waiting: 1, Dead: 1}, "mail": {Group: "mail", Instances: 1}, "stock": {Group: "stock", Paused: true}}; !maps.Equal(known, want) {
		t.Errorf("groups %+v, want %+v", known, want)
	}
	// An account that may not read who runs is told so, and gets the rest.
	db, _ := openStore(t, filepath.Join(s.dir, "orders.db"))
	_, err := db.ExecContext(t.Context(), "ALTER TABLE outlast_instance RENAME TO elsewhere")
	f.must(err)
	contains(t, s.ok("status", "--interval", "100ms"), "idle groups are not shown, nor instances: list groups: ", "\nbilling ", "\nstock ")
}

func TestJSONHasEmptyListsAndNoNulls(t *testing.T) {
	s := withBroker(t, withTables(t))
	out := s.ok("topology", "apply", "--group", "billing", "--handles", "a.v1", "--json")
	file := s.file("empty.json", `{"groups":[{"group":"billing","partitions":1}]}`)
	for _, args := range [][]string{
		{"status", "--interval", "100ms"}, {"outbox", "list"}, {"retry", "list"}, {"dead", "list"}, {"actions"}, {"peek", "billing"}, {"doctor"},
		{"dead", "replay", "--all"}, {"topology", "show", "--file", file}, {"topology", "check", "--group", "billing", "--handles", "a.v1"},
	} {
		out += s.run(append(args, "--json")...).out
	}
	contains(t, out, `"pending":[]`, `"held":[]`, `"retry":[]`, `"dead":[]`, `"relays":[]`, `"paused":[]`, `"groups":[]`, `"warnings":[]`, `"peeked": []`)
	if strings.Contains(out, "null") {
		t.Errorf("null in\n%s", out)
	}
}

func TestOutboxListAndWithdraw(t *testing.T) {
	s := withTables(t)
	s.ok("publish", "--file", s.file("some", lines(1200)))
	contains(t, s.ok("outbox", "list", "--limit", "2"), "there may be more: continue with --after")
	page := decode[[]outlast.Item](s, "outbox", "list", "--limit", "3")
	next := decode[[]outlast.Item](s, "outbox", "list", "--limit", "3", "--after", fmt.Sprint(page[2].Seq))
	if len(page) != 3 || len(next) != 3 || next[0].Seq <= page[2].Seq {
		t.Errorf("pages: %+v, %+v", page, next)
	}
	s.fails(exitUsage, []string{"--limit"}, "outbox", "list", "--limit", "10001")
	s.fails(exitUsage, []string{"ids, a filter, or --all"}, "outbox", "withdraw", "--reason", "x")
	s.fails(exitUsage, []string{"--reason"}, "outbox", "withdraw", "--all")
	s.fails(exitUsage, []string{"--all"}, "outbox", "withdraw", "--all", "--key", "k1", "--reason", "x")
	contains(t, s.ok("outbox", "withdraw", "--all", "--dry-run"), "would be withdrawn: 1,200")

	id := page[0].Envelope.ID
	contains(t, s.ok("outbox", "withdraw", id, "--reason", "test order"), "withdrawn: 1")
	got := s.fails(exitFailure, []string{"not found", id}, "outbox", "withdraw", id, page[1].Envelope.ID, "--reason", "again")
	contains(t, got.out, "withdrawn: 1")
	contains(t, s.ok("outbox", "withdraw", "--limit", "3", "--key", "k1", "--reason", "three"), "withdrawn: 3")
	contains(t, s.ok("outbox", "withdraw", "--all", "--reason", "the rest", "--who", "eve"), "withdrawn: 1,195")
	if n := s.waiting(); n != 0 {
		t.Errorf("%d wait after all were withdrawn", n)
	}
	contains(t, s.ok("actions"), "ada@", "eve", "the rest", "test order")
}
