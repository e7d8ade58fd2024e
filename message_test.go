package outlast_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

func TestF01_OnlyALiveTransactionCanPublish(t *testing.T) {
	t.Parallel()
	live := reflect.TypeFor[outlast.LiveTx]()
	if !reflect.TypeFor[*sql.Tx]().Implements(live) {
		t.Error("*sql.Tx is refused by the compiler")
	}
	for _, dead := range []reflect.Type{reflect.TypeFor[*sql.DB](), reflect.TypeFor[*sql.Conn]()} {
		if dead.Implements(live) {
			t.Errorf("%s is accepted by the compiler: a message could be published outside a transaction", dead)
		}
	}
	if _, ok := reflect.TypeFor[outlast.Tx]().MethodByName("Commit"); ok {
		t.Error("a handler can commit")
	}
}

// TestF04_F41_S07_S20_LimitsAtTheDoor gives every field a value that breaks its limit.
func TestF04_F41_S07_S20_LimitsAtTheDoor(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 256)
	many := outlast.Headers{}
	for i := range outlast.MaxHeaders + 1 {
		many[fmt.Sprint("h", i)] = "v"
	}
	for field, change := range map[string]func(*outlast.Message){
		"body":            func(m *outlast.Message) { m.Body = make([]byte, outlast.DefaultMaxBody+1) },
		"id":              func(m *outlast.Message) { m.ID = "7" },
		"type":            func(m *outlast.Message) { m.Type = "order..placed.v1" },
		"kind":            func(m *outlast.Message) { m.Kind = "rumour" },
		"key":             func(m *outlast.Message) { m.Envelope.Key = "a\x00b" },
		"subject":         func(m *outlast.Message) { m.Envelope.Subject = long },
		"content_type":    func(m *outlast.Message) { m.ContentType = "text/\nplain" },
		"data_schema":     func(m *outlast.Message) { m.DataSchema = "\xff" },
		"correlation_id":  func(m *outlast.Message) { m.CorrelationID = long },
		"causation_id":    func(m *outlast.Message) { m.CausationID = "\x1b[31m" },
		"trace_parent":    func(m *outlast.Message) { m.TraceParent = long },
		"trace_state":     func(m *outlast.Message) { m.TraceState = strings.Repeat("x", 513) },
		"exchange":        func(m *outlast.Message) { m.Exchange = long },
		"routing_key":     func(m *outlast.Message) { m.RoutingKey = long },
		"headers":         func(m *outlast.Message) { m.Headers = many },
		`header "x-ours"`: func(m *outlast.Message) { m.Headers = outlast.Headers{"x-ours": "v"} },
		`header "CC"`:     func(m *outlast.Message) { m.Headers = outlast.Headers{"CC": "v"} },
		`header "a b"`:    func(m *outlast.Message) { m.Headers = outlast.Headers{"a b": "v"} },
		`header "utf8"`:   func(m *outlast.Message) { m.Headers = outlast.Headers{"utf8": "\xc3"} },
		"delay":           func(m *outlast.Message) { m.Delay = -1 },
		"lifetime":        func(m *outlast.Message) { m.Lifetime = outlast.MaxDelay + 1 },
		"due":             func(m *outlast.Message) { m.Delay, m.Due = 1, time.Now() },
		"time":            func(m *outlast.Message) { m.Time = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		m := message("order.placed.v1", "k", 1)
		change(&m)
		err := m.Validate(0)
		var e *outlast.Error
		if !errors.As(err, &e) || e.Code != outlast.CodeInvalid || len(e.Fields) != 1 || e.Fields[0].Field != field {
			t.Errorf("%s: %v", field, err)
			continue
		}
		if e.Fields[0].Limit == "" || e.Fields[0].Given == "" || !cleanPrint(err.Error()) {
			t.Errorf("%s: the error does not say limit and given, or is not fit to print: %q", field, err)
		}
	}
}

func cleanPrint(s string) bool { return outlast.CleanErrorText(s) == s && !strings.Contains(s, "\x1b") }

