package outlast

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Names of the headers on every broker: CloudEvents 1.0 in binary mode, W3C trace
// context, and Outlast's own. The content type travels as the broker's own
// property where it has one.
const (
	headerSpecVersion   = "ce-specversion"
	headerID            = "ce-id"
	headerType          = "ce-type"
	headerSource        = "ce-source"
	headerTime          = "ce-time"
	headerSubject       = "ce-subject"
	headerDataSchema    = "ce-dataschema"
	headerKey           = "ce-partitionkey"
	headerCorrelation   = "ce-correlationid"
	headerCausation     = "ce-causationid"
	headerTraceParent   = "traceparent"
	headerTraceState    = "tracestate"
	headerKind          = "outlast-kind"
	headerEnqueuedAt    = "outlast-enqueued-at"
	headerExpiresAt     = "outlast-expires-at"
	headerSettledBefore = "outlast-settled-before"
)

// WireHeader is one header as it travels. Values are always text: numbers and
// times would otherwise change their width or precision on the way.
type WireHeader struct{ Name, Value string }

// EncodeHeaders returns the headers of a message for any broker: the envelope's,
// then the user's own in the order of their names. The body's content type is not
// among them.
func EncodeHeaders(m *Message) []WireHeader {
	h := make([]WireHeader, 0, 12+len(m.Headers))
	add := func(name, value string) {
		if value != "" {
			h = append(h, WireHeader{name, value})
		}
	}
	addTime := func(name string, t time.Time) {
		if !t.IsZero() {
			h = append(h, WireHeader{name, t.UTC().Format(time.RFC3339Nano)})
		}
	}
	add(headerSpecVersion, "1.0")
	add(headerID, m.ID)
	add(headerType, m.Type)
	add(headerSource, m.Source)
	if m.Time.IsZero() {
		addTime(headerTime, m.EnqueuedAt)
	} else {
		addTime(headerTime, m.Time)
	}
	add(headerSubject, m.Envelope.Subject)
	add(headerDataSchema, m.DataSchema)
	add(headerKey, m.Envelope.Key)
	add(headerCorrelation, m.CorrelationID)
	add(headerCausation, m.CausationID)
	add(headerTraceParent, m.TraceParent)
	add(headerTraceState, m.TraceState)
	if m.Kind != "" && m.Kind != KindEvent {
		add(headerKind, string(m.Kind))
	}
	addTime(headerEnqueuedAt, m.EnqueuedAt)
	addTime(headerExpiresAt, m.ExpiresAt)
	addTime(headerSettledBefore, m.SettledBefore)
	if len(m.Find) > 0 {
		add(headerFind, findText(m.Find))
	}
	if len(m.Show) > 0 {
		add(headerShow, showText(m.Show))
	}
	if m.Within > 0 {
		add(headerWithin, strconv.FormatInt(m.Within.Milliseconds(), 10))
	}
	if len(m.Headers) > 0 {
		names := make([]string, 0, len(m.Headers))
		for name := range m.Headers {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			h = append(h, WireHeader{name, m.Headers[name]})
		}
	}
	return h
}

// DecodeHeaders fills the envelope of m from received headers, whose values the
// adapter has turned into text (see WireText). Headers that are not ours become
// the user's. It returns an *[Error] that names every field that breaks a limit;
// m then holds what could be read, made safe to store and to show.
func DecodeHeaders(m *Message, headers []WireHeader) error {
	var bad fieldErrors
	headers = envelopeFirst(headers)
	if len(headers) > MaxHeaders+16 {
		bad.add("headers", fmt.Sprintf("at most %d", MaxHeaders), len(headers))
		headers = headers[:MaxHeaders+16]
	}
	size := 0
	for _, h := range headers {
		if size += len(h.Name) + len(h.Value); size > 2*MaxHeaderBytes {
			bad.add("headers", fmt.Sprintf("at most %d bytes in all", MaxHeaderBytes), "more")
			break
		}
		bad.decodeHeader(m, h)
	}
	bad.received(m)
	return bad.err("receive "+quoted(m.Type), "")
}

// envelopeFirst puts headers that are too many or too big in one order, in which those
// that name the message come first: the limits then cut off the same ones each time,
// and a redelivery of the message is known.
func envelopeFirst(headers []WireHeader) []WireHeader {
	size := 0
	for _, h := range headers {
		size += len(h.Name) + len(h.Value)
	}
	if len(headers) <= MaxHeaders+16 && size <= 2*MaxHeaderBytes {
		return headers
	}
	rank := func(h WireHeader) string {
		name := strings.ToLower(h.Name)
		if strings.HasPrefix(name, "ce-") || strings.HasPrefix(name, "outlast-") {
			return "0" + name
		}
		return "1" + name
	}
	sorted := slices.Clone(headers)
	slices.SortStableFunc(sorted, func(a, b WireHeader) int { return strings.Compare(rank(a), rank(b)) })
	return sorted
}

