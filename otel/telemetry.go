package otel

import (
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/settings"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Scope is the name of the instrumentation.
const Scope = "github.com/outlastmq/outlast/otel"

// Config says what is observed and where it goes. Only Service is needed.
type Config struct {
	// Service is the label of that name: the service's name, as in ServiceConfig.
	Service string
	// Store is read for the gauges of what waits. Nil: there are none of these.
	Store outlast.Store
	// Broker names the messaging system in spans and metrics.
	Broker outlast.Broker
	// TracerProvider makes spans; nil: no traces, and nothing is stored in messages.
	TracerProvider trace.TracerProvider
	// MeterProvider makes metrics; nil: none.
	MeterProvider metric.MeterProvider

	// ParentProcess makes the span of a handler a child of the one that created the
	// message, instead of a root with a link to it: for commands that are handled
	// within a second, where one trace from end to end reads better. A trace that is
	// open for days reads badly, and its sampling was decided long ago.
	ParentProcess bool
	// SampleEvery is how old the gauges of the store may be when they are collected:
	// the store is asked at most that often. Range 1s to 10min; default 10s.
	SampleEvery time.Duration
	// SampleTimeout bounds that question; it should be below the scraper's timeout.
	// Range 100ms to 1min; default 5s.
	SampleTimeout time.Duration
	// StaleAfter is how long gauges are shown that could not be read again; afterwards
	// they are withheld, while their timestamp stays. Range SampleEvery to 1h; default 1min.
	StaleAfter time.Duration
}

// Telemetry observes one service. It is an [outlast.Hook], safe for concurrent use,
// and starts nothing: the store is read when the metrics are collected.
type Telemetry struct {
	conf    Config
	system  string
	server  string // host of the broker
	tracer  trace.Tracer
	traces  bool
	meters  meters
	sampler *sampler

	mu     sync.Mutex
	links  map[string]outlast.Link
	slots  int64
	leased bool
	closed map[outlast.Route]bool
	since  time.Time                   // the last progress of the relay
	within map[groupType]time.Duration // what contracts promise
	stop   []metric.Registration
}

// New returns the telemetry of a service. Give it to ServiceConfig.Hooks, or to the
// hooks of the parts that the program runs. Its error names every bad field.
func New(conf Config) (*Telemetry, error) {
	if err := conf.validate(); err != nil {
		return nil, err
	}
	t := &Telemetry{conf: conf, system: "unknown", links: map[string]outlast.Link{}, closed: map[outlast.Route]bool{}, since: time.Now(), within: map[groupType]time.Duration{}}
	if conf.Broker != nil {
		t.system, t.server = conf.Broker.Name(), hostOf(conf.Broker.Address())
	}
	t.traces = conf.TracerProvider != nil
	if !t.traces {
		conf.TracerProvider = tracenoop.NewTracerProvider()
	}
	t.tracer = conf.TracerProvider.Tracer(Scope, trace.WithSchemaURL(semconv.SchemaURL))
	if conf.MeterProvider == nil {
		conf.MeterProvider = metricnoop.NewMeterProvider()
	}
	meter := conf.MeterProvider.Meter(Scope, metric.WithSchemaURL(semconv.SchemaURL))
	if err := t.makeMeters(meter); err != nil {
		return nil, &outlast.Error{Op: "new telemetry", Code: outlast.CodeInternal, Err: err}
	}
	return t, nil
}

func (c *Config) validate() error {
	settings.Default(&c.SampleEvery, 10*time.Second)
	settings.Default(&c.SampleTimeout, 5*time.Second)
	settings.Default(&c.StaleAfter, max(time.Minute, c.SampleEvery))
	var bad settings.Bad
	bad.Unless(c.Service != "", "Service", "the name of the service", `""`)
	settings.Within(&bad, "SampleEvery", c.SampleEvery, time.Second, 10*time.Minute)
	settings.Within(&bad, "SampleTimeout", c.SampleTimeout, 100*time.Millisecond, time.Minute)
	settings.Within(&bad, "StaleAfter", c.StaleAfter, c.SampleEvery, time.Hour)
	return bad.Err("new telemetry")
}

// Close ends the gauges. Hooks that are called afterwards count on.
func (t *Telemetry) Close() error {
	t.mu.Lock()
	stop := t.stop
	t.stop = nil
	t.mu.Unlock()
	var errs []error
	for _, r := range stop {
		errs = append(errs, r.Unregister())
	}
	return errors.Join(errs...)
}

// hostOf is the first host of a broker's address, which names no user.
func hostOf(address string) string {
	first, _, _ := strings.Cut(address, ",")
	if _, rest, ok := strings.Cut(first, "://"); ok {
		first = rest
	}
	first, _, _ = strings.Cut(first, "/")
	if host, _, err := net.SplitHostPort(first); err == nil {
		return host
	}
	return first
}
