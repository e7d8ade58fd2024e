package console_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// plan plans an operation and returns its page and its id.
func (f *fixture) plan(deed, rate string) (page, id string) {
	f.Helper()
	page = f.done("operation-plan", "db", f.db("billing-db"), "group", group, "type", typ, "fingerprint", print, "deed", deed, "rate", rate, "reason", "fixed")
	return page, strings.TrimPrefix(page, "operation?id=")
}

// until waits for the page to say something.
func (f *fixture) until(path, text string) answer {
	f.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if a := f.page(path); strings.Contains(a.words(), text) || time.Now().After(end) {
			if !strings.Contains(a.words(), text) {
				f.Fatalf("%s never says %q:\n%s", path, text, a.words())
			}
			return a
		}
	}
}

func TestS35_OperationOnAGroup(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run()
	for range 5 {
		f.bury(message(), "card expired")
	}
	page, id := f.plan("retry", "100")
	f.page(page, "planned", "0 of 5 done")
	if n := len(f.dead()); n != 5 {
		t.Fatalf("a plan did something: %d dead letters are left", n)
	}
	late := f.bury(message(), "card expired")
	f.done("operation-start", "id", id, "reason", "yes")
	f.until(page, "5 of 5 done")
	f.until(page, "ended")
	f.page(page, "0 handled", "5 to be tried")
	if left := f.dead(); len(left) != 1 || left[0].Envelope.ID != late.ID {
		t.Errorf("left are %v, want only what died after the count", left)
	}
	f.handleRetry()
	f.handleRetry()
	f.page(page, "2 handled", "3 to be tried")
	if a := f.post("operation-start", "id", id, "reason", "again"); a.status != http.StatusConflict {
		t.Errorf("a second start: %d", a.status)
	}
	for _, rate := range []string{"0", "101", "-1", "x", ""} {
		if a := f.post("operation-plan", "db", f.db("billing-db"), "group", group, "type", typ, "fingerprint", print, "deed", "retry", "rate", rate, "reason", "r"); a.status != http.StatusBadRequest {
			t.Errorf("at the rate %q: %d", rate, a.status)
		}
	}
	f.page("operations", "retry "+typ+" in billing", "ended")
}

// TestOperationOnANumber takes the first of a group, and says that there are more.
func TestOperationOnANumber(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run()
	var died []string
	for range 5 {
		died = append(died, f.bury(message(), "card expired").ID)
	}
	form := func(most string) []string {
		return []string{"db", f.db("billing-db"), "group", group, "type", typ, "fingerprint", print, "deed", "retry", "rate", "100", "most", most, "reason", "fixed"}
	}
	for _, most := range []string{"0", "-1", "10001", "x", "1.5"} {
		if a := f.post("operation-plan", form(most)...); a.status != http.StatusBadRequest || !strings.Contains(a.words(), "most") || !strings.Contains(a.words(), "1 to 10000 messages, or empty for all") {
			t.Errorf("at most %q is answered %d: %s", most, a.status, a.words())
		}
	}
	for most, says := range map[string]string{"": "5. What", "5": "5, where at most 5 were asked for. What", "9": "5, where at most 9 were asked for. What"} {
		f.page(f.done("operation-plan", form(most)...), says, "0 of 5 done")
	}
	page := f.done("operation-plan", form("2")...)
	f.page(page, "2, where at most 2 were asked for: there are more, and this operation does the first that died.", "Retry 2 messages")
	f.page("operations", "2 of more")
	f.done("operation-start", "id", strings.TrimPrefix(page, "operation?id="), "reason", "yes")
	f.until(page, "ended")
	f.page(page, "2 of 2 done")
	var left []string
	for _, i := range f.dead() {
		left = append(left, i.Envelope.ID)
	}
	if !slices.Equal(left, died[2:]) {
		t.Errorf("left are %v, want %v", left, died[2:])
	}
	for end := time.Now().Add(20 * time.Second); !strings.Contains(f.audit(), "ended: 2 of 2") && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // the record of the end comes after it
	}
	for _, words := range []string{`"target":"fingerprint ` + print + `, at most 2","reason":"fixed","result":"2 messages"`, "at most 2, operation "} {
		if !strings.Contains(f.audit(), words) {
			t.Errorf("the log does not say %s:\n%s", words, f.audit())
		}
	}
}

func TestOperationStops(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run()
	for range 5 {
		f.bury(message(), "x")
	}
	page, id := f.plan("discard", "1")
	f.done("operation-start", "id", id, "reason", "yes")
	f.until(page, "1 of 5 done")
	f.done("operation-stop", "id", id, "reason", "a mistake")
	f.until(page, "stopped")
	if n := len(f.dead()); n == 0 || n == 5 {
		t.Errorf("%d of 5 are left", n)
	}
}

func TestOperationsNeedRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.bury(message(), "x")
	_, id := f.plan("retry", "10")
	if a := f.post("operation-start", "id", id, "reason", "yes"); a.status != http.StatusServiceUnavailable {
		t.Errorf("started without Run: %d", a.status)
	}
	f.who = "viewer"
	if a := f.post("operation-stop", "id", id, "reason", "no"); a.status != http.StatusForbidden {
		t.Errorf("a viewer stops it: %d", a.status)
	}
}
