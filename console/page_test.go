package console_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
)

func TestPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := message()
	m.Find = map[string]string{"order": "o-7"}
	f.bury(f.publish(m), "card expired")
	w := f.wait(message())
	caused := message()
	caused.CorrelationID, caused.CausationID = m.ID, m.ID
	f.bury(caused, "card expired")
	f.page("", "orders", "1 message of orders wait", "2 dead letters "+typ+" in billing", "goes on")
	f.page("find?q="+m.ID, m.ID, "orders: pending", "billing: dead")
	f.page("find?q=o-7", m.ID)
	f.page("find?q=nothing", "No message of the databases")
	f.page("message?id="+m.ID, "dead", "card expired", "outlast dead replay or discard", "not shown here")
	f.page("message?id="+w.ID, "waiting", "Retry now")
	f.page("message?id=unknown", "No database that was asked knows this message")
	f.page("outbox", "No relay is alive here", typ)
	f.page("outbox?db="+f.db("orders-db"), m.ID)
	f.page("waiting?db="+f.db("billing-db")+"&group="+group, w.ID, "no route")
	f.page("failures", "card expired", print)
	f.page("failure?db="+f.db("billing-db")+"&group="+group+"&type="+typ+"&fingerprint="+print, "Try one first", m.ID, caused.ID)
	f.page("topology", typ, group, "hears it")
	f.page("operations", "None yet")
	f.page("books", "No minute was looked at")
	f.page("audit", "Your permissions", "view_body: yes")
	for _, as := range []string{"timeline", "sequence", "graph"} {
		a := f.page("flow?as="+as+"&id="+m.ID, m.ID, caused.ID, "billing: dead")
		if !strings.Contains(a.text, "<svg") {
			t.Errorf("the %s has no picture", as)
		}
	}
	if a := f.get("flow?as=film&id=" + m.ID); a.status != http.StatusBadRequest {
		t.Errorf("an unknown picture: %d", a.status)
	}
	if a := f.get("nowhere"); a.status != http.StatusNotFound {
		t.Errorf("an unknown page: %d", a.status)
	}
}

func TestBooksAreShownAndMissingMessagesSentAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	minute := time.Now().UTC().Add(-time.Hour).Truncate(time.Minute)
	ids := []string{outlast.NewID(), outlast.NewID()}
	f.must(f.orders.Books().Write(t.Context(), outlast.BookMinute{Minute: minute, State: outlast.MinuteUnbalanced, Sent: 9, At: minute},
		[]outlast.BookLine{{Type: typ, Group: group, Sent: 9, Received: 7, Missing: ids}}))
	a := f.page("books?state=unbalanced", "unbalanced", minute.Format("2006-01-02 15:04"))
	link := regexp.MustCompile(`href="(minute\?[^"]+)"`).FindStringSubmatch(a.text)
	if link == nil {
		t.Fatal("no link leads to the minute")
	}
	path := strings.ReplaceAll(link[1], "&amp;", "&")
	f.page(path, typ, ids[0], ids[1], "Send again what is missing")
	q, err := url.ParseQuery(strings.TrimPrefix(path, "minute?"))
	f.must(err)
	f.page(f.done("resend", "db", q.Get("db"), "at", q.Get("at"), "reason", "queue was deleted"), "sent again")
	if !strings.Contains(f.audit(), "unknown 2") {
		t.Errorf("the audit log does not name what was not sent:\n%s", f.audit())
	}
}

func TestMinutesAreSignedOff(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.publish(message())
	minute := time.Now().UTC().Add(-time.Hour).Truncate(time.Minute)
	f.must(f.orders.Books().Write(t.Context(), outlast.BookMinute{Minute: minute, State: outlast.MinuteUnbalanced, Sent: 9, At: minute},
		[]outlast.BookLine{{Type: typ, Group: group, Sent: 9, Received: 8, Missing: []string{outlast.NewID()}}}))
	db, at := f.db("orders-db"), minute.Format(time.RFC3339)
	path := "minute?db=" + db + "&at=" + url.QueryEscape(at)
	f.page(path, "unbalanced as of", "Sign off", "not looked for any more")
	if a := f.post("sign-off", "db", db, "at", at, "reason", " "); a.status != http.StatusBadRequest {
		t.Errorf("without a reason: %d", a.status)
	}
	a := f.page(f.done("sign-off", "db", db, "at", at, "reason", "test messages"), "The minute is signed off.", "signed as of", "by boss: test messages")
	if strings.Contains(a.text, `action="sign-off"`) {
		t.Error("a minute that is signed off can be signed off")
	}
	f.page("books", "signed", "boss test messages")
	f.page(f.done("sign-off", "db", db, "at", at, "reason", "twice"), "signed off already")
	if log := f.audit(); !strings.Contains(log, `"sign off"`) || !strings.Contains(log, at) || !strings.Contains(log, "1 minute signed off") || !strings.Contains(log, "0 minutes signed off") {
		t.Errorf("the record of it:\n%s", log)
	}
}

