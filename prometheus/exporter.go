// Package prometheus shows metrics of package otel to Prometheus. It is a module of its
// own, because it brings the OpenTelemetry SDK and Prometheus' client library.
//
//	exporter, err := prometheus.New("billing")
//	...
//	telemetry, err := otel.New(otel.Config{Service: "billing", Store: store, Broker: broker, MeterProvider: exporter.MeterProvider()})
//	...
//	go http.ListenAndServe("127.0.0.1:9464", exporter) // a listener of its own, not the API's
//
// A program that has a meter provider already gives that to package otel, with an
// exporter of its choice, and needs nothing of this package.
package prometheus

import (
	"context"
	"net/http"
	"time"

	"github.com/outlastmq/outlast"
	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
)

// Limits of the endpoint: who may reach it may ask, but not pile up questions.
const (
	maxScrapes    = 4
	scrapeTimeout = 30 * time.Second
)

// Exporter serves GET /metrics. It is safe for concurrent use and starts nothing: all
// values are collected when they are asked for.
type Exporter struct {
	provider *sdkmetric.MeterProvider
	handler  http.Handler
}

// New returns an exporter of its own registry, in which are, besides what is measured
// through its MeterProvider, the metrics of the Go runtime and of the process. service
// becomes the service_name of target_info.
func New(service string) (*Exporter, error) {
	registry := client.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := otelprom.New(
		otelprom.WithRegisterer(registry),
		otelprom.WithoutScopeInfo(), // one scope measures everything here
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
	)
	if err != nil {
		return nil, &outlast.Error{Op: "new exporter", Code: outlast.CodeInternal, Err: err}
	}
	e := &Exporter{provider: sdkmetric.NewMeterProvider(
		sdkmetric.WithReader(reader),
		sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", service))),
	)}
	// An error of one metric must not hide the others.
	opts := promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout, ErrorHandling: promhttp.ContinueOnError}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, opts))
	e.handler = mux
	return e, nil
}

// MeterProvider is where to measure.
func (e *Exporter) MeterProvider() metric.MeterProvider { return e.provider }

// ServeHTTP answers GET and HEAD of /metrics; anything else is not found. It shows
// names of types, groups and queues, and no contents of messages: serve it inside, on
// a listener of its own.
func (e *Exporter) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.handler.ServeHTTP(w, r) }

// Shutdown ends the provider; what is measured later goes nowhere.
func (e *Exporter) Shutdown(ctx context.Context) error { return e.provider.Shutdown(ctx) }
