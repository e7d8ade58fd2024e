package console_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
)

const (
	startForm = `form[action="operation-start"]`
	stopForm  = `form[action="operation-stop"]`
	reason    = "as agreed with Ada"
)

// act is what a person does on a page: fill in a form and press its button.
type act struct {
	name         string
	before       func(s *scene)
	path         func(s *scene) string
	form, button string
	meanwhile    func(s *scene) // before the button is pressed
	status       int64          // of the answer; 0: 200
	says         []string
	recorded     string         // in the audit log, as what was done; empty: nothing
	after        func(s *scene) // wants the effect in the stores
}

func at(path string) func(*scene) string { return func(*scene) string { return path } }

func ofDead(s *scene) string    { return "message?id=" + s.dead }
func ofHeld(s *scene) string    { return "message?id=" + s.held }
func ofWaiting(s *scene) string { return "message?id=" + s.waits }
func ofPending(s *scene) string { return "message?id=" + s.pending }
func ofFailure(s *scene) string { return s.failure(expired) }
func ofRacing(s *scene) string  { return "message?id=" + s.racing }

var operator = outlast.Action{Who: "ada", Reason: "card service is down"}

func (s *scene) pauseBilling() {
	must(s.T, s.billing.Operator().SetPaused(s.Context(), "billing", true, operator))
}

func (s *scene) pauseRelays() {
	must(s.T, s.orders.Operator().SetPaused(s.Context(), outlast.RelaySwitch, true, operator))
}

func (s *scene) discard() {
	_, err := s.billing.Operator().Dead().Discard(s.Context(), outlast.Filter{IDs: []string{s.dead}, Limit: 1}, operator)
	must(s.T, err)
}

var acts = []act{
	{name: "retry", path: ofDead, form: `form[action="retry"]`, recorded: "retry",
		says: []string{"It will be tried again.", "waiting"}, after: func(s *scene) { s.retries(s.dead); s.deadAre(expired, 2) }},
	{name: "try one first", path: ofFailure, form: `form[action="retry"]`, recorded: "retry",
		says: []string{"It will be tried again.", "waiting"}, after: func(s *scene) { s.deadAre(expired, 2) }},
	{name: "retry now", path: ofWaiting, form: `form[action="retry-now"]`, recorded: "retry now",
		says: []string{"It is due now.", "waiting"}, after: (*scene).isDue},
	{name: "discard", path: ofDead, form: `form[action="discard"]`, recorded: "discard",
		says: []string{"The dead letter is discarded."}, after: func(s *scene) { s.deadAre(expired, 2); s.isNot("retry", s.dead) }},
	{name: "discard what has moved on", path: ofDead, form: `form[action="discard"]`, meanwhile: (*scene).discard, status: 404,
		says: []string{"Not Found", "it has moved on"}, after: func(s *scene) { s.deadAre(expired, 2) }},
	{name: "release", path: ofHeld, form: `form[action="release"]`, recorded: "release",
		says: []string{"The relay tries to send it again."}, after: (*scene).isReleased},
	{name: "withdraw", path: ofPending, form: `form[action="withdraw"]`, recorded: "withdraw",
		says: []string{"It is withdrawn.\n"}, after: func(s *scene) { s.isNot("pending", s.pending) }},
	{name: "withdraw while a relay runs", path: ofRacing, form: `form[action="withdraw"]`, recorded: "withdraw",
		says: []string{"it may have been sent already"}, after: func(s *scene) { s.isNot("pending", s.racing) }},
	{name: "pause a group", path: at(""), form: `form[action="pause"]:has([value="billing"])`, recorded: "pause",
		says: []string{"The group is paused", "paused by " + byMachine, reason}, after: func(s *scene) { s.paused(byMachine) }},
	{name: "resume a group", before: (*scene).pauseBilling, path: at(""), form: `form[action="resume"]:has([value="billing"])`, recorded: "resume",
		says: []string{"The group goes on."}, after: func(s *scene) { s.paused("") }},
	{name: "pause relays", path: at("outbox"), form: `form[action="pause-relays"]`, recorded: "pause relays",
		says: []string{"The relays pause within seconds", "paused by " + byMachine, reason}, after: func(s *scene) { s.relaysPaused(byMachine) }},
	{name: "resume relays", before: (*scene).pauseRelays, path: at("outbox"), form: `form[action="resume-relays"]`, recorded: "resume relays",
		says: []string{"The relays go on within seconds."}, after: func(s *scene) { s.relaysPaused("") }},
	{name: "sign off", path: (*scene).minute, form: `form[action="sign-off"]`, recorded: "sign off",
		says: []string{"The minute is signed off.", "signed as of", reason}, after: (*scene).isSignedOff},
	{name: "resend missing", path: (*scene).minute, form: `form[action="resend"]`, recorded: "resend missing",
		says: []string{"is sent again"}, after: func(s *scene) { s.is("pending", s.lost) }},
	{name: "declare", path: at("topology"), form: `form[action="declare"]:has([value="billing"])`, recorded: "declare",
		says: []string{"What was missing is declared.", "2 queues as declared"}, after: (*scene).isDeclared},
	{name: "see a body", path: ofDead, form: bodyForm, recorded: "view body",
		says: []string{"Body", `{"order_id":"o-7","total_cents":4200}`}, after: func(s *scene) { s.deadAre(expired, 3) }},
	{name: "plan a retry of all", path: ofFailure, form: `form[action="operation-plan"]:has([value="retry"])`, recorded: "plan retry of a group",
		says: []string{"planned", "Retry 3 messages", "0 of 3 done"}, after: func(s *scene) { s.deadAre(expired, 3) }},
	{name: "plan a discard of all", path: ofFailure, form: `form[action="operation-plan"]:has([value="discard"])`, recorded: "plan discard of a group",
		says: []string{"planned", "Discard 3 messages", "0 of 3 done"}, after: func(s *scene) { s.deadAre(expired, 3) }},
}

