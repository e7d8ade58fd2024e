// Package otel tells what a service's messages do, in the words of OpenTelemetry:
// metrics and traces by the API alone, so that the program chooses the SDK and where
// both go.
//
//	telemetry, err := otel.New(otel.Config{
//		Service: "billing", Store: store, Broker: broker,
//		TracerProvider: tracerProvider, MeterProvider: meterProvider,
//	})
//	...
//	service, err := outlast.NewService(outlast.ServiceConfig{..., Hooks: []outlast.Hook{telemetry}})
//
// The names follow the OpenTelemetry conventions for messaging, where those have one,
// and start with "outlast." otherwise; [Instruments] lists them, and docs/metrics.md
// and docs/tracing.md explain them. No metric has an id or a text among its labels:
// types, groups, outcomes and error classes only, each from a bounded set.
package otel
