// Package console_test looks at the console with a real browser: make console-test.
package console_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	_ "modernc.org/sqlite" // the driver named "sqlite"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
)

// scene is a console with something on every page, and a browser that looks at it.
type scene struct {
	*testing.T
	ctx      context.Context
	url      string
	billing  *memory.Store
	first    string // a message of the flow
	dead     string
	mu       sync.Mutex
	problems []string // what the browser complained about
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func message(typ, source, flow, cause string) *outlast.Message {
	id := outlast.NewID()
	if flow == "" {
		flow = id
	}
	return &outlast.Message{Envelope: outlast.Envelope{ID: id, Type: typ, Kind: outlast.KindEvent, Source: source, Key: "customer-ada", CorrelationID: flow, CausationID: cause,
		EnqueuedAt: time.Now().UTC().Add(-3 * time.Second), Headers: outlast.Headers{"region": "eu", "note": `<b onclick="alert(1)">bold</b>`}, Show: []string{"order_id"}}, Body: []byte(`{"order_id":"o-7","total_cents":4200}`)}
}

func inbox(t *testing.T, s *memory.Store, group string, m *outlast.Message) outlast.InboxTx {
	t.Helper()
	tx, err := s.Inbox().Begin(t.Context(), group, []outlast.Mark{{Source: m.Source, ID: m.ID, Hash: 1, EnqueuedAt: m.EnqueuedAt}})
	must(t, err)
	return tx
}

func newScene(t *testing.T) *scene {
	t.Helper()
	if os.Getenv("OUTLAST_TEST_BROWSER") == "" {
		t.Skip("looks with a real browser: make console-test")
	}
	s := &scene{T: t, billing: memory.NewStore()}
	orders, stock := memory.NewStore(), memory.NewStore()
	must(t, orders.Relay().Identify(t.Context(), "orders"))
	must(t, s.billing.Relay().Identify(t.Context(), "billing"))
	must(t, s.billing.Journal().Hear(t.Context(), "billing", []string{"order.placed.v1"}))
	must(t, stock.Journal().Hear(t.Context(), "stock", []string{"order.placed.v1", "order.paid.v1"}))
	s.fill(orders, stock)
	places := []journey.Place{{Name: "postgres://app@db.example/orders", Store: orders}, {Name: "postgres://app@db.example/billing", Store: s.billing}, {Name: "sqlite:stock.db", Store: stock}}
	audit, err := console.OpenAudit(filepath.Join(t.TempDir(), "audit.jsonl"))
	must(t, err)
	c, err := console.New(console.Config{Loopback: true, Audit: audit, AllowEdit: true, Broker: broker(t), Declared: declared, Collector: collected(t, places), Places: places})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	runs := make(chan error, 1)
	go func() { runs <- c.Run(ctx) }()
	server := httptest.NewServer(c)
	s.url = server.URL + "/"
	browser := s.browse(ctx)
	t.Cleanup(func() {
		browser()
		cancel()
		server.CloseClientConnections()
		server.Close()
		must(t, errors.Join(<-runs, audit.Close()))
	})
	return s
}

// collected is a collector's database after one look at the places, and at one that does
// not answer.
func collected(t *testing.T, places []journey.Place) *collector.Store {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "collector.db"))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	store, err := collector.Open(db, collector.SQLite, "")
	must(t, err)
	must(t, store.Migrate(t.Context()))
	c, err := collector.New(collector.Config{Store: store, Grace: time.Second, Share: 1,
		Places: append(places[:len(places):len(places)], journey.Place{Name: "postgres://app@db.example/mail", Err: errors.New("connection refused")})})
	must(t, err)
	_, err = c.Round(t.Context())
	must(t, err)
	return store
}

// declared is the topology of the scene, and broker one that has it, but for a queue and a
// binding, and with a message that nobody consumes.
var declared = outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}, Groups: []outlast.GroupTopology{
	{Group: "billing", Partitions: 2, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "order.placed.v1"}}},
	{Group: "mail", Partitions: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "order.paid.v1"}}}}}

