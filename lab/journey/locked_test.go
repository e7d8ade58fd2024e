package journey_test

import (
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestS34_ALockedTableHoldsNoPageAndNoSession: while another session holds a table under
// the strongest lock, pages that need it answer at their deadline and say that they do not
// know, other pages answer as ever, and no session of the console is left in the queue for
// the lock, where it would hold up all who come after it.
func TestS34_ALockedTableHoldsNoPageAndNoSession(t *testing.T) {
	t.Parallel()
	address := servers.Database(t)
	orders := openAt(t, "orders", address)
	id := outlast.NewID()
	orders.exec(t, `INSERT INTO outlast_dead (grp, source, id, type, reason, error, attempts, fingerprint, first_at, last_at, hash, envelope, body)
		VALUES ('billing', 'orders', $1, 'order.placed.v1', 'verdict', 'no such card', 1, 'f00d', clock_timestamp(), clock_timestamp(), 1, '{}', '{}')`, id)
	x, err := console.New(console.Config{Places: []journey.Place{{Name: "orders-db", Store: orders.store}}, Loopback: true, Patience: time.Second})
	must(t, err)
	server := httptest.NewServer(x)
	t.Cleanup(server.Close)
	client := &http.Client{Timeout: 25 * time.Second} // a statement that waits for the lock would take thirty
	get := func(path string) (status int, text, words string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/"+path, nil)
		must(t, err)
		begin := time.Now()
		res, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		must(t, err)
		t.Logf("%-10.10s %d after %v", "/"+path, res.StatusCode, time.Since(begin))
		return res.StatusCode, string(body), html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(string(body), " "))
	}
	_, health, words := get("")
	if !strings.Contains(words, "1 dead letter order.placed.v1 in billing.") {
		t.Fatalf("the dead letter is not shown: %s", words)
	}
	key := regexp.MustCompile(`id="db-([0-9a-f]{8})"`).FindStringSubmatch(health)[1]
	time.Sleep(3 * time.Second) // the counts that are shown again are old

	other, err := postgres.Open(t.Context(), address)
	must(t, err)
	t.Cleanup(func() { must(t, other.Close()) })
	lock, err := other.BeginTx(t.Context(), nil)
	must(t, err)
	_, err = lock.ExecContext(t.Context(), "LOCK TABLE outlast_dead IN ACCESS EXCLUSIVE MODE")
	must(t, err)
	for path, says := range map[string]string{
		"": "orders-db does not answer", "failures": "orders-db could not be asked", "find?q=" + id: "orders-db could not be asked",
		"message?id=" + id: "orders-db could not be asked", "flow?id=" + id: "orders-db could not be asked",
		"failure?db=" + key + "&group=billing&type=order.placed.v1&fingerprint=f00d": "deadline exceeded",
		"failures?format=json": "deadline exceeded",
	} {
		status, _, words := get(path)
		if !strings.Contains(words, says) || strings.Contains(words, "No dead letters") || strings.Contains(words, "Nothing needs a person") {
			t.Errorf("%s answers %d and does not say %q:\n%s", path, status, says, strings.Join(strings.Fields(words), " "))
		}
	}
	for _, path := range []string{"books", "operations", "audit"} {
		if status, _, words := get(path); status != http.StatusOK || strings.Contains(words, "could not be asked") {
			t.Errorf("%s, which needs no dead letters, answers %d: %s", path, status, words)
		}
	}
	eventually(t, "no session waits for the lock", func() bool {
		var n int
		must(t, lock.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'`).Scan(&n))
		return n == 0
	})
	must(t, lock.Rollback())
	if _, _, words := get("failures"); !strings.Contains(words, "no such card") {
		t.Errorf("after the lock the dead letter is not shown: %s", words)
	}
}
