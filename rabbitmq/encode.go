package rabbitmq

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/planted"
)

// encoded is a message that is known to fit: Publish frames can be appended from it
// without an error.
type encoded struct {
	p         *outlast.Publishing
	user      string // the broker vouches for it; empty for none
	headers   []outlast.WireHeader
	timestamp time.Time
}

// encode checks everything that the broker or the frame format would refuse. What
// it accepts, a channel takes; the size of the body alone is the broker's to judge.
func encode(p *outlast.Publishing, user string, maxFrame int) (encoded, error) {
	m := p.Message
	e := encoded{p: p, user: user, headers: outlast.EncodeHeaders(m), timestamp: m.EnqueuedAt}
	if e.timestamp.IsZero() {
		e.timestamp = m.Time
	}
	var bad problems
	size := 0
	text := func(field, s string) {
		size += 1 + len(s)
		if len(s) > 255 {
			bad.add(field, "at most 255 bytes", fmt.Sprintf("%d bytes", len(s)))
		}
	}
	text("content_type", contentType(m))
	text("correlation_id", m.CorrelationID)
	text("id", m.ID)
	text("type", m.Type)
	text("user_id", user)
	text("source", m.Source)
	size += 2 + 2 + 8 + 2 + 1 + 8 + 4 // class, weight, body size, flags, mode, timestamp, table size
	for _, h := range e.headers {
		text("header name", h.Name)
		size += 5 + len(h.Value)
		if strings.EqualFold(h.Name, "cc") || strings.EqualFold(h.Name, "bcc") {
			bad.add("header "+h.Name, "absent: the broker would send copies to any queue", "present")
		}
	}
	if size > maxFrame-frameOverhead {
		bad.add("headers", fmt.Sprintf("at most %d bytes with all properties, as the connection's frame_max", maxFrame-frameOverhead),
			fmt.Sprintf("%d bytes", size))
	}
	text("exchange", p.Exchange)
	text("routing_key", p.RoutingKey)
	if len(bad) > 0 {
		return encoded{}, &outlast.Error{Op: "publish " + m.Type, Code: outlast.CodeInvalid, Fields: bad}
	}
	return e, nil
}

func contentType(m *outlast.Message) string {
	if m.ContentType == "" {
		return "application/json"
	}
	return m.ContentType
}

// appendTo appends the frames of a persistent, mandatory publish.
func (e encoded) appendTo(b []byte, channel uint16, maxFrame int) []byte {
	b = appendFrame(b, frameMethod, channel, e.appendMethod)
	b = appendFrame(b, frameHeader, channel, e.appendHeader)
	for body := e.p.Message.Body; len(body) > 0; {
		n := min(len(body), maxFrame-frameOverhead)
		part := body[:n]
		b = appendFrame(b, frameBody, channel, func(b []byte) []byte { return append(b, part...) })
		body = body[n:]
	}
	return b
}

func (e encoded) appendMethod(b []byte) []byte {
	b = append(b, 0, 60, 0, 40, 0, 0)
	b = appendShort(b, e.p.Exchange)
	b = appendShort(b, e.p.RoutingKey)
	if planted.On(planted.NoMandatory) {
		return append(b, 0)
	}
	return append(b, 1) // mandatory
}

func (e encoded) appendHeader(b []byte) []byte {
	m := e.p.Message
	flags := uint16(flagContentType | flagHeaders | flagDeliveryMode | flagMessageID | flagType)
	if m.CorrelationID != "" {
		flags |= flagCorrelationID
	}
	if !e.timestamp.IsZero() {
		flags |= flagTimestamp
	}
	if e.user != "" {
		flags |= flagUserID
	}
	if m.Source != "" {
		flags |= flagAppID
	}
	b = append(b, 0, 60, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(len(m.Body)))
	b = binary.BigEndian.AppendUint16(b, flags)
	b = appendShort(b, contentType(m))
	b = appendTable(b, func(b []byte) []byte {
		for _, h := range e.headers {
			b = appendText(b, h.Name, h.Value)
		}
		return b
	})
	b = append(b, 2) // persistent
	if m.CorrelationID != "" {
		b = appendShort(b, m.CorrelationID)
	}
	b = appendShort(b, m.ID)
	if !e.timestamp.IsZero() {
		b = binary.BigEndian.AppendUint64(b, uint64(e.timestamp.Unix()))
	}
	b = appendShort(b, m.Type)
	if e.user != "" {
		b = appendShort(b, e.user)
	}
	if m.Source != "" {
		b = appendShort(b, m.Source)
	}
	return b
}

// appendConfirmSelect turns a channel to confirm mode. It asks for no answer: the
// broker handles a channel's frames in order.
func appendConfirmSelect(b []byte, channel uint16) []byte {
	return appendFrame(b, frameMethod, channel, func(b []byte) []byte { return append(b, 0, 85, 0, 10, 1) })
}

func appendFrame(b []byte, kind byte, channel uint16, payload func([]byte) []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, channel)
	return append(appendSized(b, payload), frameEnd)
}

func appendTable(b []byte, fields func([]byte) []byte) []byte { return appendSized(b, fields) }

func appendSized(b []byte, content func([]byte) []byte) []byte {
	at := len(b)
	b = content(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

func appendShort(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

func appendText(b []byte, name, value string) []byte {
	b = append(appendShort(b, name), 'S')
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	return append(b, value...)
}
