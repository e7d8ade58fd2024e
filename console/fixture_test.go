package console_test

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
)

const (
	group = "billing"
	typ   = "order.placed.v1"
	print = "f00d"
)

// fixture is a console on two databases behind a server of this machine. Whoever asks
// says in a header who that is.
type fixture struct {
	*testing.T
	orders, billing *memory.Store
	console         *console.Console
	log             string
	server          *httptest.Server
	who             string
}

var people = map[string][]console.Grant{
	"boss":   console.All(),
	"viewer": {{Permissions: []console.Permission{console.View}, Services: []string{"*"}, Types: []string{"*"}}},
	"other":  {{Permissions: console.Permissions, Services: []string{"shipping"}, Types: []string{"*"}}},
	"seller": {{Permissions: []console.Permission{console.View}, Services: []string{"orders"}, Types: []string{"*"}}},
	"nobody": nil,
}

func byHeader(w http.ResponseWriter, r *http.Request) *console.Identity {
	name := r.Header.Get("X-Test-Who")
	if name == "" {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return nil
	}
	return &console.Identity{Name: name, Grants: people[name]}
}

func newFixture(t *testing.T, change ...func(*console.Config)) *fixture {
	t.Helper()
	f := &fixture{T: t, orders: memory.NewStore(), billing: memory.NewStore(), who: "boss", log: filepath.Join(t.TempDir(), "audit.jsonl")}
	f.must(f.orders.Relay().Identify(t.Context(), "orders"))
	f.must(f.billing.Journal().Hear(t.Context(), group, []string{typ}))
	audit, err := console.OpenAudit(f.log)
	f.must(err)
	t.Cleanup(func() { _ = audit.Close() })
	c := console.Config{Authenticate: byHeader, Audit: audit, Patience: 2 * time.Second,
		Places: []journey.Place{{Name: "orders-db", Store: f.orders}, {Name: "billing-db", Store: f.billing}}}
	for _, x := range change {
		x(&c)
	}
	f.console, err = console.New(c)
	f.must(err)
	f.server = httptest.NewServer(f.console)
	t.Cleanup(f.server.Close)
	return f
}

// run runs operations until the test ends.
func (f *fixture) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.console.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func message() *outlast.Message {
	id := outlast.NewID()
	return &outlast.Message{Envelope: outlast.Envelope{ID: id, Type: typ, Kind: outlast.KindEvent, Source: "orders", CorrelationID: id, EnqueuedAt: time.Now().UTC()},
		Body: []byte(`{"order_id":"secret-7"}`)}
}

func (f *fixture) publish(m *outlast.Message) *outlast.Message {
	f.Helper()
	tx := f.orders.Begin()
	f.must(outlast.NewOutbox(f.orders).Publish(f.Context(), tx, *m))
	f.must(tx.Commit())
	return m
}

func (f *fixture) mark(m *outlast.Message) outlast.InboxTx {
	f.Helper()
	tx, err := f.billing.Inbox().Begin(f.Context(), group, []outlast.Mark{{Source: m.Source, ID: m.ID, Key: m.Key, Hash: 1, EnqueuedAt: m.EnqueuedAt}})
	f.must(err)
	return tx
}

func (f *fixture) bury(m *outlast.Message, text string) *outlast.Message {
	f.Helper()
	tx := f.mark(m)
	f.must(tx.Bury(f.Context(), &outlast.DeadLetterRecord{Group: group, Message: m, Reason: "verdict", Error: text, Attempts: 3, Fingerprint: print}))
	f.must(tx.Commit(f.Context()))
	return m
}

func (f *fixture) wait(m *outlast.Message) *outlast.Message {
	f.Helper()
	tx := f.mark(m)
	f.must(tx.Wait(f.Context(), &outlast.Waiting{Group: group, Message: m, Attempts: 1, Wait: time.Hour, Reason: "failed", Error: "no route"}))
	f.must(tx.Commit(f.Context()))
	return m
}

// handleRetry handles the waiting message that is due.
func (f *fixture) handleRetry() {
	f.Helper()
	tx, _, err := f.billing.Inbox().BeginRetry(f.Context(), group, []string{typ})
	f.must(err)
	if tx == nil {
		f.Fatal("nothing is due")
	}
	f.must(tx.Done(f.Context()))
	f.must(tx.Commit(f.Context()))
}

func (f *fixture) dead() []outlast.Item {
	f.Helper()
	items, err := f.billing.Operator().Dead().List(f.Context(), outlast.Filter{})
	f.must(err)
	return items
}

// answer is what the console said.
type answer struct {
	status int
	header http.Header
	text   string
}

// words is the text of a page as a person reads it.
func (a answer) words() string {
	return html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(a.text, ""))
}

func (f *fixture) do(req *http.Request) answer {
	f.Helper()
	if f.who != "" {
		req.Header.Set("X-Test-Who", f.who)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	f.must(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	f.must(err)
	return answer{res.StatusCode, res.Header, string(text)}
}

func (f *fixture) get(path string) answer {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), http.MethodGet, f.server.URL+"/"+strings.TrimPrefix(path, "./"), nil)
	f.must(err)
	return f.do(req)
}

func (f *fixture) page(path string, contains ...string) answer {
	f.Helper()
	a := f.get(path)
	if a.status != http.StatusOK {
		f.Fatalf("%s answers %d: %s", path, a.status, a.words())
	}
	for _, text := range contains {
		if !strings.Contains(a.words(), text) {
			f.Errorf("%s does not say %q:\n%s", path, text, a.words())
		}
	}
	return a
}

func (f *fixture) request(path string, pairs ...string) *http.Request {
	f.Helper()
	form := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	req, err := http.NewRequestWithContext(f.Context(), http.MethodPost, f.server.URL+"/"+path, strings.NewReader(form.Encode()))
	f.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req
}

func (f *fixture) post(path string, pairs ...string) answer {
	f.Helper()
	return f.do(f.request(path, pairs...))
}

// done posts and wants to be sent on to a page, which it returns the path of.
func (f *fixture) done(path string, pairs ...string) string {
	f.Helper()
	a := f.post(path, pairs...)
	if a.status != http.StatusSeeOther {
		f.Fatalf("%s answers %d: %s", path, a.status, a.words())
	}
	return a.header.Get("Location")
}

// db is the key of a database in links.
func (f *fixture) db(name string) string {
	f.Helper()
	who := f.who
	f.who = "boss"
	defer func() { f.who = who }()
	for section := range strings.SplitSeq(f.get("").text, "<section") {
		if m := regexp.MustCompile(`id="db-([0-9a-f]{8})"`).FindStringSubmatch(section); m != nil && strings.Contains(section, ">"+name+"<") {
			return m[1]
		}
	}
	f.Fatalf("no link leads to %s", name)
	return ""
}

func (f *fixture) audit() string {
	f.Helper()
	text, err := os.ReadFile(f.log)
	f.must(err)
	return string(text)
}
