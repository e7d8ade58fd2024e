package fakebroker_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/fakebroker"
)

// head is a frame header that announces more than comes.
func head(kind byte, channel uint16, size uint32) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, channel)
	return binary.BigEndian.AppendUint32(b, size)
}

func deep(depth int) []byte {
	value := []byte{'V'}
	for range depth {
		value = append([]byte{'A'}, fakebroker.LongText(string(value))...)
	}
	return append(fakebroker.ShortText("k"), value...)
}

// hostile is what a broken or malicious server may send to a client that is connected and
// has a channel 1.
var hostile = map[string][]byte{
	"negative length":       head(fakebroker.KindBody, 1, 0xffff_ffff),
	"huge length":           head(fakebroker.KindMethod, 0, 0x7fff_ffff),
	"more than frame_max":   fakebroker.Frame(fakebroker.KindBody, 1, make([]byte, 200_000)),
	"unknown frame":         fakebroker.Frame(9, 0, nil),
	"no end mark":           {1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 61, 0},
	"huge body":             fakebroker.Frame(fakebroker.KindHeader, 1, fakebroker.Properties(1<<60, "x")),
	"negative body":         fakebroker.Frame(fakebroker.KindHeader, 1, fakebroker.Properties(1<<63, "x")),
	"body of nothing":       fakebroker.Frame(fakebroker.KindBody, 1, []byte("x")),
	"content on channel 0":  fakebroker.Frame(fakebroker.KindHeader, 0, fakebroker.Properties(1, "x")),
	"unknown channel":       fakebroker.Method(77, 60, 80, fakebroker.LongLong(1), fakebroker.Octet(1)),
	"unknown method":        fakebroker.Method(1, 99, 99),
	"a client's method":     fakebroker.Method(1, 50, 10, fakebroker.Short(0), fakebroker.ShortText("q"), fakebroker.Octet(0), fakebroker.Table(deep(200))),
	"endless challenge":     fakebroker.Method(0, 10, 20, fakebroker.Long(0x7fff_ffff)),
	"second greeting":       fakebroker.Method(0, 10, 10, fakebroker.Octet(0), fakebroker.Octet(9), fakebroker.Table(deep(20)), fakebroker.LongText(""), fakebroker.LongText("")),
	"short method":          fakebroker.Method(1, 60, 80, fakebroker.Long(1)),
	"long method":           fakebroker.Method(1, 60, 80, fakebroker.LongLong(1), fakebroker.Octet(0), fakebroker.Octet(0)),
	"one byte of a method":  fakebroker.Frame(fakebroker.KindMethod, 1, []byte{0}),
	"heartbeat with a body": fakebroker.Frame(fakebroker.KindHeartbeat, 0, []byte("x")),
	"heartbeat elsewhere":   fakebroker.Frame(fakebroker.KindHeartbeat, 1, nil),
	"return without header": fakebroker.Method(1, 60, 50, fakebroker.Short(312), fakebroker.ShortText("x"), fakebroker.ShortText("e"), fakebroker.ShortText("k")),
	"foreign return": append(fakebroker.Method(1, 60, 50, fakebroker.Short(312), fakebroker.ShortText("x"), fakebroker.ShortText("e"), fakebroker.ShortText("k")),
		fakebroker.Frame(fakebroker.KindHeader, 1, fakebroker.Properties(0, "stranger"))...),
	"foreign delivery": append(fakebroker.Method(1, 60, 60, fakebroker.ShortText("nobody"), fakebroker.LongLong(1), fakebroker.Octet(0), fakebroker.ShortText(""), fakebroker.ShortText("")),
		fakebroker.Frame(fakebroker.KindHeader, 1, fakebroker.Properties(0, "x", deep(200)))...),
	"confirm of the future": fakebroker.Method(1, 60, 80, fakebroker.LongLong(1<<63), fakebroker.Octet(1)),
	"unasked answer":        fakebroker.Method(1, 50, 11, fakebroker.ShortText("q"), fakebroker.Long(0), fakebroker.Long(0)),
	"unasked close":         fakebroker.Method(1, 20, 41),
	"unasked end":           fakebroker.Method(0, 10, 51),
	"the other protocol":    []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
	"another version":       []byte("AMQP\x00\x01\x00\x00"),
	"zeros":                 make([]byte, 4096),
}