func broker(t *testing.T) *memory.Broker {
	b := memory.NewBroker()
	must(t, b.Topology().Apply(t.Context(), declared))
	must(t, b.DeleteQueue("billing.1"))
	must(t, b.Unbind("mail.0", outlast.EventExchange, "order.paid.v1.*"))
	b.PublishForeign(outlast.EventExchange, "order.placed.v1.0", nil, "", []byte("{}"))
	return b
}

// fill puts a flow, failures, a minute of the books and what waits into the stores.
func (s *scene) fill(orders, stock *memory.Store) {
	t := s.T
	placed := message("order.placed.v1", "orders", "", "")
	placed.Find = map[string]string{"order": "o-7"}
	paid := message("order.paid.v1", "billing", placed.ID, placed.ID)
	s.first = placed.ID
	for _, m := range []*outlast.Message{placed, message("order.cancelled.v1", "orders", "", "")} {
		tx := orders.Begin()
		must(t, outlast.NewOutbox(orders).Publish(t.Context(), tx, *m))
		must(t, tx.Commit())
	}
	tx := s.billing.Begin()
	must(t, outlast.NewOutbox(s.billing).Publish(t.Context(), tx, *paid))
	must(t, tx.Commit())
	must(t, inbox(t, s.billing, "billing", placed).Commit(t.Context()))
	w := inbox(t, stock, "stock", placed)
	must(t, w.Wait(t.Context(), &outlast.Waiting{Group: "stock", Message: placed, Attempts: 2, Wait: time.Hour, Reason: "failed", Error: "warehouse does not answer"}))
	must(t, w.Commit(t.Context()))
	must(t, inbox(t, stock, "stock", paid).Commit(t.Context()))
	for i, text := range []string{"card expired", "card expired", "card expired", "amount -5 is negative"} {
		m := message("order.placed.v1", "orders", "", "")
		tx := inbox(t, s.billing, "billing", m)
		must(t, tx.Bury(t.Context(), &outlast.DeadLetterRecord{Group: "billing", Message: m, Reason: "verdict", Error: text, Attempts: 1 + i, Fingerprint: fmt.Sprintf("%08x", len(text)*7919)}))
		must(t, tx.Commit(t.Context()))
		if i == 0 {
			s.dead = m.ID
		}
	}
	minute := time.Now().UTC().Truncate(time.Minute).Add(-10 * time.Minute)
	for i := range 6 {
		state, lines := outlast.MinuteBalanced, []outlast.BookLine{{Type: "order.placed.v1", Group: "billing", Sent: 600, Received: 600}}
		if i == 2 {
			state = outlast.MinuteUnbalanced
			lines[0].Received, lines[0].Missing = 598, []string{outlast.NewID(), outlast.NewID()}
		}
		must(t, orders.Books().Write(t.Context(), outlast.BookMinute{Minute: minute.Add(time.Duration(-i) * time.Minute), State: state, Sent: 600, At: minute}, lines))
	}
}

// browse starts the browser and returns what ends it.
func (s *scene) browse(parent context.Context) (end func()) {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.Flag("force-color-profile", "srgb"))
	allocator, endAllocator := chromedp.NewExecAllocator(parent, options...)
	ctx, endBrowser := chromedp.NewContext(allocator)
	ctx, endTime := context.WithTimeout(ctx, 3*time.Minute)
	s.ctx = ctx
	chromedp.ListenTarget(ctx, func(event any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded:
			s.problems = append(s.problems, e.Entry.Text)
		case *runtime.EventExceptionThrown:
			s.problems = append(s.problems, e.ExceptionDetails.Error())
		}
	})
	must(s.T, chromedp.Run(ctx, log.Enable(), runtime.Enable()))
	return func() { endTime(); endBrowser(); endAllocator() }
}

func (s *scene) run(actions ...chromedp.Action) {
	s.Helper()
	if err := chromedp.Run(s.ctx, actions...); err != nil {
		var text string
		_ = chromedp.Run(s.ctx, chromedp.Text("body", &text, chromedp.ByQuery))
		s.Fatalf("%v; the page says:\n%s", err, text)
	}
}

