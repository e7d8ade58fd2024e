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
