package check_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/outlastmq/outlast/outlasttest/check"
)

// A check needs the same memory for each message, however long the history is.
// OUTLAST_TEST_HISTORY is the number of messages.
func TestMemoryOfManyMessages(t *testing.T) {
	messages := 20_000
	if s := os.Getenv("OUTLAST_TEST_HISTORY"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		messages = n
	}
	path := filepath.Join(t.TempDir(), "long.jsonl")
	size := writeLong(t, path, messages)
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	r, err := check.Files(t.Context(), check.Options{}, path)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	runtime.ReadMemStats(&peak)
	if r.Violated() || r.Messages != messages {
		t.Errorf("%d messages, violated: %v", r.Messages, r.Violated())
	}
	t.Logf("%d messages, %d events, %d MB of history: %v, %d MB from the system", messages, r.Events, size>>20,
		took.Round(time.Millisecond), (peak.Sys-before.Sys)>>20)
	if perMessage := int(peak.Sys-before.Sys) / messages; messages >= 20_000 && perMessage > 4000 {
		t.Errorf("%d bytes a message from the system; want at most 4000", perMessage)
	}
}

// writeLong writes a history of n messages, as a writer, a relay and a consumer would.
func writeLong(t *testing.T, path string, n int) (size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	now := int64(1_700_000_000_000_000_000)
	line := func(format string, args ...any) {
		now += 1000
		fmt.Fprintf(w, `{"t":%d,`+format+"}\n", append([]any{now}, args...)...)
	}
	line(`"e":"open","v":1,"p":"all","pid":1`)
	line(`"e":"bind","o":"on","g":"billing","type":"order.placed.v1","why":"ordered"`)
	for i := 1; i <= n; i++ {
		m, tx := fmt.Sprintf("01890000-0000-7000-8000-%012x", i), fmt.Sprintf("01890000-0000-7000-9000-%012x", i)
		h := fmt.Sprintf("01890000-0000-7000-a000-%012x", i)
		line(`"e":"begin","tx":%q,"name":"orders"`, tx)
		line(`"e":"enqueue","tx":%q,"m":%q,"type":"order.placed.v1","key":"key-%d","ks":%d,"h":"%x"`, tx, m, i%1000, i/1000+1, i)
		line(`"e":"commit","o":"ok","tx":%q`, tx)
		line(`"e":"claim","m":%q,"src":"orders","slot":%d,"ep":1`, m, i%256)
		line(`"e":"publish","m":%q,"slot":%d,"ep":1,"try":1`, m, i%256)
		line(`"e":"confirm","m":%q,"slot":%d,"ep":1,"try":1,"o":"ack"`, m, i%256)
		line(`"e":"mark","m":%q,"slot":%d,"ep":1,"o":"ok"`, m, i%256)
		line(`"e":"deliver","m":%q,"g":"billing","type":"order.placed.v1","q":"billing.0","s":"one","tag":%d,"h":"%x"`, m, i, i)
		line(`"e":"begin","tx":%q,"name":"billing","g":"billing","m":%q,"n":1`, h, m)
		line(`"e":"start","m":%q,"g":"billing","n":1`, m)
		line(`"e":"tried","m":%q,"g":"billing","n":1,"o":"ok"`, m)
		line(`"e":"effect","m":%q,"g":"billing","o":"ok","tx":%q`, m, h)
		line(`"e":"settle","m":%q,"g":"billing","s":"one","tag":%d,"o":"ack"`, m, i)
	}
	line(`"e":"quiesce","o":"ok"`)
	for i := 1; i <= n; i++ {
		m := fmt.Sprintf("01890000-0000-7000-8000-%012x", i)
		line(`"e":"ledger","name":"orders","tx":"01890000-0000-7000-9000-%012x","seq":%d,"at":1`, i, i)
		line(`"e":"ledger","name":"billing","tx":"01890000-0000-7000-a000-%012x","g":"billing","m":%q,"seq":%d,"at":1`, i, m, i)
	}
	line(`"e":"ledger","name":"orders","o":"ok"`)
	line(`"e":"ledger","name":"billing","o":"ok"`)
	line(`"e":"close"`)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