func (s *scene) text() (text string) {
	s.Helper()
	s.run(chromedp.Text("main", &text, chromedp.ByQuery))
	return text
}

// quiet wants that the browser has not complained: nothing was blocked by the policy.
func (s *scene) quiet() {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.problems {
		s.Errorf("the browser says: %s", p)
	}
	s.problems = nil
}

// until waits for an expression of the page to be true.
func (s *scene) until(expression string) {
	s.Helper()
	s.run(chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(20*time.Second)))
}

func (s *scene) pages() map[string]string {
	return map[string]string{"health": "", "find": "find?q=o-7", "message": "message?id=" + s.dead, "failures": "failures", "outbox": "outbox", "books": "books", "minute": s.minute(), "topology": "topology", "queues": "queues", "collected": "collected",
		"timeline": "flow?as=timeline&id=" + s.first, "sequence": "flow?as=sequence&id=" + s.first, "causes": "flow?as=graph&id=" + s.first, "operations": "operations", "audit": "audit"}
}

// axe returns what axe-core finds wrong with the page for people who use other senses or
// hands, when OUTLAST_TEST_AXE names its script.
func (s *scene) axe() (found []string) {
	s.Helper()
	name := os.Getenv("OUTLAST_TEST_AXE")
	if name == "" {
		return nil
	}
	script, err := os.ReadFile(name)
	must(s.T, err)
	s.run(chromedp.Evaluate(string(script)+";0", nil), chromedp.Evaluate(
		`axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}).then(r =>
			r.violations.map(v => v.id + ' (' + v.impact + '): ' + v.nodes.slice(0, 3).map(n => n.html.slice(0, 200)).join(' | ')))`,
		&found, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return found
}

// picture keeps a picture of the page in the folder that OUTLAST_TEST_SCREENSHOTS names.
func (s *scene) picture(name string) {
	s.Helper()
	folder := os.Getenv("OUTLAST_TEST_SCREENSHOTS")
	if folder == "" {
		return
	}
	var picture []byte
	s.run(chromedp.FullScreenshot(&picture, 100))
	must(s.T, os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o644))
}

func TestPagesInABrowser(t *testing.T) {
	s := newScene(t)
	for _, look := range []struct {
		name, scheme  string
		width, height int64
	}{{"light", "light", 1280, 900}, {"dark", "dark", 1280, 900}, {"phone", "light", 390, 844}} {
		s.run(chromedp.EmulateViewport(look.width, look.height), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}}))
		for name, path := range s.pages() {
			var wide, headings int
			s.run(chromedp.Navigate(s.url+path), chromedp.WaitVisible("footer", chromedp.ByQuery),
				chromedp.Evaluate(`document.documentElement.scrollWidth - document.documentElement.clientWidth`, &wide),
				chromedp.Evaluate(`document.querySelectorAll('h1').length`, &headings))
			if wide > 0 {
				t.Errorf("%s %s is %d pixels wider than the window", name, look.name, wide)
			}
			for _, v := range s.axe() {
				t.Errorf("%s %s: %s", name, look.name, v)
			}
			if headings != 1 {
				t.Errorf("%s has %d headings", name, headings)
			}
			s.picture(name + "-" + look.name)
		}
	}
	s.quiet()
}

func TestAPersonRetriesWithTheKeyboard(t *testing.T) {
	s := newScene(t)
	s.run(chromedp.Navigate(s.url+"message?id="+s.dead), chromedp.WaitVisible(".acts", chromedp.ByQuery),
		chromedp.Focus(".acts summary", chromedp.ByQuery), chromedp.KeyEvent("\r"),
		chromedp.Focus(`form[action="retry"] input[name="reason"]`, chromedp.ByQuery), chromedp.KeyEvent("card fixed\r"),
		chromedp.WaitVisible(".notice", chromedp.ByQuery))
	if text := s.text(); !strings.Contains(text, "resolved when its group has handled it") || !strings.Contains(text, "waiting") {
		t.Errorf("after the retry:\n%s", text)
	}
	s.quiet()
}

