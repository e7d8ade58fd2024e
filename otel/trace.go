package otel

import (
	"context"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Attributes of our own.
const (
	causeKey   = attribute.Key("outlast.cause_id")
	attemptKey = attribute.Key("outlast.attempt")
	resultKey  = attribute.Key("outlast.result")
)

// Events of a process span, and their attributes.
const (
	retryScheduled = "outlast.retry_scheduled"
	deadLetter     = "outlast.dead_letter"
	replay         = "outlast.replay"

	reasonKey      = attribute.Key("outlast.reason")
	waitKey        = attribute.Key("outlast.wait") // in seconds
	fingerprintKey = attribute.Key("outlast.fingerprint")
	replaysKey     = attribute.Key("outlast.replays")
)

// maxErrorText bounds the text of an error in a span's status.
const maxErrorText = 256

// OnEnqueuing starts the create span of each message, a child of the caller's span,
// and stores its context in the message. One that has a context already keeps it:
// the creation is somewhere else.
func (t *Telemetry) OnEnqueuing(ctx context.Context, msgs []*outlast.Message) func(error) {
	if !t.traces {
		return nil
	}
	spans := make([]trace.Span, 0, len(msgs))
	for _, m := range msgs {
		if m.TraceParent != "" {
			continue
		}
		where := destination(m.Route())
		_, span := t.tracer.Start(ctx, "create "+where, trace.WithSpanKind(trace.SpanKindProducer))
		setCreation(m, span.SpanContext())
		if span.IsRecording() {
			span.SetAttributes(t.attributes("create", where, address(m), semconv.MessagingOperationTypeCreate)...)
			span.SetAttributes(messageAttributes(m)...)
		}
		spans = append(spans, span)
	}
	return func(err error) {
		for _, span := range spans {
			fail(span, err, outlast.ErrorClass(err))
			span.End()
		}
	}
}

// place is a destination as a broker names it, which has as many values as there are
// buckets and foreign routing keys: in attributes of spans, never in names and labels.
type place struct {
	name, key string
	tag       uint64 // of a delivery
}

// address is the place that a message is published to.
func address(m *outlast.Message) place {
	key := m.Address()
	return place{name: joined(m.Route().Exchange, key), key: key}
}

// origin is the place that a delivery came from; a retry came from none, and has the
// name that metrics use.
func origin(d *outlast.Delivered) place {
	if d.Queue == "" {
		return place{name: received(d.Group, d.Message.Type)}
	}
	key := strings.ToValidUTF8(d.RoutingKey, "\uFFFD") // a stranger's may be anything
	name := joined(strings.ToValidUTF8(d.Exchange, "\uFFFD"), key)
	if key != d.Queue { // the conventions name it once
		name = joined(name, d.Queue)
	}
	return place{name: name, key: key, tag: d.Tag}
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ":" + b
}

// attributes are what all spans of an operation have. where is of low cardinality, as
// the span's name is.
func (t *Telemetry) attributes(operation, where string, at place, typ attribute.KeyValue) []attribute.KeyValue {
	kvs := []attribute.KeyValue{
		semconv.MessagingSystemKey.String(t.system), semconv.MessagingOperationName(operation), typ,
		semconv.MessagingDestinationName(at.name), semconv.MessagingDestinationTemplate(where),
	}
	if t.system == "rabbitmq" && at.key != "" {
		kvs = append(kvs, semconv.MessagingRabbitMQDestinationRoutingKey(at.key))
	}
	if t.system == "rabbitmq" && at.tag > 0 {
		kvs = append(kvs, semconv.MessagingRabbitMQMessageDeliveryTag(int(at.tag)))
	}
	if t.server != "" {
		kvs = append(kvs, semconv.ServerAddress(t.server))
	}
	return kvs
}

func messageAttributes(m *outlast.Message) []attribute.KeyValue {
	kvs := []attribute.KeyValue{
		semconv.MessagingMessageID(m.ID), semconv.MessagingMessageConversationID(m.CorrelationID), semconv.MessagingMessageBodySize(len(m.Body)),
	}
	if m.CausationID != "" {
		kvs = append(kvs, causeKey.String(m.CausationID))
	}
	return kvs
}

// fail notes an error in a span.
func fail(span trace.Span, err error, class string) {
	if class == "" || class == "snoozed" || !span.IsRecording() { // a snooze is no failure
		return
	}
	text := class
	if err != nil {
		text = outlast.CleanErrorText(err.Error())
	}
	if len(text) > maxErrorText {
		text = outlast.CleanErrorText(text[:maxErrorText])
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(class))
	span.SetStatus(codes.Error, text)
}

// maxSpanLinks is how many links an SDK keeps by default.
const maxSpanLinks = 128

// publishSpans makes the spans of publishes that were answered together: one for each
// route and outcome, a root that links to the creation of each message.
func (t *Telemetry) publishSpans(rs []outlast.Published, now time.Time) {
	type kind struct {
		route   outlast.Route
		outcome outlast.Outcome
	}
	batches := map[kind][]*outlast.Published{}
	for i := range rs {
		k := kind{rs[i].Row.Route(), rs[i].Outcome}
		batches[k] = append(batches[k], &rs[i])
		if len(batches[k]) == maxSpanLinks {
			t.publishSpan(k.route, batches[k], now)
			delete(batches, k)
		}
	}
	for k, batch := range batches {
		t.publishSpan(k.route, batch, now)
	}
}

// publishSpan makes one span, unless it is known of every message that its trace is
// not sampled.
func (t *Telemetry) publishSpan(route outlast.Route, batch []*outlast.Published, now time.Time) {
	links := make([]trace.Link, 0, len(batch))
	began, wanted := now, false
	for _, p := range batch {
		sc := creation(&p.Row.Message)
		wanted = wanted || !sc.IsValid() || sc.IsSampled()
		if sc.IsValid() {
			links = append(links, trace.Link{SpanContext: sc})
		}
		if p.Sent.Before(began) {
			began = p.Sent
		}
	}
	if !wanted {
		return
	}
	where := destination(route)
	_, span := t.tracer.Start(background, "publish "+where, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(began), trace.WithLinks(links...))
	if span.IsRecording() {
		at := place{name: where} // of several buckets
		if first := batch[0]; len(batch) > 1 {
			span.SetAttributes(semconv.MessagingBatchMessageCount(len(batch)))
		} else {
			at = address(&first.Row.Message)
			span.SetAttributes(messageAttributes(&first.Row.Message)...)
		}
		span.SetAttributes(t.attributes("publish", where, at, semconv.MessagingOperationTypeSend)...)
		if o := batch[0].Outcome; o != outlast.OutcomeConfirmed {
			fail(span, batch[0].Err, outcomeWord(o))
		}
	}
	span.End(trace.WithTimestamp(now))
}

// Around starts the process span of a try, which the handler's context carries.
func (t *Telemetry) Around(ctx context.Context, d *outlast.Delivered) (context.Context, func(outlast.Handled)) {
	if !t.traces {
		return ctx, func(h outlast.Handled) { t.tried(h, outlast.ErrorClass(h.Err)) }
	}
	where, from := received(d.Group, d.Message.Type), origin(d)
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer)}
	sc := creation(d.Message)
	switch {
	case t.conf.ParentProcess && sc.IsValid():
		ctx = trace.ContextWithRemoteSpanContext(ctx, sc)
	case sc.IsValid():
		opts = append(opts, trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: sc}))
	default:
		opts = append(opts, trace.WithNewRoot())
	}
	ctx, span := t.tracer.Start(ctx, "process "+where, opts...)
	if span.IsRecording() {
		span.SetAttributes(t.attributes("process", where, from, semconv.MessagingOperationTypeProcess)...)
		span.SetAttributes(messageAttributes(d.Message)...)
		span.SetAttributes(semconv.MessagingConsumerGroupName(d.Group), attemptKey.Int(d.Attempt))
	}
	return ctx, func(h outlast.Handled) { t.endProcess(ctx, span, from, h) }
}

