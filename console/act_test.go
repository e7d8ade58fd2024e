package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
)

// A retried message is not resolved before its group has handled it, and a second retry
// finds nothing to do: at most one is outstanding.
func TestS35_RetriedIsNotResolvedBeforeItIsHandled(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.bury(message(), "card expired")
	db := f.db("billing-db")
	back := f.done("retry", "db", db, "group", group, "id", m.ID, "reason", "card fixed")
	f.page(back, "resolved when its group has handled it", "waiting")
	if a := f.post("retry", "db", db, "group", group, "id", m.ID, "reason", "once more"); a.status != http.StatusNotFound {
		t.Errorf("a second retry answers %d", a.status)
	}
	f.handleRetry()
	if a := f.page("message?id=" + m.ID); !strings.Contains(a.words(), "handled") || strings.Contains(a.words(), "waiting") {
		t.Errorf("after it was handled:\n%s", a.words())
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dead, waits, sends := f.bury(message(), "x"), f.wait(message()), f.publish(message())
	billing, orders := f.db("billing-db"), f.db("orders-db")
	f.page(f.done("discard", "db", billing, "group", group, "id", dead.ID, "reason", "a test order"), "discarded")
	f.page(f.done("retry-now", "db", billing, "group", group, "id", waits.ID, "reason", "it is up"), "due now")
	f.handleRetry()
	f.page(f.done("withdraw", "db", orders, "id", sends.ID, "reason", "never mind"), "withdrawn")
	f.page(f.done("pause", "db", billing, "group", group, "reason", "card service is down"), "paused")
	f.page("", "paused by boss", "card service is down")
	f.page(f.done("resume", "db", billing, "group", group, "reason", "it is back"), "goes on")
	f.page(f.done("pause-relays", "db", orders, "reason", "the broker moves"), "nothing is lost", "paused by boss", "the broker moves", "Resume the relays")
	a := f.page("", "The relays of orders are paused by boss since", "nothing is sent")
	if strings.Contains(a.words(), "no relay is there") {
		t.Errorf("a pause is told as a relay that is not there:\n%s", a.words())
	}
	f.page(f.done("resume-relays", "db", orders, "reason", "it has moved"), "go on within seconds", "Pause the relays")
	if log := f.audit(); !strings.Contains(log, `"pause relays"`) || !strings.Contains(log, "relays of orders") {
		t.Errorf("the pause of the relays is not in the log:\n%s", log)
	}
	if n := len(f.dead()); n != 0 {
		t.Errorf("%d dead letters are left", n)
	}
	for _, what := range []string{"discard", "retry now", "withdraw", "pause", "resume"} {
		if n := strings.Count(f.audit(), `"what":"`+what+`"`); n != 2 {
			t.Errorf("the audit log has %d lines of %q, want its beginning and its result", n, what)
		}
	}
	f.page("audit", "boss", "a test order", "dead discard")
}

func TestReleaseOfHeldMessages(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.publish(message())
	grant, err := f.orders.Leases().Lease(t.Context(), outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: "r", TTL: 1e10, Total: f.orders.Slots()})
	f.must(err)
	rows, err := f.orders.Relay().Reader().Pick(t.Context(), grant.Held, 10, 1<<20)
	f.must(err)
	_, err = f.orders.Relay().Settle(t.Context(), &outlast.Settlement{Leases: grant.Held, Hold: []outlast.Hold{{Row: rows[0], Reason: outlast.HeldRefused, Error: "too large"}}})
	f.must(err)
	f.page("message?id="+m.ID, "refused", "too large", "Try to send now")
	f.page(f.done("release", "db", f.db("orders-db"), "id", m.ID, "reason", "limit raised"), "tries to send it again")
}

func TestS35_ActionsNeedAReasonAndARecord(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.bury(message(), "x")
	db := f.db("billing-db")
	for _, reason := range []string{"", "   ", strings.Repeat("x", 1001)} {
		if a := f.post("retry", "db", db, "group", group, "id", m.ID, "reason", reason); a.status != http.StatusBadRequest {
			t.Errorf("with a reason of %d bytes: %d", len(reason), a.status)
		}
	}
	if n := len(f.dead()); n != 1 {
		t.Fatalf("%d dead letters, want it untouched", n)
	}
	look := newFixture(t, func(c *console.Config) { c.Audit = nil })
	m = look.bury(message(), "x")
	for _, path := range []string{"retry", "discard", "body"} {
		if a := look.post(path, "db", look.db("billing-db"), "group", group, "id", m.ID, "reason", "why", "where", "dead"); a.status != http.StatusForbidden {
			t.Errorf("%s without an audit log: %d", path, a.status)
		}
	}
	// And nothing is offered that would be refused.
	minute := time.Date(2026, 1, 2, 15, 4, 0, 0, time.UTC)
	look.must(look.orders.Books().Write(t.Context(), outlast.BookMinute{Minute: minute, State: outlast.MinuteUnbalanced, Sent: 1, At: minute},
		[]outlast.BookLine{{Type: typ, Group: group, Sent: 1, Missing: []string{m.ID}}}))
	for _, page := range []string{"", "outbox", "message?id=" + m.ID, "minute?at=2026-01-02T15:04:00Z&db=" + look.db("orders-db")} {
		if a := look.page(page); strings.Contains(a.text, `method="post"`) {
			t.Errorf("without an audit log, %q offers something to do", page)
		}
	}
	if n := len(look.dead()); n != 1 {
		t.Errorf("%d dead letters, want it untouched", n)
	}
}