// memoryCap is what a connection that gets something hostile may allocate: some frames,
// buffers of a connection, and what else the test does.
const memoryCap = 32 << 20

// TestS22_HostileFrames: none of them makes the client panic, take memory for what was only
// announced, or confirm what was not; and when the broker is itself again, so is the client.
func TestS22_HostileFrames(t *testing.T) { // not parallel: it measures memory
	for name, frames := range hostile {
		t.Run(name, func(t *testing.T) { survives(t, frames) })
	}
}

// survives sends bytes to the first connection in place of a confirm.
func survives(t failer, frames []byte) {
	server, err := fakebroker.Start(fakebroker.Script{Heartbeat: 2, Published: func(ch *fakebroker.Channel, p fakebroker.Publish) {
		if ch.Conn.Number() > 1 || p.ID != "victim-0" {
			ch.Ack(p.Tag, false)
			return
		}
		ch.Send(frames)
		ch.Conn.Cut() // whatever the client made of it
	}})
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer server.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkUp)
	victim := publishings("victim", 1)
	s.Send(0, victim)
	s.resolved(victim)
	s.once(victim, outlast.OutcomeUnknown, outlast.OutcomeLaneError)
	s.link(outlast.LinkUp)
	s.delivers()
	s.stop()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > memoryCap {
		t.Fatalf("%d bytes were allocated", took)
	}
}

// TestS22_AnyFrames: as TestS22_HostileFrames, with frames of any kind, method and content.
func TestS22_AnyFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sent []byte
		for range rapid.IntRange(1, 6).Draw(t, "frames") {
			channel := uint16(rapid.IntRange(0, 2).Draw(t, "channel"))
			payload := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "payload")
			if rapid.Bool().Draw(t, "method") {
				class := rapid.SampledFrom([]byte{10, 20, 40, 50, 60, 85}).Draw(t, "class")
				method := rapid.SampledFrom([]byte{10, 11, 20, 21, 30, 31, 40, 41, 50, 51, 60, 61, 70, 71, 72, 80, 111, 120}).Draw(t, "number")
				if class == 60 && method == 80 {
					method = 120 // a confirm would be believed
				}
				payload = append([]byte{0, class, 0, method}, payload...)
			}
			kind := byte(rapid.SampledFrom([]int{1, 1, 2, 3, 8, 4}).Draw(t, "kind"))
			sent = append(sent, fakebroker.Frame(kind, channel, payload)...)
		}
		survivesAny(t, sent)
	})
}