// Each act has a scene of its own, so that none hides another.
func TestActionsInABrowser(t *testing.T) {
	for _, a := range acts {
		t.Run(strings.ReplaceAll(a.name, " ", "_"), func(t *testing.T) { newScene(t).act(a) })
	}
}

func (s *scene) act(a act) {
	s.Helper()
	if a.status == 0 {
		a.status = 200
	}
	if a.before != nil {
		a.before(s)
	}
	s.run(chromedp.Navigate(s.url+a.path(s)), fill(a.form, "reason", reason))
	if a.meanwhile != nil {
		a.meanwhile(s)
	}
	if status := s.answer(press(a.form, a.button)); status != a.status {
		s.Errorf("it answers %d, want %d", status, a.status)
	}
	s.says(a.says...)
	s.axe()
	a.after(s)
	s.run(chromedp.Navigate(s.url + "audit"))
	if a.recorded != "" {
		s.says(a.recorded, reason)
	} else if text := s.text(); strings.Contains(text, reason) {
		s.Errorf("what was not done is in the log:\n%s", text)
	}
	s.quiet(a.status)
}

// A person who gives no reason does nothing: the browser asks for one.
func TestNothingIsDoneWithoutAReason(t *testing.T) {
	s := newScene(t)
	s.run(chromedp.Navigate(s.url+ofDead(s)), fill(`form[action="discard"]`, "reason", ""), press(`form[action="discard"]`, ""))
	s.until(`document.querySelector('form[action="discard"] input:invalid:focus') !== null`)
	s.deadAre(expired, 3)
	s.quiet(200)
}

// find returns the row of a message at one place, or nil.
func (s *scene) find(where, id string) *outlast.Item {
	s.Helper()
	for _, store := range []outlast.OperatorStore{s.orders.Operator(), s.billing.Operator(), s.stock.Operator()} {
		for _, list := range []func(context.Context, outlast.Filter) ([]outlast.Item, error){store.Outbox().List, store.Retries().List, store.Dead().List} {
			items, err := list(s.Context(), outlast.Filter{IDs: []string{id}, Limit: 10})
			must(s.T, err)
			if i := slices.IndexFunc(items, func(i outlast.Item) bool { return i.Where == where }); i >= 0 {
				return &items[i]
			}
		}
	}
	return nil
}

func (s *scene) is(where, id string) {
	s.Helper()
	if s.find(where, id) == nil {
		s.Errorf("%s is not %s", id, where)
	}
}

func (s *scene) isNot(where, id string) {
	s.Helper()
	if s.find(where, id) != nil {
		s.Errorf("%s is still %s", id, where)
	}
}

