package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/outlastmq/outlast"
)

// FuzzAddress: no part of a URL that stands where a password does is in an error, in what
// is shown of the address, or in a driver's text that was hidden, however malformed the
// URL is.
func FuzzAddress(f *testing.F) {
	const password = "7654321" // like a port
	f.Add("postgres://app:", "@db.example/orders")
	f.Add("amqp://app:1/", "@h")
	f.Add("nats://", "@h")
	f.Add("postgress//app:", "@h")
	f.Add("env:", "@h")
	f.Add("sqlite:x?", "@h")
	f.Add("amqp://app:a,", "#@h,amqp://u:p@i")
	f.Fuzz(func(t *testing.T, before, after string) {
		if len(before)+len(after) > 200 || strings.Contains(before, "@") || strings.Count(before, "://") > 1 ||
			!strings.Contains(after, "@") || strings.Contains(after, password) {
			return // the password stands elsewhere
		}
		if rest, _, _ := strings.Cut(after, "://"); !strings.Contains(rest, "@") {
			return // no '@' ends the password
		}
		if scheme, rest, ok := strings.Cut(before, "://"); ok && !strings.Contains(rest, ":") {
			if user, _, _ := strings.Cut(after, "@"); strings.Contains(user, ":") || !tokenUser(strings.ToLower(scheme)) {
				return // it is the name of a user, which is no secret
			}
		}
		raw := before + password + after
		for _, s := range []server{databaseServer, brokerServer} {
			a, err := s.resolve(raw, func(string) string { return "" })
			if text := fmt.Sprintf("%v %+v %v", err, a, a); strings.Contains(text, password) {
				t.Fatalf("%q: the password is shown: %s", raw, text)
			}
			var e *outlast.Error
			if err != nil && (!errors.As(err, &e) || len(e.Fields) != 1 || e.Fields[0].Field == "" || e.Fields[0].Limit == "" || e.Fields[0].Given == "") {
				t.Fatalf("%q: refused without setting, limit and what was given: %v", raw, err)
			}
		}
	})
}

// FuzzSecrets: what was learnt as a password is in no text afterwards.
func FuzzSecrets(f *testing.F) {
	f.Add("pa%2Fss%40word", "invalid port ", " after host")
	f.Add("a,b:c/d?e#f", "user=x password=", "&")
	f.Add("****", "://", "@")
	f.Fuzz(func(t *testing.T, password, before, after string) {
		if len(password)+len(before)+len(after) > 200 || len(password) < minSecret || plainWords[password] || password == "app" ||
			strings.Contains("***@", password) || strings.Contains(password, "*") || nextInList.MatchString(password) {
			return
		}
		var s secrets
		s.learn("postgres://app:" + password + "@db.example/orders")
		if text := s.hide(before + password + after); strings.Contains(text, password) {
			t.Fatalf("%q is in %q", password, text)
		}
	})
}

