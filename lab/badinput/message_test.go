package badinput

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/postgres"
)

// many returns n headers with values of a size.
func many(n, size int) outlast.Headers {
	h := outlast.Headers{}
	for i := range n {
		h[fmt.Sprintf("h%d", i)] = strings.Repeat("v", size)
	}
	return h
}

// TestPublishRefuses: the library names every bad field, and writes nothing.
func TestPublishRefuses(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	outbox := outlast.NewOutbox(postgres.Store(w.DB))
	good := outlast.Message{Envelope: outlast.Envelope{Type: "order.placed.v1"}, Body: []byte("{}")}
	for name, c := range map[string]struct {
		spoil               func(*outlast.Message)
		field, limit, given string
	}{
		"body over the default limit": {func(m *outlast.Message) { m.Body = make([]byte, 1<<20+1) }, "body", "at most 1048576 bytes", "1048577 bytes"},
		"type with a blank":           {func(m *outlast.Message) { m.Type = "order placed" }, "type", "letters", "order placed"},
		"no type":                     {func(m *outlast.Message) { m.Type = "" }, "type", "1 to 200 bytes", `""`},
		"NUL in the key":              {func(m *outlast.Message) { m.Envelope.Key = "a\x00b" }, "key", "without control characters", `a\x00b`},
		"broken UTF-8 in the key":     {func(m *outlast.Message) { m.Envelope.Key = "a\xffb" }, "key", "valid UTF-8", `a\xffb`},
		"key too long":                {func(m *outlast.Message) { m.Envelope.Key = strings.Repeat("k", 256) }, "key", "at most 255 bytes", "256 bytes"},
		"NUL in a header":             {func(m *outlast.Message) { m.Headers = outlast.Headers{"a": "\x00"} }, `header "a"`, "without control characters", `\x00`},
		"broken UTF-8 in a header":    {func(m *outlast.Message) { m.Headers = outlast.Headers{"a": "\xc3("} }, `header "a"`, "valid UTF-8", `\xc3`},
		"NUL in a header's name":      {func(m *outlast.Message) { m.Headers = outlast.Headers{"a\x00": "b"} }, "header", "letters, digits", `a\x00`},
		"reserved header":             {func(m *outlast.Message) { m.Headers = outlast.Headers{"ce-id": "b"} }, `header "ce-id"`, "without the prefixes", "ce-id"},
		"too many headers":            {func(m *outlast.Message) { m.Headers = many(129, 1) }, "headers", "at most 128", "129"},
		"too big headers":             {func(m *outlast.Message) { m.Headers = many(100, 400) }, "headers", "at most 32768 bytes", "bytes"},
		"id that is no UUID":          {func(m *outlast.Message) { m.ID = "7" }, "id", "a UUID", `"7"`},
		"delay of years":              {func(m *outlast.Message) { m.Delay = 10000 * time.Hour }, "delay", "366 days", "10000h"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			c.spoil(&bad)
			tx, err := w.DB.BeginTx(t.Context(), nil)
			must(t, err)
			err = outbox.Publish(t.Context(), tx, bad)
			must(t, tx.Commit())
			var e *outlast.Error
			if !errors.As(err, &e) || e.Code != outlast.CodeInvalid || len(e.Fields) != 1 || e.Hint == "" {
				t.Fatalf("%v, want one bad field and a hint", err)
			}
			f := e.Fields[0]
			if !strings.Contains(f.Field, c.field) || !strings.Contains(f.Limit, c.limit) || !strings.Contains(f.Given, c.given) {
				t.Errorf("%+v, want %q, %q and %q", f, c.field, c.limit, c.given)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error repeats the message: %d bytes", len(err.Error()))
			}
		})
	}
	bad := good
	bad.Type, bad.Envelope.Key, bad.ID = "", "\x00", "7"
	var e *outlast.Error
	if err := bad.Validate(0); !errors.As(err, &e) || len(e.Fields) != 3 {
		t.Errorf("%v, want all three bad fields at once", err)
	}
	if waiting := w.Waiting(); waiting != 0 {
		t.Errorf("%d messages were written", waiting)
	}
}

// TestPublishCommandRefuses: the same by the program, from flags and from a file.
func TestPublishCommandRefuses(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	line := func(text string) []string { return []string{"--file", file("messages", text)} }
	for name, c := range map[string]struct {
		args []string
		text []string
	}{
		"body over the limit":           {[]string{"--type", "a.v1", "--body-file", file("body", strings.Repeat("x", 1<<20+1))}, []string{"body", "at most 1048576 bytes", "1048577 bytes"}},
		"broken UTF-8 in the key":       {[]string{"--type", "a.v1", "--body", "1", "--key", "a\xffb"}, []string{"key", "valid UTF-8", `a\xffb`}},
		"broken UTF-8 in a header":      {[]string{"--type", "a.v1", "--body", "1", "--header", "a=\xff"}, []string{`header "a"`, "valid UTF-8"}},
		"NUL in the key of a line":      {line(`{"type":"a.v1","body":1,"key":"a\u0000b"}`), []string{"line 1", "key", `a\x00b`, "control characters"}},
		"NUL in a header of a line":     {line(`{"type":"a.v1","body":1,"headers":{"a":"\u0000"}}`), []string{"line 1", `header "a"`, "control characters"}},
		"broken UTF-8 in a line":        {line("{\"type\":\"a.v1\",\"body\":1,\"key\":\"a\xffb\"}"), []string{"line 1", "not valid UTF-8", "body_base64"}},
		"broken UTF-8 in a line's body": {line("{\"type\":\"a.v1\",\"body\":\"a\xffb\"}"), []string{"line 1", "not valid UTF-8", "body_base64"}},
		"malformed line":                {line(`{"type":"a.v1","body":`), []string{"line 1", "ends too early", "--skip 0"}},
		"reserved header":               {[]string{"--type", "a.v1", "--body", "1", "--header", "ce-id=7"}, []string{`header "ce-id"`, "without the prefixes"}},
	} {
		t.Run(name, func(t *testing.T) {
			at := *w
			at.T = t
			p := at.Fails(1, append([]string{"publish"}, c.args...)...)
			if p.Code != outlast.CodeInvalid {
				t.Errorf("code %q", p.Code)
			}
			contains(t, p.Text, c.text...)
		})
	}
	if waiting := w.Waiting(); waiting != 0 {
		t.Errorf("%d messages were written", waiting)
	}
}

