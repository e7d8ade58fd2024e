package console_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
)

// asJSON is what a program gets of a page.
func (f *fixture) asJSON(path string, want int) map[string]any {
	f.Helper()
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	a := f.get(path + join + "format=json")
	var got map[string]any
	if err := json.Unmarshal([]byte(a.text), &got); err != nil || a.status != want || a.header.Get("Content-Type") != "application/json; charset=utf-8" {
		f.Fatalf("%s: %d, %v, %v\n%s", path, a.status, a.header, err, a.text)
	}
	return got
}

func TestPagesForPrograms(t *testing.T) {
	t.Parallel()
	f, b := withBroker(t, 2, declare(2), func(c *console.Config) {
		c.Places = append(c.Places, journey.Place{Name: "stock-db", Err: &outlast.Error{Op: "connect to hunter2", Code: outlast.CodeUnavailable}})
		c.Redact = func(s string) string { return strings.ReplaceAll(s, "hunter2", "***") }
	})
	f.bury(f.publish(message()), "card expired")
	f.must(b.DeleteQueue("billing.1"))
	health := f.asJSON("", http.StatusOK)
	list := health["databases"].([]any)
	orders, stock := list[0].(map[string]any), list[2].(map[string]any)
	if pending := orders["status"].(map[string]any)["pending"].([]any)[0].(map[string]any); pending["type"] != typ || pending["count"] != 1.0 {
		t.Errorf("pending: %v", pending)
	}
	if stock["status"] != nil || !strings.Contains(stock["unknown"].(string), "***") {
		t.Errorf("a database that does not answer: %v", stock)
	}
	if words := health["words"].([]any); len(words) < 3 {
		t.Errorf("in words: %v", words)
	}
	failures := f.asJSON("failures", http.StatusOK)
	if x := failures["failures"].([]any)[0].(map[string]any); x["fingerprint"] != print || x["database"] != "billing-db" || x["count"] != 1.0 {
		t.Errorf("the failure: %v", x)
	}
	if unknown := failures["unknown"].([]any); len(unknown) != 1 {
		t.Errorf("databases that did not answer: %v", unknown)
	}
	queues := f.asJSON("queues", http.StatusOK)["queues"].([]any)
	want := []any{map[string]any{"queue": "billing.0", "group": group, "state": "there", "messages": 0.0, "consumers": 0.0},
		map[string]any{"queue": "billing.1", "group": group, "state": "missing"}}
	if !reflect.DeepEqual(queues, want) {
		t.Errorf("the queues are %v, want %v", queues, want)
	}
	if x := f.asJSON("topology", http.StatusBadRequest); x["code"] != "invalid" {
		t.Errorf("a page without JSON: %v", x)
	}
	if x := f.asJSON("failures?before=x", http.StatusBadRequest); !strings.Contains(x["error"].(string), "before") {
		t.Errorf("an error: %v", x)
	}
}

// What is unknown of a queue has no number, and what a person may not see no program gets.
func TestS31_ProgramsSeeWhatTheirPersonMaySee(t *testing.T) {
	t.Parallel()
	f, b := withBroker(t, 1, declare(1))
	f.bury(f.publish(message()), "card expired")
	b.Die()
	q := f.asJSON("queues", http.StatusOK)["queues"].([]any)[0].(map[string]any)
	if q["state"] != "unknown" || q["messages"] != nil || q["consumers"] != nil || q["why"] == nil {
		t.Errorf("of a broker that is down: %v", q)
	}
	f.who = "other"
	for _, path := range []string{"", "failures", "queues"} {
		text, err := json.Marshal(f.asJSON(path, http.StatusOK))
		f.must(err)
		if strings.Contains(string(text), group+`"`) || strings.Contains(string(text), typ) {
			t.Errorf("%q shows other services: %s", path, text)
		}
	}
	f.who = ""
	if a := f.get("failures?format=json"); a.status != http.StatusUnauthorized {
		t.Errorf("nobody: %d", a.status)
	}
}