// survivesAny is survives where the bytes may be a refusal of the message.
func survivesAny(t *rapid.T, frames []byte) {
	server, err := fakebroker.Start(fakebroker.Script{Heartbeat: 2, Published: func(ch *fakebroker.Channel, p fakebroker.Publish) {
		if ch.Conn.Number() > 1 || p.ID != "victim-0" {
			ch.Ack(p.Tag, false)
			return
		}
		ch.Send(frames)
		ch.Conn.Cut()
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkUp)
	victim := publishings("victim", 1)
	s.Send(0, victim)
	s.resolved(victim)
	s.once(victim, outlast.OutcomeUnknown, outlast.OutcomeLaneError, outlast.OutcomeNacked, outlast.OutcomeUnroutable)
	s.link(outlast.LinkUp)
	s.delivers()
}

// TestS22_HostileGreetings: before anything is negotiated nothing is believed either, and
// the next connection works.
func TestS22_HostileGreetings(t *testing.T) {
	start := func(properties ...[]byte) []byte {
		return fakebroker.Method(0, 10, 10, fakebroker.Octet(0), fakebroker.Octet(9), fakebroker.Table(properties...), fakebroker.LongText("PLAIN"), fakebroker.LongText("en_US"))
	}
	for name, hello := range map[string][]byte{
		"junk":              bytes.Repeat([]byte{0xff}, 1000),
		"negative length":   head(fakebroker.KindMethod, 0, 0xffff_ffff),
		"large frame":       fakebroker.Frame(fakebroker.KindMethod, 0, make([]byte, 120_000)),
		"deep properties":   start(deep(20)),
		"deeper properties": start(deep(500)),
		"no mechanism":      fakebroker.Method(0, 10, 10, fakebroker.Octet(0), fakebroker.Octet(9), fakebroker.Table(), fakebroker.LongText(""), fakebroker.LongText("")),
		"old version":       fakebroker.Method(0, 10, 10, fakebroker.Octet(8), fakebroker.Octet(0), fakebroker.Table(), fakebroker.LongText("PLAIN"), fakebroker.LongText("en_US")),
		"open before tune":  append(start(), fakebroker.Method(0, 10, 41, fakebroker.ShortText(""))...),
		"a confirm":         fakebroker.Method(1, 60, 80, fakebroker.LongLong(1), fakebroker.Octet(1)),
		"a delivery": append(fakebroker.Method(1, 60, 60, fakebroker.ShortText("c"), fakebroker.LongLong(1), fakebroker.Octet(0), fakebroker.ShortText(""), fakebroker.ShortText("")),
			fakebroker.Frame(fakebroker.KindHeader, 1, fakebroker.Properties(1<<62, "x"))...),
		"close": fakebroker.Method(0, 10, 50, fakebroker.Short(320), fakebroker.ShortText("CONNECTION_FORCED \x1b[31m"), fakebroker.Short(0), fakebroker.Short(0)),
		"http":  []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			server, err := fakebroker.Start(fakebroker.Script{
				Hello: func(connection int) []byte {
					if connection > 1 {
						return nil
					}
					return hello
				},
				CutAfter: func(connection int) int {
					if connection > 1 {
						return 0
					}
					return len(hello)
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s := send(t, broker(server.URL()))
			defer s.stop()
			s.link(outlast.LinkUp)
			s.delivers()
			s.stop()
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > memoryCap {
				t.Errorf("%d bytes were allocated", took)
			}
			if server.Accepted() < 2 {
				t.Error("the greeting was believed")
			}
			for _, l := range s.links {
				if outlast.CleanErrorText(l.Reason) != l.Reason {
					t.Errorf("a reason that is not fit to print: %q", l.Reason)
				}
			}
		})
	}
}

// TestS22_TinyFrameMax: a frame_max below AMQP's least neither breaks a message into
// thousands of frames nor makes ours impossible.
func TestS22_TinyFrameMax(t *testing.T) {
	t.Parallel()
	for _, frameMax := range []uint32{1, 8, 100, 4095, 1 << 31} {
		t.Run(fmt.Sprint(frameMax), func(t *testing.T) {
			t.Parallel()
			server, err := fakebroker.Start(fakebroker.Script{FrameMax: frameMax})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			s := send(t, broker(server.URL()))
			defer s.stop()
			s.link(outlast.LinkUp)
			ps := publishings("m", 1)
			ps[0].Message.Body = []byte(strings.Repeat("x", 10_000))
			s.Send(0, ps)
			s.resolved(ps)
			s.once(ps, outlast.OutcomeConfirmed)
		})
	}
}

// TestF81_SilenceIsNoticed: a broker that withholds its heartbeats is left, whatever
// the socket says.
func TestF81_SilenceIsNoticed(t *testing.T) {
	t.Parallel()
	server := fakebroker.New(t, fakebroker.Script{Heartbeat: 1, Published: func(ch *fakebroker.Channel, p fakebroker.Publish) {
		if ch.Conn.Number() > 1 {
			ch.Ack(p.Tag, false)
		}
	}})
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkUp)
	ps := publishings("m", 3)
	s.Send(0, ps)
	s.resolved(ps)
	s.once(ps, outlast.OutcomeUnknown)
	s.delivers()
}