func TestF41_LimitsAreInclusive(t *testing.T) {
	t.Parallel()
	m := message("order.placed.v1", strings.Repeat("k", outlast.MaxKey), 1)
	m.Body = make([]byte, outlast.DefaultMaxBody)
	m.Headers = outlast.Headers{"big": strings.Repeat("v", outlast.MaxHeaderBytes-3)}
	if err := m.Validate(0); err != nil {
		t.Error(err)
	}
	m.Headers["big"] += "v"
	if err := m.Validate(0); err == nil {
		t.Error("one byte over the limit of all headers was accepted")
	}
}

// TestBucketIsTheSameInEveryLanguage holds the public function to known values:
// FNV-1a, 32 bit, modulo 64.
func TestBucketIsTheSameInEveryLanguage(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int{"a": 0x2c, "foobar": 0x28, "order-7": 0x3b} {
		if got := outlast.Bucket(key, "unused"); got != want {
			t.Errorf("Bucket(%q) = %#x, want %#x", key, got, want)
		}
	}
	if outlast.Bucket("", "foobar") != 0x28 {
		t.Error("without a key the id decides")
	}
}

func TestRouteFollowsTheConventionUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	m := message("order.placed.v1", "foobar", 1)
	if m.Route() != (outlast.Route{Exchange: "outlast.events", Type: "order.placed.v1"}) || m.Address() != "order.placed.v1.40" {
		t.Errorf("%v %s", m.Route(), m.Address())
	}
	m.Kind = outlast.KindCommand
	if m.Route().Exchange != "outlast.commands" {
		t.Errorf("%v", m.Route())
	}
	m.RoutingKey = "legacy-queue"
	if m.Route() != (outlast.Route{Type: "legacy-queue"}) || m.Address() != "legacy-queue" {
		t.Errorf("%v %s", m.Route(), m.Address())
	}
}

// TestEnvelopeSurvivesTheWire: what is encoded is decoded again, whatever it holds.
func TestEnvelopeSurvivesTheWire(t *testing.T) {
	t.Parallel()
	text := rapid.StringMatching(`[ -~äöü€𝄞]{0,40}`)
	instant := rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMicro(rapid.Int64Range(1, 4_000_000_000_000_000).Draw(t, "t")).UTC()
	})
	rapid.Check(t, func(t *rapid.T) {
		m := outlast.Message{Envelope: outlast.Envelope{
			ID: outlast.NewID(), Type: "order.placed.v1", Source: "orders",
			Kind:    rapid.SampledFrom([]outlast.Kind{outlast.KindEvent, outlast.KindCommand}).Draw(t, "kind"),
			Subject: text.Draw(t, "subject"), Key: text.Draw(t, "key"), Time: instant.Draw(t, "time"),
			DataSchema: text.Draw(t, "schema"), CorrelationID: text.Draw(t, "flow"), CausationID: text.Draw(t, "cause"),
			TraceParent: text.Draw(t, "parent"), TraceState: text.Draw(t, "state"),
			EnqueuedAt: instant.Draw(t, "enqueued"), ExpiresAt: instant.Draw(t, "expires"), SettledBefore: instant.Draw(t, "before"),
			Headers: rapid.MapOfN(rapid.StringMatching(`[a-w][a-z0-9._-]{0,10}`), text, 0, 10).Draw(t, "headers"),
		}}
		delete(m.Headers, "traceparent")
		delete(m.Headers, "tracestate")
		if len(m.Headers) == 0 {
			m.Headers = nil
		}
		for name := range m.Headers {
			if strings.HasPrefix(name, "ce-") || strings.HasPrefix(name, "outlast-") {
				delete(m.Headers, name)
			}
		}
		var back outlast.Message
		if err := outlast.DecodeHeaders(&back, outlast.EncodeHeaders(&m)); err != nil {
			t.Fatal(err)
		}
		want, _ := json.Marshal(m.Envelope)
		got, _ := json.Marshal(back.Envelope)
		if string(want) != string(got) {
			t.Fatalf("sent     %s\nreceived %s", want, got)
		}
	})
}

