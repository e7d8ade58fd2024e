package otel

import (
	"context"

	"github.com/outlastmq/outlast"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// meters are the instruments that hooks write to, and the labels they use.
type meters struct {
	enqueued, outcomes, settled, lapsed, handled, replayed, failures, sent, consumed, sampleFailures, actions metric.Int64Counter
	commitToConfirm, commitToHandled, operation, process                                                      metric.Float64Histogram

	byType    *cache[string, labels]
	published *cache[publishKey, publishLabels]
	settle    *cache[settleKey, labels]
	handling  *cache[handledKey, handledLabels]
	failed    *cache[failedKey, failedLabels]
	delivered *cache[groupType, labels]
	replays   *cache[replayKey, labels]
	acted     *cache[actionKey, labels]
	service   labels
}

type groupType struct{ group, typ string }

type publishKey struct {
	route   outlast.Route
	typ     string
	outcome outlast.Outcome
}

type publishLabels struct{ outcome, messaging, operation labels }

type settleKey struct{ typ, result string }

type handledKey struct {
	group, typ string
	result     outlast.HandledResult
}

type handledLabels struct{ outcome, latency labels }

type failedKey struct{ group, typ, class string }

type failedLabels struct{ failures, process labels }

type replayKey struct{ group, result string }

type actionKey struct{ action, result string }

// makeMeters makes every instrument and the labels for it.
func (t *Telemetry) makeMeters(meter metric.Meter) error {
	b := &builder{meter: meter}
	t.meters = meters{
		enqueued: b.counter(enqueued), outcomes: b.counter(outcomes), settled: b.counter(settledRows), lapsed: b.counter(lapsed),
		handled: b.counter(handled), replayed: b.counter(replayed), failures: b.counter(failures),
		sent: b.counter(sent), consumed: b.counter(consumed), sampleFailures: b.counter(sampleFailures), actions: b.counter(operatorActions),
		commitToConfirm: b.histogram(commitToConfirm, journeyBuckets), commitToHandled: b.histogram(commitToHandled, journeyBuckets),
		operation: b.histogram(operationDuration, operationBuckets), process: b.histogram(processDuration, operationBuckets),
	}
	t.makeLabels()
	own, read := t.ownGauges(b), newSampler(t, b)
	if b.err != nil {
		return b.err
	}
	for _, g := range []struct {
		call metric.Callback
		of   []metric.Observable
	}{{own.observe, own.all}, {read.observe, read.all}} {
		reg, err := meter.RegisterCallback(g.call, g.of...)
		if err != nil {
			return err
		}
		t.stop = append(t.stop, reg)
	}
	return nil
}

func (t *Telemetry) makeLabels() {
	service := attribute.String("service", t.conf.Service)
	typ := func(s string) attribute.KeyValue { return attribute.String("type", s) }
	group := func(s string) attribute.KeyValue { return attribute.String("group", s) }
	system, name := semconv.MessagingSystemKey.String(t.system), semconv.MessagingOperationName
	m := &t.meters
	m.service = newLabels(service)
	m.byType = newCache(func(s string) labels { return newLabels(service, typ(s)) }, func(string) string { return other })
	m.published = newCache(func(k publishKey) publishLabels {
		word := outcomeWord(k.outcome)
		kvs := []attribute.KeyValue{system, name("publish"), semconv.MessagingDestinationName(destination(k.route))}
		if k.outcome != outlast.OutcomeConfirmed {
			kvs = append(kvs, semconv.ErrorTypeKey.String(word))
		}
		return publishLabels{
			outcome:   newLabels(service, typ(k.typ), attribute.String("outcome", word)),
			messaging: newLabels(kvs...),
			operation: newLabels(append(kvs, semconv.MessagingOperationTypeSend)...),
		}
	}, func(k publishKey) publishKey {
		return publishKey{outlast.Route{Exchange: other, Type: other}, other, k.outcome}
	})
	m.settle = newCache(func(k settleKey) labels { return newLabels(service, typ(k.typ), attribute.String("result", k.result)) },
		func(k settleKey) settleKey { return settleKey{other, k.result} })
	m.handling = newCache(func(k handledKey) handledLabels {
		return handledLabels{
			outcome: newLabels(service, group(k.group), typ(k.typ), attribute.String("outcome", handledWord(k.result))),
			latency: newLabels(service, group(k.group), typ(k.typ)),
		}
	}, func(k handledKey) handledKey { return handledKey{k.group, other, k.result} })
	m.failed = newCache(func(k failedKey) failedLabels {
		kvs := []attribute.KeyValue{system, name("process"), semconv.MessagingDestinationName(received(k.group, k.typ)), semconv.MessagingConsumerGroupName(k.group)}
		if k.class != "" {
			kvs = append(kvs, semconv.ErrorTypeKey.String(k.class))
		}
		return failedLabels{newLabels(service, group(k.group), typ(k.typ), attribute.String("error_type", k.class)), newLabels(kvs...)}
	}, func(k failedKey) failedKey { return failedKey{k.group, other, k.class} })
	m.delivered = newCache(func(k groupType) labels {
		return newLabels(system, name("deliver"), semconv.MessagingDestinationName(received(k.group, k.typ)), semconv.MessagingConsumerGroupName(k.group))
	}, func(k groupType) groupType { return groupType{k.group, other} })
	m.replays = newCache(func(k replayKey) labels {
		return newLabels(service, group(k.group), attribute.String("result", k.result))
	},
		func(k replayKey) replayKey { return replayKey{other, k.result} })
	m.acted = newCache(func(k actionKey) labels {
		return newLabels(service, attribute.String("action", k.action), attribute.String("result", k.result))
	}, func(k actionKey) actionKey { return actionKey{other, k.result} })
}

// builder makes instruments and keeps the first error.
type builder struct {
	meter metric.Meter
	err   error
}

func (b *builder) keep(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) counter(i Instrument) metric.Int64Counter {
	c, err := b.meter.Int64Counter(i.Name, metric.WithUnit(i.Unit), metric.WithDescription(i.Description))
	b.keep(err)
	return c
}

func (b *builder) histogram(i Instrument, buckets []float64) metric.Float64Histogram {
	h, err := b.meter.Float64Histogram(i.Name, metric.WithUnit(i.Unit), metric.WithDescription(i.Description), metric.WithExplicitBucketBoundaries(buckets...))
	b.keep(err)
	return h
}

func (b *builder) gauge(i Instrument) metric.Float64ObservableGauge {
	g, err := b.meter.Float64ObservableGauge(i.Name, metric.WithUnit(i.Unit), metric.WithDescription(i.Description))
	b.keep(err)
	return g
}

// destination names where messages are published, without the bucket: there are
// few of them.
func destination(r outlast.Route) string {
	if r.Exchange == "" {
		return r.Type
	}
	return r.Exchange + ":" + r.Type
}

// received names where a group takes messages of a type from.
func received(group, typ string) string { return typ + ":" + group }

func outcomeWord(o outlast.Outcome) string {
	switch o {
	case outlast.OutcomeNotSent:
		return "not_sent"
	case outlast.OutcomeLaneError:
		return "lane_error"
	}
	return o.String()
}

// handledWord is the outcome as the metrics call it.
func handledWord(r outlast.HandledResult) string {
	switch r {
	case outlast.HandledRetry:
		return "deferred"
	case outlast.HandledUnknown:
		return "ignored"
	}
	return string(r)
}

var background = context.Background()
