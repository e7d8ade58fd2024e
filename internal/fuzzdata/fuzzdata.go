// Package fuzzdata makes texts and messages of the bytes that a fuzz target is given.
// It is for tests alone.
package fuzzdata

import (
	"time"

	"github.com/outlastmq/outlast"
)

// Texts takes a byte string apart: one byte of length, then the text, over and over.
// The last text may be shorter than announced.
type Texts struct{ rest []byte }

// Of returns the texts of the first kilobyte of data: longer inputs find nothing more, and
// slowly.
func Of(data []byte) *Texts { return &Texts{data[:min(len(data), 1024)]} }

// More reports whether a text is left.
func (t *Texts) More() bool { return len(t.rest) > 0 }

// Next returns the next text, and "" when none is left.
func (t *Texts) Next() string {
	if len(t.rest) == 0 {
		return ""
	}
	n := min(int(t.rest[0]), len(t.rest)-1)
	text := string(t.rest[1 : 1+n])
	t.rest = t.rest[1+n:]
	return text
}

// Byte returns the next byte by itself, and 0 when none is left.
func (t *Texts) Byte() byte {
	if len(t.rest) == 0 {
		return 0
	}
	b := t.rest[0]
	t.rest = t.rest[1:]
	return b
}

// Join is the inverse of Of, for seeds. Texts are cut to 255 bytes.
func Join(texts ...string) []byte {
	var data []byte
	for _, s := range texts {
		s = s[:min(len(s), 255)]
		data = append(append(data, byte(len(s))), s...)
	}
	return data
}

// Message fills every field of a message, most of them with no regard for the limits.
// The id is a UUID, and the type is what the limits ask for when the first text is empty.
func Message(data []byte) outlast.Message {
	t := Of(data)
	m := outlast.Message{Envelope: outlast.Envelope{ID: "018f4e9a-0000-7000-8000-000000000000", Type: "order.placed.v1"}}
	if s := t.Next(); s != "" {
		m.Type = s
	}
	if t.Byte()&1 != 0 {
		m.Kind = outlast.KindCommand
	}
	m.Source, m.Envelope.Subject, m.Envelope.Key = t.Next(), t.Next(), t.Next()
	m.ContentType, m.DataSchema = t.Next(), t.Next()
	m.CorrelationID, m.CausationID = t.Next(), t.Next()
	m.TraceParent, m.TraceState = t.Next(), t.Next()
	m.Body = []byte(t.Next())
	for _, at := range []*time.Time{&m.Time, &m.EnqueuedAt, &m.ExpiresAt, &m.SettledBefore} {
		if n := t.Byte(); n != 0 {
			*at = time.UnixMicro(int64(n) * 7_777_777_777_777).UTC() // to the year 2032
		}
	}
	for t.More() {
		if m.Headers == nil {
			m.Headers = outlast.Headers{}
		}
		m.Headers[t.Next()] = t.Next()
	}
	return m
}
