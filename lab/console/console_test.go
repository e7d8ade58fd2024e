// Package console_test looks at the console with a real browser: make console-test.
package console_test

import (
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
)

// sight is a page of the console, and what it says when it is the right one.
type sight struct {
	name, path string
	form       string // which leads to it from there; empty: the path does
	status     int64
	says       []string
}

const (
	bodyForm = `form[action="body"]:not(:has([name="edit"]))`
	editForm = `form[action="body"]:has([name="edit"])`
)

// pages are all there are, with something on each.
func (s *scene) pages() []sight {
	s.Helper()
	s.plan("retry", negative, "10")
	s.start()
	s.plan("discard", expired, "10")
	return []sight{
		{name: "health", says: []string{"Health", "no relay is there to send", "cannot be sent as it is"}},
		{name: "find-form", path: "find", says: []string{"Find"}},
		{name: "find", path: "find?q=o-7", says: []string{"Find", s.first, "stock: waiting"}},
		{name: "message", path: "message?id=" + s.dead, says: []string{"Message", expired, "Edit as a new message"}},
		{name: "message-held", path: "message?id=" + s.held, says: []string{"larger than the broker takes", "Try to send now", "Withdraw"}},
		{name: "message-waiting", path: "message?id=" + s.waits, says: []string{"warehouse does not answer", "Retry now"}},
		{name: "body", path: "message?id=" + s.dead, form: bodyForm, says: []string{"Body", `"total_cents":4200`}},
		{name: "edit", path: "message?id=" + s.dead, form: editForm, says: []string{"Edit as a new message", "to billing alone"}},
		{name: "outbox", path: "outbox", says: []string{"Outbox and relay", "orders-7c9f5d", "No relay is alive here"}},
		{name: "outbox-list", path: s.link("outbox", `a[href*="order.invoiced"]`), says: []string{"Messages in the outbox", s.held, "refused"}},
		{name: "waiting", path: s.link("", `a[href^="waiting"][href*="group=stock"]`), says: []string{"Messages that wait for a retry", "warehouse does not answer"}},
		{name: "queues", path: "queues", says: []string{"Queues", "billing.1", "missing"}},
		{name: "failures", path: "failures", says: []string{"Failures", expired}},
		{name: "failure", path: s.failure(expired), says: []string{"Failure in billing", "Try one first", "3 dead since"}},
		{name: "operations", path: "operations", says: []string{"Operations", "retry order.placed.v1 in billing", "discard order.placed.v1 in billing"}},
		{name: "operation", path: s.link("operations", "tbody a"), says: []string{"Operation", "planned", "0 of 3 done"}},
		{name: "books", path: "books", says: []string{"Books", "unbalanced"}},
		{name: "minute", path: s.minute(), says: []string{"Minute", "598", "Send again what is missing"}},
		{name: "collected", path: "collected", says: []string{"Collected", "It never did before", s.dead}},
		{name: "topology", path: "topology", says: []string{"Topology", "Declare what is missing", "Who hears what"}},
		{name: "audit", path: "audit", says: []string{"Audit", "configure: yes", "The console's log", "What the databases recorded"}},
		{name: "timeline", path: "flow?as=timeline&id=" + s.first, says: []string{"Flow", "order.paid.v1"}},
		{name: "sequence", path: "flow?as=sequence&id=" + s.first, says: []string{"Flow", "order.paid.v1"}},
		{name: "causes", path: "flow?as=graph&id=" + s.first, says: []string{"Flow", "order.paid.v1"}},
		{name: "no-operation", path: "operation?id=none", status: 404, says: []string{"Not Found", "there is no such operation"}},
		{name: "no-list", path: "outbox?db=none", status: 404, says: []string{"Not Found", "there is no such database"}},
		{name: "no-number", path: "audit?before=x", status: 400, says: []string{"Bad Request", "a number of this list"}},
	}
}

// away are the pages on which a database that does not answer matters.
func (s *scene) away() []sight {
	const unknown, copied = "could not be asked", "the collector's copy"
	return []sight{
		{name: "health-gap", says: []string{unknown, "as the collector heard"}},
		{name: "timeline-gap", path: "flow?as=timeline&id=" + s.first, says: []string{unknown, copied, "no such host"}},
		{name: "sequence-gap", path: "flow?as=sequence&id=" + s.first, says: []string{unknown, copied}},
		{name: "causes-gap", path: "flow?as=graph&id=" + s.first, says: []string{unknown, copied}},
		{name: "message-gap", path: "message?id=" + s.first, says: []string{unknown, copied}},
		{name: "find-gap", path: "find?q=o-7", says: []string{unknown}},
		{name: "outbox-gap", path: "outbox", says: []string{unknown}},
		{name: "queues-gap", path: "queues", says: []string{unknown}},
		{name: "failures-gap", path: "failures", says: []string{unknown}},
		{name: "books-gap", path: "books", says: []string{unknown}},
		{name: "topology-gap", path: "topology", says: []string{unknown}},
	}
}

