package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	write := func(lines ...string) string {
		path := filepath.Join(t.TempDir(), "history.jsonl")
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := `{"t":1,"e":"open","v":1,"p":"orders","pid":7}`
	broken := []string{
		`{"t":2,"e":"enqueue","m":"a","type":"order.placed.v1","h":"1"}`,
		`{"t":3,"e":"deliver","m":"a","g":"billing","h":"2"}`,
	}
	cases := []struct {
		name string
		args []string
		code int
		out  string
		errs string
	}{
		{"a good history", []string{write(open, `{"t":9,"e":"close"}`, "")}, exitOK, "I1   no loss                not exercised", ""},
		{"a torn last line", []string{write(open, `{"t":9,"e":"clo`)}, exitOK, "1 processes were killed; 1 lines are torn", ""},
		{"a violation", []string{write(append([]string{open}, broken...)...)}, exitFailure, "I3 integrity is violated: what was delivered to billing", "an invariant is violated"},
		{"as JSON", []string{"--json", write(append([]string{open}, broken...)...)}, exitFailure, `"state": "violated"`, "an invariant is violated"},
		{"not a real test", []string{"--strict", write(open, "")}, exitFailure, "", "it did not see: commit unknown"},
		{"a broken line", []string{write(open, `{"t":2,"e":`, `{"t":3,"e":"close"}`)}, exitFailure, "", "history.jsonl:2: not an event of a history"},
		{"another file", []string{write("hello")}, exitFailure, "", "history.jsonl:1: not an event of a history"},
		{"no first event", []string{write(`{"t":2,"e":"close"}`)}, exitFailure, "", `history.jsonl:1: no history: event "close" before the process began`},
		{"a later version", []string{write(`{"t":1,"e":"open","v":99}`)}, exitFailure, "", "format version 99; this build reads 1 to 1"},
		{"no such file", []string{filepath.Join(t.TempDir(), "none")}, exitFailure, "", "no such file"},
		{"no file", nil, exitUsage, "", "one or more history files"},
		{"a flag of no sense", []string{"--tries", "0", "x"}, exitUsage, "", "--tries"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newShell(t).run(append([]string{"check"}, c.args...)...)
			if r.code != c.code || !strings.Contains(r.out, c.out) || !strings.Contains(r.err, c.errs) {
				t.Errorf("exit %d, out:\n%s\nerrors:\n%s\nwant exit %d, %q, %q", r.code, r.out, r.err, c.code, c.out, c.errs)
			}
		})
	}
}
