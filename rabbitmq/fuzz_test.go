package rabbitmq

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/fuzzdata"
)

// reading is a wire that reads sent, without sockets and goroutines.
func reading(sent []byte, o observer) *wire {
	return &wire{reader: bufio.NewReaderSize(bytes.NewReader(sent), 16), observer: o, failed: make(chan struct{})}
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// FuzzWire: no bytes make the checks panic; what passes them are whole frames that pass
// them again, unchanged, and no memory is taken for what was only announced.
func FuzzWire(f *testing.F) {
	f.Add(table(nest('F', 9)))
	f.Add(table(nest('A', 7)))
	f.Add(table([]byte{'S', 0, 0, 0, 1, 'x'}))
	f.Add([]byte("AMQP\x00\x00\x09\x01"))
	f.Add(method(60, 80, 0, 0, 0, 0, 0, 0, 0, 1, 1))
	f.Add(method(60, 50, 1, 56, 2, 'n', 'o', 1, 'e', 1, 'k'))
	f.Add(method(10, 10, append([]byte{0, 9}, table(nest('F', 9))[21:]...)...))
	f.Add(deliverFrames(f, publishing()))
	f.Add([]byte{frameBody, 0, 1, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{frameHeartbeat, 0, 0, 0, 0, 0, 0, frameEnd})
	f.Fuzz(func(t *testing.T, sent []byte) {
		first := &seen{}
		w := reading(sent, first)
		var passed []byte
		for w.next() == nil {
			n := int(binary.BigEndian.Uint32(w.frame[3:])) + frameOverhead
			if n > frameMax || n != len(w.frame) || w.frame[n-1] != frameEnd {
				t.Fatal("a frame is not whole")
			}
			passed = append(passed, w.frame...)
		}
		if cap(w.frame) > frameMax {
			t.Fatalf("%d bytes were taken for a frame", cap(w.frame))
		}
		second := &seen{}
		w = reading(passed, second)
		var again []byte
		for w.next() == nil {
			again = append(again, w.frame...)
		}
		if !bytes.Equal(passed, again) || !reflect.DeepEqual(first, second) {
			t.Fatalf("what passed does not pass again\n%q\n%q", passed, again)
		}
	})
}

// noConn stands for a connection that is never used but to be closed.
type noConn struct{ net.Conn }

func (noConn) Close() error { return nil }

// FuzzConfirms: whatever a broker says, every publishing is resolved exactly once, and
// confirmed only when there was an acknowledgement.
func FuzzConfirms(f *testing.F) {
	ack := func(tag, multiple byte) []byte { return method(60, 80, 0, 0, 0, 0, 0, 0, 0, tag, multiple) }
	nack := func(tag, multiple byte) []byte { return method(60, 120, 0, 0, 0, 0, 0, 0, 0, tag, multiple) }
	f.Add(append(ack(3, 0), nack(5, 1)...))
	f.Add(append(ack(0, 1), ack(3, 0)...))
	f.Add(append(nack(5, 1), ack(3, 1)...))
	f.Add(append(append(method(60, 50, 1, 56, 2, 'n', 'o', 1, 'e', 1, 'k'), table([]byte{'V'})...), ack(5, 1)...))
	f.Add(append(ack(1, 0), method(20, 40, 1, 0x96, 2, 'n', 'o', 0, 60, 0, 40)...))
	f.Add(ack(200, 1))
	f.Fuzz(func(t *testing.T, sent []byte) {
		s := &session{lanes: map[uint16]*lane{}, pending: map[uint16]returnedMethod{}, onBlocked: func(bool, string) {}}
		s.wire = reading(sent, s)
		s.wire.Conn = noConn{}
		s.wire.work.L, s.wire.room.L = &s.wire.mu, &s.wire.mu
		outcomes := map[*outlast.Publishing]int{}
		l := newLane(s, func(rs []outlast.Result) {
			for _, r := range rs {
				outcomes[r.P]++
				if r.Outcome == outlast.OutcomeConfirmed && !bytes.Contains(sent, []byte{0, 60, 0, 80}) {
					t.Fatal("confirmed, and the broker never said so")
				}
				if (r.Err == nil) != (r.Outcome == outlast.OutcomeConfirmed) || r.Err != nil && outlast.CleanErrorText(r.Err.Error()) != r.Err.Error() {
					t.Fatalf("%v: %v", r.Outcome, r.Err)
				}
			}
		})
		l.open, l.channel = true, 1
		s.register(1, l)
		const inFlight = 5
		for range inFlight {
			l.book.add(&outlast.Publishing{Message: &outlast.Message{Envelope: outlast.Envelope{ID: "id-1"}}, Exchange: "e", RoutingKey: "k"})
		}
		for s.wire.next() == nil {
			continue
		}
		l.end(outlast.OutcomeNotSent, errDown)
		if len(outcomes) != inFlight {
			t.Fatalf("%d of %d were resolved", len(outcomes), inFlight)
		}
		for _, n := range outcomes {
			if n != 1 {
				t.Fatalf("one was resolved %d times", n)
			}
		}
	})
}

// FuzzPublish: what we send is what a consumer of ours gets, or it is refused by field
// and limit before it is sent.
func FuzzPublish(f *testing.F) {
	f.Add(fuzzdata.Join("", "", "orders", "about", "order-7", "application/json", "urn:x", "flow", "cause"))
	f.Add([]byte("\x00\x01\x06orders\x00\x00\x00\x00\x00\x00\x00\x00\x04body\x09\x08\x07\x06\x01h\x01v"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := fuzzdata.Message(data)
		if m.Validate(0) != nil || !printable(m.Source) {
			return
		}
		p := &outlast.Publishing{Message: &m, Exchange: m.Route().Exchange, RoutingKey: m.Address()}
		e, err := encode(p, "", frameMax)
		if err != nil {
			wantFields(t, err)
			return
		}
		w := reading(e.appendTo(nil, 1, frameMax)[e.methodSize():], &seen{})
		if err := w.next(); err != nil {
			t.Fatalf("refused by ourselves: %v", err)
		}
		d := readDelivery(t, w.frame[7:len(w.frame)-1])
		if d.DeliveryMode != amqp.Persistent || d.Expiration != "" || d.Priority != 0 {
			t.Fatalf("mode %d, expiration %q, priority %d", d.DeliveryMode, d.Expiration, d.Priority)
		}
		for w.next() == nil {
			d.Body = append(d.Body, w.frame[7:len(w.frame)-1]...)
		}
		got, problem := decode(d, nil)
		if problem != nil {
			t.Fatalf("refused at the other end: %v", problem)
		}
		wantSame(t, &m, got)
	})
}

func wantFields(t *testing.T, err error) {
	t.Helper()
	var e *outlast.Error
	if !errors.As(err, &e) || len(e.Fields) == 0 || !printable(err.Error()) {
		t.Fatalf("refused without a field, or in a text not fit to print: %q", err)
	}
	for _, f := range e.Fields {
		if f.Field == "" || f.Limit == "" || f.Given == "" {
			t.Fatalf("a field, its limit or what was given is missing: %#v", f)
		}
	}
}

func wantSame(t *testing.T, sent, got *outlast.Message) {
	t.Helper()
	want := sent.Envelope
	if want.Time.IsZero() {
		want.Time = want.EnqueuedAt
	}
	if want.Kind == "" {
		want.Kind = outlast.KindEvent
	}
	if want.ContentType == "" {
		want.ContentType = "application/json"
	}
	if len(want.Headers) == 0 {
		want.Headers = nil
	}
	if !reflect.DeepEqual(want, got.Envelope) || !bytes.Equal(sent.Body, got.Body) {
		t.Fatalf("sent     %+v\nreceived %+v", want, got.Envelope)
	}
}

// readDelivery reads a content header as it is sent by us: all headers are texts.
func readDelivery(t *testing.T, payload []byte) *amqp.Delivery {
	t.Helper()
	c := cursor{b: payload}
	c.take(12)
	flags := c.short()
	d := &amqp.Delivery{Headers: amqp.Table{}}
	text := func(flag uint16, dst *string) {
		if flags&flag != 0 {
			*dst = string(c.shortstr())
		}
	}
	text(flagContentType, &d.ContentType)
	fields := cursor{b: c.longstr()}
	for len(fields.b) > 0 && !fields.failed {
		name := string(fields.shortstr())
		if fields.octet() != 'S' {
			t.Fatal("a header is no text")
		}
		d.Headers[name] = string(fields.longstr())
	}
	d.DeliveryMode = c.octet()
	text(flagCorrelationID, &d.CorrelationId)
	text(flagMessageID, &d.MessageId)
	if flags&flagTimestamp != 0 {
		d.Timestamp = time.Unix(int64(c.longlong()), 0)
	}
	text(flagType, &d.Type)
	text(flagAppID, &d.AppId)
	if c.failed || fields.failed || len(c.b) > 0 {
		t.Fatalf("the header is not well-formed: %q", payload)
	}
	return d
}

// headerValue makes a value of any kind that the library can hand over.
func headerValue(t *fuzzdata.Texts, depth int) any {
	switch t.Byte() % 18 {
	case 0:
		return t.Byte()&1 != 0
	case 1:
		return int8(t.Byte())
	case 2:
		return t.Byte()
	case 3:
		return int16(t.Byte()) << 8
	case 4:
		return uint16(t.Byte()) << 8
	case 5:
		return int32(t.Byte()) << 24
	case 6:
		return uint32(t.Byte()) << 24
	case 7:
		return int64(t.Byte()) << 56
	case 8:
		return math.Float32frombits(uint32(t.Byte()) << 23)
	case 9:
		return math.Float64frombits(uint64(t.Byte()) << 52)
	case 10:
		return amqp.Decimal{Scale: t.Byte(), Value: int32(t.Byte()) << 24}
	case 11:
		return time.Unix(int64(t.Byte())<<56|int64(t.Byte()), 0)
	case 12:
		return []byte(t.Next())
	case 13, 14:
		if depth > maxTableDepth {
			return nil
		}
		return amqp.Table{t.Next(): headerValue(t, depth+1)}
	case 15:
		if depth > maxTableDepth {
			return nil
		}
		return []any{headerValue(t, depth+1), headerValue(t, depth+1)}
	case 16:
		return nil
	}
	return t.Next()
}

// FuzzDelivery: whatever properties and headers a delivery has, of every kind, the
// message made of it is safe to store and to show, and always the same.
func FuzzDelivery(f *testing.F) {
	f.Add(fuzzdata.Join("text/plain", "id", "order.placed.v1", "flow", "app", "order-no", "", "a", "\x05\xff"))
	f.Add(fuzzdata.Join("a\x00b", "\xff", "bad\nname", "\u202e", "x", "", "h", "ce-id", "\x0d\x01k\x10"))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x0dtraceparent\x00\x0a\x80\x80\x01b\x0b\x80\x01\x01c\x0f\x0d\x01d\x03\x04"))
	f.Fuzz(func(t *testing.T, data []byte) {
		texts := fuzzdata.Of(data)
		d := &amqp.Delivery{ContentType: texts.Next(), MessageId: texts.Next(), Type: texts.Next(), CorrelationId: texts.Next(),
			AppId: texts.Next(), Headers: amqp.Table{}, Body: []byte("body")}
		foreign := &outlast.ForeignQueue{Queue: "legacy", Type: "legacy.v1", IDHeader: texts.Next(), KeyHeader: texts.Next(), DeriveID: true}
		for texts.More() {
			d.Headers[texts.Next()] = headerValue(texts, 1)
		}
		for _, f := range []*outlast.ForeignQueue{nil, foreign} {
			m, problem := decode(d, f)
			again, problemAgain := decode(d, f)
			if problem == nil && !reflect.DeepEqual(m, again) || (problem == nil) != (problemAgain == nil) {
				t.Fatalf("two deliveries, two messages\n%+v, %v\n%+v, %v", m, problem, again, problemAgain)
			}
			for _, s := range []string{m.ID, m.Type, m.Source, m.Envelope.Key, m.Envelope.Subject, m.ContentType, m.CorrelationID, m.TraceParent, m.TraceState} {
				if !printable(s) || len(s) > outlast.MaxTraceState {
					t.Fatalf("%q got through", s)
				}
			}
			for name, value := range m.Headers {
				if !printable(name) || !printable(value) {
					t.Fatalf("header %q: %q got through", name, value)
				}
			}
			if problem != nil && !utf8.ValidString(problem.Error()) {
				t.Fatalf("%q", problem)
			}
		}
	})
}

// FuzzAddress: no part of a URL that stands where a password does is in an error or in
// what is shown of a broker, however malformed the URL is.
func FuzzAddress(f *testing.F) {
	const password = "7654321" // like a port
	f.Add("", "@localhost/v")
	f.Add("1/", "@localhost")
	f.Add("12345678?", "@localhost")
	f.Add("a,b#", "@localhost:99999/?heartbeat=x&auth_mechanism=y")
	f.Add("%zz", "@a.example,amqps://u:p@b.example")
	f.Add("", "@[::1]/?management=http://x:y@z")
	f.Fuzz(func(t *testing.T, before, after string) {
		if len(before)+len(after) > 200 || strings.ContainsAny(before, "@") || strings.Contains(before, "://") || !strings.Contains(after, "@") {
			return // the password stands elsewhere
		}
		if rest, _, _ := strings.Cut(after, "://"); !strings.Contains(rest, "@") {
			return // no '@' ends the password
		}
		list := "amqp://app:" + before + password + after
		err := Validate(list)
		b := Broker(list)
		if text := fmt.Sprintf("%v %+v %v %s", err, err, b, b.Address()); strings.Contains(text, password) && !strings.Contains(after, password) {
			t.Fatalf("%q: the password is shown: %s", list, text)
		}
		if err != nil {
			wantFields(t, err)
		}
	})
}

// FuzzReply: whatever text a broker gives as its reason, the error made of it is fit to
// print and has a code.
func FuzzReply(f *testing.F) {
	f.Add(uint16(406), "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'billing.0' in vhost '/': received the value 'quorum' of type 'longstr' but current is none")
	f.Add(uint16(404), "NOT_FOUND - no queue 'x' in vhost '/'\x00\x1b[31m")
	f.Add(uint16(403), "\xff")
	f.Fuzz(func(t *testing.T, code uint16, reason string) {
		if len(reason) > 255 {
			reason = reason[:255] // as long as a short string
		}
		reply := &amqp.Error{Code: int(code), Reason: reason, Server: true}
		for _, err := range []error{errorOf("declare", reply), declareError("declare", reply)} {
			if outlast.CodeOf(err) == "" || !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x00\x1b\x7f") {
				t.Fatalf("%q: %q, %q", reason, outlast.CodeOf(err), err)
			}
		}
	})
}