// refused are pages as somebody sees them who may look at what orders sends alone.
func (s *scene) refused() []sight {
	return []sight{
		{name: "failure-refused", path: "failure?db=x&group=billing&type=" + placedV1 + "&fingerprint=x", status: 403, says: []string{"Forbidden", `do not include "view"`}},
		{name: "failures-refused", path: "failures", says: []string{"No dead letters"}},
		{name: "audit-refused", path: "audit", says: []string{"configure: no"}},
	}
}

// failure is the path of a failure.
func (s *scene) failure(text string) string {
	s.Helper()
	return s.link("failures", `a[href*="`+print(text)+`"]`)
}

// minute is the path of the minute that is not balanced.
func (s *scene) minute() string {
	s.Helper()
	return s.link("books?state=unbalanced", "tbody a")
}

func TestPagesInABrowser(t *testing.T) {
	for _, c := range []struct {
		name   string
		change []func(*console.Config)
		pages  func(*scene) []sight
	}{
		{"whole", nil, (*scene).pages},
		{"with_a_database_away", []func(*console.Config){stockIsAway}, (*scene).away},
		{"for_a_guest", []func(*console.Config){asGuest}, (*scene).refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, c.change...)
			pages := c.pages(s)
			for _, l := range looks {
				for _, p := range pages {
					t.Run(p.name+"/"+l.name, func(t *testing.T) { s.in(t).visit(l, p) })
				}
			}
		})
	}
}

// visit looks at a page.
func (s *scene) visit(l look, p sight) {
	s.Helper()
	s.as(l)
	status := s.answer(chromedp.Navigate(s.url + p.path))
	if p.form != "" {
		status = s.answer(fill(p.form, "reason", "a complaint"), press(p.form, ""))
	}
	if p.status == 0 {
		p.status = 200
	}
	if status != p.status {
		s.Errorf("it answers %d, want %d", status, p.status)
	}
	var wide, headings int
	s.run(chromedp.WaitVisible("footer", chromedp.ByQuery),
		chromedp.Evaluate(`document.documentElement.scrollWidth - document.documentElement.clientWidth`, &wide),
		chromedp.Evaluate(`document.querySelectorAll('h1').length`, &headings))
	if wide > 0 {
		s.Errorf("it is %d pixels wider than the window", wide)
	}
	if headings != 1 {
		s.Errorf("it has %d headings", headings)
	}
	s.says(p.says...)
	s.axe()
	s.picture(p.name + "-" + l.name)
	s.quiet(p.status)
}

func TestAPersonRetriesWithTheKeyboard(t *testing.T) {
	s := newScene(t)
	s.run(chromedp.Navigate(s.url+"message?id="+s.dead), chromedp.WaitVisible(".acts", chromedp.ByQuery),
		chromedp.Focus(".acts summary", chromedp.ByQuery), chromedp.KeyEvent("\r"),
		chromedp.Focus(`form[action="retry"] input[name="reason"]`, chromedp.ByQuery))
	s.answer(chromedp.KeyEvent("card fixed\r"))
	s.says("resolved when its group has handled it", "waiting")
	s.retries(s.dead)
	s.quiet(200)
}

// A person finds a message by a business key from any page, and follows its flow.
func TestAPersonFindsAMessage(t *testing.T) {
	s := newScene(t)
	s.run(chromedp.Navigate(s.url+"books"), click(`document.getElementById('top-q')`))
	s.answer(chromedp.KeyEvent("o-7\r"))
	s.says(s.first, "stock")
	s.answer(click(`document.querySelector('main tbody a[href^="message"]')`))
	s.says("Where it is", "warehouse does not answer")
	s.answer(click(`document.querySelector('main a[href^="flow"]')`))
	s.answer(click(`document.querySelector('.tabs a[href*="graph"]')`))
	s.answer(click(`document.querySelector('svg a')`))
	s.says("Where it is")
	s.quiet(200)
}

// A page follows what happens without being loaded again, unless it is paused.
func TestLiveUpdates(t *testing.T) {
	s := newScene(t)
	s.run(chromedp.Navigate(s.url), chromedp.WaitVisible("#live", chromedp.ByQuery))
	s.run(chromedp.Evaluate(`window.same = true`, nil))
	must(t, s.billing.Operator().SetPaused(t.Context(), "billing", true, outlast.Action{Who: "ada", Reason: "card service is down"}))
	s.until(`document.querySelector('main').textContent.includes('card service is down')`)
	s.until(`window.same === true`)
	s.quiet(200)
}
