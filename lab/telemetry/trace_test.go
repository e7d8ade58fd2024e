package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// traced is a shop in memory whose spans are recorded.
type traced struct {
	t      *testing.T
	spans  *tracetest.SpanRecorder
	tracer *sdktrace.TracerProvider
	store  *memory.Store
	conf   outlast.ServiceConfig
	config otel.Config
}

func newTraced(t *testing.T, opts ...memory.BrokerOption) *traced {
	spans := tracetest.NewSpanRecorder()
	s := &traced{t: t, spans: spans, store: memory.NewStore(), tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))}
	t.Cleanup(func() {
		if err := s.tracer.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s.conf = outlast.ServiceConfig{Name: "shop", Store: s.store, Broker: memory.NewBroker(opts...)}
	s.conf.Consumer.Retry = outlast.RetryPolicy{Attempts: 3, First: time.Millisecond, Longest: 2 * time.Millisecond}
	s.config = otel.Config{Service: "shop", Store: s.store, Broker: s.conf.Broker, TracerProvider: s.tracer}
	return s
}

func (s *traced) start() *outlast.Service {
	s.t.Helper()
	telemetry, err := otel.New(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.conf.Hooks = append(s.conf.Hooks, telemetry)
	return running(s.t, s.conf)
}

// publish publishes within a span of the request and returns that span's context.
func (s *traced) publish(outbox *outlast.Outbox, msgs ...outlast.Message) trace.SpanContext {
	s.t.Helper()
	ctx, request := s.tracer.Tracer("test").Start(s.t.Context(), "request")
	defer request.End()
	tx := s.store.Begin()
	if err := outbox.Publish(ctx, tx, msgs...); err != nil {
		s.t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		s.t.Fatal(err)
	}
	return request.SpanContext()
}

// ended returns the ended spans whose names start with a word.
func (s *traced) ended(word string) []sdktrace.ReadOnlySpan {
	var found []sdktrace.ReadOnlySpan
	for _, span := range s.spans.Ended() {
		if strings.HasPrefix(span.Name(), word+" ") {
			found = append(found, span)
		}
	}
	return found
}

func (s *traced) wait(word string, n int) []sdktrace.ReadOnlySpan {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%d spans %q", n, word), func() bool { return len(s.ended(word)) >= n })
	return s.ended(word)
}

func value(span sdktrace.ReadOnlySpan, key string) string {
	for _, kv := range span.Attributes() {
		if kv.Key == attribute.Key(key) {
			return kv.Value.String()
		}
	}
	return ""
}

// events returns the events of a span, as name and attributes without their prefix.
func events(span sdktrace.ReadOnlySpan) (list []string) {
	for _, e := range span.Events() {
		text := e.Name
		for _, kv := range e.Attributes {
			text += fmt.Sprintf(" %s=%s", strings.TrimPrefix(string(kv.Key), "outlast."), kv.Value.String())
		}
		list = append(list, text)
	}
	return list
}

// linked reports whether a span links to another.
func linked(span sdktrace.ReadOnlySpan, to trace.SpanContext) bool {
	for _, l := range span.Links() {
		if l.SpanContext.TraceID() == to.TraceID() && l.SpanContext.SpanID() == to.SpanID() {
			return true
		}
	}
	return false
}

// linkedTo returns the one span of a list that links to another.
func linkedTo(t *testing.T, spans []sdktrace.ReadOnlySpan, to sdktrace.ReadOnlySpan) sdktrace.ReadOnlySpan {
	t.Helper()
	i := slices.IndexFunc(spans, func(s sdktrace.ReadOnlySpan) bool { return linked(s, to.SpanContext()) })
	if i < 0 {
		t.Fatalf("of %d spans %q none links to %q", len(spans), spans[0].Name(), to.Name())
	}
	return spans[i]
}

func childOf(t *testing.T, spans []sdktrace.ReadOnlySpan, parent sdktrace.ReadOnlySpan) sdktrace.ReadOnlySpan {
	t.Helper()
	i := slices.IndexFunc(spans, func(s sdktrace.ReadOnlySpan) bool {
		return s.Parent().SpanID() == parent.SpanContext().SpanID()
	})
	if i < 0 {
		t.Fatalf("of %d spans %q none is a child of %q", len(spans), spans[0].Name(), parent.Name())
	}
	return spans[i]
}

// asRabbit is a broker that says it is RabbitMQ.
type asRabbit struct{ *memory.Broker }

func (asRabbit) Name() string { return "rabbitmq" }

func TestTrace(t *testing.T) {
	t.Parallel()

	t.Run("leads from the request to the effect and on to what the handler publishes", func(t *testing.T) {
		t.Parallel()
		s := newTraced(t)
		outbox := outlast.NewOutbox(s.store, outlast.OutboxConfig{})
		var logged bytes.Buffer
		log := slog.New(otel.LogHandler(slog.NewTextHandler(&logged, nil)))
		inner := make(chan trace.SpanContext, 1)
		s.conf.Groups = []outlast.ConsumerConfig{{Group: "billing", Handlers: []outlast.Handler{
			outlast.Handle(placed, func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
				log.InfoContext(ctx, "charging")
				inner <- trace.SpanContextFromContext(ctx)
				return outbox.Publish(ctx, tx, charged.Message(m.Body))
			}),
			outlast.Handle(charged, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil }),
		}}}
		service := s.start()
		*outbox = *service.Outbox() // as a handler that is made after the service has it
		request := s.publish(service.Outbox(), placed.Message(order{ID: "a"}))
		s.wait("ack", 2)

		creates, publishes, processes, acks := s.wait("create", 2), s.wait("publish", 2), s.wait("process", 2), s.wait("ack", 2)
		for i := range 2 {
			create := creates[i]
			publish, process := linkedTo(t, publishes, create), linkedTo(t, processes, create)
			ack := childOf(t, acks, process)
			if create.SpanKind() != trace.SpanKindProducer || publish.SpanKind() != trace.SpanKindClient ||
				process.SpanKind() != trace.SpanKindConsumer || ack.SpanKind() != trace.SpanKindClient {
				t.Errorf("kinds: %s %s %s %s", create.SpanKind(), publish.SpanKind(), process.SpanKind(), ack.SpanKind())
			}
			if publish.Parent().IsValid() || process.Parent().IsValid() {
				t.Errorf("publish or process of message %d is no root", i)
			}
			if id := value(create, "messaging.message.id"); id == "" || value(publish, "messaging.message.id") != id || value(process, "messaging.message.id") != id {
				t.Errorf("the spans of message %d do not name it", i)
			}
			if value(process, "messaging.message.conversation_id") != value(creates[0], "messaging.message.id") {
				t.Errorf("process %d is not of the flow", i)
			}
		}
		if creates[0].Parent().SpanID() != request.SpanID() {
			t.Error("the first create is no child of the request")
		}
		first := linkedTo(t, processes, creates[0])
		if creates[1].Parent().SpanID() != first.SpanContext().SpanID() {
			t.Error("the second create is no child of the handler's span")
		}
		if value(creates[1], "outlast.cause_id") != value(creates[0], "messaging.message.id") {
			t.Error("the second message does not name its cause")
		}
		if got := <-inner; got.SpanID() != first.SpanContext().SpanID() {
			t.Error("the handler's context is not of its span")
		}
		if line := logged.String(); !strings.Contains(line, "trace_id="+first.SpanContext().TraceID().String()) || !strings.Contains(line, "span_id=") {
			t.Errorf("the log is not correlated: %s", line)
		}
		if name := creates[0].Name(); name != "create outlast.events:order.placed.v1" {
			t.Errorf("name %q", name)
		}
		if value(publishes[0], "messaging.system") != "memory" || value(publishes[0], "messaging.operation.type") != "send" || value(processes[0], "messaging.consumer.group.name") != "billing" {
			t.Error("attributes of the conventions are missing")
		}
	})

	t.Run("tells each try and its error", func(t *testing.T) {
		t.Parallel()
		s := newTraced(t)
		var tries atomic.Int32
		s.conf.Handlers = []outlast.Handler{outlast.Handle(placed, func(_ context.Context, _ outlast.Tx, m outlast.Received[order]) error {
			switch tries.Add(1) {
			case 1:
				return errors.New("card reader is unplugged")
			case 2:
				panic("ouch")
			}
			return outlast.DeadLetter(errors.New("no such card"))
		})}
		s.publish(s.start().Outbox(), placed.Message(order{ID: "a"}))
		processes := slices.Clone(s.wait("process", 3))
		// A retry may end before the hook is told of the first try's end.
		slices.SortFunc(processes, func(a, b sdktrace.ReadOnlySpan) int {
			return strings.Compare(value(a, "outlast.attempt"), value(b, "outlast.attempt"))
		})
		for i, want := range []struct{ class, result string }{{"error", "deferred"}, {"panic", "deferred"}, {"dead_letter", "dead"}} {
			span := processes[i]
			if value(span, "error.type") != want.class || value(span, "outlast.result") != want.result || span.Status().Code != codes.Error {
				t.Errorf("try %d: %q, %q, %v", i+1, value(span, "error.type"), value(span, "outlast.result"), span.Status())
			}
			if value(span, "outlast.attempt") != fmt.Sprint(i+1) || !linked(span, s.ended("create")[0].SpanContext()) {
				t.Errorf("try %d: attempt %q, or no link to the creation", i+1, value(span, "outlast.attempt"))
			}
		}
		if n := len(s.wait("ack", 1)); n != 1 {
			t.Errorf("%d acknowledgements of one delivery", n)
		}
		for i, want := range []string{"outlast.retry_scheduled reason=failed", "outlast.retry_scheduled reason=failed", "outlast.dead_letter reason=verdict"} {
			if got := events(processes[i]); len(got) != 1 || !strings.HasPrefix(got[0], want) {
				t.Fatalf("events of try %d: %q, want %q", i+1, got, want)
			}
		}
		_, text, _ := strings.Cut(events(processes[0])[0], " wait=")
		if wait, err := strconv.ParseFloat(text, 64); err != nil || wait <= 0 || wait > 0.002 {
			t.Errorf("the first retry is scheduled in %q s, and the policy says at most two milliseconds", text)
		}
		if print := events(processes[2])[0]; !regexp.MustCompile(` fingerprint=\S+$`).MatchString(print) {
			t.Errorf("%q does not name its cause", print)
		}

		// A person brings it back, and it dies again.
		if n, err := s.store.Operator().Dead().Replay(t.Context(), outlast.Filter{}, outlast.Action{Who: "a test"}); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		s.wait("process", 4)
		again := slices.IndexFunc(s.ended("process"), func(p sdktrace.ReadOnlySpan) bool { return slices.Contains(events(p), "outlast.replay replays=1") })
		if again < 0 {
			t.Fatal("no try is marked as that of a replay")
		}
		if replayed := s.ended("process")[again]; len(events(replayed)) != 2 || !linked(replayed, s.ended("create")[0].SpanContext()) {
			t.Errorf("events of the replay: %q, or it does not link to the creation", events(replayed))
		}
	})

	t.Run("names exchange, routing key and queue as the conventions for RabbitMQ do", func(t *testing.T) {
		t.Parallel()
		s := newTraced(t)
		broker := memory.NewBroker()
		s.conf.Broker = asRabbit{broker}
		s.config.Broker = s.conf.Broker
		foreign := outlast.ForeignQueue{Queue: "legacy", Type: placed.Type(), DeriveID: true}
		broker.DeclareQueue(foreign.Queue)
		var tries atomic.Int32
		s.conf.Consumer.Foreign = []outlast.ForeignQueue{foreign}
		s.conf.Handlers = []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error {
			if tries.Add(1) == 1 {
				return errors.New("card reader is unplugged")
			}
			return nil
		})}
		m := placed.Message(order{ID: "a"})
		m.ID = outlast.NewID()
		s.publish(s.start().Outbox(), m)
		s.wait("process", 2)
		broker.PublishForeign("", foreign.Queue, nil, "application/json", []byte(`{"id":"b"}`))
		s.wait("process", 3)

		key := m.Address()
		processes := s.wait("process", 3)
		slices.SortStableFunc(processes[:2], func(a, b sdktrace.ReadOnlySpan) int {
			return strings.Compare(value(a, "outlast.attempt"), value(b, "outlast.attempt"))
		})
		acks := s.wait("ack", 2)
		for _, want := range []struct {
			span            sdktrace.ReadOnlySpan
			name, dest, key string
			tagged          bool
		}{
			{s.ended("create")[0], "create outlast.events:order.placed.v1", "outlast.events:" + key, key, false},
			{s.ended("publish")[0], "publish outlast.events:order.placed.v1", "outlast.events:" + key, key, false},
			{processes[0], "process order.placed.v1:shop", "outlast.events:" + key + ":shop.0", key, true},
			{childOf(t, acks, processes[0]), "ack order.placed.v1:shop", "outlast.events:" + key + ":shop.0", key, true},
			{processes[1], "process order.placed.v1:shop", "order.placed.v1:shop", "", false}, // from the group's own table
			{processes[2], "process order.placed.v1:shop", "legacy", "legacy", true},          // the default exchange, and the key is the queue
		} {
			if _, template, _ := strings.Cut(want.name, " "); want.span.Name() != want.name || value(want.span, "messaging.destination.template") != template {
				t.Errorf("%q of template %q, want %q", want.span.Name(), value(want.span, "messaging.destination.template"), want.name)
			}
			if got := value(want.span, "messaging.destination.name"); got != want.dest {
				t.Errorf("destination of %q: %q, want %q", want.name, got, want.dest)
			}
			if got := value(want.span, "messaging.rabbitmq.destination.routing_key"); got != want.key {
				t.Errorf("routing key of %q: %q, want %q", want.name, got, want.key)
			}
			if got := value(want.span, "messaging.rabbitmq.message.delivery_tag"); (got != "") != want.tagged {
				t.Errorf("delivery tag of %q: %q", want.name, got)
			}
		}
	})

	t.Run("makes one trace when asked to", func(t *testing.T) {
		t.Parallel()
		s := newTraced(t)
		s.config.ParentProcess = true
		s.conf.Handlers = []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil })}
		request := s.publish(s.start().Outbox(), placed.Message(order{ID: "a"}))
		if process := s.wait("process", 1)[0]; process.SpanContext().TraceID() != request.TraceID() || process.Parent().SpanID() != s.ended("create")[0].SpanContext().SpanID() {
			t.Error("the handler's span is no child of the creation")
		}
	})

	t.Run("links every message of big batches, through unknown outcomes, and leaves no span open", func(t *testing.T) {
		t.Parallel()
		s := newTraced(t, memory.DropConfirm(0.05))
		s.conf.Relay.ConfirmDeadline = time.Second
		s.conf.Consumer.Batch = 20
		s.conf.Handlers = []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil })}
		service := s.start()
		const n = 1000
		msgs := make([]outlast.Message, n)
		for i := range msgs {
			msgs[i] = placed.Message(order{ID: fmt.Sprint("order-", i)})
		}
		s.publish(service.Outbox(), msgs...)
		handled := func() int {
			n := 0
			for _, span := range s.ended("process") {
				if value(span, "outlast.result") == "ok" {
					n++
				}
			}
			return n
		}
		eventually(t, "all are handled", func() bool { return handled() >= n })
		eventually(t, "the outbox is empty", func() bool {
			st, err := s.store.Operator().Status(t.Context())
			return err == nil && len(st.Pending) == 0
		})
		published, processed := map[trace.SpanID]int{}, map[trace.SpanID]int{}
		for _, span := range s.ended("publish") {
			if len(span.Links()) > 128 || span.DroppedLinks() > 0 {
				t.Errorf("a span with %d links, %d dropped", len(span.Links()), span.DroppedLinks())
			}
			for _, l := range span.Links() {
				if span.Status().Code != codes.Error {
					published[l.SpanContext.SpanID()]++
				}
			}
		}
		for _, span := range s.ended("process") {
			if value(span, "outlast.result") == "ok" {
				processed[span.Links()[0].SpanContext.SpanID()]++
			}
		}
		for _, create := range s.ended("create") {
			id := create.SpanContext().SpanID()
			if published[id] == 0 || processed[id] != 1 {
				t.Errorf("a message with %d confirmed publishes and %d effects in its trace", published[id], processed[id])
			}
		}
		eventually(t, "every span has ended", func() bool { return len(s.spans.Started()) == len(s.spans.Ended()) })
	})

	t.Run("takes no context from what is not one", func(t *testing.T) {
		t.Parallel()
		s := newTraced(t)
		s.conf.Handlers = []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil })}
		service := s.start()
		for _, bad := range []string{"00-0-0-0", strings.Repeat("x", 55), "00-00000000000000000000000000000000-0000000000000000-01"} {
			m := placed.Message(order{ID: "a"})
			m.TraceParent = bad
			s.publish(service.Outbox(), m)
		}
		for _, span := range s.wait("process", 3) {
			if len(span.Links()) != 0 {
				t.Errorf("linked to %v", span.Links())
			}
		}
	})

	t.Run("makes no publish span for messages whose traces are not sampled", func(t *testing.T) {
		t.Parallel()
		s := newTraced(t)
		s.conf.Handlers = []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil })}
		m := placed.Message(order{ID: "a"})
		m.TraceParent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"
		s.publish(s.start().Outbox(), m)
		s.wait("process", 1)
		if spans := s.ended("publish"); len(spans) != 0 {
			t.Errorf("%d publish spans", len(spans))
		}
	})
}