// endProcess ends the span of a try with what became of it. The acknowledgement has
// been handed to the broker's adapter at that moment; the broker confirms none.
func (t *Telemetry) endProcess(ctx context.Context, span trace.Span, from place, h outlast.Handled) {
	class := outlast.ErrorClass(h.Err)
	t.tried(h, class)
	if h.Acked && span.IsRecording() {
		where := received(h.Group, h.Message.Type)
		_, ack := t.tracer.Start(ctx, "ack "+where, trace.WithSpanKind(trace.SpanKindClient))
		ack.SetAttributes(t.attributes("ack", where, from, semconv.MessagingOperationTypeSettle)...)
		ack.SetAttributes(semconv.MessagingMessageID(h.Message.ID), semconv.MessagingConsumerGroupName(h.Group))
		ack.End()
	}
	span.SetAttributes(resultKey.String(handledWord(h.Result)))
	tellFate(span, h)
	fail(span, h.Err, class)
	span.End()
}

// tellFate adds what was decided of a message after a try, and whether a person had
// brought it back for that.
func tellFate(span trace.Span, h outlast.Handled) {
	if !span.IsRecording() {
		return
	}
	event := func(name string, kvs ...attribute.KeyValue) { span.AddEvent(name, trace.WithAttributes(kvs...)) }
	if h.Replays > 0 {
		event(replay, replaysKey.Int(h.Replays))
	}
	switch w, d := h.Waiting, h.Dead; {
	case d != nil:
		event(deadLetter, reasonKey.String(d.Reason), fingerprintKey.String(d.Fingerprint))
	case w != nil && w.Reason == "spent": // it waits for a person and holds its key
		event(deadLetter, reasonKey.String(w.Reason))
	case w != nil:
		event(retryScheduled, reasonKey.String(w.Reason), waitKey.Float64(w.Wait.Seconds()))
	}
}
