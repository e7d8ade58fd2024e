package rabbitmq

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Property flags of a content header, in the order of the fields.
const (
	flagContentType     = 0x8000
	flagContentEncoding = 0x4000
	flagHeaders         = 0x2000
	flagDeliveryMode    = 0x1000
	flagPriority        = 0x0800
	flagCorrelationID   = 0x0400
	flagReplyTo         = 0x0200
	flagExpiration      = 0x0100
	flagMessageID       = 0x0080
	flagTimestamp       = 0x0040
	flagType            = 0x0020
	flagUserID          = 0x0010
	flagAppID           = 0x0008
	flagClusterID       = 0x0004
)

const (
	maxTableDepth  = 8
	maxTableFields = 4096
	// maxBodySize is the most that any RabbitMQ can be set to accept.
	maxBodySize = 512 << 20
	// badTableHeader stands in for a header table that was not fit to be parsed.
	badTableHeader = "outlast-unreadable-headers"
)

var (
	errShortFrame = errors.New("the broker sent a frame that is shorter than its contents")
	errBadTable   = errors.New("unreadable header table")
)

// cursor reads the fields of a frame. After the first field that does not fit, all
// further ones read as zero and failed is set.
type cursor struct {
	b      []byte
	failed bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.b, c.failed = nil, true
		return nil
	}
	field := c.b[:n]
	c.b = c.b[n:]
	return field
}

func (c *cursor) octet() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) short() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) long() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) longlong() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) shortstr() []byte { return c.take(int(c.octet())) }
func (c *cursor) longstr() []byte  { return c.take(int(c.long())) }

// contentHeader is what we need of a content header.
type contentHeader struct {
	size      uint64
	messageID string

	before, after []byte // the payload around the header table
}

// readContentHeader checks a content header before the library parses it. With
// errBadTable all but the table is good.
func readContentHeader(payload []byte) (contentHeader, error) {
	var h contentHeader
	c := &cursor{b: payload}
	c.short() // class
	c.short() // weight
	h.size = c.longlong()
	flags := c.short()
	if h.size > maxBodySize {
		return h, fmt.Errorf("the broker announced a body of %d bytes; at most %d are accepted", h.size, maxBodySize)
	}
	if flags&flagContentType != 0 {
		c.shortstr()
	}
	if flags&flagContentEncoding != 0 {
		c.shortstr()
	}
	var tableErr error
	if flags&flagHeaders != 0 {
		h.before = payload[:len(payload)-len(c.b)]
		tableErr = checkTable(c.longstr(), c.failed)
		h.after = c.b
	}
	if flags&flagDeliveryMode != 0 {
		c.octet()
	}
	if flags&flagPriority != 0 {
		c.octet()
	}
	for _, flag := range []uint16{flagCorrelationID, flagReplyTo, flagExpiration} {
		if flags&flag != 0 {
			c.shortstr()
		}
	}
	if flags&flagMessageID != 0 {
		h.messageID = string(c.shortstr())
	}
	if flags&flagTimestamp != 0 {
		c.longlong()
	}
	for _, flag := range []uint16{flagType, flagUserID, flagAppID, flagClusterID} {
		if flags&flag != 0 {
			c.shortstr()
		}
	}
	if c.failed {
		return h, errShortFrame
	}
	if h.before != nil {
		h.after = h.after[:len(h.after)-len(c.b)] // what follows the last property is nobody's
	}
	return h, tableErr
}

func checkTable(table []byte, short bool) error {
	if short {
		return errShortFrame
	}
	c := tableCheck{cursor: cursor{b: table}}
	for len(c.b) > 0 {
		c.shortstr()
		c.value(1)
	}
	if c.failed {
		if c.reason == "" {
			c.reason = "a field is longer than the table"
		}
		return fmt.Errorf("%w: %s", errBadTable, c.reason)
	}
	return nil
}

type tableCheck struct {
	cursor
	fields int
	reason string
}

func (c *tableCheck) fail(reason string) {
	if c.reason == "" {
		c.reason = reason
	}
	c.b, c.failed = nil, true
}

// value walks over one value. The types are those that the library can read.
func (c *tableCheck) value(depth int) {
	if c.fields++; c.fields > maxTableFields {
		c.fail(fmt.Sprintf("more than %d fields", maxTableFields))
		return
	}
	kind := c.octet()
	if c.failed {
		return
	}
	switch kind {
	case 't', 'b', 'B':
		c.take(1)
	case 's', 'u':
		c.take(2)
	case 'I', 'i', 'f':
		c.take(4)
	case 'l', 'd', 'T':
		c.take(8)
	case 'D':
		c.take(5)
	case 'S', 'x':
		c.longstr()
	case 'V':
	case 'A', 'F':
		c.nested(kind, c.longstr(), depth+1)
	default:
		c.fail(fmt.Sprintf("a field of the unknown type %q", kind))
	}
}

func (c *tableCheck) nested(kind byte, content []byte, depth int) {
	if c.failed {
		return
	}
	if depth > maxTableDepth {
		c.fail(fmt.Sprintf("nested deeper than %d", maxTableDepth))
		return
	}
	after := c.b
	c.b = content
	for len(c.b) > 0 {
		if kind == 'F' {
			c.shortstr()
		}
		c.value(depth)
	}
	if !c.failed {
		c.b = after
	}
}

// withoutTable returns the frame with a header table of one text in place of the
// one that cannot be parsed: so the message can be delivered, looked at, and put
// away, where otherwise it would end every connection that it is delivered to.
func (h contentHeader) withoutTable(frame []byte, reason error) []byte {
	text := reason.Error()
	payload := make([]byte, 0, len(h.before)+len(h.after)+64+len(text))
	payload = append(payload, h.before...)
	payload = appendTable(payload, func(b []byte) []byte { return appendText(b, badTableHeader, text) })
	payload = append(payload, h.after...)
	out := make([]byte, 0, len(payload)+frameOverhead)
	out = append(out, frame[:3]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(payload)))
	out = append(out, payload...)
	return append(out, frameEnd)
}
