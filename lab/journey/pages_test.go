package journey_test

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/lab/servers"
)

// TestPagesOfManyMessages fills a service as TestFindIsQuick does, with a flow of 10,000
// messages and a dead letter for each hundredth message, and looks at the pages of the
// console. It prints what each takes, asserts that of the failures in the proof's own run
// (see within), and follows the links of the flow to its last message.
func TestPagesOfManyMessages(t *testing.T) {
	orders := open(t, "orders")
	n := scale(t)
	orders.fill(t, n)
	const long = 10_000
	flow := outlast.NewID()
	orders.exec(t, `UPDATE outlast_sent SET correlation_id = $1 WHERE id IN (SELECT id FROM filled WHERE i <= $2)`, flow, long)
	orders.exec(t, `INSERT INTO outlast_dead (grp, source, id, type, reason, error, attempts, fingerprint, first_at, last_at, hash, envelope, body)
		SELECT 'billing', 'orders', id::text, 'order.placed.v1', 'verdict', 'no such card ' || i % 7, 1, 'f00d' || i % 7, clock_timestamp(), clock_timestamp(), 1, '{}', '{}'
		FROM filled WHERE i % 100 = 0`)
	orders.exec(t, `UPDATE outlast_inbox SET state = 'dead' WHERE id IN (SELECT id FROM outlast_dead)`)
	var id string
	must(t, orders.db.QueryRowContext(t.Context(), "SELECT id FROM filled WHERE i = $1", n/2).Scan(&id))
	x, err := console.New(console.Config{Places: []journey.Place{{Name: "orders", Store: orders.store}}, Loopback: true, Patience: time.Minute})
	must(t, err)
	server := httptest.NewServer(x)
	t.Cleanup(server.Close)
	get := func(path string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/"+path, nil)
		must(t, err)
		res, err := server.Client().Do(req)
		must(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		must(t, err)
		if res.StatusCode != http.StatusOK || strings.Contains(string(body), "could not be asked") {
			t.Fatalf("%s: %s\n%s", path, res.Status, body)
		}
		return string(body)
	}
	for _, page := range []struct{ path, want string }{
		{"", "dead"}, {"failures", "no such card"}, {"find?q=order-7", "order.placed.v1"}, {"find?q=customer-7", "order.placed.v1"}, {"message?id=" + id, id},
		{"flow?id=" + flow, "Messages 1–100 of 10,000, counted from the newest."}, {"outbox", "orders"}, {"books", "Books"},
	} {
		var took []time.Duration
		said := ""
		for range 11 {
			begin := time.Now()
			said = get(page.path)
			took = append(took, time.Since(begin))
		}
		said = strings.Join(strings.Fields(html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(said, " "))), " ")
		if !strings.Contains(said, page.want) {
			t.Errorf("%s does not tell %q: %.3000s", page.path, page.want, said)
		}
		slices.Sort(took)
		t.Logf("%d messages: %-60s %v at the median, %v at the worst of %d", n, "/"+page.path, took[len(took)/2], took[len(took)-1], len(took))
		if page.path == "failures" {
			within(t, n, "the page of failures", took[len(took)/2], 200*time.Millisecond)
		}
	}
	seen := map[string]bool{}
	pages := 0
	for path := "flow?id=" + flow; path != ""; pages++ {
		text := get(path)
		if part := fmt.Sprintf("Messages %d–%d of 10,000", pages*100+1, pages*100+100); !strings.Contains(strings.ReplaceAll(text, ",", ""), strings.ReplaceAll(part, ",", "")) {
			t.Fatalf("page %d does not say %q", pages+1, part)
		}
		for _, link := range regexp.MustCompile(`href="message\?id=([0-9a-f-]+)"`).FindAllStringSubmatch(text, -1) {
			seen[link[1]] = true
		}
		path = ""
		if link := regexp.MustCompile(`rel="next" href="([^"]+)"`).FindStringSubmatch(text); link != nil {
			path = html.UnescapeString(link[1])
		}
	}
	var last string
	must(t, orders.db.QueryRowContext(t.Context(), "SELECT min(id::text) FROM filled WHERE i <= $1", long).Scan(&last))
	if len(seen) != long || !seen[last] || pages != long/100 {
		t.Errorf("the links lead through %d pages to %d messages of %d; to the last of them: %v", pages, len(seen), long, seen[last])
	}
}

// TestQuestionsAreNotCompiled: PostgreSQL compiles a statement that it thinks to be dear,
// as it thinks of every one on tables without statistics. For what people ask that takes
// twenty times as long as the answer.
func TestQuestionsAreNotCompiled(t *testing.T) {
	t.Parallel()
	address := servers.Database(t)
	orders := openAt(t, "orders", address)
	var name, folder string
	must(t, orders.db.QueryRowContext(t.Context(), "SELECT current_database(), current_setting('data_directory')").Scan(&name, &folder))
	for _, set := range []string{"session_preload_libraries = auto_explain", "auto_explain.log_min_duration = 0", "auto_explain.log_analyze = on", "jit_above_cost = 0"} {
		orders.exec(t, fmt.Sprintf("ALTER DATABASE %q SET %s", name, set))
	}
	asked := openAt(t, "orders", address) // connections that have these settings
	_, err := asked.store.Journal().Facts(t.Context(), outlast.FactQuery{Keys: []string{"order-7"}})
	must(t, err)
	_, err = asked.store.Operator().Status(t.Context())
	must(t, err)
	log, err := os.ReadFile(filepath.Join(filepath.Dir(folder), "postgres.log"))
	must(t, err)
	plans := 0
	for _, entry := range regexp.MustCompile(`\n(?:\d{4}-)`).Split(string(log), -1) {
		about := strings.Contains(entry, "DISTINCT ON (s.sent_at, s.id)") || strings.Contains(entry, "outlast_retry")
		if !about || !strings.Contains(entry, "Query Text:") {
			continue
		}
		if plans++; strings.Contains(entry, "JIT:") {
			t.Errorf("was compiled: %.1500s", entry)
		}
	}
	if plans < 2 {
		t.Errorf("PostgreSQL has written %d plans of the questions", plans)
	}
}
