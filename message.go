package outlast

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Kind is what a message is to those who get it.
type Kind string

const (
	// KindEvent is a fact that any number of groups may hear.
	KindEvent Kind = "event"
	// KindCommand asks one group to do something.
	KindCommand Kind = "command"
)

// Limits of a message, checked at enqueue and again at delivery. The tables
// enforce the same limits by CHECK constraints for writers in other languages.
const (
	DefaultMaxBody   = 1 << 20  // bytes of a body, unless OutboxConfig.MaxBody says more
	MaxBody          = 16 << 20 // bytes of a body, whatever the setting
	MaxHeaderBytes   = 32 << 10 // names and values of all headers together
	MaxHeaders       = 128      // number of headers
	MaxHeaderName    = 128      // bytes of one header's name
	MaxKey           = 255      // bytes of an ordering key
	MaxType          = 200      // bytes of a type: with its bucket it stays a short string of AMQP
	MaxAttribute     = 255      // bytes of a subject, correlation id, causation id, schema, content type
	MaxTraceState    = 512      // bytes of a tracestate, as W3C Trace Context advises
	MaxFind          = 8        // business keys of a message
	MaxShow          = 32       // fields of a body that are not masked
	MaxDelay         = 366 * 24 * time.Hour
	Buckets          = 64 // public and fixed for ever; see Bucket
	maxErrorTextSize = 4 << 10
	maxShowBytes     = 1 << 10
)

// Headers are what a user adds to a message: short texts by name. Names are
// letters, digits, '-', '_' and '.', and do not start with "ce-", "outlast-" or
// "x-"; values are valid UTF-8 without control characters.
type Headers map[string]string

// Envelope is everything about a message but its body. The names follow
// CloudEvents 1.0.
type Envelope struct {
	// ID is a UUID, by default version 7. With Source it names the message for ever.
	// A message from a foreign producer may have any text as its id.
	ID string `json:"id"`
	// Type is the contract's name with its major version: "order.placed.v1".
	Type string `json:"type"`
	// Kind is event or command. Default KindEvent.
	Kind Kind `json:"kind,omitempty"`
	// Source is the service that wrote the message. The relay sets it.
	Source string `json:"source,omitempty"`
	// Subject is free text about what the message concerns.
	Subject string `json:"subject,omitempty"`
	// Key is the ordering key: messages of one key take effect in the order in which
	// their transactions followed each other. Empty means no order.
	Key string `json:"key,omitempty"`
	// Time is when the fact occurred; zero means the time of the enqueue.
	Time time.Time `json:"time,omitzero"`
	// ContentType of the body; empty means application/json.
	ContentType string `json:"content_type,omitempty"`
	// DataSchema is a URI of the body's schema.
	DataSchema string `json:"data_schema,omitempty"`
	// CorrelationID is the flow that the message belongs to. A message published
	// while another one is being handled inherits its flow; otherwise it starts one
	// with its own id.
	CorrelationID string `json:"correlation_id,omitempty"`
	// CausationID is the id of the message whose handling wrote this one.
	CausationID string `json:"causation_id,omitempty"`
	// TraceParent and TraceState are the W3C trace context of the creation.
	TraceParent string `json:"trace_parent,omitempty"`
	TraceState  string `json:"trace_state,omitempty"`
	// Headers are the user's own.
	Headers Headers `json:"headers,omitempty"`

	// EnqueuedAt is the producer's database clock at the enqueue (at the release, for
	// a message with a due time). Zero for messages of foreign producers.
	EnqueuedAt time.Time `json:"enqueued_at,omitzero"`
	// ExpiresAt is when the message loses its worth, by the producer's database
	// clock. Zero means never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// Find holds the business keys that the message can be found by: the fields of its
	// contract tagged `outlast:"find"`, by name. At most MaxFind, values up to 255 bytes.
	Find map[string]string `json:"find,omitempty"`
	// Show holds the paths of the fields of the body that people may see who may look at
	// the message: those of its contract tagged `outlast:"show"`. At most MaxShow, 1 KiB.
	// See [Envelope.Shown].
	Show []string `json:"show,omitempty"`
	// Within is how soon after its enqueue every group should have handled it, in whole
	// milliseconds; zero means that the contract does not say.
	Within time.Duration `json:"within_ns,omitempty"`
	// SettledBefore is the producer's word at the time of sending: nothing enqueued
	// before it is unsettled. The receiver's inbox may forget what is older.
	SettledBefore time.Time `json:"settled_before,omitzero"`
}

