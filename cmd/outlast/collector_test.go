package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/journey"
)

// bury makes a dead letter of a message that billing received.
func (f *pair) bury(id, text string) {
	f.t.Helper()
	f.buryMessage(&outlast.Message{Envelope: outlast.Envelope{ID: id, Type: "order.placed.v1", Source: "orders", CorrelationID: id, EnqueuedAt: time.Now(),
		Headers: outlast.Headers{"card": "4111-1111"}}, Body: []byte(`{"card":"4111-1111"}`)}, text)
}

func (f *pair) buryMessage(m *outlast.Message, text string) {
	f.t.Helper()
	tx, err := f.billing.Inbox().Begin(f.t.Context(), "billing", []outlast.Mark{{Source: m.Source, ID: m.ID, EnqueuedAt: m.EnqueuedAt}})
	f.must(err)
	f.must(tx.Bury(f.t.Context(), &outlast.DeadLetterRecord{Group: "billing", Message: m, Reason: "verdict", Error: text, Attempts: 3, Fingerprint: "f00d"}))
	f.must(tx.Commit(f.t.Context()))
}

// collector names the collector's own database, a file.
func (f *pair) collector() string { return "sqlite:" + filepath.Join(f.dir, "collector.db") }

func (f *pair) rebuild(args ...string) string {
	f.t.Helper()
	return f.ok(append([]string{"collector", "rebuild", "--yes", "--share", "1", "--store", f.collector()}, args...)...)
}

// kept are the messages that the collector keeps, by id.
func (f *pair) kept(args ...string) map[string]collector.Message {
	f.t.Helper()
	all := map[string]collector.Message{}
	for _, m := range decode[[]collector.Message](f.shell, append([]string{"collector", "list", "--limit", "1000", "--store", f.collector()}, args...)...) {
		all[m.Story.ID] = m
	}
	return all
}

// TestCollectorRemembers: of a database that does not answer find, flow and the console
// show what the collector heard, with its time; the gap stays a gap.
func TestCollectorRemembers(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	dead, fine := outlast.NewID(), outlast.NewID()
	for _, id := range []string{dead, fine} {
		f.send(id, "o-7", 10*time.Minute)
	}
	f.bury(dead, "card expired")
	f.receive(fine, 10*time.Minute)
	contains(t, f.rebuild(), "2 messages")
	kept := f.kept()
	if m := kept[dead]; m.Why != collector.WhyDead || !m.Open || len(m.Story.Groups) != 1 || m.Story.Groups[0].State != journey.Dead || m.Story.Send.State != journey.Sent {
		t.Errorf("the dead letter is kept as %+v", m)
	}
	if m := kept[fine]; m.Why != collector.WhySample || m.Open || m.Story.Groups[0].State != journey.Handled {
		t.Errorf("the message of the share is kept as %+v", m)
	}
	contains(t, f.ok("collector", "list", "--why", "dead", "--store", f.collector()), dead, "billing: dead", ", as of ")
	if text, err := os.ReadFile(filepath.Join(f.dir, "collector.db")); err != nil || strings.Contains(string(text), "4111") {
		t.Errorf("a body or a header is in the collector's database: %v", err)
	}
	if wal, err := os.ReadFile(filepath.Join(f.dir, "collector.db-wal")); err == nil && strings.Contains(string(wal), "4111") {
		t.Error("a body or a header is in the collector's log")
	}

	billing := strings.TrimPrefix(f.env[placesEnv], "sqlite:")
	f.must(os.Rename(billing, billing+".away"))
	got := f.fails(1, []string{"gaps"}, "find", "o-7", "--collector", f.collector())
	contains(t, got.out, "? sqlite:"+billing+": unknown", "the collector's copy of ", " old", "billing: dead (verdict), 3 failed, by the collector as of ",
		"billing: handled, by the collector as of", "unknown: sqlite:"+billing+" could not be asked")
	got = f.fails(1, []string{"gaps"}, "flow", dead, "--collector", f.collector())
	contains(t, got.out, "billing: dead (verdict), 3 failed, by the collector as of ")
	got = f.fails(1, []string{"gaps"}, "find", "o-7")
	if strings.Contains(got.out, "collector") || strings.Contains(got.out, "billing: dead") {
		t.Errorf("without --collector find says\n%s", got.out)
	}

	address, end := f.console("--collector", f.collector())
	for path, words := range map[string][]string{
		"":                   {"does not answer: what is shown of it is the collector's copy", "as the collector heard", "dead in billing: 1 message"},
		"find?q=o-7":         {"the collector's copy of", "by the collector as of"},
		"message?id=" + dead: {"the collector's copy of", "by the collector, as of"},
		"collected":          {dead, "answered", "a copy"},
	} {
		_, page := request(t, address+path, nil)
		contains(t, html.UnescapeString(page), words...)
	}
	if code, _ := request(t, address+"collected?why=nonsense", nil); code != 400 {
		t.Errorf("an unknown reason: %d", code)
	}
	if code := end(); code != exitOK {
		t.Errorf("exit code %d", code)
	}

	// When the database is back, its own word counts.
	f.must(os.Rename(billing+".away", billing))
	out := f.ok("find", "o-7", "--collector", f.collector())
	contains(t, out, "billing: dead (verdict), 3 failed\n")
	if strings.Contains(out, "collector") {
		t.Errorf("find takes the collector's word although everybody answers:\n%s", out)
	}
}

