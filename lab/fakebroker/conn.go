package fakebroker

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// Conn is one connection of a client.
type Conn struct {
	server   *Server
	socket   net.Conn
	number   int
	channels map[uint16]*Channel // reading goroutine only

	mu   sync.Mutex // held while writing
	cut  bool
	left int // bytes until the cut
}

// Number counts connections from 1.
func (c *Conn) Number() int { return c.number }

// Send writes raw bytes, which need not be frames. It is nothing when the connection has
// ended.
func (c *Conn) Send(parts ...[]byte) {
	b := concat(parts)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		if len(b) >= c.left {
			b = b[:c.left]
			defer c.socket.Close()
		}
		c.left -= len(b)
	}
	_, _ = c.socket.Write(b) // the reading side finds out
}

// Cut ends the connection without a word.
func (c *Conn) Cut() { c.socket.Close() }

// Block and Unblock tell of a resource alarm.
func (c *Conn) Block(reason string) { c.Send(Method(0, 10, 60, ShortText(reason))) }
func (c *Conn) Unblock()            { c.Send(Method(0, 10, 61)) }

// Close ends the connection with a reason.
func (c *Conn) Close(code uint16, text string) {
	c.Send(Method(0, 10, 50, Short(code), ShortText(text), Short(0), Short(0)))
}

func (c *Conn) serve() {
	in := bufio.NewReader(c.socket)
	greeting := make([]byte, 8)
	if _, err := io.ReadFull(in, greeting); err != nil {
		return
	}
	if string(greeting) != "AMQP\x00\x00\x09\x01" {
		c.server.violation("greeting %q", greeting)
		return
	}
	hello := Method(0, 10, 10, Octet(0), Octet(9), Table(), LongText("PLAIN EXTERNAL"), LongText("en_US"))
	if f := c.server.script.Hello; f != nil {
		if other := f(c.number); other != nil {
			hello = other
		}
	}
	c.Send(hello)
	for {
		head := make([]byte, 7)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(head[3:])
		if size > c.server.script.FrameMax-8 && size > 4088 {
			c.server.violation("a frame of %d bytes", size)
			return
		}
		payload := make([]byte, size+1)
		if _, err := io.ReadFull(in, payload); err != nil {
			return
		}
		if payload[size] != 0xCE {
			c.server.violation("a frame without its end mark")
			return
		}
		if !c.frame(head[0], binary.BigEndian.Uint16(head[1:]), payload[:size]) {
			return
		}
	}
}

// frame returns false at the end of the connection.
func (c *Conn) frame(kind byte, number uint16, payload []byte) bool {
	ch := c.channels[number]
	switch kind {
	case KindHeartbeat:
		return true
	case KindMethod:
		r := &reader{b: payload}
		class, method := r.short(), r.short()
		if ch == nil {
			ch = &Channel{Conn: c, number: number}
			c.channels[number] = ch
		}
		if f := c.server.script.Instead; f != nil && f(ch, class, method) {
			return true
		}
		if number == 0 {
			return c.connectionMethod(class, method)
		}
		if ch.publish != nil {
			c.server.violation("method %d.%d within a message on channel %d", class, method, number)
		}
		ch.method(class, method, r)
		if r.failed {
			c.server.violation("method %d.%d is too short", class, method)
		}
	case KindHeader, KindBody:
		if ch != nil && ch.closing.Load() {
			return true
		}
		if ch == nil || ch.publish == nil {
			c.server.violation("content without a publish on channel %d", number)
			return true
		}
		ch.content(kind, payload)
	default:
		c.server.violation("a frame of type %d", kind)
		return false
	}
	return true
}

func (c *Conn) connectionMethod(class, method uint16) bool {
	if class != 10 {
		c.server.violation("method %d.%d on channel 0", class, method)
		return false
	}
	switch method {
	case 11: // start-ok
		c.Send(Method(0, 10, 30, Short(0), Long(c.server.script.FrameMax), Short(c.server.script.Heartbeat)))
	case 31: // tune-ok
	case 40: // open
		c.Send(Method(0, 10, 41, ShortText("")))
		if f := c.server.script.Opened; f != nil {
			f(c)
		}
	case 50: // close
		c.Send(Method(0, 10, 51))
		return false
	case 51: // close-ok
		return false
	default:
		c.server.violation("method %d.%d", class, method)
	}
	return true
}
