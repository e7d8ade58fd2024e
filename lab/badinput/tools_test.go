package badinput

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast/lab/rig"
)

// TestS42_ToolsBoundWhatTheyShow: a person looks at dead letters because something is
// wrong with them. Rows and messages of anybody's hand neither reach the terminal as they
// are nor stop the tool.
func TestS42_ToolsBoundWhatTheyShow(t *testing.T) {
	t.Parallel()
	const hostile = "\x1b]0;owned\x07\x1b[2J\u202e"
	w := rig.Shared(t)
	w.Bind("billing")
	for id, c := range map[string]struct{ envelope, body string }{
		"escapes":  {`{"type":"a.v1","subject":"\u001b[2J","headers":{"h":"\u001b]0;owned\u0007"}}`, `"` + hostile + `"`},
		"no-json":  {`{"type":"a.v1"}`, hostile},
		"deep":     {`{"type":"a.v1"}`, strings.Repeat("[", 1<<20)},
		"shape":    {`{"type":["a.v1"],"headers":"none","time":"noon"}`, "{}"},
		"no-shape": {`[1,2,3]`, "{}"},
	} {
		w.Exec(`INSERT INTO outlast_dead (grp, source, id, type, envelope, body, reason, error) VALUES ('billing', 'orders', $1, 'a.v1', $2::jsonb, $3, 'spent', $4)`,
			id, c.envelope, []byte(c.body), hostile)
	}
	ch := rig.Channel(t, w.Broker)
	for _, headers := range []amqp.Table{{"ce-type": hostile}, {"a": nested(20)}, {"a": hostile}, {"CC": []any{"payroll.0"}}} {
		must(t, ch.PublishWithContext(t.Context(), "", "billing.0", false, false, amqp.Publishing{MessageId: hostile, Headers: headers, Body: []byte(hostile)}))
	}
	w.Eventually("all are in the queue", func() bool { return rig.Depth(t, ch, "billing.0") == 4 })
	for _, args := range [][]string{
		{"dead", "list"}, {"dead", "list", "--json"}, {"peek", "billing"}, {"peek", "billing", "--json"}, {"status"},
		{"dead", "show", "--group", "billing", "escapes"}, {"dead", "show", "--group", "billing", "escapes", "--json"}, {"dead", "show", "--group", "billing", "no-json"},
		{"dead", "show", "--group", "billing", "deep"}, {"dead", "show", "--group", "billing", "shape"}, {"dead", "show", "--group", "billing", "no-shape"},
	} {
		code, out, errs := w.Try(args...)
		if code != 0 && code != 1 {
			t.Errorf("outlast %q: exit code %d\n%s%s", args, code, out, errs)
		}
		if strings.ContainsAny(out+errs, "\x1b\x07\u202e") {
			t.Errorf("outlast %q: control characters reach the terminal: %q", args, cutText(out+errs))
		}
		if len(out+errs) > 8<<20 || strings.Contains(out+errs, "goroutine ") {
			t.Errorf("outlast %q: %d bytes: %q", args, len(out+errs), cutText(out+errs))
		}
	}
}

func cutText(s string) string { return s[:min(len(s), 2000)] }
