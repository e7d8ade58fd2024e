package sqlite

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/fuzzdata"
)

// FuzzRow: whatever another writer put into a row, reading it ends with a message that
// the limits can judge, and what we wrote is read as it was.
func FuzzRow(f *testing.F) {
	f.Add([]byte(`{"a":"b","n":1,"o":{"x":[null]}}`), int64(1), fuzzdata.Join("a", "b", "text/plain", "d"))
	f.Add([]byte(`{"a":"\ud800","":"x","a":"y"}`), int64(-1)<<63, fuzzdata.Join("\xff", "\x00"))
	f.Add([]byte(`[1]`), int64(1)<<62, []byte{})
	f.Fuzz(func(t *testing.T, headers []byte, at int64, texts []byte) {
		if len(headers) > 1024 {
			return
		}
		var m outlast.Message
		time := sql.NullInt64{Int64: at, Valid: true}
		scanned := messageScan{m: &m, headers: sql.NullString{String: string(headers), Valid: true}, occurred: time, due: time, expires: time, queue: time}
		scanned.finish()
		if !json.Valid(headers) && m.Headers != nil {
			t.Fatalf("%q is no JSON and became %q", headers, m.Headers)
		}
		if micros(m.Time) != any(at) && !m.Time.IsZero() {
			t.Fatalf("%d became %v", at, m.Time)
		}
		_ = m.Validate(0) // does not panic

		written := fuzzdata.Message(texts)
		body, raw := bodyColumns(&written)
		if s, ok := body.(string); ok && !bytes.Equal([]byte(s), written.Body) || !ok && !bytes.Equal(raw.([]byte), written.Body) {
			t.Fatalf("body %q became %q or %q", written.Body, body, raw)
		}
		for name, value := range written.Headers {
			if !utf8.ValidString(name) || !utf8.ValidString(value) {
				delete(written.Headers, name)
			}
		}
		stored, _ := headersText(written.Headers).(string)
		if back := parseHeaders(stored); len(back)+len(written.Headers) > 0 && !reflect.DeepEqual(back, written.Headers) {
			t.Fatalf("%q became %q", written.Headers, back)
		}
	})
}