// TestCollectorHoldsNothingAgainstOldNews: what was pending when a database last answered
// is neither late nor lost.
func TestCollectorHoldsNothingAgainstOldNews(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	f.must(f.billing.Journal().Hear(t.Context(), "billing", []string{"order.placed.v1"}))
	_, err := f.db.ExecContext(t.Context(), `INSERT INTO outlast_outbox (type, ordering_key, body, enqueued_at) VALUES ('order.placed.v1', 'o-9', '{}', ?)`, time.Now().Add(-time.Hour).UnixMicro())
	f.must(err)
	f.rebuild()
	contains(t, f.ok("find", "o-9"), "STUCK")
	contains(t, f.ok("collector", "list", "--why", "pending", "--store", f.collector()), "pending")
	orders := strings.TrimPrefix(f.env[databaseServer.env], "sqlite:")
	f.must(os.Rename(orders, orders+".away"))
	got := f.fails(1, []string{"gaps"}, "find", "o-9", "--collector", f.collector(), "--grace", "1ms")
	contains(t, got.out, "orders: pending, by the collector as of ")
	for _, word := range []string{"STUCK", "LOST", "OVERDUE", "ORPHAN"} {
		if strings.Contains(got.out, word) {
			t.Errorf("old news makes it %s:\n%s", word, got.out)
		}
	}
}

// TestCollectorShedsInOrder: when there is too much, the share of flows goes first, and
// what is open stays longest.
func TestCollectorShedsInOrder(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	var fine, dead []string
	for range 80 {
		fine, dead = append(fine, outlast.NewID()), append(dead, outlast.NewID())
	}
	for i := range fine {
		f.send(fine[i], "a", 20*time.Minute)
		f.receive(fine[i], 20*time.Minute)
		f.send(dead[i], "b", 30*time.Minute)
		f.bury(dead[i], "no")
	}
	contains(t, f.rebuild("--rows", "100"), "100 messages")
	kept := f.kept()
	for _, id := range dead {
		if kept[id].Why != collector.WhyDead {
			t.Errorf("a dead letter was shed while flows of the share were kept")
		}
	}
	if len(kept) != 100 {
		t.Errorf("%d are kept, 100 may be", len(kept))
	}
}

// late leaves a message in the outbox of orders since ten minutes, which should be handled
// within some time.
func (f *pair) late(within time.Duration) {
	f.t.Helper()
	_, err := f.db.ExecContext(f.t.Context(), `INSERT INTO outlast_outbox (id, type, body, headers, enqueued_at) VALUES (?, 'order.placed.v1', '{}', json_object('outlast-within-ms', ?), ?)`,
		outlast.NewID(), fmt.Sprint(within.Milliseconds()), time.Now().Add(-10*time.Minute).UnixMicro())
	f.must(err)
}

// promised is a message that is ten minutes old and should be handled within some time.
func promised(id, source string, within time.Duration) *outlast.Message {
	return &outlast.Message{Envelope: outlast.Envelope{ID: id, Type: "order.placed.v1", Source: source, EnqueuedAt: time.Now().Add(-10 * time.Minute), Within: within}, Body: []byte("{}")}
}

