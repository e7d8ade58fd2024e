package rabbitmq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// seen is an observer that remembers.
type seen struct {
	methods []uint32
	ids     []string
}

func (s *seen) method(_, class, method uint16, _ []byte) {
	s.methods = append(s.methods, uint32(class)<<16|uint32(method))
}
func (s *seen) header(_ uint16, h contentHeader) { s.ids = append(s.ids, h.messageID) }

// through sends bytes as a broker would and returns what the library would read.
func through(t *testing.T, sent []byte) ([]byte, *seen, error) {
	t.Helper()
	client, server := net.Pipe()
	s := &seen{}
	w := newWire(client, s)
	go func() {
		server.Write(sent) // an error means that the client refused the rest
		server.Close()
	}()
	got, err := io.ReadAll(w)
	w.abort(errWireClosed)
	<-w.written
	return got, s, err
}

func publishing() *outlast.Publishing {
	m := &outlast.Message{Body: []byte("body")}
	m.ID, m.Type, m.Source = "id-1", "order.placed.v1", "orders"
	m.Headers = outlast.Headers{"a": "b"}
	return &outlast.Publishing{Message: m, Exchange: "outlast.events", RoutingKey: "order.placed.v1.1"}
}

func publishFrames(t *testing.T) []byte {
	t.Helper()
	e, err := encode(publishing(), "app", frameMax)
	if err != nil {
		t.Fatal(err)
	}
	return e.appendTo(nil, 1, frameMax)
}

// deliverFrames is a publishing as it comes to a consumer.
func deliverFrames(t testing.TB, p *outlast.Publishing) []byte {
	t.Helper()
	e, err := encode(p, "", frameMax)
	if err != nil {
		t.Fatal(err)
	}
	b := appendFrame(nil, frameMethod, 1, func(b []byte) []byte {
		b = appendShort(append(b, 0, 60, 0, 60), "ctag")
		b = append(binary.BigEndian.AppendUint64(b, 7), 0)
		return appendShort(appendShort(b, p.Exchange), p.RoutingKey)
	})
	return append(b, e.appendTo(nil, 1, frameMax)[e.methodSize():]...)
}

// methodSize is the size of the first frame of a publish.
func (e encoded) methodSize() int {
	return len(appendFrame(nil, frameMethod, 1, e.appendMethod))
}

func TestWirePassesGoodFrames(t *testing.T) {
	t.Parallel()
	frames := deliverFrames(t, publishing())
	got, s, err := through(t, frames)
	if err != nil || !bytes.Equal(got, frames) {
		t.Errorf("%d of %d bytes, %v", len(got), len(frames), err)
	}
	if len(s.methods) != 1 || s.methods[0] != 60<<16|60 || len(s.ids) != 1 || s.ids[0] != "id-1" {
		t.Errorf("observed %v and %v", s.methods, s.ids)
	}
}

func table(field []byte) []byte {
	return appendFrame(nil, frameHeader, 1, func(b []byte) []byte {
		b = append(b, 0, 60, 0, 0)
		b = binary.BigEndian.AppendUint64(b, 0)
		b = binary.BigEndian.AppendUint16(b, flagHeaders|flagMessageID)
		b = appendTable(b, func(b []byte) []byte { return append(append(b, 1, 'k'), field...) })
		return appendShort(b, "id-1")
	})
}

func method(class, number byte, args ...byte) []byte {
	return appendFrame(nil, frameMethod, 1, func(b []byte) []byte { return append(append(b, 0, class, 0, number), args...) })
}

func nest(kind byte, depth int) []byte {
	field := []byte{'V'}
	for range depth {
		inner := field
		field = appendSized([]byte{kind}, func(b []byte) []byte {
			if kind == 'F' {
				b = append(b, 1, 'k')
			}
			return append(b, inner...)
		})
	}
	return field
}

// TestS06_WireReplacesBadTables: headers that are not fit for the library are replaced by
// the reason, and the rest of the message is as it was.
func TestS06_WireReplacesBadTables(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		field  []byte
		reason string
	}{
		"tables":       {nest('F', 8), "nested deeper than 8"},
		"arrays":       {nest('A', 2000), "nested deeper than 8"},
		"type":         {[]byte{'?', 1}, "unknown type"},
		"length":       {[]byte{'S', 0xff, 0xff, 0xff, 0xff, 'x'}, "longer than the table"},
		"inner length": {[]byte{'F', 0, 0, 0, 3, 200, 'a', 'b'}, "longer than the table"},
		"fields":       {appendSized([]byte{'A'}, func(b []byte) []byte { return append(b, bytes.Repeat([]byte{'V'}, 5000)...) }), "more than 4096"},
	} {
		got, s, err := through(t, table(c.field))
		if err != nil || !bytes.Contains(got, []byte(badTableHeader)) || !bytes.Contains(got, []byte(c.reason)) {
			t.Errorf("%s: %q, %v", name, got, err)
			continue
		}
		h, err := readContentHeader(got[7 : len(got)-1])
		if err != nil || h.messageID != "id-1" || s.ids[0] != "id-1" {
			t.Errorf("%s: the rewritten header: %q, %v", name, h.messageID, err)
		}
	}
	good := table(nest('F', 7))
	if got, _, err := through(t, good); err != nil || !bytes.Equal(got, good) {
		t.Errorf("a table within the limit was changed: %v", err)
	}
}

