package console_test

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
)

func TestS31_NoWideListenerWithoutAuthenticator(t *testing.T) {
	t.Parallel()
	open, closed := console.Config{Loopback: true}, console.Config{Authenticate: byHeader}
	for _, address := range []string{":8440", "0.0.0.0:8440", "[::]:8440", "192.0.2.1:8440", "console.example:8440", "nonsense"} {
		if err := open.CheckListen(address); outlast.CodeOf(err) != outlast.CodeInvalid {
			t.Errorf("%s is allowed without an authenticator: %v", address, err)
		}
	}
	for _, address := range []string{"127.0.0.1:8440", "[::1]:8440", "localhost:0"} {
		if err := open.CheckListen(address); err != nil {
			t.Error(err)
		}
	}
	if err := closed.CheckListen("0.0.0.0:8440"); err != nil {
		t.Error(err)
	}
}

func TestS31_LoopbackLetsInThisMachineAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *console.Config) { c.Authenticate, c.Loopback = nil, true })
	f.who = ""
	f.page("", "somebody on this machine")
	for name, change := range map[string]func(*http.Request){
		"a name that leads here": func(r *http.Request) { r.Host = "evil.example" },
		"through a proxy":        func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") },
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.URL+"/", nil)
		f.must(err)
		change(req)
		if a := f.do(req); a.status != http.StatusForbidden {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	w := httptest.NewRecorder() // a peer elsewhere
	f.console.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("a peer elsewhere: %d", w.Code)
	}
}

func TestS31_Basic(t *testing.T) {
	t.Parallel()
	salt := []byte("a salt for a test")
	key, err := pbkdf2.Key(sha256.New, "correct horse", salt, 100_000, 32) // fewer rounds than HashPassword's
	if err != nil {
		t.Fatal(err)
	}
	hash := "pbkdf2-sha256$100000$" + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(key)
	auth, err := console.Basic(map[string]console.User{"ada": {Password: hash, Grants: console.All()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, password string
		want           bool
	}{{"ada", "correct horse", true}, {"ada", "correct horse", true}, {"ada", "wrong", false}, {"bob", "correct horse", false}, {"", "", false}} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if c.name != "" {
			r.SetBasicAuth(c.name, c.password)
		}
		w := httptest.NewRecorder()
		if who := auth(w, r); (who != nil) != c.want || !c.want && w.Code != http.StatusUnauthorized {
			t.Errorf("%+v: %v, %d", c, who, w.Code)
		}
	}
	for _, bad := range []string{"", "plain", "pbkdf2-sha256$1$c2FsdHNhbHQ$a2V5"} {
		if _, err := console.Basic(map[string]console.User{"ada": {Password: bad}}); outlast.CodeOf(err) != outlast.CodeInvalid {
			t.Errorf("the hash %q is taken: %v", bad, err)
		}
	}
}

// Who has a session that can be ended is offered to end it, nobody else.
func TestS31_LogOutIsOfferedToSessions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if a := f.page(""); strings.Contains(a.text, "Log out") {
		t.Error("there is nothing to log out of")
	}
	f = newFixture(t, func(c *console.Config) {
		c.Authenticate = func(w http.ResponseWriter, r *http.Request) *console.Identity {
			who := byHeader(w, r)
			if who != nil {
				who.LogOut = "logout"
			}
			return who
		}
	})
	if a := f.page(""); !strings.Contains(a.text, `<form method="post" action="logout"><button>Log out</button></form>`) {
		t.Errorf("nobody can log out:\n%s", a.text)
	}
}

