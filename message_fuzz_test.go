package outlast_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/fuzzdata"
)

// wantLimits fails unless an error names a field and its limit for everything that it
// refuses, in a text that is fit for a log line.
func wantLimits(t *testing.T, err error) {
	t.Helper()
	var e *outlast.Error
	if !errors.As(err, &e) || e.Code != outlast.CodeInvalid || len(e.Fields) == 0 {
		t.Fatalf("refused without a field: %#v", err)
	}
	for _, f := range e.Fields {
		if f.Field == "" || f.Limit == "" || f.Given == "" {
			t.Fatalf("a field, its limit or what was given is missing: %#v", f)
		}
	}
	if text := err.Error(); len(text) > 1000*(len(e.Fields)+1) || !printable(text) {
		t.Fatalf("%d bytes of error for %d fields, or not fit to print: %q", len(text), len(e.Fields), text)
	}
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// FuzzDecodeHeaders: whatever others wrote, decoding ends with a message that is
// safe to store and to show, and that is the same after another journey.
func FuzzDecodeHeaders(f *testing.F) {
	f.Add(fuzzdata.Join("ce-id", "1", "ce-type", "order.placed.v1", "tenant", "a"))
	f.Add(fuzzdata.Join("ce-time", "yesterday", "x\x00", "\xff\xfe"))
	f.Add(fuzzdata.Join("outlast-kind", "rumour", "ce-partitionkey", strings.Repeat("k", 255), "CE-ID", "\x1b[31m"))
	f.Add(fuzzdata.Join("ce-time", "2026-01-02T03:04:05.123456789Z", "outlast-expires-at", "9999-12-31T23:59:59-23:59"))
	f.Add(fuzzdata.Join("traceparent", "00-x", "tracestate", "a=b", "ce-traceparent", "\n", "baggage", "k=v"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var headers []outlast.WireHeader
		for texts := fuzzdata.Of(data); texts.More(); {
			headers = append(headers, outlast.WireHeader{Name: texts.Next(), Value: texts.Next()})
		}
		var m outlast.Message
		err := outlast.DecodeHeaders(&m, headers)
		if err != nil {
			wantLimits(t, err)
		}
		for _, s := range []string{m.ID, m.Type, m.Source, m.Envelope.Key, m.Envelope.Subject, m.DataSchema,
			m.CorrelationID, m.CausationID, m.TraceParent, m.TraceState} {
			if !printable(s) || len(s) > outlast.MaxTraceState {
				t.Fatalf("%q got through", s)
			}
		}
		for name, value := range m.Headers {
			if !printable(name) || !printable(value) {
				t.Fatalf("header %q: %q got through", name, value)
			}
		}
		if _, err := json.Marshal(m.Envelope); err != nil {
			t.Fatalf("cannot be stored: %v", err)
		}
		if err == nil {
			sameAfterJourney(t, m)
		}
	})
}

// sameAfterJourney encodes a message and decodes it again.
func sameAfterJourney(t *testing.T, m outlast.Message) {
	t.Helper()
	if m.Time.IsZero() {
		m.Time = m.EnqueuedAt // on the wire every message has its time
	}
	if m.Kind == "" {
		m.Kind = outlast.KindEvent
	}
	var back outlast.Message
	if err := outlast.DecodeHeaders(&back, outlast.EncodeHeaders(&m)); err != nil {
		t.Fatalf("not decoded again: %v", err)
	}
	back.ContentType = m.ContentType // travels as the broker's own property
	if len(m.Headers) == 0 {
		m.Headers = nil
	}
	if !reflect.DeepEqual(m.Envelope, back.Envelope) {
		t.Fatalf("sent     %+v\nreceived %+v", m.Envelope, back.Envelope)
	}
}

// FuzzMessage: what passes the limits at the door arrives as it was sent, and what does
// not is refused by field and limit.
func FuzzMessage(f *testing.F) {
	f.Add(fuzzdata.Join("", "", "orders", "about", "order-7", "application/json", "urn:x", "flow", "cause"))
	f.Add(append(fuzzdata.Join("a..b", "s\x00", "\u202e", "k"), 255, 255, 1, 1, 1, 1))
	f.Add([]byte("\x00\x01\x06orders\x00\x00\x00\x00\x00\x00\x00\x00\x04body\x09\x08\x07\x06\x01h\x01v\x0btraceparent\x01x\x05ce-id\x011"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := fuzzdata.Message(data)
		if err := m.Validate(64); err != nil {
			wantLimits(t, err)
			return
		}
		if len(m.Body) > 64 || len(m.Address()) > 255 {
			t.Fatalf("a body of %d bytes, an address of %d", len(m.Body), len(m.Address()))
		}
		if !printable(m.Source) || len(m.Source) > outlast.MaxAttribute {
			return // the relay's own word, not a writer's
		}
		sameAfterJourney(t, m)
	})
}

// FuzzJSON: no body makes the codec panic or accept what is not one JSON value of
// bounded depth; what it accepts, it writes and reads again as the same.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"order_id":"o-7","total_cents":42}`))
	f.Add([]byte(`{"order_id":"\ud800","total_cents":9007199254740993}`))
	f.Add([]byte(strings.Repeat("[", 200)))
	f.Add([]byte(`"` + strings.Repeat(`[\"`, 9) + `"`))
	f.Add([]byte(`{} {}`))
	f.Add([]byte(`{"order_id":"a","order_id":"b","total_cents":1e400}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var order placedOrder
		if outlast.JSON.Decode(data, &order) == nil {
			again, err := outlast.JSON.Encode(order)
			var back placedOrder
			if err != nil || outlast.JSON.Decode(again, &back) != nil || back != order {
				t.Fatalf("%q became %q, %v", data, again, err)
			}
		}
		var v any
		err := outlast.JSON.Decode(data, &v)
		if err == nil && !json.Valid(data) {
			t.Fatalf("%q is not JSON and was decoded", data)
		}
		if !utf8.Valid(data) || !json.Valid(data) || err != nil && strings.Contains(err.Error(), "nested") {
			return
		}
		if (err != nil && strings.Contains(err.Error(), "twice")) != keyTwice(t, data) {
			t.Fatalf("%q: %v", data, err)
		}
	})
}

// keyTwice finds a key that is twice in one object, by the standard decoder's tokens.
func keyTwice(t *testing.T, data []byte) bool {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	var objects []map[string]bool // nil for an array
	key := false
	for {
		token, err := d.Token()
		if err != nil {
			return false
		}
		top := len(objects) - 1
		switch x := token.(type) {
		case json.Delim:
			switch x {
			case '{':
				objects = append(objects, map[string]bool{})
			case '[':
				objects = append(objects, nil)
			default:
				objects = objects[:top]
			}
			key = len(objects) > 0 && objects[len(objects)-1] != nil
			continue
		case string:
			if top >= 0 && objects[top] != nil && key {
				if objects[top][x] {
					return true
				}
				objects[top][x] = true
				key = false
				continue
			}
		}
		key = top >= 0 && objects[top] != nil
	}
}

// FuzzCleanErrorText: any text becomes one that a table, a log and a terminal can carry.
func FuzzCleanErrorText(f *testing.F) {
	f.Add("plain\nlines")
	f.Add("\x00\x1b[31m\xff\u202e")
	f.Add(strings.Repeat("\xc3", 70))
	f.Add(strings.Repeat("ä", 63))
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 16 {
			s = strings.Repeat(s, 64) // long ones without long inputs, which mutate slowly
		}
		clean := outlast.CleanErrorText(s)
		if len(clean) > 4<<10 || strings.ContainsAny(clean, "\x00\x1b\x7f\r") || outlast.CleanErrorText(clean) != clean {
			t.Fatalf("%q became %q", s, clean)
		}
	})
}