// TestF43_WireTextKeepsNumbersAndTimes: no value changes its width or precision.
func TestF43_WireTextKeepsNumbersAndTimes(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]any{
		"2147483648": int64(1 << 31), "-2147483649": int64(-1<<31 - 1), "9007199254740993": uint64(1<<53 + 1),
		"2026-01-02T03:04:05.123456789Z": time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC),
		"bytes":                          []byte("bytes"), "true": true, "": nil,
	} {
		if got := outlast.WireText(v); got != want {
			t.Errorf("WireText(%v) = %q, want %q", v, got, want)
		}
	}
}

type placedOrder struct {
	OrderID string `json:"order_id" outlast:"key"`
	Total   int64  `json:"total_cents"`
}

func TestContractMakesTypedMessages(t *testing.T) {
	t.Parallel()
	c := outlast.Event[placedOrder]("order.placed", 1)
	m := c.Message(placedOrder{"o-7", 42}, outlast.Header("tenant", "a"), outlast.ExpiresIn(time.Minute))
	if err := m.Validate(0); err != nil {
		t.Fatal(err)
	}
	if m.Type != "order.placed.v1" || m.Envelope.Key != "o-7" || string(m.Body) != `{"order_id":"o-7","total_cents":42}` ||
		m.Headers["tenant"] != "a" || m.Lifetime != time.Minute || m.ContentType != "application/json" {
		t.Errorf("%+v", m)
	}
}

func TestBadContractsAreReportedByPublish(t *testing.T) {
	t.Parallel()
	type twoKeys struct {
		A string `outlast:"key"`
		B string `outlast:"key"`
	}
	type floatKey struct {
		A float64 `outlast:"key"`
	}
	store := memory.NewStore()
	outbox := outlast.NewOutbox(store)
	for name, m := range map[string]outlast.Message{
		"a bad name":       outlast.Event[placedOrder]("order placed", 1).Message(placedOrder{}),
		"major 0":          outlast.Event[placedOrder]("order.placed", 0).Message(placedOrder{}),
		"two keys":         outlast.Event[twoKeys]("a.b", 1).Message(twoKeys{}),
		"a key of a float": outlast.Event[floatKey]("a.b", 1).Message(floatKey{}),
		"a pointer":        outlast.Event[*placedOrder]("a.b", 1).Message(nil),
		"no encoding":      outlast.Event[chan int]("a.b", 1).Message(nil),
	} {
		tx := store.Begin()
		if err := outbox.Publish(t.Context(), tx, m); outlast.CodeOf(err) != outlast.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
		_ = tx.Rollback()
	}
}

func TestPublishLeavesASpreadSliceAlone(t *testing.T) {
	t.Parallel()
	store := memory.NewStore()
	msgs := []outlast.Message{outlast.Event[placedOrder]("order.placed", 1).Message(placedOrder{})}
	for range 2 {
		tx := store.Begin()
		if err := outlast.NewOutbox(store).Publish(t.Context(), tx, msgs...); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil { // with the first one's id it would be refused, or lost as a duplicate
			t.Fatal(err)
		}
	}
	if msgs[0].ID != "" || msgs[0].CorrelationID != "" {
		t.Errorf("the caller's message was changed: %+v", msgs[0].Envelope)
	}
}

// TestS21_GarbageInATraceIsDropped: a trace that nobody can use, or that would forge a line
// of a log, is not the message's fault.
func TestS21_GarbageInATraceIsDropped(t *testing.T) {
	t.Parallel()
	for _, garbage := range []string{"a\nlevel=ERROR msg=forged", "\x1b[2J", "\xff", strings.Repeat("x", 10_000)} {
		var m outlast.Message
		err := outlast.DecodeHeaders(&m, []outlast.WireHeader{{Name: "traceparent", Value: garbage}, {Name: "tracestate", Value: garbage}, {Name: "ce-id", Value: "1"}})
		if err != nil || m.TraceParent != "" || m.TraceState != "" || m.ID != "1" {
			t.Errorf("%.40q: %+v, %v", garbage, m.Envelope, err)
		}
	}
	var m outlast.Message // baggage is a header like others, and so within their limits
	if err := outlast.DecodeHeaders(&m, []outlast.WireHeader{{Name: "baggage", Value: "a\nb"}}); err == nil || !cleanPrint(err.Error()) {
		t.Errorf("%q", err)
	}
}

