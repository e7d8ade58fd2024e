package badinput

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/rig"
)

type order struct {
	N int `json:"n"`
}

// inbox is what handlers got, by id.
type inbox struct {
	mu  sync.Mutex
	got map[string]string
}

func (i *inbox) add(id, body string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.got == nil {
		i.got = map[string]string{}
	}
	i.got[id] = body
}

func (i *inbox) has(id string) (body string, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	body, ok = i.got[id]
	return body, ok
}

// handle returns a handler of order.placed.v1 that keeps what it gets.
func (i *inbox) handle() outlast.Handler {
	return outlast.Handle(outlast.Event[order]("order.placed", 1), func(_ context.Context, _ outlast.Tx, m outlast.Received[order]) error {
		i.add(m.ID, fmt.Sprint(m.Body.N))
		return nil
	})
}

func all(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

func nested(depth int) amqp.Table {
	table := amqp.Table{"end": true}
	for range depth {
		table = amqp.Table{"t": table}
	}
	return table
}

// TestS04_S06_S07_S09_HeadersOfForeignPublishers: what no message of ours would have becomes a dead
// letter with its reason, and the consumer goes on.
func TestS04_S06_S07_S09_HeadersOfForeignPublishers(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	var in inbox
	consume(t, w, "billing", in.handle())
	ch := rig.Channel(t, w.Broker)
	publish := func(id string, headers amqp.Table) {
		t.Helper()
		must(t, ch.PublishWithContext(t.Context(), "", "billing.0", false, false, amqp.Publishing{
			MessageId: id, Type: "order.placed.v1", Headers: headers, Body: []byte(`{"n":1}`)}))
	}
	crowd, flags := amqp.Table{}, amqp.Table{}
	for i := range 300 {
		crowd[fmt.Sprintf("h%d", i)] = "v"
	}
	for i := range 5000 {
		flags[fmt.Sprintf("f%d", i)] = true
	}
	bombs := map[string]struct {
		headers amqp.Table
		text    []string
	}{
		"too-many":    {crowd, []string{`receive "order.placed.v1": headers`, "at most 128"}},
		"very-many":   {flags, []string{"more than 4096 fields"}},
		"too-big":     {amqp.Table{"a": strings.Repeat("v", 90_000)}, []string{`receive "order.placed.v1": headers`, "at most 32768 bytes"}},
		"too-deep":    {amqp.Table{"a": nested(20)}, []string{"nested deeper than 8"}},
		"control":     {amqp.Table{"a": "\x00"}, []string{`header "a" "\x00"`, "control characters"}},
		"broken-utf8": {amqp.Table{"a": "\xff"}, []string{`header "a" "\xff"`, "valid UTF-8"}},
		"long-name":   {amqp.Table{strings.Repeat("n", 200): "v"}, []string{"1 to 128 bytes"}},
		"bad-type":    {amqp.Table{"ce-type": "order placed"}, []string{"ce-type", "order placed"}},
		"bad-time":    {amqp.Table{"ce-time": "noon"}, []string{"ce-time", "RFC 3339"}},
	}
	for id, bomb := range bombs {
		publish(id, bomb.headers)
	}
	publish("good", amqp.Table{"tenant": "blue", "nested": nested(3)})
	w.Eventually("the good one is handled", func() bool { _, ok := in.has("good"); return ok })
	letters := deadLetters(t, w, "billing", len(bombs))
	for id, bomb := range bombs {
		// Their ids are derived from their content: what came cannot be trusted.
		found := 0
		for _, letter := range letters {
			if letter.Reason == outlast.DeadInvalid && all(letter.Error, bomb.text) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s: %d dead letters %q say %q: %v", id, found, outlast.DeadInvalid, bomb.text, letters)
		}
		if _, handled := in.has(id); handled {
			t.Errorf("%s was handled", id)
		}
	}
	publish("", nil)
	w.Eventually("what has no id is a dead letter", func() bool {
		return w.Number("SELECT count(*) FROM outlast_dead WHERE reason = $1", outlast.DeadNoID) == 1
	})
	w.Eventually("the queue is empty", func() bool { return rig.Depth(t, ch, "billing.0") == 0 })
}

// TestS03_BodiesThatDoNotFit: an empty body is legal, and whether it fits is the codec's
// word. What does not fit is a dead letter with a clear reason.
func TestS03_BodiesThatDoNotFit(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	var in inbox
	raw := outlast.Handle(outlast.Event[[]byte]("blob.stored", 1, outlast.WithCodec(outlast.Raw)),
		func(_ context.Context, _ outlast.Tx, m outlast.Received[[]byte]) error {
			in.add(m.ID, fmt.Sprintf("%d bytes", len(m.Body)))
			return nil
		})
	consume(t, w, "billing", in.handle(), raw)
	insert := func(typ, body string) string {
		t.Helper()
		return w.Text(`INSERT INTO outlast_outbox (type, body) VALUES ($1, $2) RETURNING id::text`, typ, body)
	}
	empty := insert("blob.stored.v1", "")
	bad := map[string][]string{
		insert("order.placed.v1", ""):                                                {"decode order.placed.v1", "the body is empty"},
		insert("order.placed.v1", "   "):                                             {"the body is empty"},
		insert("order.placed.v1", `{"n":`):                                           {"the JSON ends too early"},
		insert("order.placed.v1", `{n:1}`):                                           {"invalid character 'n'"},
		insert("order.placed.v1", `{"n":"one"}`):                                     {"cannot unmarshal string", "n"},
		insert("order.placed.v1", `{"n":1} {"n":2}`):                                 {"data after the JSON value"},
		insert("order.placed.v1", strings.Repeat("[", 200)+strings.Repeat("]", 200)): {"nested deeper than 128"},
		insert("order.placed.v1", `{"n":99999999999999999999}`):                      {"cannot unmarshal number", "n"},
		insert("order.placed.v1", strings.Repeat("[", 1<<20)):                        {"nested deeper than 128"},
	}
	good := insert("order.placed.v1", `{"n":7, "new": "member"}`)
	w.Relay()
	letters := deadLetters(t, w, "billing", len(bad))
	for id, text := range bad {
		contains(t, letters[id].Error, append(text, "the body does not fit the contract")...)
	}
	for id, want := range map[string]string{good: "7", empty: "0 bytes"} {
		w.Eventually("it is handled", func() bool { _, ok := in.has(id); return ok })
		if body, _ := in.has(id); body != want {
			t.Errorf("the handler got %q, want %q", body, want)
		}
	}
	w.Eventually("nothing waits", func() bool { return w.Waiting() == 0 })
}

// TestS10_S11_AnUnknownTypeWaits: during a rolling deploy an old instance gets what only the
// new one handles.
func TestS10_S11_AnUnknownTypeWaits(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	w.Run("topology", "apply", "--group", "billing", "--handles", "order.placed.v1,order.placed.v2")
	var in inbox
	consume(t, w, "billing", in.handle())
	w.Run("publish", "--type", "order.placed.v2", "--body", "{}", "--key", "ada")
	w.Run("publish", "--type", "order.placed.v1", "--body", `{"n":1}`)
	w.Relay()
	w.Eventually("it waits", func() bool { return w.Number("SELECT count(*) FROM outlast_retry") == 1 })
	waiting := list(t, w, "retry", "list", "--group", "billing")
	if len(waiting) != 1 || waiting[0].Reason != "unknown type" || waiting[0].Envelope.Type != "order.placed.v2" || waiting[0].Attempts != 0 {
		t.Errorf("%+v", waiting)
	}
	contains(t, w.Run("retry", "list", "--group", "billing"), "order.placed.v2", "unknown type", "ada")
	w.Eventually("the other one is handled", func() bool { return w.Number("SELECT count(*) FROM outlast_inbox WHERE state = 'handled'") == 1 })
	if n := w.Number("SELECT count(*) FROM outlast_dead"); n != 0 {
		t.Errorf("%d dead letters", n)
	}
	newer := outlast.Handle(outlast.Event[order]("order.placed", 2), func(_ context.Context, _ outlast.Tx, m outlast.Received[order]) error {
		in.add("v2", m.ID)
		return nil
	})
	consume(t, w, "billing", in.handle(), newer)
	w.Run("retry", "now", "--group", "billing")
	w.Eventually("the newer instance handles it", func() bool { _, ok := in.has("v2"); return ok })
}

func fields(t *testing.T, err error) map[string]outlast.FieldError {
	t.Helper()
	var e *outlast.Error
	if !errors.As(err, &e) || e.Code != outlast.CodeInvalid {
		t.Fatalf("%v, want an invalid setting", err)
	}
	found := map[string]outlast.FieldError{}
	for _, f := range e.Fields {
		found[f.Field] = f
		if f.Limit == "" || f.Given == "" {
			t.Errorf("%+v says too little", f)
		}
		contains(t, err.Error(), f.Field, f.Limit, f.Given)
	}
	return found
}