func TestS31_ForwardedIdentityComesFromTheProxyAlone(t *testing.T) {
	t.Parallel()
	auth := console.Forwarded("X-User", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, func(name string) []console.Grant { return people[name] })
	for _, c := range []struct {
		from  string
		names []string
		want  bool
	}{
		{"10.1.2.3:9", []string{"boss"}, true},
		{"192.0.2.1:9", []string{"boss"}, false},
		{"10.1.2.3:9", nil, false},
		{"10.1.2.3:9", []string{"boss", "viewer"}, false},
		{"nonsense", []string{"boss"}, false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.from
		r.Header["X-User"] = c.names
		if who := auth(httptest.NewRecorder(), r); (who != nil) != c.want {
			t.Errorf("%+v: %v", c, who)
		}
	}
}

func TestS32_ForgedRequestsDoNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.bury(message(), "x")
	db := f.db("billing-db")
	forged := func(change func(*http.Request)) answer {
		req := f.request("discard", "db", db, "group", group, "id", m.ID, "reason", "forged")
		change(req)
		return f.do(req)
	}
	for name, change := range map[string]func(*http.Request){
		"another site":      func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"a sibling's site":  func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"another origin":    func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"an opaque origin":  func(r *http.Request) { r.Header.Set("Origin", "null") },
		"a body of no form": func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"a body of JSON":    func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
	} {
		if a := forged(change); a.status != http.StatusForbidden && a.status != http.StatusBadRequest {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	for _, path := range []string{"retry", "retry-now", "discard", "release", "withdraw", "pause", "resume", "pause-relays", "resume-relays", "declare", "edit", "resend", "sign-off", "body", "operation-plan", "operation-start", "operation-stop"} {
		if a := f.get(path + "?db=" + db + "&group=" + group + "&id=" + m.ID + "&reason=x"); a.status != http.StatusMethodNotAllowed && a.status != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, a.status)
		}
	}
	// What stands in the address of a form is not part of the form.
	if a := f.post("discard?db=" + db + "&group=" + group + "&id=" + m.ID + "&reason=x"); a.status == http.StatusSeeOther {
		t.Error("a POST takes its fields from the address")
	}
	if a := f.post("discard?db="+db+"&group="+group+"&id="+m.ID, "reason", "x"); a.status == http.StatusSeeOther {
		t.Error("a POST takes the message from the address")
	}
	if n := len(f.dead()); n != 1 {
		t.Fatalf("%d dead letters, want it untouched", n)
	}
	if a := forged(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }); a.status != http.StatusSeeOther {
		t.Errorf("the console's own form: %d", a.status)
	}
}

const hostile = `"><script>alert(1)</script><img src=x onerror=alert(2)>{{.}}`

func TestS33_PayloadsNeverBecomeMarkup(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := message()
	m.Key, m.Subject = hostile, "javascript:alert(3)"
	m.Headers = outlast.Headers{"note": hostile, "link": "javascript:alert(4)"}
	m.Find = map[string]string{"order": hostile}
	m.Body = []byte(`{"x":"</pre><script>alert(5)</script>"}`)
	f.bury(f.publish(m), hostile)
	db := f.db("billing-db")
	pages := map[string]answer{}
	for _, path := range []string{"", "failures", "failure?db=" + db + "&group=" + group + "&type=" + typ + "&fingerprint=" + print, "message?id=" + m.ID,
		"find?q=" + strings.NewReplacer("<", "%3C", ">", "%3E", `"`, "%22", " ", "%20", "{", "%7B", "}", "%7D").Replace(hostile),
		"flow?id=" + m.ID, "flow?as=graph&id=" + m.ID, "flow?as=sequence&id=" + m.ID, "outbox?db=" + f.db("orders-db")} {
		pages[path] = f.page(path)
	}
	pages["body"] = f.post("body", "db", db, "group", group, "id", m.ID, "where", "dead", "reason", hostile)
	pages["audit"] = f.page("audit")
	for path, a := range pages {
		for _, bad := range []string{"<script>", "<img", `href="javascript:`} {
			if strings.Contains(a.text, bad) {
				t.Errorf("%s holds %q", path, bad)
			}
		}
		if policy := a.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s has the policy %q", path, policy)
		}
		if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be sniffed or kept", path)
		}
		if strings.Contains(a.text, " style=") || strings.Contains(a.text, " onclick=") || strings.Contains(a.text, "<style") {
			t.Errorf("%s has a style or a script in it", path)
		}
	}
	if !strings.Contains(pages["body"].words(), "<script>alert(5)") {
		t.Errorf("the body is not shown as it is:\n%s", pages["body"].words())
	}
	raw := f.post("body", "db", db, "group", group, "id", m.ID, "where", "dead", "reason", "look", "raw", "1")
	if raw.text != string(m.Body) || raw.header.Get("Content-Type") != "application/octet-stream" ||
		!strings.HasPrefix(raw.header.Get("Content-Disposition"), "attachment") || !strings.Contains(raw.header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("the raw body comes as %v", raw.header)
	}
}