// wait has billing wait for a retry of a message that is ten minutes old.
func (f *pair) wait(id, source string, within time.Duration) {
	f.t.Helper()
	m := promised(id, source, within)
	tx, err := f.billing.Inbox().Begin(f.t.Context(), "billing", []outlast.Mark{{Source: source, ID: id, EnqueuedAt: m.EnqueuedAt}})
	f.must(err)
	f.must(tx.Wait(f.t.Context(), &outlast.Waiting{Group: "billing", Message: m, Attempts: 1, Wait: time.Hour, Reason: outlast.WaitFailed, Error: "no card"}))
	f.must(tx.Commit(f.t.Context()))
}

// TestCollectorCountsWhatIsOverdue: pending and waiting past the deadline, by the sender;
// not what is dead, and not what a database said that does not answer any more.
func TestCollectorCountsWhatIsOverdue(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	f.late(time.Minute)
	f.late(time.Hour)
	f.wait(outlast.NewID(), "orders", time.Minute)
	f.wait(outlast.NewID(), "orders", time.Hour)
	f.wait(outlast.NewID(), "orders", 0) // its contract promises nothing
	f.wait(outlast.NewID(), "elsewhere", time.Minute)
	f.buryMessage(promised(outlast.NewID(), "orders", time.Minute), "no")

	db, _ := openStore(t, filepath.Join(f.dir, "collector.db"))
	store, err := collector.Open(db, collector.SQLite, "")
	f.must(err)
	want := func(places []journey.Place, wanted map[string]int) {
		t.Helper()
		c, err := collector.New(collector.Config{Store: store, Places: places, Grace: time.Second})
		f.must(err)
		eventually(t, fmt.Sprintf("the collector counts %v", wanted), func() bool {
			_, err := c.Round(t.Context())
			f.must(err)
			got, err := store.Overdue(t.Context())
			f.must(err)
			return maps.Equal(got, wanted)
		})
	}
	orders, billing := journey.Place{Name: "orders", Store: f.orders}, journey.Place{Name: "billing", Store: f.billing}
	want([]journey.Place{orders, billing}, map[string]int{"orders": 2, "elsewhere": 1})
	want([]journey.Place{orders, {Name: "billing", Err: errors.New("it is away")}}, map[string]int{"orders": 1})
	want([]journey.Place{orders, billing}, map[string]int{"orders": 2, "elsewhere": 1})
	_, err = f.db.ExecContext(t.Context(), "DELETE FROM outlast_outbox")
	f.must(err)
	want([]journey.Place{orders, billing}, map[string]int{"orders": 1, "elsewhere": 1})
	// A collector of a build that does not know the column closes messages, and leaves it.
	_, err = db.ExecContext(t.Context(), "UPDATE outlast_collector_message SET open = 0")
	f.must(err)
	if got, err := store.Overdue(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("what is over counts as overdue: %v, %v", got, err)
	}
}

// TestCollectorRefusesBadSettings, each named, before anything is opened.
func TestCollectorRefusesBadSettings(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	for flag, values := range map[string][]string{
		"--every": {"0s", "1ms", "2h"}, "--grace": {"0s", "48h"}, "--rows": {"0", "1"}, "--bytes": {"0", "1KiB"}, "--age": {"0s", "1s"},
		"--history": {"1s", "2000h"}, "--share": {"-0.1", "1.5"}, "--log": {"yaml"}, "--log-level": {"loud"}, "--listen": {"nowhere:x"}, "--metrics": {"nowhere:x"},
	} {
		for _, value := range values {
			f.fails(exitUsage, []string{flag}, "collector", "--store", f.collector(), flag, value)
		}
	}
	f.fails(exitUsage, []string{"--store", "OUTLAST_COLLECTOR_URL"}, "collector")
	f.fails(exitUsage, []string{"--store"}, "collector", "--store", "mysql://x/y")
	f.fails(1, []string{"no such file", "creates it"}, "collector", "--store", "sqlite:"+filepath.Join(f.dir, "none", "x.db"))
	f.fails(exitUsage, []string{"--in"}, "collector", "--store", f.collector(), "--in", f.env[databaseServer.env])
	f.fails(exitUsage, []string{"--yes"}, "collector", "wipe", "--store", f.collector())
	f.fails(exitUsage, []string{"--yes"}, "collector", "rebuild", "--store", f.collector())
	f.fails(exitUsage, []string{"--why"}, "collector", "list", "--store", f.collector(), "--why", "x")
	f.fails(exitUsage, []string{"--collector"}, "find", "x", "--collector", "mysql://x")
	f.fails(1, []string{"there is no such file"}, "collector", "status", "--store", "sqlite:"+filepath.Join(f.dir, "other.db"))
	// A collector that is not there is left out, and said so.
	f.send(outlast.NewID(), "o-1", time.Second)
	got := f.run("find", "o-1", "--collector", "sqlite:"+filepath.Join(f.dir, "other.db"))
	contains(t, got.err, "the collector is left out")
	contains(t, got.out, "orders: sent")
	if got.code != exitOK {
		t.Errorf("exit code %d", got.code)
	}
}

