package postgres

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/fuzzdata"
)

// FuzzRow: whatever another writer put into a row, reading it ends with a message that
// the limits can judge, and headers that we wrote are read as they were.
func FuzzRow(f *testing.F) {
	f.Add([]byte(`{"a":"b","n":1,"o":{"x":[null]}}`), fuzzdata.Join("a", "b", "c", "d"))
	f.Add([]byte(`{"a":"\ud800","":"x","a":"y"}`), fuzzdata.Join("\xff", "\x00"))
	f.Add([]byte(`[1]`), []byte{})
	f.Add([]byte(`{}`), []byte{9, 9})
	f.Fuzz(func(t *testing.T, headers, texts []byte) {
		if len(headers) > 1024 {
			return
		}
		scanned := rowScan{typ: "order.placed.v1", headers: lastText(headers), body: texts}
		for i, from := 0, fuzzdata.Of(texts); i < len(scanned.texts); i++ {
			scanned.texts[i] = lastText(from.Next())
		}
		row := scanned.row()
		if !json.Valid(headers) && row.Headers != nil {
			t.Fatalf("%q is no JSON and became %q", headers, row.Headers)
		}
		if again := scanned.row(); !reflect.DeepEqual(row, again) {
			t.Fatal("one row, two messages")
		}
		_ = row.Message.Validate(0) // does not panic

		ours := outlast.Headers{}
		for from := fuzzdata.Of(texts); from.More(); {
			if name, value := from.Next(), from.Next(); utf8.ValidString(name) && utf8.ValidString(value) {
				ours[name] = value
			}
		}
		written, err := json.Marshal(ours)
		if err != nil {
			t.Fatal(err)
		}
		if back := decodeHeaders(string(written)); len(back)+len(ours) > 0 && !reflect.DeepEqual(back, ours) {
			t.Fatalf("%q became %q", ours, back)
		}
	})
}

// FuzzEnvelope: whatever is in the envelope of a waiting message or a dead letter, reading it
// ends with an error or a message; and what we wrote is read as it was.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"id":"1","type":"order.placed.v1","source":"orders","headers":{"a":"b"},"enqueued_at":"2026-01-01T00:00:00Z"}`), fuzzdata.Join("", "", "orders", "about", "order-7"))
	f.Add([]byte(`{"type":7}`), []byte{})
	f.Add([]byte(`{"headers":{"a":{}},"expires_at":"0000-01-01T00:00:00+24:00"}`), []byte{1})
	f.Add([]byte(`null`), []byte("\x00\x01\x06orders\x00\x00\x00\x00\x00\x00\x00\x00\x04body\x09\x08\x07\x06\x01h\x01v"))
	f.Add([]byte(`[`), []byte{9})
	f.Fuzz(func(t *testing.T, stored, message []byte) {
		if m, err := decodeMessage(string(stored), nil); err == nil {
			if !json.Valid(stored) {
				t.Fatalf("%q is no JSON and became %+v", stored, m)
			}
			_ = m.Validate(0) // does not panic
		} else if text := outlast.CleanErrorText(err.Error()); text == "" {
			t.Fatalf("%q is refused without a word", stored)
		}
		m := fuzzdata.Message(message)
		if m.Validate(0) != nil || !utf8.ValidString(m.Source) {
			return
		}
		written, err := encodeMessage(&m)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		back, err := decodeMessage(written, m.Body)
		if err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		again, err := encodeMessage(back)
		if err != nil || again != written || string(back.Body) != string(m.Body) {
			t.Fatalf("%s became %s, %v", written, again, err)
		}
	})
}