func TestS24_BodiesAreSeenOnlyWithARecord(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.bury(f.publish(message()), "x")
	for _, path := range []string{"", "message?id=" + m.ID, "find?q=" + m.ID, "flow?id=" + m.ID, "failures", "outbox?db=" + f.db("orders-db"), "audit"} {
		if a := f.page(path); strings.Contains(a.text, "secret-7") {
			t.Errorf("%q shows the body", path)
		}
	}
	a := f.post("body", "db", f.db("billing-db"), "group", group, "id", m.ID, "where", "dead", "reason", "complaint 12")
	if a.status != http.StatusOK || !strings.Contains(a.words(), "secret-7") {
		t.Errorf("the body: %d\n%s", a.status, a.words())
	}
	log := f.audit()
	if !strings.Contains(log, "view body") || !strings.Contains(log, "complaint 12") || strings.Contains(log, "secret-7") {
		t.Errorf("the record of it:\n%s", log)
	}
}

// The fields that a contract shows are seen with the right to look at the message alone, and
// the others by nobody without a record, in the outbox as well as in the groups.
func TestS24_FieldsAreMaskedButForThoseThatTheContractShows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := message()
	m.Body, m.Show = []byte(`{"order_id":"secret-7","lines":[{"city":"Lund <b>","street":"secret-8"},{"city":7.50}]}`), []string{"lines.city", "total"}
	f.bury(f.publish(m), "x")
	f.who = "viewer"
	a := f.page("message?id="+m.ID, "masked but for these fields", "lines.city", "Lund", "7.50", "total not there")
	if n := strings.Count(a.words(), "masked but for these fields"); n != 2 { // pending and dead
		t.Errorf("shown at %d places:\n%s", n, a.words())
	}
	lacks(t, a, "secret-", "<b>", "See the body")
	f.who = "seller" // of the sender alone
	if n := strings.Count(f.page("message?id="+m.ID).words(), "masked but for these fields"); n != 1 {
		t.Errorf("people of the sender are shown it at %d places", n)
	}
	f.who = "other" // may see bodies, of other services
	if a := f.get("message?id=" + m.ID); strings.Contains(a.text, "Lund") {
		t.Errorf("shown to people of another service:\n%s", a.words())
	}
}

// slowStore counts what waits only when the question is given up.
type slowStore struct{ *memory.Store }

func (s slowStore) Operator() outlast.OperatorStore { return slowOperator{s.Store.Operator()} }

type slowOperator struct{ outlast.OperatorStore }

func (slowOperator) Status(ctx context.Context) (*outlast.StoreStatus, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// watchedStore reports how many rows are asked for; a question without an end is a huge one.
type watchedStore struct {
	*memory.Store
	limits chan int
}

func (s watchedStore) Operator() outlast.OperatorStore {
	return watchedOperator{s.Store.Operator(), s.limits}
}

type watchedOperator struct {
	outlast.OperatorStore
	limits chan int
}

func (o watchedOperator) Dead() outlast.DeadOperator {
	return watchedDead{o.OperatorStore.Dead(), o.limits}
}

type watchedDead struct {
	outlast.DeadOperator
	limits chan int
}

func (d watchedDead) List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		d.limits <- 1 << 30
	}
	d.limits <- f.Limit
	return d.DeadOperator.List(ctx, f)
}

