package nats

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	client "github.com/nats-io/nats.go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/fuzzdata"
)

// onTheWire is how the client writes headers.
func onTheWire(h client.Header) []byte {
	var b bytes.Buffer
	b.WriteString("NATS/1.0\r\n")
	for name, values := range h {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// FuzzPublish: what we send is what a consumer of ours gets, or it is refused before it
// is sent.
func FuzzPublish(f *testing.F) {
	f.Add(fuzzdata.Join("", "", "orders", "about", "order-7", "application/json", "urn:x", "flow", "cause"))
	f.Add([]byte("\x00\x01\x06orders\x00\x03 a \x00\x00\x00\x00\x00\x00\x04body\x09\x08\x07\x06\x01h\x03 v "))
	f.Add([]byte("\x00\x01\x06orders\x00\x01%\x00\x00\x00\x00\x00\x00\x00\x09\x08\x07\x06\x01H\x01 \x01h\x01%"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := fuzzdata.Message(data)
		if m.Validate(0) != nil || !clean(m.Source) {
			return
		}
		sent, err := encode(&m, "subject", "")
		if err != nil {
			return
		}
		h, err := client.DecodeHeadersMsg(onTheWire(sent.Header))
		if err != nil {
			t.Fatalf("the client cannot read it: %v", err)
		}
		got, problem := decode(h, sent.Data, nil)
		if problem != nil {
			t.Fatalf("refused at the other end: %v", problem)
		}
		want := m.Envelope
		if want.Time.IsZero() {
			want.Time = want.EnqueuedAt
		}
		if want.Kind == "" {
			want.Kind = outlast.KindEvent
		}
		if len(want.Headers) == 0 {
			want.Headers = nil
		}
		if !reflect.DeepEqual(want, got.Envelope) || !bytes.Equal(m.Body, got.Body) {
			t.Fatalf("sent     %+v\nreceived %+v", want, got.Envelope)
		}
	})
}

// FuzzDelivery: whatever headers a message has, as the client reads them from the wire,
// the message made of them is safe to store and to show, and always the same.
func FuzzDelivery(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nce-id: 1\r\nce-type: order.placed.v1\r\nContent-Type: text/plain\r\n\r\n"), "", "")
	f.Add([]byte("NATS/1.0\r\nNats-Msg-Id: 1\r\nce-time: noon\r\na: \xff\r\noutlast-escaped: a,b\r\nb: %00%1b\r\n\r\n"), "Nats-Msg-Id", "message-id")
	f.Add([]byte("NATS/1.0 503\r\nce-id: a\r\nCe-Id: b\r\noutlast-escaped: ce-id\r\n\r\n"), "a", "ce-id")
	f.Fuzz(func(t *testing.T, data []byte, idHeader, keyHeader string) {
		if len(data) > 1024 {
			return
		}
		h, err := client.DecodeHeadersMsg(data)
		if err != nil {
			return
		}
		for _, foreign := range []*outlast.ForeignQueue{nil, {Queue: "s/d", Type: "legacy.v1", IDHeader: idHeader, KeyHeader: keyHeader, DeriveID: true}} {
			m, problem := decode(h, []byte("body"), foreign)
			if again, _ := decode(h, []byte("body"), foreign); !reflect.DeepEqual(m, again) {
				t.Fatalf("two deliveries, two messages\n%+v\n%+v", m, again)
			}
			for _, s := range []string{m.ID, m.Type, m.Source, m.Envelope.Key, m.Envelope.Subject, m.ContentType, m.CorrelationID, m.TraceParent, m.TraceState} {
				if !clean(s) || len(s) > outlast.MaxTraceState {
					t.Fatalf("%q got through", s)
				}
			}
			for name, value := range m.Headers {
				if !clean(name) || !clean(value) {
					t.Fatalf("header %q: %q got through", name, value)
				}
			}
			if problem != nil && !utf8.ValidString(problem.Error()) {
				t.Fatalf("%q", problem)
			}
		}
	})
}

// FuzzAddress: no part of an address that stands where a password or a token does is in
// an error or in what is shown of a broker, however malformed the address is.
func FuzzAddress(f *testing.F) {
	const password = "7654321" // like a port
	f.Add("nats://app:", "@localhost")
	f.Add("nats://", "@localhost")
	f.Add("tls://app:1/", "@localhost,b")
	f.Add("app:1,", "@localhost")
	f.Add("nats://app:%zz", "@a.example,tls://u:p@b.example")
	f.Fuzz(func(t *testing.T, before, after string) {
		if len(before)+len(after) > 200 || strings.Contains(before, "@") || strings.Count(before, "://") > 1 || strings.Contains(after, password) {
			return // the password stands elsewhere
		}
		if i := strings.Index(before, "://"); i > 0 && strings.Trim(before[:i], "abcdefghijklmnopqrstuvwxyz") != "" {
			return // "://" within the password
		}
		if rest, _, _ := strings.Cut(after, "://"); !strings.Contains(rest, "@") {
			return // no '@' ends the password
		}
		b := Broker(before + password + after).(*broker)
		if text := fmt.Sprintf("%v %+v %s", b.err, b.err, b.Address()); strings.Contains(text, password) {
			t.Fatalf("%q: the password is shown: %s", before+password+after, text)
		}
	})
}

// FuzzFilters: filters that others gave a consumer never make one of ours match less, and
// what one covers the other matches.
func FuzzFilters(f *testing.F) {
	f.Add("e.t.3 e.u.*", "e.t.* e.u.7", "e.t.9")
	f.Add("> a.> *.b", "a.b.c ..", "a.b")
	f.Fuzz(func(t *testing.T, have, want, subject string) {
		if len(have)+len(want)+len(subject) > 200 || !literal(subject) {
			return
		}
		h, w := strings.Fields(have), strings.Fields(want)
		matched := func(filters []string) bool {
			for _, f := range filters {
				if covers(f, subject) {
					return true
				}
			}
			return false
		}
		merged := mergeFilters(h, w)
		if matched(merged) != (matched(h) || matched(w)) {
			t.Fatalf("%q and %q became %q: %q", h, w, merged, subject)
		}
		if missing := missingFilters(h, w); matched(w) && !matched(h) && !matched(missing) {
			t.Fatalf("%q of %q is missing in %q: not %q", subject, w, h, missing)
		}
		for _, f := range merged {
			for _, g := range merged {
				if covers(f, g) && covers(g, subject) && !covers(f, subject) {
					t.Fatalf("%q covers %q, and not %q", f, g, subject)
				}
			}
		}
	})
}

func literal(subject string) bool {
	return subjectTokens(subject) && !strings.ContainsAny(subject, "*>")
}
