package journey_test

import (
	"cmp"
	"database/sql"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
)

// tenant is who must not see another's. What belongs to its services and groups has its
// name in it, what belongs to its messages its word.
type tenant struct {
	name, word string
	orders     *memory.Store // its own database
	ids        []string      // of its messages
}

func (n *tenant) message(flow, cause string) *outlast.Message {
	id := outlast.NewID()
	n.ids = append(n.ids, id)
	return &outlast.Message{Envelope: outlast.Envelope{ID: id, Type: n.word + ".placed.v1", Kind: outlast.KindEvent, Source: n.name + ".orders", Key: n.word + "-key",
		Subject: n.word + "-subject", CorrelationID: cmp.Or(flow, id), CausationID: cause, Find: map[string]string{n.word + "-field": n.word + "-value"},
		Headers: outlast.Headers{n.word + "-header": n.word}, EnqueuedAt: time.Now().UTC()}, Body: []byte(`{"a":"` + n.word + `-body"}`)}
}

// fill puts something of the tenant on every page. Of both tenants the database shared has
// a group.
func (n *tenant) fill(t *testing.T, shared *memory.Store, root string) {
	ctx, group := t.Context(), n.name+".billing"
	must(t, n.orders.Relay().Identify(ctx, n.name+".orders"))
	messages := []*outlast.Message{n.message("", ""), n.message(root, root)}
	tx := n.orders.Begin()
	for _, m := range messages {
		must(t, outlast.NewOutbox(n.orders).Publish(ctx, tx, *m))
	}
	must(t, tx.Commit())
	must(t, shared.Journal().Hear(ctx, group, []string{n.word + ".placed.v1"}))
	begin := func(m *outlast.Message) outlast.InboxTx {
		tx, err := shared.Inbox().Begin(ctx, group, []outlast.Mark{{Source: m.Source, ID: m.ID, Key: m.Key, Hash: 1, EnqueuedAt: m.EnqueuedAt}})
		must(t, err)
		return tx
	}
	waits := n.message("", "")
	w := begin(waits)
	must(t, w.Wait(ctx, &outlast.Waiting{Group: group, Message: waits, Attempts: 1, Wait: time.Hour, Reason: "failed", Error: n.word + "-waits"}))
	must(t, w.Commit(ctx))
	for range 3 {
		dead := n.message(root, root)
		d := begin(dead)
		must(t, d.Bury(ctx, &outlast.DeadLetterRecord{Group: group, Message: dead, Reason: "verdict", Error: n.word + "-error", Attempts: 1, Fingerprint: "f00d" + n.word}))
		must(t, d.Commit(ctx))
	}
	by := outlast.Action{Who: n.name + "-person", Reason: n.name + "-reason"}
	must(t, shared.Operator().SetPaused(ctx, group, true, by))
	must(t, n.orders.Operator().SetPaused(ctx, outlast.RelaySwitch, true, by))
	minute := time.Now().UTC().Add(-time.Hour).Truncate(time.Minute)
	must(t, n.orders.Books().Write(ctx, outlast.BookMinute{Minute: minute, State: outlast.MinuteUnbalanced, Sent: 9, At: minute},
		[]outlast.BookLine{{Type: n.word + ".placed.v1", Group: group, Sent: 9, Received: 8, Missing: []string{messages[0].ID}}}))
	_, err := n.orders.Books().SignOff(ctx, []time.Time{minute}, by)
	must(t, err)
}

// visitor reads pages of the console as somebody.
type visitor struct {
	*testing.T
	server *httptest.Server
}