// retries wants that a dead letter is none any more and waits.
func (s *scene) retries(id string) {
	s.Helper()
	s.is("retry", id)
	s.isNot("dead", id)
}

func (s *scene) isDue() {
	s.Helper()
	if i := s.find("retry", s.waits); i == nil || time.Until(i.NextAt) > 0 {
		s.Errorf("it is not due: %+v", i)
	}
}

// isReleased wants that the relay may try the held message at once.
func (s *scene) isReleased() {
	s.Helper()
	if i := s.find("held", s.held); i == nil || i.Reason != string(outlast.HeldBackoff) || time.Until(i.NextAt) > 0 {
		s.Errorf("it is not released: %+v", i)
	}
}

// deadAre wants so many dead letters of a failure.
func (s *scene) deadAre(text string, want int) {
	s.Helper()
	items, err := s.billing.Operator().Dead().List(s.Context(), outlast.Filter{Fingerprint: print(text), Limit: 100})
	must(s.T, err)
	if len(items) != want {
		s.Errorf("%d dead letters %q, want %d", len(items), text, want)
	}
}

func whoPaused(p *outlast.PausedGroup) string {
	if p == nil {
		return ""
	}
	return p.Who
}

// paused wants that somebody has paused billing, or nobody.
func (s *scene) paused(who string) {
	s.Helper()
	st, err := s.billing.Operator().Status(s.Context())
	must(s.T, err)
	var by string
	for _, g := range st.Groups {
		by = whoPaused(&g)
	}
	if by != who {
		s.Errorf("billing is paused by %q, want %q", by, who)
	}
}

func (s *scene) relaysPaused(who string) {
	s.Helper()
	st, err := s.orders.Operator().Status(s.Context())
	must(s.T, err)
	if by := whoPaused(st.RelaysPaused); by != who {
		s.Errorf("the relays are paused by %q, want %q", by, who)
	}
}

func (s *scene) isSignedOff() {
	s.Helper()
	minutes, err := s.orders.Books().Minutes(s.Context(), outlast.MinuteQuery{Limit: 10})
	must(s.T, err)
	n := 0
	for _, m := range minutes {
		if m.State == outlast.MinuteSigned && m.Who == byMachine && m.Reason == reason {
			n++
		}
		if m.State == outlast.MinuteUnbalanced {
			s.Errorf("%s is still unbalanced", m.Minute)
		}
	}
	if n != 1 {
		s.Errorf("%d minutes are signed off, want 1", n)
	}
}

// isDeclared wants that nothing of billing is missing, and that mail is as it was.
func (s *scene) isDeclared() {
	s.Helper()
	for _, g := range declared.Groups {
		missing, err := s.broker.Topology().Check(s.Context(), outlast.Topology{Groups: []outlast.GroupTopology{g}})
		must(s.T, err)
		if (len(missing) > 0) != (g.Group == "mail") {
			s.Errorf("of %s differ %v", g.Group, missing)
		}
	}
}

// A person downloads a body: it comes as a file, and the page stays.
func TestAPersonDownloadsABody(t *testing.T) {
	s := newScene(t)
	folder := t.TempDir()
	done := make(chan browser.DownloadProgressState, 1)
	chromedp.ListenTarget(s.ctx, func(event any) {
		if e, ok := event.(*browser.EventDownloadProgress); ok && e.State != browser.DownloadProgressStateInProgress {
			select {
			case done <- e.State:
			default:
			}
		}
	})
	s.run(browser.SetDownloadBehavior(browser.SetDownloadBehaviorBehaviorAllow).WithDownloadPath(folder).WithEventsEnabled(true),
		chromedp.Navigate(s.url+ofDead(s)), fill(bodyForm, "reason", reason), press(bodyForm, `[name="raw"]`))
	select {
	case state := <-done:
		text, err := os.ReadFile(filepath.Join(folder, "body.bin"))
		must(t, err)
		if string(text) != `{"order_id":"o-7","total_cents":4200}` {
			t.Errorf("the download is %s: %s", state, text)
		}
	case <-time.After(patience):
		t.Fatal("nothing was downloaded")
	}
	s.says("Where it is")
	s.run(chromedp.Navigate(s.url + "audit"))
	s.says("view body", reason)
	s.quiet(200)
}

