package console_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
)

func allowEdit(c *console.Config) { c.AllowEdit = true }

// An edited dead letter becomes a new message for its group alone: another id, the same
// flow, caused by the old one, which is discarded. The records hold both ids and no body.
func TestEditAsANewMessage(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allowEdit)
	m := f.bury(f.publish(message()), "no such card")
	db := f.db("billing-db")
	f.page("message?id="+m.ID, "Edit as a new message")
	form := f.post("body", "db", db, "group", group, "id", m.ID, "where", "dead", "edit", "1", "reason", "complaint 12")
	if form.status != http.StatusOK || !strings.Contains(form.words(), `{"order_id":"secret-7"}`) || !strings.Contains(form.text, `action="edit"`) {
		t.Fatalf("the form: %d\n%s", form.status, form.text)
	}
	const body = "{\"order_id\":\"hidden-8\",\r\n\"card\":\"new\"}"
	page := f.page(f.done("edit", "db", db, "group", group, "id", m.ID, "body", body, "reason", "the card was mistyped"), "waits for its group alone")
	id := regexp.MustCompile(`<p class="id">([^<]+)</p>`).FindStringSubmatch(page.text)[1]
	if n := len(f.dead()); n != 0 {
		t.Errorf("%d dead letters are left", n)
	}
	if pending, err := f.orders.Operator().Outbox().List(t.Context(), outlast.Filter{}); err != nil || len(pending) != 1 {
		t.Errorf("%d messages are pending, %v: an edited message passes no outbox", len(pending), err)
	}
	f.page("message?id="+m.ID, "discarded", id+": the card was mistyped")
	lacks(t, f.page("message?id="+id, "waiting", "its cause"), "orphan", "knows nothing of it", "stranded")
	tx, _, err := f.billing.Inbox().BeginRetry(t.Context(), group, []string{typ})
	f.must(err)
	if tx == nil {
		t.Fatal("the new message is not due")
	}
	got := tx.Waiting().Message
	if got.ID != id || got.CausationID != m.ID || got.CorrelationID != m.CorrelationID || got.Type != typ || got.Source != console.EditSource ||
		string(got.Body) != strings.ReplaceAll(body, "\r\n", "\n") {
		t.Errorf("the new message is %+v with %s", got.Envelope, got.Body)
	}
	tx.Rollback()
	log := f.audit()
	if !strings.Contains(log, m.ID+" as "+id) || !strings.Contains(log, "the card was mistyped") || strings.Contains(log, "secret-7") || strings.Contains(log, "hidden-8") {
		t.Errorf("the record of it:\n%s", log)
	}
	if a := f.post("edit", "db", db, "group", group, "id", m.ID, "body", `{}`, "reason", "twice"); a.status != http.StatusNotFound {
		t.Errorf("a second time: %d", a.status)
	}
}

// What cannot be sent comes back in its form, with what is wrong, and changes nothing.
func TestEditSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allowEdit)
	m := f.bury(message(), "x")
	plain := message()
	plain.Body = []byte("no JSON")
	f.bury(plain, "x")
	db := f.db("billing-db")
	for _, c := range []struct{ name, id, body, reason, want string }{
		{"half of it", m.ID, "{\"a\":\n  1,,}", "why", "The body is not JSON: line 2, byte 5 of it"},
		{"two values", m.ID, `{} {}`, "why", "The body is not JSON: line 1, byte 4 of it"},
		{"nothing", m.ID, " ", "why", "The body is empty."},
		{"the same", m.ID, string(m.Body), "why", "The body is the same as before: retry the message instead."},
		{"too much", m.ID, `"` + strings.Repeat("x", 256<<10) + `"`, "why", "The body has 262,146 bytes; it may have 262,144."},
		{"no reason", m.ID, `{"a":1}`, " ", "Say why."},
		{"no JSON before", plain.ID, `{"a":1}`, "why", "not JSON: it cannot be edited here"},
	} {
		a := f.post("edit", "db", db, "group", group, "id", c.id, "body", c.body, "reason", c.reason)
		if a.status != http.StatusBadRequest || !strings.Contains(a.words(), c.want) {
			t.Errorf("%s: %d\n%.2000s", c.name, a.status, a.words())
		}
		if c.name == "half of it" && !strings.Contains(a.words(), "1,,}") {
			t.Error("what was written is lost")
		}
	}
	if a := f.post("edit", "db", db, "group", group, "id", m.ID, "body", strings.Repeat("x", 4*256<<10), "reason", "why"); a.status != http.StatusBadRequest {
		t.Errorf("a form without an end: %d", a.status)
	}
	if n := len(f.dead()); n != 2 {
		t.Errorf("%d dead letters, want them untouched", n)
	}
	if log := f.audit(); log != "" {
		t.Errorf("what was not done is in the log:\n%s", log)
	}
}

func TestS33_ABodyToEditIsNoMarkup(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allowEdit)
	m := message()
	m.Body = []byte(`{"x":"</textarea><script>alert(5)</script>"}`)
	f.bury(m, "x")
	place := []string{"db", f.db("billing-db"), "group", group, "id", m.ID, "where", "dead"}
	for name, a := range map[string]answer{
		"the form":    f.post("body", append(place, "edit", "1", "reason", "why")...),
		"an error":    f.post("edit", append(place, "body", "</textarea><script>alert(6)</script>", "reason", `"><script>`)...),
		"another one": f.post("edit", append(place, "body", string(m.Body), "reason", "why")...),
	} {
		if strings.Contains(a.text, "<script>") || strings.Count(a.text, "</textarea>") != 1 {
			t.Errorf("%s has markup of the body in it:\n%s", name, a.text)
		}
	}
}

// Nobody edits unless the console allows it, and then only who may.
func TestS31_EditIsOffByDefault(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.bury(message(), "x")
	lacks(t, f.page("message?id="+m.ID), "Edit as a new message")
	try := func(f *fixture, id string, want int) {
		t.Helper()
		if a := f.post("edit", "db", f.db("billing-db"), "group", group, "id", id, "body", `{"a":1}`, "reason", "why"); a.status != want {
			t.Errorf("%q edits: %d, want %d", f.who, a.status, want)
		}
	}
	try(f, m.ID, http.StatusForbidden)
	a := f.post("body", "db", f.db("billing-db"), "group", group, "id", m.ID, "where", "dead", "edit", "1", "reason", "look")
	if strings.Contains(a.text, `action="edit"`) {
		t.Error("the form is shown where nobody may edit")
	}
	on := newFixture(t, allowEdit)
	m = on.bury(message(), "x")
	for _, who := range []string{"viewer", "other", "nobody"} {
		on.who = who
		try(on, m.ID, http.StatusForbidden)
		// What is wrong with a body is told to those who may edit.
		if a := on.post("edit", "db", on.db("billing-db"), "group", group, "id", m.ID, "body", "no JSON", "reason", "why"); a.status != http.StatusForbidden {
			t.Errorf("%q is told about a body: %d", who, a.status)
		}
	}
	on.who = "viewer"
	lacks(t, on.page("message?id="+m.ID), "Edit as a new message")
	look := newFixture(t, allowEdit, func(c *console.Config) { c.Audit = nil })
	m2 := look.bury(message(), "x")
	try(look, m2.ID, http.StatusForbidden)
	if len(f.dead())+len(on.dead())+len(look.dead()) != 3 {
		t.Error("a dead letter is gone")
	}
}