func (v visitor) do(who, method, path string, form url.Values) (int, string) {
	v.Helper()
	req, err := http.NewRequestWithContext(v.Context(), method, v.server.URL+"/"+path, strings.NewReader(form.Encode()))
	must(v, err)
	req.Header.Set("X-Who", who)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	must(v, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(v, err)
	return res.StatusCode, html.UnescapeString(string(body))
}

// crawl follows every link that somebody who may see everything finds.
func (v visitor) crawl(paths ...string) []string {
	found := map[string]bool{}
	for len(paths) > 0 && len(found) < 500 {
		path := strings.TrimPrefix(paths[0], "./")
		paths = paths[1:]
		if found[path] || strings.HasPrefix(path, "static/") || strings.HasPrefix(path, "#") {
			continue
		}
		found[path] = true
		_, text := v.do("everybody", http.MethodGet, path, nil)
		for _, m := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(text, -1) {
			paths = append(paths, m[1])
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// TestS30_NobodySeesWhatIsOfAnotherTenant: two people with the same permissions for other
// services, and two for other types of all services, look at every page that there is, as
// a page and as JSON. Nobody finds a name, an id, an error or a reason of the other, but
// the names of databases, which the console says to everybody.
func TestS30_NobodySeesWhatIsOfAnotherTenant(t *testing.T) {
	t.Parallel()
	north, south := &tenant{name: "northern", word: "boreal", orders: memory.NewStore()}, &tenant{name: "southern", word: "austral", orders: memory.NewStore()}
	shared, broker := memory.NewStore(), memory.NewBroker()
	north.fill(t, shared, "")
	root := north.ids[0]
	south.fill(t, shared, root) // messages of both in one flow
	for _, n := range []*tenant{north, south} {
		must(t, broker.Topology().Apply(t.Context(), outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}, Groups: []outlast.GroupTopology{
			{Group: n.name + ".billing", Partitions: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: n.word + ".placed.v1"}}}}}))
	}
	places := []journey.Place{{Name: "db-1", Store: north.orders}, {Name: "db-2", Store: south.orders}, {Name: "db-3", Store: shared}}
	folder := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(folder, "collector.db"))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	collected, err := collector.Open(db, collector.SQLite, "")
	must(t, err)
	must(t, collected.Migrate(t.Context()))
	c, err := collector.New(collector.Config{Store: collected, Grace: time.Second, Share: 1, Places: places})
	must(t, err)
	_, err = c.Round(t.Context())
	must(t, err)
	audit, err := console.OpenAudit(filepath.Join(folder, "audit"))
	must(t, err)
	t.Cleanup(func() { must(t, audit.Close()) })
	grants := func(services, types string) []console.Grant {
		return []console.Grant{{Permissions: console.Permissions, Services: []string{services}, Types: []string{types}}}
	}
	people := map[string][]console.Grant{"everybody": console.All(),
		"of northern": grants("northern.*", "*"), "of southern": grants("southern.*", "*"), "of boreal": grants("*", "boreal.*"), "of austral": grants("*", "austral.*")}
	x, err := console.New(console.Config{Places: places, Audit: audit, Broker: broker, Collector: collected, AllowEdit: true, Patience: 30 * time.Second,
		Authenticate: func(_ http.ResponseWriter, r *http.Request) *console.Identity {
			return &console.Identity{Name: r.Header.Get("X-Who"), Grants: people[r.Header.Get("X-Who")]}
		}})
	must(t, err)
	v := visitor{t, httptest.NewServer(x)}
	t.Cleanup(v.server.Close)

	// Each plans an operation and looks at a body, which leaves records.
	_, text := v.do("everybody", http.MethodGet, "failures", nil)
	key := regexp.MustCompile(`db=([0-9a-f]{8})`).FindStringSubmatch(text)[1]
	for _, n := range []*tenant{north, south} {
		form := url.Values{"db": {key}, "group": {n.name + ".billing"}, "type": {n.word + ".placed.v1"}, "fingerprint": {"f00d" + n.word}, "deed": {"retry"}, "rate": {"1"}, "reason": {n.name + "-plans"}}
		for _, who := range []string{"of " + n.name, "of " + n.word} {
			if status, text := v.do(who, http.MethodPost, "operation-plan", form); status != http.StatusSeeOther {
				t.Fatalf("a plan %s is answered %d: %s", who, status, text)
			}
		}
		for _, stranger := range []string{"of northern", "of southern", "of boreal", "of austral"} {
			if status, _ := v.do(stranger, http.MethodPost, "operation-plan", form); stranger != "of "+n.name && stranger != "of "+n.word && status != http.StatusForbidden {
				t.Errorf("a plan %s for %s is answered %d", stranger, n.name, status)
			}
		}
	}

	start := []string{""}
	for _, n := range []*tenant{north, south} {
		for _, text := range append([]string{n.word + "-key", n.word + "-value"}, n.ids...) {
			start = append(start, "find?q="+text, "flow?id="+text)
		}
	}
	paths := v.crawl(start...)
	for _, path := range slices.Clone(paths) {
		join := "?"
		if strings.Contains(path, "?") {
			join = "&"
		}
		paths = append(paths, path+join+"format=json")
	}
	t.Logf("%d addresses of pages", len(paths))
	for _, c := range []struct {
		who        string
		own, other *tenant
		services   bool // what a person may see is told apart by services
	}{{"of northern", north, south, true}, {"of southern", south, north, true}, {"of boreal", north, south, false}, {"of austral", south, north, false}} {
		seen := map[string]bool{}
		for _, path := range paths {
			status, text := v.do(c.who, http.MethodGet, path, nil)
			page, query, _ := strings.Cut(path, "?")
			asked, err := url.ParseQuery(query)
			must(t, err)
			for _, values := range asked { // a page may say again what it was asked
				for _, value := range values {
					if value != "" && len(value) > 8 {
						text = strings.ReplaceAll(text, value, "")
						text = strings.ReplaceAll(text, url.QueryEscape(value), "")
					}
				}
			}
			if status == http.StatusOK && (strings.Contains(text, c.own.word) || strings.Contains(text, c.own.name+".")) {
				seen[page] = true
			}
			bad := append([]string{c.other.word}, c.other.ids...)
			if c.services {
				bad = append(bad, c.other.name)
			} else {
				bad = append(bad, c.other.name+"-")
			}
			for _, word := range bad {
				if word == root && c.other == north { // it began the flow that a message of the other is in
					continue
				}
				if at := strings.Index(text, word); at >= 0 {
					t.Errorf("%s finds %q on /%s: ...%s...", c.who, word, path, strings.Join(strings.Fields(text[max(0, at-150):min(len(text), at+80)]), " "))
				}
			}
		}
		wanted := []string{"", "outbox", "find", "flow", "message", "failures", "failure", "waiting", "operations", "operation", "topology", "collected", "minute"}
		if c.services {
			wanted = append(wanted, "queues", "books")
		}
		for _, page := range wanted {
			if !seen[page] {
				t.Errorf("%s finds nothing of their own on /%s", c.who, page)
			}
		}
	}
	for _, page := range []string{"", "outbox", "find", "flow", "message", "failures", "failure", "waiting", "operations", "operation", "topology", "collected", "minute", "queues", "books", "audit"} {
		if !slices.ContainsFunc(paths, func(path string) bool { before, _, _ := strings.Cut(path, "?"); return before == page }) {
			t.Errorf("no link leads to /%s", page)
		}
	}
}