// Everything works below any path, because every link is relative.
func TestWorksBelowAPrefix(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.bury(message(), "x")
	mux := http.NewServeMux()
	mux.Handle("/ops/console/", http.StripPrefix("/ops/console", f.console))
	mux.Handle("/ops/console", http.StripPrefix("/ops/console", f.console))
	f.server.Close()
	f.server = httptest.NewServer(mux)
	t.Cleanup(f.server.Close)
	db := func() string {
		return regexp.MustCompile(`db=([0-9a-f]{8})`).FindStringSubmatch(f.get("ops/console/failures").text)[1]
	}()
	for _, path := range []string{"", "failures", "message?id=" + m.ID} {
		a := f.page("ops/console/" + path)
		for _, l := range regexp.MustCompile(`(?:href|src|action)="([^"]*)"`).FindAllStringSubmatch(a.text, -1) {
			if strings.HasPrefix(l[1], "/") || strings.Contains(l[1], "//") {
				t.Errorf("%q has the absolute link %q", path, l[1])
			}
		}
	}
	f.page("ops/console/static/style.css")
	f.page("ops/console/"+f.done("ops/console/retry", "db", db, "group", group, "id", m.ID, "reason", "card fixed"), "tried again")
	if a := f.get("ops/console"); a.status != http.StatusSeeOther || a.header.Get("Location") != "console/" {
		t.Errorf("without its last slash: %d to %q", a.status, a.header.Get("Location"))
	}
}

func TestAGapIsDrawnAsUnknown(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *console.Config) {
		c.Places = append(c.Places, journey.Place{Name: "stock-db", Err: &outlast.Error{Op: "connect to hunter2", Code: outlast.CodeUnavailable}})
		c.Redact = func(s string) string { return strings.ReplaceAll(s, "hunter2", "***") }
	})
	m := f.bury(message(), "x")
	for _, path := range []string{"", "outbox", "failures", "find?q=" + m.ID, "message?id=" + m.ID, "flow?id=" + m.ID, "audit", "topology"} {
		a := f.page(path, "stock-db could not be asked", "***")
		lacks(t, a, "No dead letters.", "Nothing needs a person.")
		if strings.Contains(a.text, "hunter2") {
			t.Errorf("%q shows a secret", path)
		}
	}
}

func TestNewReportsEveryBadField(t *testing.T) {
	t.Parallel()
	_, err := console.New(console.Config{Patience: time.Nanosecond, MostRate: -1})
	for _, field := range []string{"Places", "Authenticate", "Patience", "MostRate"} {
		if outlast.CodeOf(err) != outlast.CodeInvalid || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("%s is not in %v", field, err)
		}
	}
	_, err = console.New(console.Config{Loopback: true, Authenticate: byHeader, Places: []journey.Place{{Store: memory.NewStore()}}})
	if outlast.CodeOf(err) != outlast.CodeInvalid {
		t.Errorf("both ways in: %v", err)
	}
}

// stream opens the events of a page, and tells on the channel when there is a change.
func (f *fixture) stream(page string) <-chan string {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), http.MethodGet, f.server.URL+"/events?page="+page, nil)
	f.must(err)
	req.Header.Set("X-Test-Who", "boss")
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	f.must(err)
	lines, first := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(lines)
		defer res.Body.Close()
		in := bufio.NewScanner(res.Body)
		for begun := false; in.Scan(); begun = true {
			if !begun { // what comes now is a change
				close(first)
			}
			if strings.HasPrefix(in.Text(), "event: ") {
				lines <- in.Text()
			}
		}
	}()
	<-first
	return lines
}

// TestEventsTellOfPagesBeyondTheCounts: the books and the queues change without any count.
func TestEventsTellOfPagesBeyondTheCounts(t *testing.T) {
	t.Parallel()
	f, b := withBroker(t, 1)
	minute := time.Now().UTC().Add(-time.Hour).Truncate(time.Minute)
	write := func(s outlast.MinuteState) {
		f.must(f.orders.Books().Write(t.Context(), outlast.BookMinute{Minute: minute, State: s, Sent: 9, At: minute}, nil))
	}
	write(outlast.MinuteUnbalanced)
	books, queues, others := f.stream("books"), f.stream("queues"), f.stream("failures")
	write(outlast.MinuteBalanced)
	b.PublishForeign(outlast.EventExchange, typ+".0", nil, "", []byte("{}"))
	for page, lines := range map[string]<-chan string{"books": books, "queues": queues} {
		select {
		case line := <-lines:
			if line != "event: change" {
				t.Errorf("%s is told %q", page, line)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s is told nothing", page)
		}
	}
	if len(others) > 0 {
		t.Errorf("a page of counts, which have not changed, is told %q", <-others)
	}
}

func TestEventsTellOfChanges(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.URL+"/events", nil)
	f.must(err)
	req.Header.Set("X-Test-Who", "boss")
	req.Header.Set("Last-Event-ID", "something older")
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	f.must(err)
	defer res.Body.Close()
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("the stream is %q", kind)
	}
	first := make([]byte, 14)
	if _, err := res.Body.Read(first); err != nil || !strings.HasPrefix(string(first), "event: change") {
		t.Errorf("the first event is %q, %v", first, err)
	}
}