// Message is an envelope with its body and with what the relay needs to place it.
// Make one with [Contract.Message], or fill it by hand for [Outbox.Publish].
type Message struct {
	Envelope
	Body []byte `json:"-"`

	// Exchange and RoutingKey override the conventional place. They are for foreign
	// receivers; empty means the convention (see [Message.Route]).
	Exchange   string `json:"exchange,omitempty"`
	RoutingKey string `json:"routing_key,omitempty"`
	// MayBeUnheard settles the message even when no queue is bound to it.
	MayBeUnheard bool `json:"may_be_unheard,omitempty"`
	// Delay keeps the message back for that long after the enqueue, by the
	// database's clock; Due until that instant. At most one of them is set.
	Delay time.Duration `json:"-"`
	Due   time.Time     `json:"due,omitzero"`
	// Lifetime ends the message's worth that long after the enqueue. Zero means never.
	Lifetime time.Duration `json:"-"`

	err error // a failure to encode, reported by Publish
}

// MessageOption changes one message at the place where it is made.
type MessageOption func(*Message)

// After keeps the message back for d from the enqueue, by the database's clock.
// Range 0 to one year.
func After(d time.Duration) MessageOption { return func(m *Message) { m.Delay = d } }

// At keeps the message back until t, judged by the database's clock. A time in
// the past sends it at once. [Outbox.Withdraw] cancels it by id until then.
func At(t time.Time) MessageOption { return func(m *Message) { m.Due = t } }

// ExpiresIn drops the message, counted, when it was not handled within d of its enqueue: the
// relay judges by the database's clock, a consumer by its own, which must differ by less than d.
func ExpiresIn(d time.Duration) MessageOption { return func(m *Message) { m.Lifetime = d } }

// Header adds one header.
func Header(name, value string) MessageOption {
	return func(m *Message) {
		if m.Headers == nil {
			m.Headers = Headers{}
		}
		m.Headers[name] = value
	}
}

// ID gives the message an id of the caller's own, a UUID: a business transaction
// that is run again after an unknown COMMIT then takes effect once.
func ID(id string) MessageOption { return func(m *Message) { m.ID = id } }

// Key gives the message an ordering key other than its contract's key field.
func Key(key string) MessageOption { return func(m *Message) { m.Envelope.Key = key } }

// Subject sets the CloudEvents subject.
func Subject(s string) MessageOption { return func(m *Message) { m.Envelope.Subject = s } }

// Correlation puts the message into a flow of the caller's choice.
func Correlation(id string) MessageOption { return func(m *Message) { m.CorrelationID = id } }

// NewID returns a new UUIDv7.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// Bucket returns the public bucket (0..63) of a message: FNV-1a, 32 bit, of the
// ordering key, or of the id when there is none, modulo 64. It is the same in
// every language and never changes.
func Bucket(key, id string) int {
	if key == "" {
		key = id
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum32() % Buckets)
}

// Route is the place that a message is published to.
type Route struct {
	Exchange string
	// Type is the routing key without its bucket. With Exchange it names what
	// delivery problems have in common.
	Type string
}

func (r Route) String() string { return r.Exchange + "/" + r.Type }

// Conventional exchanges.
const (
	EventExchange   = "outlast.events"
	CommandExchange = "outlast.commands"
)

// ExchangeOf returns the conventional exchange of a kind.
func ExchangeOf(k Kind) string {
	if k == KindCommand {
		return CommandExchange
	}
	return EventExchange
}

// Route returns where the message goes: its own Exchange and RoutingKey, or the
// convention.
func (m *Message) Route() Route {
	r := Route{Exchange: m.Exchange, Type: m.RoutingKey}
	if r.Exchange == "" && r.Type == "" {
		r.Exchange = ExchangeOf(m.Kind)
	}
	if r.Type == "" {
		r.Type = m.Type
	}
	return r
}

// Address returns the full routing key: the type and the bucket, or the
// message's own RoutingKey as it is.
func (m *Message) Address() string {
	if m.RoutingKey != "" {
		return m.RoutingKey
	}
	return fmt.Sprintf("%s.%d", m.Type, Bucket(m.Envelope.Key, m.ID))
}