// A person edits a dead letter: what is not JSON comes back with what is wrong, in a form
// that axe has nothing against either, and then a new message waits.
func TestAPersonEditsADeadLetter(t *testing.T) {
	const form = `main form[action="edit"]`
	s := newScene(t)
	s.run(chromedp.Navigate(s.url + ofDead(s)))
	s.answer(fill(editForm, "reason", "complaint 12"), press(editForm, ""))
	s.answer(fill(form, "body", "{,"), fill(form, "reason", "mistyped"), press(form, ""))
	s.says("The body is not JSON")
	s.axe()
	s.picture("edit-problem")
	s.quiet(400)
	s.deadAre(expired, 3)
	s.answer(fill(form, "body", `{"order_id":"o-7","total_cents":4300}`), press(form, ""))
	s.says("waits for its group alone", "waiting")
	s.deadAre(expired, 2)
	s.isNot("retry", s.dead)
	items, err := s.billing.Operator().Retries().List(t.Context(), outlast.Filter{Limit: 10})
	must(t, err)
	if len(items) != 1 || items[0].Envelope.CausationID != s.dead || items[0].Envelope.Source != console.EditSource {
		t.Errorf("what waits is %+v, want one message that the dead letter caused", items)
	}
	s.quiet(200)
}

// A person counts what an operation would do, starts it, and sees it end.
func TestAPersonStartsAnOperation(t *testing.T) {
	for _, deed := range []string{"retry", "discard"} {
		t.Run(deed, func(t *testing.T) {
			s := newScene(t)
			s.plan(deed, expired, "10")
			s.start()
			s.says("3 of 3 done")
			s.deadAre(expired, 0)
			s.deadAre(negative, 1)
			if deed == "retry" {
				s.says("What became of the 3", "3 to be tried")
				s.retries(s.dead)
			} else {
				s.isNot("retry", s.dead)
			}
			s.axe()
			s.quiet(200)
		})
	}
}

// A person stops an operation: what it has not done yet stays, and may go on.
func TestAPersonStopsAnOperation(t *testing.T) {
	s := newScene(t)
	for range 60 {
		s.bury(expired, 1)
	}
	s.plan("discard", expired, "1")
	s.answer(fill(startForm, "reason", reason), press(startForm, ""))
	s.answer(fill(stopForm, "reason", "that was the wrong cause"), press(stopForm, ""))
	s.until(`document.querySelector('main .tag').textContent === 'stopped'`)
	s.until(`[...document.querySelectorAll('button')].some(b => b.textContent === 'Go on')`)
	items, err := s.billing.Operator().Dead().List(t.Context(), outlast.Filter{Fingerprint: print(expired), Limit: 100})
	must(t, err)
	if len(items) == 0 || len(items) == 63 {
		t.Errorf("%d of 63 are left, want some and not all", len(items))
	}
	s.axe()
	s.quiet(200)
}

// plan plans an operation on a failure, at a rate, and start starts it and sees its end.
func (s *scene) plan(deed, text, rate string) {
	s.Helper()
	form := `form[action="operation-plan"]:has([value="` + deed + `"])`
	s.run(chromedp.Navigate(s.url + s.failure(text)))
	s.answer(fill(form, "rate", rate), fill(form, "reason", reason), press(form, ""))
	s.says("planned", rate+" a second", reason)
}

func (s *scene) start() {
	s.Helper()
	s.answer(fill(startForm, "reason", reason), press(startForm, ""))
	s.until(`document.querySelector('main .tag').textContent === 'ended'`)
}

// A person who has a session ends it; the next page asks who that is.
func TestAPersonLogsOut(t *testing.T) {
	var out atomic.Bool
	s := newScene(t, func(c *console.Config) {
		c.Loopback, c.Authenticate = false, func(w http.ResponseWriter, r *http.Request) *console.Identity {
			if r.Method == http.MethodPost && r.URL.Path == "/logout" {
				out.Store(true)
			}
			if !out.Load() {
				return &console.Identity{Name: "ada", Grants: console.All(), LogOut: "logout"}
			}
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<!DOCTYPE html><main>who are you?</main>"))
			return nil
		}
	})
	s.run(chromedp.Navigate(s.url + ofDead(s)))
	s.answer(press(`footer form`, ""))
	s.says("who are you?")
	s.answer(chromedp.Navigate(s.url))
	s.says("who are you?")
	s.quiet(200)
}
