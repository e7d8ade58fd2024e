package rabbitmq

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

func benchPublishing() *outlast.Publishing {
	p := publishing()
	m := p.Message
	m.ID, m.CorrelationID, m.Envelope.Key = outlast.NewID(), outlast.NewID(), "order-1234"
	m.EnqueuedAt, m.Headers = time.Now(), nil
	m.Body = []byte(strings.Repeat("x", 256))
	return p
}

// BenchmarkEncodeFrames turns a message into the frames of its publish.
func BenchmarkEncodeFrames(b *testing.B) {
	p := benchPublishing()
	var frames []byte
	b.ReportAllocs()
	for b.Loop() {
		e, err := encode(p, "", frameMax)
		if err != nil {
			b.Fatal(err)
		}
		frames = e.appendTo(frames[:0], 1, frameMax)
	}
	b.SetBytes(int64(len(frames)))
}

// replay is a connection that delivers the same bytes a number of times.
type replay struct {
	net.Conn
	sent  []byte
	times int
	r     bytes.Reader
}

func (c *replay) Read(p []byte) (int, error) {
	if c.r.Len() == 0 {
		if c.times == 0 {
			return 0, io.EOF
		}
		c.times--
		c.r.Reset(c.sent)
	}
	return c.r.Read(p)
}

// BenchmarkFrameFilter checks what the broker sends before the library reads it. One
// operation is one delivery of 256 bytes: its method, header and body.
func BenchmarkFrameFilter(b *testing.B) {
	client, server := net.Pipe()
	defer server.Close()
	frames := deliverFrames(b, benchPublishing())
	w := newWire(&replay{Conn: client, sent: frames, times: b.N}, &nobody{})
	b.SetBytes(int64(len(frames)))
	b.ReportAllocs()
	b.ResetTimer()
	n, err := io.Copy(io.Discard, struct{ io.Reader }{w})
	if err != nil || n != int64(len(frames))*int64(b.N) {
		b.Fatalf("%d bytes, %v", n, err)
	}
	w.abort(errWireClosed)
	<-w.written
}

// nobody observes nothing.
type nobody struct{}

func (*nobody) method(uint16, uint16, uint16, []byte) {}
func (*nobody) header(uint16, contentHeader)          {}

// BenchmarkDecode makes a message of a delivery.
func BenchmarkDecode(b *testing.B) {
	m := benchPublishing().Message
	d := &amqp.Delivery{MessageId: m.ID, CorrelationId: m.CorrelationID, Type: m.Type, AppId: m.Source, Body: m.Body,
		ContentType: "application/json", Timestamp: m.EnqueuedAt, RoutingKey: "order.placed.v1.1", Headers: amqp.Table{}}
	for _, h := range outlast.EncodeHeaders(m) {
		d.Headers[h.Name] = h.Value
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(d, nil); err != nil {
			b.Fatal(err)
		}
	}
}
