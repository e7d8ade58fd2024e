package fakebroker

import "encoding/binary"

// Kinds of frames.
const (
	KindMethod    = 1
	KindHeader    = 2
	KindBody      = 3
	KindHeartbeat = 8
)

// Frame returns the bytes of one frame.
func Frame(kind byte, channel uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), 0xCE)
}

// Method returns the bytes of a method frame.
func Method(channel, class, method uint16, fields ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, class)
	b = binary.BigEndian.AppendUint16(b, method)
	for _, f := range fields {
		b = append(b, f...)
	}
	return Frame(KindMethod, channel, b)
}

// Octet, Short, Long, LongLong, ShortText, LongText and Table are the fields of methods.
func Octet(n byte) []byte           { return []byte{n} }
func Short(n uint16) []byte         { return binary.BigEndian.AppendUint16(nil, n) }
func Long(n uint32) []byte          { return binary.BigEndian.AppendUint32(nil, n) }
func LongLong(n uint64) []byte      { return binary.BigEndian.AppendUint64(nil, n) }
func ShortText(s string) []byte     { return append([]byte{byte(len(s))}, s...) }
func LongText(s string) []byte      { return append(Long(uint32(len(s))), s...) }
func Table(fields ...[]byte) []byte { return LongText(string(concat(fields))) }

// Field is one entry of a table: the kind is its type's letter, and the value as it stands
// on the wire.
func Field(name string, kind byte, value []byte) []byte {
	return append(append(ShortText(name), kind), value...)
}

func concat(parts [][]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// Properties returns the payload of a content header with a table of headers and a
// message id.
func Properties(size uint64, id string, fields ...[]byte) []byte {
	b := append([]byte{0, 60, 0, 0}, LongLong(size)...)
	b = append(b, 0x20, 0x80) // headers, message id
	return append(append(b, Table(fields...)...), ShortText(id)...)
}

// reader takes fields off a payload. After the first that does not fit it gives zeros.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.b, r.failed = nil, true
		return make([]byte, min(n, 8))
	}
	field := r.b[:n]
	r.b = r.b[n:]
	return field
}

func (r *reader) octet() byte       { return r.take(1)[0] }
func (r *reader) short() uint16     { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) long() uint32      { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) longlong() uint64  { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) shorttext() string { return string(r.take(int(r.octet()))) }

// messageID finds the message id in the payload of a content header, and its body's size.
func messageID(payload []byte) (id string, size uint64, ok bool) {
	r := reader{b: payload}
	r.long()
	size = r.longlong()
	flags := r.short()
	for _, property := range []struct {
		flag uint16
		skip func()
	}{
		{0x8000, func() { r.shorttext() }}, {0x4000, func() { r.shorttext() }}, {0x2000, func() { r.take(int(r.long())) }},
		{0x1000, func() { r.octet() }}, {0x0800, func() { r.octet() }},
		{0x0400, func() { r.shorttext() }}, {0x0200, func() { r.shorttext() }}, {0x0100, func() { r.shorttext() }},
		{0x0080, func() { id = r.shorttext() }},
	} {
		if flags&property.flag != 0 {
			property.skip()
		}
	}
	return id, size, !r.failed
}
