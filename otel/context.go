package otel

import (
	"encoding/hex"

	"github.com/outlastmq/outlast"
	"go.opentelemetry.io/otel/trace"
)

// creation reads the context of the span that created a message. Anything that is not
// a W3C traceparent is no context: what a foreign producer wrote is not to be trusted.
func creation(m *outlast.Message) trace.SpanContext {
	p := m.TraceParent
	if len(p) != 55 || p[:3] != "00-" || p[35] != '-' || p[52] != '-' {
		return trace.SpanContext{}
	}
	var conf trace.SpanContextConfig
	var flags [1]byte
	for _, part := range []struct {
		to   []byte
		text string
	}{{conf.TraceID[:], p[3:35]}, {conf.SpanID[:], p[36:52]}, {flags[:], p[53:]}} {
		if !decodeHex(part.to, part.text) {
			return trace.SpanContext{}
		}
	}
	conf.TraceFlags = trace.TraceFlags(flags[0])
	if m.TraceState != "" {
		conf.TraceState, _ = trace.ParseTraceState(m.TraceState) // one that is no use is left out, as W3C says
	}
	conf.Remote = true
	return trace.NewSpanContext(conf)
}

// decodeHex accepts lower-case digits only, as W3C does.
func decodeHex(to []byte, text string) bool {
	digit := func(c byte) (byte, bool) {
		switch {
		case c >= '0' && c <= '9':
			return c - '0', true
		case c >= 'a' && c <= 'f':
			return c - 'a' + 10, true
		}
		return 0, false
	}
	for i := range to {
		hi, ok1 := digit(text[2*i])
		lo, ok2 := digit(text[2*i+1])
		if !ok1 || !ok2 {
			return false
		}
		to[i] = hi<<4 | lo
	}
	return true
}

// setCreation stores the context of the span that creates a message in it.
func setCreation(m *outlast.Message, sc trace.SpanContext) {
	if !sc.IsValid() {
		return
	}
	id, span := sc.TraceID(), sc.SpanID()
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, id[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, span[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, []byte{byte(sc.TraceFlags() & trace.FlagsSampled)})
	m.TraceParent = string(b)
	if state := sc.TraceState().String(); len(state) <= outlast.MaxTraceState {
		m.TraceState = state
	}
}
