package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ms", 12 * time.Millisecond: "12ms", 1500 * time.Millisecond: "1.5s", 12*time.Second + 900*time.Millisecond: "12s",
		3*time.Minute + 12*time.Second: "3m12s", 59*time.Minute + 59*time.Second + 999*time.Millisecond: "59m59s",
		5*time.Hour + 3*time.Minute: "5h03m", 76 * time.Hour: "3d4h", -2 * time.Second: "-2s",
	} {
		if got := durationText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestCountText(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", -1234: "-1,234",
		outlast.CountLimit - 1: "999,999", outlast.CountLimit + 1: "more than 1,000,000"} {
		if got := countText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1 << 30: "1.0 GiB", 5 << 40: "5.0 TiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestSizeFlag(t *testing.T) {
	for text, want := range map[string]size{"65536": 65536, "64KiB": 1 << 16, "1.5 GiB": 3 << 29, "500MB": 500e6, "0": 0, "7b": 7} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%q: %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1 XiB", "1e30", "NaN", "GiB"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("%q is taken as %d", text, s)
		}
	}
}

func TestTable(t *testing.T) {
	tab := newTable("NAME", "COUNT>", "NOTE")
	tab.add("café", "1,000", "fine")
	tab.add("x\x1b[31m\u202e", "7", "")
	var b strings.Builder
	tab.write(&b)
	want := "" +
		"NAME             COUNT  NOTE\n" +
		"café             1,000  fine\n" +
		`x\x1b[31m\u202e      7` + "\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestStatusWarnsAtThresholds(t *testing.T) {
	s := &outlast.StoreStatus{
		Pending: []outlast.RouteStatus{{Type: "a.v1", Count: 90, Oldest: time.Minute}},
		Held: []outlast.HeldStatus{
			{Type: "a.v1", Reason: outlast.HeldUnroutable, Count: 20, Oldest: 2 * time.Hour},
			{Type: "a.v1", Reason: outlast.HeldDue, Count: 5000, Oldest: 99 * time.Hour},
		},
	}
	warn := thresholds{pending: 100, bytes: 1 << 20, age: time.Hour}
	got := strings.Join(warn.warnings(s, 3<<20), "\n")
	contains(t, got, "110 messages wait to be sent, above 100", "waits for 2h00m, above 1h00m", "takes 3.0 MiB on disk, above 1 MiB")
	warn = thresholds{pending: 110, bytes: 3 << 20, age: 2 * time.Hour}
	if got := warn.warnings(s, 3<<20); len(got) != 0 {
		t.Errorf("warns at its threshold: %q", got)
	}
	warn = thresholds{}
	if got := warn.warnings(s, 3<<20); len(got) != 0 {
		t.Errorf("warns although turned off: %q", got)
	}
}

func TestStatusRate(t *testing.T) {
	at := func(second, pending int) *statusReport {
		return &statusReport{StoreStatus: &outlast.StoreStatus{
			Now:     time.Unix(int64(second), 0),
			Pending: []outlast.RouteStatus{{Type: "a.v1", Count: pending}},
		}}
	}
	for _, c := range []struct {
		name      string
		was, is   int
		wantDrain string
	}{
		{"shrinks", 1000, 600, "; shrinking by 200/s, drained in 3s"},
		{"grows", 600, 1000, "; growing by 200/s"},
		{"stands still", 600, 600, "; not shrinking"},
		{"was beyond counting", outlast.CountLimit + 1, 600, ""},
		{"too few for a trend", 12, 9, ""},
	} {
		r := at(12, c.is)
		r.compare(at(10, c.was))
		if got := r.drainText(); got != c.wantDrain {
			t.Errorf("%s: %q, want %q", c.name, got, c.wantDrain)
		}
	}
}

// TestStatusPromisesNothingOfTheHeld: they wait for something other than their turn.
func TestStatusPromisesNothingOfTheHeld(t *testing.T) {
	at := func(second, pending, held int) *statusReport {
		return &statusReport{StoreStatus: &outlast.StoreStatus{
			Now:     time.Unix(int64(second), 0),
			Pending: []outlast.RouteStatus{{Type: "a.v1", Count: pending}},
			Held:    []outlast.HeldStatus{{Type: "b.v1", Reason: outlast.HeldUnroutable, Count: held}},
		}}
	}
	for _, c := range []struct {
		name           string
		was, is        *statusReport
		held, drain    string
		drains, shrink bool
	}{
		{"one of two was sent, the other is held", at(10, 1, 1), at(12, 0, 1), ", all held", "", false, true},
		{"pending drain, held stay", at(10, 1000, 5000), at(12, 600, 5000), ", 5,000 of them held", "; shrinking by 200/s, drained in 3s", true, true},
		{"pending become held", at(10, 1000, 0), at(12, 600, 400), ", 400 of them held", "; not shrinking", false, false},
	} {
		c.is.compare(c.was)
		n, _ := toSend(c.is.StoreStatus)
		if got := c.is.heldText(n) + c.is.drainText(); got != c.held+c.drain {
			t.Errorf("%s: %q, want %q", c.name, got, c.held+c.drain)
		}
		if drains, shrinks := c.is.DrainSeconds != nil, *c.is.RatePerSecond > 0; drains != c.drains || shrinks != c.shrink {
			t.Errorf("%s: drains %v, shrinks %v", c.name, drains, shrinks)
		}
	}
}

// TestS42_JSONIsSafeForATerminal: the value stays the same, and no character of it acts.
func TestS42_JSONIsSafeForATerminal(t *testing.T) {
	t.Parallel()
	given := "a\u202eb\u0085c\x7fd\x1be\U000e0001f\ufeffäö😀"
	var out bytes.Buffer
	p := newProgram(nil, &out, nil, nil)
	if err := p.printJSON([]any{given, json.RawMessage(`"` + "\u202e\x7f" + `"`)}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\u202e\u0085\x7f\x1b\U000e0001\ufeff") || !strings.Contains(out.String(), "äö😀") {
		t.Errorf("%q", out.String())
	}
	var got []string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got[0] != given || got[1] != "\u202e\x7f" {
		t.Errorf("%q, %v", got, err)
	}
}
