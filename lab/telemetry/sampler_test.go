package telemetry_test

import (
	"context"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// followLinks samples a root that links to something sampled, and leaves everything
// else to another sampler: so that of a message all spans are kept, or none.
type followLinks struct{ sdktrace.Sampler }

func (s followLinks) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if trace.SpanContextFromContext(p.ParentContext).IsValid() || len(p.Links) == 0 {
		return s.Sampler.ShouldSample(p)
	}
	decision := sdktrace.Drop
	for _, l := range p.Links {
		if l.SpanContext.IsSampled() {
			decision = sdktrace.RecordAndSample
		}
	}
	return sdktrace.SamplingResult{Decision: decision}
}

func TestFollowLinks(t *testing.T) {
	t.Parallel()
	s := newTraced(t)
	s.spans = tracetest.NewSpanRecorder()
	s.config.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.spans),
		sdktrace.WithSampler(followLinks{sdktrace.ParentBased(sdktrace.NeverSample())}))
	s.conf.Handlers = []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil })}
	service := s.start()
	telemetry, err := otel.New(s.config)
	if err != nil {
		t.Fatal(err)
	}
	// The caller's span decides: one request is sampled, the other is not.
	for _, flags := range []trace.TraceFlags{trace.FlagsSampled, 0} {
		m := placed.Message(order{ID: "a"})
		request := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, byte(flags)}, SpanID: trace.SpanID{2}, TraceFlags: flags})
		telemetry.OnEnqueuing(trace.ContextWithSpanContext(t.Context(), request), []*outlast.Message{&m})(nil)
		s.publish(service.Outbox(), m)
	}
	s.wait("process", 1)
	s.wait("publish", 1)
	eventually(t, "both are handled", func() bool {
		st, err := s.store.Operator().Status(t.Context())
		return err == nil && len(st.Pending) == 0
	})
	for _, word := range []string{"create", "process"} {
		if n := len(s.ended(word)); n != 1 {
			t.Errorf("%d spans %q, want that of the sampled request", n, word)
		}
	}
	// Until the group has subscribed, a publish is returned and tried again.
	created := s.ended("create")[0].SpanContext()
	for _, span := range s.ended("publish") {
		if len(span.Links()) != 1 || span.Links()[0].SpanContext.TraceID() != created.TraceID() {
			t.Errorf("publish links to %v, want the sampled request alone", span.Links())
		}
	}
}