func (f *fieldErrors) decodeHeader(m *Message, h WireHeader) {
	text := func(dst *string, limit int) {
		if len(h.Value) > limit || !cleanText(h.Value) {
			f.text(h.Name, h.Value, limit)
			return
		}
		*dst = h.Value
	}
	instant := func(dst *time.Time) {
		t, err := time.Parse(time.RFC3339Nano, h.Value)
		t = t.UTC()
		if err != nil || t.Year() < 1 || t.Year() > 9999 { // an offset can lead out of the years that RFC 3339 has
			f.add(h.Name, "an RFC 3339 time", quoted(h.Value))
			return
		}
		*dst = t
	}
	switch strings.ToLower(h.Name) {
	case headerSpecVersion:
	case headerID:
		text(&m.ID, MaxAttribute)
	case headerType:
		text(&m.Type, MaxType)
	case headerSource:
		text(&m.Source, MaxAttribute)
	case headerTime:
		instant(&m.Time)
	case headerSubject:
		text(&m.Envelope.Subject, MaxAttribute)
	case headerDataSchema:
		text(&m.DataSchema, MaxAttribute)
	case headerKey:
		text(&m.Envelope.Key, MaxKey)
	case headerCorrelation:
		text(&m.CorrelationID, MaxAttribute)
	case headerCausation:
		text(&m.CausationID, MaxAttribute)
	case headerTraceParent, "ce-" + headerTraceParent:
		if len(h.Value) <= 55 && cleanText(h.Value) { // garbage in a trace is not the message's fault
			m.TraceParent = h.Value
		}
	case headerTraceState, "ce-" + headerTraceState:
		if len(h.Value) <= MaxTraceState && cleanText(h.Value) {
			m.TraceState = h.Value
		}
	case headerKind:
		if m.Kind = Kind(h.Value); m.Kind != KindEvent && m.Kind != KindCommand {
			f.add(h.Name, `"event" or "command"`, quoted(h.Value))
			m.Kind = ""
		}
	case headerEnqueuedAt:
		instant(&m.EnqueuedAt)
	case headerExpiresAt:
		instant(&m.ExpiresAt)
	case headerSettledBefore:
		instant(&m.SettledBefore)
	case headerFind: // what cannot be read there is not the message's fault
		m.Find = parseFind(h.Value)
	case headerShow:
		m.Show = parseShow(h.Value)
	case headerWithin:
		m.Within = parseWithin(h.Value)
	default:
		f.userHeader(m, h)
	}
}

// userHeader keeps a header that is not part of the envelope. Its name may be one
// that we would not write; it must only be safe to store and to show.
func (f *fieldErrors) userHeader(m *Message, h WireHeader) {
	if len(h.Name) > MaxHeaderName || !cleanText(h.Name) || h.Name == "" {
		f.add("header "+quoted(h.Name), fmt.Sprintf("named with 1 to %d bytes of valid UTF-8 without control characters", MaxHeaderName), quoted(h.Name))
		return
	}
	if !cleanText(h.Value) {
		f.add("header "+quoted(h.Name), "valid UTF-8 without control characters", quoted(h.Value))
		return
	}
	if m.Headers == nil {
		m.Headers = Headers{}
	}
	m.Headers[h.Name] = h.Value
}

// received checks what every received message must have.
func (f *fieldErrors) received(m *Message) {
	if m.Type != "" && !validName(m.Type, MaxType) {
		f.add(headerType, "letters, digits, '-', '_', in parts joined by '.'", quoted(m.Type))
	}
	if len(m.Body) > MaxBody {
		f.add("body", fmt.Sprintf("at most %d bytes", MaxBody), fmt.Sprintf("%d bytes", len(m.Body)))
	}
	if m.Kind == "" {
		m.Kind = KindEvent
	}
}

// WireText renders a header value of any broker's type as text: times as RFC 3339,
// bytes as they are, whole numbers exactly, and everything else as fmt prints it,
// cut to MaxHeaderBytes.
func WireText(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case []byte:
		return string(x)
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano)
	case nil:
		return ""
	}
	s := fmt.Sprint(v)
	if len(s) > MaxHeaderBytes {
		s = s[:MaxHeaderBytes]
	}
	return s
}