// Each action and page asks for its own permission, for the service and type concerned.
func TestS31_PermissionsFailClosed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m, waits, sends := f.bury(message(), "card expired"), f.wait(message()), f.publish(message())
	billing, orders := f.db("billing-db"), f.db("orders-db")
	acts := [][]string{
		{"retry", "db", billing, "group", group, "id", m.ID}, {"discard", "db", billing, "group", group, "id", m.ID},
		{"retry-now", "db", billing, "group", group, "id", waits.ID}, {"withdraw", "db", orders, "id", sends.ID},
		{"release", "db", orders, "id", sends.ID}, {"pause", "db", billing, "group", group}, {"resume", "db", billing, "group", group},
		{"pause-relays", "db", orders}, {"resume-relays", "db", orders}, {"declare", "group", group},
		{"resend", "db", orders, "at", "2026-01-02T15:04:00Z"}, {"sign-off", "db", orders, "at", "2026-01-02T15:04:00Z"},
		{"operation-plan", "db", billing, "group", group, "type", typ, "fingerprint", print, "deed", "retry", "rate", "1"},
		{"operation-plan", "db", billing, "group", group, "type", typ, "fingerprint", print, "deed", "discard", "rate", "1"},
		{"body", "db", billing, "group", group, "id", m.ID, "where", "dead"},
	}
	for who, want := range map[string]int{"viewer": http.StatusForbidden, "other": http.StatusForbidden, "nobody": http.StatusForbidden, "": http.StatusUnauthorized} {
		f.who = who
		for _, act := range acts {
			if a := f.post(act[0], append(act[1:len(act):len(act)], "reason", "why")...); a.status != want {
				t.Errorf("%q may %q: %d, want %d", who, act, a.status, want)
			}
		}
	}
	f.who = "other"
	for _, path := range []string{"", "find?q=" + m.ID, "message?id=" + m.ID, "flow?id=" + m.ID, "failures", "outbox?db=" + orders, "waiting?db=" + billing, "operations", "topology", "books", "audit"} {
		if a := f.page(path); strings.Contains(a.words(), "card expired") || strings.Contains(a.words(), typ) || strings.Contains(a.words(), "orders-db\n"+sends.ID) {
			t.Errorf("%q shows other services' messages:\n%s", path, a.words())
		}
	}
	if a := f.get("failure?db=" + billing + "&group=" + group + "&type=" + typ + "&fingerprint=" + print); a.status != http.StatusForbidden {
		t.Errorf("the failure: %d", a.status)
	}
	f.who = "viewer"
	if a := f.page("message?id=" + m.ID); strings.Contains(a.text, "<form method") {
		t.Error("who may only look is offered actions")
	}
	if a := f.page("audit"); strings.Contains(a.words(), "The console's log") {
		t.Error("who may not audit sees the log")
	}
	if n := len(f.dead()); n != 1 {
		t.Errorf("%d dead letters, want it untouched", n)
	}
	if text := f.audit(); text != "" {
		t.Errorf("what was refused is in the log:\n%s", text)
	}
}

func TestIdentity_May(t *testing.T) {
	t.Parallel()
	i := &console.Identity{Grants: []console.Grant{{Permissions: []console.Permission{console.Retry}, Services: []string{"billing"}, Types: []string{"order.*"}}}}
	for _, c := range []struct {
		p            console.Permission
		service, typ string
		want         bool
	}{
		{console.Retry, "billing", "order.placed.v1", true},
		{console.Discard, "billing", "order.placed.v1", false},
		{console.Retry, "stock", "order.placed.v1", false},
		{console.Retry, "billing", "orders.v1", false},
		{console.Retry, "billing", "", false},
		{console.Retry, "", "order.placed.v1", false},
	} {
		if got := i.May(c.p, c.service, c.typ); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
	var none *console.Identity
	if none.May(console.View, "a", "b") || none.Somewhere(console.View) {
		t.Error("nobody may something")
	}
	empty := &console.Identity{Grants: []console.Grant{{Permissions: console.Permissions}}}
	if empty.May(console.View, "a", "b") || empty.Somewhere(console.View) {
		t.Error("a grant without services and types grants something")
	}
}