func TestS34_ListsArePagedAndQuestionsBounded(t *testing.T) {
	t.Parallel()
	limits := make(chan int, 1000)
	f := newFixture(t)
	c := console.Config{Authenticate: byHeader, Patience: 200 * time.Millisecond, Places: []journey.Place{
		{Name: "slow-db", Store: slowStore{memory.NewStore()}}, {Name: "billing-db", Store: watchedStore{f.billing, limits}}}}
	x, err := console.New(c)
	f.must(err)
	f.server.Config.Handler = x
	all := map[string]bool{}
	for range 120 {
		all[f.bury(message(), "x").ID] = true
	}
	f.page("", "slow-db does not answer")
	path := "failure?db=" + f.db("billing-db") + "&group=" + group + "&type=" + typ + "&fingerprint=" + print
	for pages := 1; ; pages++ {
		a := f.page(path)
		for id := range all {
			if strings.Contains(a.text, id) {
				delete(all, id)
			}
		}
		_, more, ok := strings.Cut(a.text, `<a class="more" href="`)
		if !ok {
			if pages != 3 || len(all) != 0 {
				t.Errorf("%d pages, %d messages on none of them", pages, len(all))
			}
			break
		}
		path, _, _ = strings.Cut(more, `"`)
		path = strings.ReplaceAll(path, "&amp;", "&")
	}
	close(limits)
	for n := range limits {
		if n < 1 || n > 1000 {
			t.Errorf("a page asks for %d rows", n)
		}
	}
}

func TestS36_NothingOfTheServersReachesTheBrowser(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *console.Config) {
		c.Places[1].Store = nil
		c.Places[1].Err = &outlast.Error{Op: "connect to postgres://app:hunter2@db/x", Code: outlast.CodeUnavailable}
		c.Redact = func(s string) string { return strings.ReplaceAll(s, "hunter2", "***") }
	})
	for _, path := range []string{"", "outbox", "failures", "find?q=x", "message?id=x", "flow?id=x", "books", "topology", "audit", "waiting?db=00000000"} {
		if a := f.get(path); strings.Contains(a.text, "hunter2") {
			t.Errorf("%q shows a secret", path)
		}
	}
	// A database is chosen by a key of those that were configured, never by an address.
	for _, db := range []string{"postgres://evil.example/x", "http://169.254.169.254/", "sqlite:/etc/passwd"} {
		if a := f.get("outbox?db=" + db); a.status != http.StatusNotFound {
			t.Errorf("%s: %d", db, a.status)
		}
	}
}

func TestAuditLogIsAChain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 3 {
		m := f.bury(message(), "x")
		f.done("discard", "db", f.db("billing-db"), "group", group, "id", m.ID, "reason", "why")
	}
	log := []byte(f.audit())
	n, hash, err := console.VerifyAudit(bytes.NewReader(log))
	if err != nil || n != 6 || len(hash) != 64 {
		t.Fatalf("%d records, %q, %v", n, hash, err)
	}
	lines := bytes.SplitAfter(log, []byte("\n"))
	forged := lines[0] // with a hash of its own that is right
	var rec console.AuditRecord
	f.must(json.Unmarshal(forged, &rec))
	rec.Who, rec.Hash = "mike", ""
	text, err := json.Marshal(rec)
	f.must(err)
	sum := sha256.Sum256(text)
	rec.Hash = hex.EncodeToString(sum[:])
	forged, err = json.Marshal(rec)
	f.must(err)
	for name, broken := range map[string][]byte{
		"a line with another hash": bytes.Join(append([][]byte{append(forged, '\n')}, lines[1:]...), nil),
		"a changed line":           bytes.Replace(log, []byte("boss"), []byte("mike"), 1),
		"a removed line":           bytes.Join(append(append([][]byte{}, lines[:2]...), lines[3:]...), nil),
		"swapped lines":            bytes.Join([][]byte{lines[1], lines[0], lines[2], lines[3], lines[4], lines[5]}, nil),
		"half a line":              log[:len(log)-5],
		"an unknown name":          bytes.Replace(log, []byte(`{"n"`), []byte(`{"x":1,"n"`), 1),
	} {
		if _, _, err := console.VerifyAudit(bytes.NewReader(broken)); err == nil {
			t.Errorf("%s is not noticed", name)
		}
		file := filepath.Join(t.TempDir(), "log")
		f.must(os.WriteFile(file, broken, 0o600))
		if l, err := console.OpenAudit(file); outlast.CodeOf(err) != outlast.CodeConflict {
			t.Errorf("%s is opened: %v", name, err)
			_ = l.Close()
		}
	}
}