// A page follows what happens without being loaded again, unless it is paused.
func TestLiveUpdates(t *testing.T) {
	s := newScene(t)
	s.run(chromedp.Navigate(s.url), chromedp.WaitVisible("#live", chromedp.ByQuery))
	s.run(chromedp.Evaluate(`window.same = true`, nil))
	must(t, s.billing.Operator().SetPaused(t.Context(), "billing", true, outlast.Action{Who: "ada", Reason: "card service is down"}))
	s.until(`document.querySelector('main').textContent.includes('card service is down')`)
	s.until(`window.same === true`)
	s.quiet()
}

// A person edits a dead letter: what is not JSON comes back with what is wrong, in a form
// that axe has nothing against either, and then a new message waits.
func TestAPersonEditsADeadLetter(t *testing.T) {
	s := newScene(t)
	open := `[...document.querySelectorAll('.acts details')].find(d => d.textContent.includes('Edit as a new')).open = true`
	s.run(chromedp.Navigate(s.url+"message?id="+s.dead), chromedp.WaitVisible(".acts", chromedp.ByQuery), chromedp.Evaluate(open, nil),
		chromedp.SendKeys(`form:has(input[name="edit"]) input[name="reason"]`, "complaint 12\r", chromedp.ByQuery),
		chromedp.WaitVisible("textarea", chromedp.ByQuery))
	fine := func(name string) {
		for _, v := range s.axe() {
			t.Errorf("the %s: %s", name, v)
		}
		s.picture("edit-" + name)
	}
	fine("form")
	s.run(chromedp.SetValue("textarea", "{,", chromedp.ByQuery),
		chromedp.SendKeys(`main input[name="reason"]`, "mistyped\r", chromedp.ByQuery), chromedp.WaitVisible("#problem", chromedp.ByQuery))
	fine("problem")
	s.mu.Lock()
	s.problems = nil // the browser tells of the answer 400
	s.mu.Unlock()
	s.run(chromedp.SetValue("textarea", `{"order_id":"o-7","total_cents":4300}`, chromedp.ByQuery),
		chromedp.Click("main form button", chromedp.ByQuery), chromedp.WaitVisible(".notice", chromedp.ByQuery))
	if text := s.text(); !strings.Contains(text, "waits for its group alone") || !strings.Contains(text, "waiting") {
		t.Errorf("after the edit:\n%s", text)
	}
	s.quiet()
}

// minute is the path of the minute that is not balanced.
func (s *scene) minute() (path string) {
	s.Helper()
	s.run(chromedp.Navigate(s.url+"books?state=unbalanced"), chromedp.WaitVisible("tbody a", chromedp.ByQuery),
		chromedp.Evaluate(`document.querySelector('tbody a').getAttribute('href')`, &path))
	return path
}

// A person signs off a minute and pauses the relays, each with a reason.
func TestAPersonSignsOffAndPauses(t *testing.T) {
	s := newScene(t)
	act := func(path, action, reason, says string) {
		t.Helper()
		form := `form[action="` + action + `"]`
		s.run(chromedp.Navigate(s.url+path), chromedp.WaitVisible(".acts", chromedp.ByQuery),
			chromedp.Evaluate(`document.querySelector('`+form+`').closest('details').open = true`, nil),
			chromedp.SendKeys(form+` input[name="reason"]`, reason+"\r", chromedp.ByQuery), chromedp.WaitVisible(".notice", chromedp.ByQuery))
		if text := s.text(); !strings.Contains(text, says) || !strings.Contains(text, reason) {
			t.Errorf("after %s:\n%s", action, text)
		}
		for _, v := range s.axe() {
			t.Errorf("after %s: %s", action, v)
		}
	}
	act(s.minute(), "sign-off", "test messages", "The minute is signed off.")
	act("outbox", "pause-relays", "the broker moves", "The relays pause within seconds")
	s.quiet()
}