// TestS22_WireRefusesBadFrames: what would cost memory or confuse the library ends the
// connection.
func TestS22_WireRefusesBadFrames(t *testing.T) {
	t.Parallel()
	huge := appendFrame(nil, frameHeader, 1, func(b []byte) []byte {
		b = append(b, 0, 60, 0, 0)
		b = binary.BigEndian.AppendUint64(b, 1<<60)
		return append(b, 0, 0)
	})
	for name, c := range map[string]struct {
		sent   []byte
		reason string
	}{
		"size":     {[]byte{frameBody, 0, 1, 0xff, 0xff, 0xff, 0xff}, "at most"},
		"end mark": {[]byte{frameBody, 0, 1, 0, 0, 0, 1, 'x', 0}, "end mark"},
		"type":     {[]byte{77, 0, 1, 0, 0, 0, 0, frameEnd}, "unknown type"},
		"protocol": {[]byte("AMQP\x00\x01\x00\x00"), "does not speak"},
		"method":   {[]byte{frameMethod, 0, 1, 0, 0, 0, 1, 0, frameEnd}, "shorter"},
		"header":   {[]byte{frameHeader, 0, 1, 0, 0, 0, 2, 0, 60, frameEnd}, "shorter"},
		"body":     {huge, "body of"},

		"publish":     {method(60, 40, 0, 0, 0, 0, 0), "60.40"},
		"challenge":   {method(10, 20, 0x7f, 0xff, 0xff, 0xff), "10.20"},
		"short close": {method(20, 40, 1, 0x94), "shorter"},
		"long ack":    {method(60, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0), "1 bytes too many"},
		"long string": {method(20, 11, 0x7f, 0xff, 0xff, 0xff), "shorter"},
		"properties":  {method(10, 10, append([]byte{0, 9}, table(nest('F', 9))[21:]...)...), "nested deeper than 8"},
	} {
		got, _, err := through(t, c.sent)
		if err == nil || !strings.Contains(err.Error(), c.reason) || len(got) != 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestS18_OnlyPersistentMandatoryMessages: what a broker would lose or drop in silence, or
// close the channel for, cannot be asked for.
func TestS18_OnlyPersistentMandatoryMessages(t *testing.T) {
	t.Parallel()
	p := publishing()
	p.Message.ExpiresAt = time.Now().Add(time.Hour)
	e, err := encode(p, "", frameMax)
	if err != nil {
		t.Fatal(err)
	}
	if method := e.appendMethod(nil); method[len(method)-1] != 1 {
		t.Error("not mandatory")
	}
	d := readDelivery(t, e.appendHeader(nil))
	if d.DeliveryMode != amqp.Persistent || d.Expiration != "" || d.Priority != 0 || d.ReplyTo != "" || d.UserId != "" {
		t.Errorf("%+v", d)
	}
}

// TestWireKeepsFramesApart: a publish never lands within a frame that the library
// writes in pieces.
func TestWireKeepsFramesApart(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	w := newWire(client, &seen{})
	read := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(server)
		read <- b
	}()
	library := appendFrame(nil, frameMethod, 9, func(b []byte) []byte { return append(b, make([]byte, 300)...) })
	publish := publishFrames(t)
	put := func() {
		if err := w.put(func(b []byte) []byte { return append(b, publish...) }); err != nil {
			t.Fatal(err)
		}
	}
	greeting := []byte("AMQP\x00\x00\x09\x01")
	want := append([]byte{}, greeting...)
	for _, part := range [][]byte{greeting[:3], greeting[3:]} {
		w.Write(part)
	}
	w.Write(library[:5])
	put()
	w.Write(library[5:200])
	put()
	w.Write(append(library[200:], library[:100]...))
	put()
	w.Write(library[100:])
	want = append(want, publish...)
	want = append(want, publish...)
	want = append(want, library...)
	want = append(want, publish...)
	want = append(want, library...)
	w.Close()
	<-w.written
	if got := <-read; !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, want %d, or in another order", len(got), len(want))
	}
}

// TestWireWritesNeverBlock: while the peer reads nothing, writing returns, waitRoom
// waits, and the end of the connection ends the waiting.
func TestWireWritesNeverBlock(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	w := newWire(client, &seen{})
	for i := range 3 {
		if err := w.put(func(b []byte) []byte { return append(b, make([]byte, roomBytes)...) }); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // the first part is on its way, and stays there
			if _, err := server.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	answer := make(chan bool)
	go func() { answer <- w.waitRoom() }()
	select {
	case <-answer:
		t.Fatal("there is no room, and still")
	case <-time.After(20 * time.Millisecond): // longer makes the test no stricter in principle
	}
	w.setBlocked(true)
	if <-answer {
		t.Error("a blocked connection has no room")
	}
	w.setBlocked(false)
	go func() { answer <- w.waitRoom() }()
	w.abort(errors.New("gone"))
	if <-answer {
		t.Error("an ended connection has no room")
	}
	<-w.written
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("a write on an ended connection succeeded")
	}
}

// TestS22_WireEndsWhenTheLibraryStops: a library that takes no more frames is noticed, and
// one that waits for frames is left alone.
func TestS22_WireEndsWhenTheLibraryStops(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	w := newWire(client, &seen{})
	defer func() { <-w.written }()
	go server.Write([]byte{frameHeartbeat, 0, 0, 0, 0, 0, 0, frameEnd}) // an error shows below
	if _, err := io.ReadFull(w, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	w.look()
	reading := make(chan error)
	go func() {
		_, err := w.Read(make([]byte, 1))
		reading <- err
	}()
	for w.reads.Load()%2 == 0 {
		runtime.Gosched() // nothing tells that Read has begun
	}
	w.look()
	w.look()
	if err := w.failure(); err != nil {
		t.Fatalf("the library waits, and %v", err)
	}
	go server.Write([]byte{frameHeartbeat, 0, 0, 0, 0, 0, 0, frameEnd})
	if err := <-reading; err != nil {
		t.Fatal(err)
	}
	w.look()
	w.look()
	if err := w.failure(); !errors.Is(err, errUnread) {
		t.Errorf("the library has stopped, and %v", err)
	}
}