// TestTheTableRefuses: a writer in any language learns the field by the constraint's name.
func TestTheTableRefuses(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	for name, c := range map[string]struct{ columns, values, says string }{
		"type":                       {"type, body", `'order placed', '1'`, "outlast_check_type"},
		"kind":                       {"type, body, kind", `'a.v1', '1', 'rumour'`, "outlast_check_kind"},
		"no body":                    {"type", `'a.v1'`, "outlast_check_body"},
		"two bodies":                 {"type, body, body_bytes", `'a.v1', '1', '1'`, "outlast_check_body"},
		"body over 16 MiB":           {"type, body", `'a.v1', repeat('x', 16777217)`, "outlast_check_body"},
		"key too long":               {"type, body, ordering_key", `'a.v1', '1', repeat('k', 256)`, "outlast_check_ordering_key"},
		"control character in a key": {"type, body, ordering_key", `'a.v1', '1', E'a\x01b'`, "outlast_check_ordering_key"},
		"NUL in a key":               {"type, body, ordering_key", `'a.v1', '1', E'a\x00b'`, "invalid byte sequence"},
		"broken UTF-8 in a key":      {"type, body, ordering_key", `'a.v1', '1', E'a\xffb'`, "invalid byte sequence"},
		"NUL in a header":            {"type, body, headers", `'a.v1', '1', '{"a":"\u0000"}'`, "unsupported Unicode escape"},
		"headers that are a list":    {"type, body, headers", `'a.v1', '1', '[]'`, "outlast_check_headers"},
		"129 headers":                {"type, body, headers", `'a.v1', '1', (SELECT jsonb_object_agg(i, '') FROM generate_series(1, 129) i)`, "outlast_check_headers"},
		"headers over 32 KiB":        {"type, body, headers", `'a.v1', '1', jsonb_build_object('a', repeat('v', 32769))`, "outlast_check_headers"},
		"subject":                    {"type, body, subject", `'a.v1', '1', repeat('s', 256)`, "outlast_check_subject"},
		"exchange":                   {"type, body, exchange", `'a.v1', '1', repeat('e', 201)`, "outlast_check_exchange"},
		"trace parent":               {"type, body, trace_parent", `'a.v1', '1', repeat('t', 56)`, "outlast_check_trace_parent"},
	} {
		out, err := w.Psql(fmt.Sprintf("INSERT INTO outlast_outbox (%s) VALUES (%s)", c.columns, c.values))
		if err == nil || !strings.Contains(out, c.says) {
			t.Errorf("%s: %v, want %q:\n%.500s", name, err, c.says, out)
		}
	}
	if waiting := w.Waiting(); waiting != 0 {
		t.Errorf("%d messages were written", waiting)
	}
}

// TestWhatPassesTheTableButNotTheRelay is held with its reason, and holds back nothing
// but its own key.
func TestWhatPassesTheTableButNotTheRelay(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	w.Bind("reader")
	insert := func(key, headers string) string {
		t.Helper()
		return w.Text(`INSERT INTO outlast_outbox (type, body, ordering_key, headers) VALUES ('order.placed.v1', '{}', $1, $2::jsonb) RETURNING id::text`, key, headers)
	}
	refused := map[string][]string{
		insert("reserved", `{"ce-id":"7"}`):        {`header "ce-id"`, "without the prefixes"},
		insert("broker", `{"x-delay":"7"}`):        {`header "x-delay"`, "without the prefixes"},
		insert("control", `{"tenant":"a\u0001b"}`): {`header "tenant"`, "control characters"},
		insert("blank", `{"a b":"c"}`):             {`header "a b"`, "letters, digits"},
	}
	insert("reserved", `{"tenant":"blue"}`) // waits behind the bad one
	w.Fill(50, 50)
	w.Relay()
	w.Eventually("the others are sent", func() bool { return w.Waiting() == len(refused)+1 })
	w.Eventually("the bad ones are held", func() bool {
		return w.Number("SELECT count(*) FROM outlast_held WHERE reason = 'refused'") == len(refused) &&
			w.Number("SELECT count(*) FROM outlast_held WHERE reason = 'behind'") == 1
	})
	listed := list(t, w, "outbox", "list", "--why", "refused")
	if len(listed) != len(refused) {
		t.Errorf("%d are listed, want %d", len(listed), len(refused))
	}
	for _, item := range listed {
		contains(t, item.Error, refused[item.Envelope.ID]...)
	}
	contains(t, w.Run("outbox", "list"), "refused", "behind", "order.placed.v1")
	contains(t, w.Run("status"), "refused")
	w.Run("outbox", "withdraw", "--why", "refused", "--reason", "cannot be sent")
	w.Eventually("what waited behind goes on", func() bool { return w.Waiting() == 0 })
	if seen := rig.Drain(t, rig.Channel(t, w.Broker), "reader.0", 51); len(seen) != 51 {
		t.Errorf("%d messages arrived, want 51", len(seen))
	}
}