// FuzzMessageLine: whatever a line of a file holds, it is a message within the limits,
// which can be published, or it is refused by the number of its line, in words that are
// fit to print.
func FuzzMessageLine(f *testing.F) {
	f.Add([]byte(`{"type":"order.placed.v1","key":"order-7","body":{"a":1},"headers":{"tenant":"a"},"delay":"10m"}`))
	f.Add([]byte(`{"type":"a.v1","body_text":"\u0000","due":"2026-01-01T00:00:00Z"}` + "\n" + `{"type":"a.v1","body_base64":"AP8="}`))
	f.Add([]byte("\n\n{\"type\":\"a..b\",\"id\":\"7\",\"body\":null,\"body_text\":\"\"}"))
	f.Add([]byte(`{"type":"a.v1","Type":"b.v1","body":` + strings.Repeat("[", 60) + `}`))
	f.Add([]byte("{\"type\":\"\xff\"}"))
	f.Add([]byte(`{"type":"a.v1","body":1} {}`))
	f.Add([]byte(`{"type":"a.v1","body":1,"lifetime":"9999999h","time":"0000-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) > 1024 {
			return
		}
		l := &lineReader{r: bufio.NewReaderSize(strings.NewReader(string(file)), 64)}
		for {
			batch, last, err := l.next(2, 0)
			if err != nil {
				if text := err.Error(); outlast.CodeOf(err) != outlast.CodeInvalid || !strings.Contains(text, fmt.Sprintf("line %d", l.at)) ||
					outlast.CleanErrorText(text) != text {
					t.Fatalf("%q: %q", file, text)
				}
				return
			}
			for _, m := range batch {
				if err := m.Validate(0); err != nil || m.ID == "" {
					t.Fatalf("%q became %+v: %v", file, m, err)
				}
			}
			l.commit()
			if last {
				return
			}
		}
	})
}

// FuzzFilter: whatever flags and ids are given, the filter of a list is within its bounds
// or the flag is named; and nothing but --all makes an action one on everything.
func FuzzFilter(f *testing.F) {
	f.Add("--type\x00order.placed.v1\x00--older-than\x0048h\x00id-1")
	f.Add("--limit\x000\x00--after\x00-1")
	f.Add("--limit=99999999999999999999\x00--newer-than=-1s")
	f.Add("--all\x00--key=\x00--")
	f.Add("--type=\x00--fingerprint\x00\xff")
	f.Fuzz(func(t *testing.T, line string) {
		if len(line) > 200 {
			return
		}
		for _, register := range []func(*selection, *cobra.Command){(*selection).pageFlags, (*selection).bulkFlags} {
			var s selection
			cmd := &cobra.Command{Use: "list"}
			cmd.SetOut(io.Discard)
			cmd.SetErr(io.Discard)
			s.flags(cmd, selectGroup|selectFingerprint)
			register(&s, cmd)
			if cmd.ParseFlags(strings.Split(line, "\x00")) != nil {
				continue
			}
			ids := cmd.Flags().Args()
			if got, err := s.page(cmd, ids); err == nil && (got.Limit < 1 || got.Limit > maxPage || got.OlderThan < 0 || got.NewerThan < 0) {
				t.Fatalf("%q became %+v", line, got)
			}
			got, err := s.bulk(cmd, ids)
			everything := len(got.IDs) == 0 && got.Type == "" && got.Key == "" && got.Group == "" && got.Reason == "" &&
				got.Fingerprint == "" && got.OlderThan == 0 && got.NewerThan == 0
			if err == nil && (everything != s.all || got.Limit < 0) {
				t.Fatalf("%q became %+v", line, got)
			}
			var e *outlast.Error
			if err != nil && (!errors.As(err, &e) || len(e.Fields) != 1 || e.Fields[0].Field == "" || e.Fields[0].Limit == "") {
				t.Fatalf("%q: refused without flag and limit: %v", line, err)
			}
		}
	})
}

// FuzzSize: a size is a number of bytes within range, and is read again from its text.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"65536", "500MB", "2GiB", "1e3", "-1", "NaN", "9e18", "0x1p4kb", "1 TiB", "Inf"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again size
		if s.Set(text) != nil {
			return
		}
		if s < 0 || again.Set(s.String()) != nil || again < 0 {
			t.Fatalf("%q is %d, shown as %q", text, s, s.String())
		}
	})
}

// FuzzPrintable: what is printed of a message moves no cursor and changes no direction of
// writing, and hides nothing.
func FuzzPrintable(f *testing.F) {
	f.Add("plain ä")
	f.Add("\x1b[31m\u202e\x00\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		text := printable(s)
		for _, r := range text {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q became %q", s, text)
			}
		}
		if utf8.RuneCountInString(text) < utf8.RuneCountInString(s) || printable(text) != text {
			t.Fatalf("%q became %q", s, text)
		}
	})
}

// FuzzTopology: a topology file is refused as wrong usage, in words that can be printed, or
// holds what a broker can be asked for; and what `topology show --json` prints of it is the
// same topology.
func FuzzTopology(f *testing.F) {
	f.Add([]byte(`{"exchanges":[{"name":"outlast.events"}],"groups":[{"group":"billing","partitions":2,"ordered":true,"bindings":[{"exchange":"outlast.events","type":"order.placed.v1"}]}]}`))
	f.Add([]byte(`{"groups":[{"group":"a.b","partitions":-1,"generation":10000,"bindings":[{"type":"\u001b"}]},{"group":"a.b"}]}`))
	f.Add([]byte(`{"groups":null} trailing`))
	f.Add([]byte(`{"group":1}`))
	f.Add([]byte("{\"groups\":[{\"group\":\"\xff\"}]}"))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, file []byte) {
		read := func(file []byte) (outlast.Topology, error) {
			p := newProgram(bytes.NewReader(file), io.Discard, io.Discard, func(string) string { return "" })
			topology, err := p.readTopology("check", "-")
			if err == nil {
				err = checkTopology("check", topology)
			}
			return topology, err
		}
		topology, err := read(file)
		if err != nil {
			if text := err.Error(); outlast.CodeOf(err) != outlast.CodeInvalid || outlast.CleanErrorText(text) != text {
				t.Fatalf("%q: %q", file, text)
			}
			return
		}
		if !json.Valid(file) {
			t.Fatalf("%q is no JSON and became %+v", file, topology)
		}
		for _, g := range topology.Groups {
			if name := g.Queue(g.Partitions - 1); len(name) > 255 || len(g.Bindings) == 0 {
				t.Fatalf("%q became the queue %q with %d bindings", file, name, len(g.Bindings))
			}
		}
		printed, err := json.Marshal(topology)
		if err != nil {
			t.Fatal(err)
		}
		again, err := read(printed)
		if shown, _ := json.Marshal(again); err != nil || !bytes.Equal(shown, printed) {
			t.Fatalf("%q became %s and then %s, %v", file, printed, shown, err)
		}
	})
}