// Validate returns an *Error that names every field that breaks a limit, with
// the body limited to maxBody bytes (0 means DefaultMaxBody).
func (m *Message) Validate(maxBody int) error {
	if m.err != nil {
		return m.err
	}
	var bad fieldErrors
	if maxBody == 0 {
		maxBody = DefaultMaxBody
	}
	if len(m.Body) > maxBody {
		bad.add("body", fmt.Sprintf("at most %d bytes", maxBody), fmt.Sprintf("%d bytes", len(m.Body)))
	}
	if m.ID != "" {
		if _, err := uuid.Parse(m.ID); err != nil || len(m.ID) != 36 {
			bad.add("id", "a UUID like 018f4e9a-0000-7000-8000-000000000000", quoted(m.ID))
		}
	}
	if !validName(m.Type, MaxType) {
		bad.add("type", fmt.Sprintf("1 to %d bytes of letters, digits, '-', '_', in parts joined by '.'", MaxType), quoted(m.Type))
	}
	if m.Kind != "" && m.Kind != KindEvent && m.Kind != KindCommand {
		bad.add("kind", `"event" or "command"`, quoted(string(m.Kind)))
	}
	bad.text("key", m.Envelope.Key, MaxKey)
	bad.text("subject", m.Envelope.Subject, MaxAttribute)
	bad.text("content_type", m.ContentType, MaxAttribute)
	bad.text("data_schema", m.DataSchema, MaxAttribute)
	bad.text("correlation_id", m.CorrelationID, MaxAttribute)
	bad.text("causation_id", m.CausationID, MaxAttribute)
	bad.text("trace_parent", m.TraceParent, 55)
	bad.text("trace_state", m.TraceState, MaxTraceState)
	bad.text("exchange", m.Exchange, MaxType)
	bad.text("routing_key", m.RoutingKey, MaxType)
	bad.headers(m.Headers)
	bad.instant("time", m.Time)
	bad.instant("due", m.Due)
	bad.find(m.Find)
	bad.show(m.Show)
	if m.Within < 0 || m.Within > MaxDelay {
		bad.add("within", "0 to 366 days", m.Within)
	}
	if m.Delay < 0 || m.Delay > MaxDelay {
		bad.add("delay", "0 to 366 days", m.Delay)
	}
	if m.Delay != 0 && !m.Due.IsZero() {
		bad.add("due", "unset when a delay is given", m.Due.Format(time.RFC3339))
	}
	if m.Lifetime < 0 || m.Lifetime > MaxDelay {
		bad.add("lifetime", "0 to 366 days", m.Lifetime)
	}
	return bad.err("message "+quoted(m.Type), "nothing was written")
}

func (f *fieldErrors) text(field, s string, limit int) {
	if len(s) > limit {
		f.add(field, fmt.Sprintf("at most %d bytes", limit), fmt.Sprintf("%d bytes", len(s)))
	} else if !cleanText(s) {
		f.add(field, "valid UTF-8 without control characters", quoted(s))
	}
}

// instant refuses what cannot be written as an RFC 3339 time, and so cannot travel.
func (f *fieldErrors) instant(field string, t time.Time) {
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		f.add(field, "within the years 1 to 9999", fmt.Sprintf("the year %d", y))
	}
}

func (f *fieldErrors) find(find map[string]string) {
	if len(find) > MaxFind {
		f.add("find", fmt.Sprintf("at most %d business keys", MaxFind), len(find))
	}
	for name, value := range find {
		if !validHeaderName(name) {
			f.add("find "+quoted(name), fmt.Sprintf("named with 1 to %d letters, digits, '-', '_', '.'", MaxHeaderName), quoted(name))
		}
		f.text("find "+quoted(name), value, MaxAttribute)
	}
}

func (f *fieldErrors) headers(h Headers) {
	if len(h) > MaxHeaders {
		f.add("headers", fmt.Sprintf("at most %d", MaxHeaders), len(h))
	}
	size := 0
	for name, value := range h {
		size += len(name) + len(value)
		switch {
		case !validHeaderName(name):
			f.add("header "+quoted(name), fmt.Sprintf("named with 1 to %d letters, digits, '-', '_', '.'", MaxHeaderName), quoted(name))
		case reservedHeader(name):
			f.add("header "+quoted(name), "named without the prefixes ce-, outlast- and x-, and not as a part of the envelope", quoted(name))
		case !cleanText(value):
			f.add("header "+quoted(name), "valid UTF-8 without control characters", quoted(value))
		}
	}
	if size > MaxHeaderBytes {
		f.add("headers", fmt.Sprintf("at most %d bytes in all", MaxHeaderBytes), fmt.Sprintf("%d bytes", size))
	}
}

func reservedHeader(name string) bool {
	n := strings.ToLower(name)
	switch n {
	case "traceparent", "tracestate", "content-type", "cc", "bcc":
		return true
	}
	return strings.HasPrefix(n, "ce-") || strings.HasPrefix(n, "outlast-") || strings.HasPrefix(n, "x-") || strings.HasPrefix(n, "nats-")
}

func validHeaderName(s string) bool {
	return s != "" && len(s) <= MaxHeaderName && strings.Trim(s, nameChars+".") == ""
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// validName accepts names in parts joined by single dots, as routing keys and
// NATS subjects need them.
func validName(s string, limit int) bool {
	if s == "" || len(s) > limit || strings.Trim(s, nameChars+".") != "" {
		return false
	}
	return s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

// cleanText reports whether s is valid UTF-8 with no control character: what
// every store, broker, log and terminal can carry.
func cleanText(s string) bool {
	for i, r := range s {
		if r < 0x20 || r == 0x7f {
			return false
		}
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
	}
	return true
}

// quoted renders text that may be hostile, cut to a readable length.
func quoted(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q... (%d bytes)", s[:80], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// CleanErrorText makes any text fit for a table, a log line and a terminal: valid
// UTF-8, no NUL or other control character but line feed and tab, at most 4 KiB.
func CleanErrorText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\t' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > maxErrorTextSize {
		s = strings.ToValidUTF8(s[:maxErrorTextSize], "")
	}
	return s
}