// TestCollectorRuns: its endpoints tell what it does, and of a database that does not
// answer since when.
func TestCollectorRuns(t *testing.T) {
	t.Parallel()
	f := newPair(t)
	id := outlast.NewID()
	f.send(id, "o-1", 10*time.Minute)
	f.bury(id, "no")
	f.late(time.Minute)
	f.wait(outlast.NewID(), "elsewhere", time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs syncBuffer
	done := make(chan int, 1)
	gone := "postgres://app:hunter22@127.0.0.1:1/none"
	go func() {
		done <- f.program(&out, &errs).run(ctx, []string{"collector", "--store", f.collector(), "--in", f.env[placesEnv], "--in", gone, "--every", "1s", "--grace", "1s",
			"--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"})
	}()
	address := func(flag string) (found string) {
		eventually(t, flag+" is there", func() bool {
			_, rest, ok := strings.Cut(errs.String(), "flag="+flag+" address=")
			found, _, _ = strings.Cut(rest, "\n")
			return ok
		})
		return strings.Trim(found, `"`)
	}
	health, metrics := address("--listen"), address("--metrics")
	eventually(t, "it is ready", func() bool {
		code, body := getMetrics(t, "http://"+health+"/readyz")
		return code == 200 && strings.Contains(body, "does not answer since") && !strings.Contains(body, "hunter22")
	})
	if code, _ := getMetrics(t, "http://"+health+"/livez"); code != 200 {
		t.Errorf("livez: %d", code)
	}
	_, body := getMetrics(t, "http://"+metrics+"/metrics")
	contains(t, body, `outlast_collector_messages{why="dead"} 1`, `outlast_collector_lag_seconds{database="sqlite:`, `outlast_collector_shed_total{what="open"} 0`, `outlast_collector_rounds_total{result="done"}`, "outlast_collector_store_bytes ",
		"outlast_collector_last_round_timestamp_seconds ")
	eventually(t, "what is overdue is counted by service", func() bool {
		_, body := getMetrics(t, "http://"+metrics+"/metrics")
		for _, line := range []string{`{service="orders"} 1`, `{service="billing"} 0`, `{service="_OTHER"} 1`} {
			if !strings.Contains(body, "outlast_overdue_messages"+line) {
				return false
			}
		}
		return true
	})
	if age := regexp.MustCompile(`lag_seconds\{database="postgres://127\.0\.0\.1:1/none"\} \d`); !age.MatchString(body) {
		t.Errorf("a database that never answered has no age since it was first asked:\n%s", body)
	}
	since := func() string {
		report := decode[struct{ Places []collector.Place }](f.shell, "collector", "status", "--store", f.collector())
		for _, p := range report.Places {
			if strings.HasPrefix(p.Name, "postgres:") {
				return p.UnknownSince.String()
			}
		}
		return ""
	}
	first := since()
	f.ok("collector", "status", "--store", f.collector())
	rounds := func() string {
		_, body := getMetrics(t, "http://"+metrics+"/metrics")
		_, rest, _ := strings.Cut(body, `outlast_collector_rounds_total{result="done"} `)
		n, _, _ := strings.Cut(rest, "\n")
		return n
	}
	before := rounds()
	eventually(t, "another round is done", func() bool { return rounds() != before })
	if now := since(); now != first || now == "" {
		t.Errorf("unknown since %s, and a round later since %s", first, now)
	}
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d:\n%s", code, errs.String())
	}
	if strings.Contains(errs.String(), "hunter22") && !strings.Contains(errs.String(), "warning: --in holds a password") {
		t.Errorf("a password is logged:\n%s", errs.String())
	}
}
