package telemetry_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// BenchmarkTelemetry is the cost of one message from its enqueue to its effect, apart
// from the message itself, on the SDK. Publishes come a hundred at a time.
// cpu-ns/op is what the process took of the processors: on a busy machine that says
// more than the clock.
func BenchmarkTelemetry(b *testing.B) {
	metrics := func(c *otel.Config) {
		c.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	}
	traces := func(s sdktrace.Sampler) func(*otel.Config) {
		return func(c *otel.Config) { c.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSampler(s)) }
	}
	for _, bench := range []struct {
		name string
		with []func(*otel.Config)
	}{
		{"nothing", nil},
		{"metrics", []func(*otel.Config){metrics}},
		{"traces not sampled", []func(*otel.Config){traces(sdktrace.NeverSample())}},
		{"traces sampled", []func(*otel.Config){traces(sdktrace.AlwaysSample())}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			conf := otel.Config{Service: "shop"}
			for _, with := range bench.with {
				with(&conf)
			}
			telemetry, err := otel.New(conf)
			if err != nil {
				b.Fatal(err)
			}
			const batch = 100
			rows, results := make([]outlast.Row, batch), make([]outlast.Published, batch)
			msgs, settlement := make([]*outlast.Message, batch), &outlast.Settlement{}
			for i := range rows {
				m := &rows[i].Message
				m.ID, m.Type, m.EnqueuedAt = outlast.NewID(), "order.placed.v1", time.Now()
				msgs[i] = m
				results[i] = outlast.Published{Row: &rows[i], Outcome: outlast.OutcomeConfirmed, Sent: time.Now()}
				settlement.Sent = append(settlement.Sent, &rows[i])
			}
			ctx := context.Background()
			d := &outlast.Delivered{Group: "billing", Attempt: 1}
			b.ReportAllocs()
			began := cpuTime(b)
			for n := 0; b.Loop(); n++ {
				i := n % batch
				m := msgs[i]
				m.TraceParent = ""
				if done := telemetry.OnEnqueuing(ctx, msgs[i:i+1]); done != nil {
					done(nil)
				}
				telemetry.OnEnqueued(ctx, msgs[i:i+1])
				if i == batch-1 {
					telemetry.OnResults(results)
					telemetry.OnSettled(settlement, nil)
				}
				d.Message = m
				_, done := telemetry.Around(ctx, d)
				h := outlast.Handled{Group: "billing", Message: m, Result: outlast.HandledOK, Attempt: 1, Acked: true, Duration: time.Millisecond}
				done(h)
				telemetry.OnHandled(h)
			}
			b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