// TestS20_TimesStayWithinRFC3339: an instant that an offset leads out of the years that RFC 3339
// has could be received, and then neither stored nor sent on.
func TestS20_TimesStayWithinRFC3339(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0000-06-01T00:00:00Z"} {
		var m outlast.Message
		if err := outlast.DecodeHeaders(&m, []outlast.WireHeader{{Name: "outlast-expires-at", Value: text}}); err == nil || !m.ExpiresAt.IsZero() {
			t.Errorf("%s became %v, %v", text, m.ExpiresAt, err)
		}
	}
}

// TestS12_JSONIsBounded: nesting beyond any contract's need is refused before it is decoded.
func TestS12_JSONIsBounded(t *testing.T) {
	t.Parallel()
	var v any
	if err := outlast.JSON.Decode([]byte(strings.Repeat("[", 129)+strings.Repeat("]", 129)), &v); err == nil {
		t.Error("129 levels were decoded")
	}
	if err := outlast.JSON.Decode([]byte(`"`+strings.Repeat(`[\"`, 200)+`"`), &v); err != nil {
		t.Errorf("brackets in a text: %v", err)
	}
	many := `{"k":0`
	for i := range 100 {
		many += fmt.Sprintf(`,"k%d":{"k":0,"l":["k","k"]}`, i)
	}
	for _, twice := range []string{`{"a":1,"b":"\"a","a":2}`, `{"a":1,"\u0061":2}`, `[{"x":{"a":[{"a":1}],"b":1,"a":1}}]`, `{"":1,"":2}`, many + `,"k":0}`} {
		if err := outlast.JSON.Decode([]byte(twice), &v); err == nil || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%.60s: %v", twice, err)
		}
	}
	for _, once := range []string{`{"a":{"a":{"a":"a"}},"b":["a","a"],"A":1}`, `[{"a":1},{"a":1}]`, many + `}`} {
		if err := outlast.JSON.Decode([]byte(once), &v); err != nil {
			t.Errorf("%.60s: %v", once, err)
		}
	}
	if err := outlast.JSON.Decode([]byte(`{} {}`), &v); err == nil {
		t.Error("data after the value was ignored")
	}
}

// TestS04_TooManyHeadersHideNoName: adapters give headers in any order, and the limit must
// not cut off what names the message, or cut elsewhere at the next delivery.
func TestS04_TooManyHeadersHideNoName(t *testing.T) {
	headers := []outlast.WireHeader{}
	for i := range 1000 {
		headers = append(headers, outlast.WireHeader{Name: fmt.Sprint("h", i), Value: strings.Repeat("v", 100)})
	}
	headers = append(headers, outlast.WireHeader{Name: "ce-id", Value: "7"}, outlast.WireHeader{Name: "CE-Type", Value: "a.v1"})
	var first outlast.Message
	if err := outlast.DecodeHeaders(&first, headers); err == nil {
		t.Fatal("1002 headers were accepted")
	}
	if first.ID != "7" || first.Type != "a.v1" {
		t.Errorf("id %q and type %q", first.ID, first.Type)
	}
	for range 10 {
		rand.Shuffle(len(headers), func(i, j int) { headers[i], headers[j] = headers[j], headers[i] })
		var again outlast.Message
		_ = outlast.DecodeHeaders(&again, headers)
		if !reflect.DeepEqual(first, again) {
			t.Fatal("another order of the headers makes another message")
		}
	}
}
