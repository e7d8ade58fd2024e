package otel

import (
	"context"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// What the program that closes the books knows.
var (
	booksMissing = Instrument{"outlast.missing_messages", gauge, "{message}", nil,
		"Messages that a group should have seen and has not, by the last look at the books."}
	booksUnbalanced = Instrument{"outlast.epochs_unbalanced", gauge, "{minute}", nil,
		"Minutes that these are of."}
	booksOpen = Instrument{"outlast.books.open_minutes", gauge, "{minute}", nil,
		"Minutes that are over and of which nothing can be said yet: messages are held or on their way, or a receiver was not asked."}
	booksLag = Instrument{"outlast.epoch_close_lag", gauge, "s", nil,
		"Time since the instant up to which the books say what became of every message: it grows while a minute stays open and while nobody looks."}
	booksFailures = Instrument{"outlast.books.failures", counter, "{look}", nil,
		"Looks at the books that failed."}
)

// Books measures how the books of a service stand. Give its Report to [journey.Books.Run],
// or call it after each Close. It is safe for concurrent use.
type Books struct {
	service  attribute.KeyValue
	failures metric.Int64Counter

	mu     sync.Mutex
	last   *journey.Closing
	judged time.Time
}

// NewBooks returns the measure of the books of a service, the label of that name. Until
// the first look ends, only the lag is there, and counts from now.
func NewBooks(service string, provider metric.MeterProvider) (*Books, error) {
	build := &builder{meter: provider.Meter(Scope, metric.WithSchemaURL(semconv.SchemaURL))}
	b := &Books{service: label("service", service), judged: time.Now(), failures: build.counter(booksFailures)}
	missing, unbalanced, open, lag := build.gauge(booksMissing), build.gauge(booksUnbalanced), build.gauge(booksOpen), build.gauge(booksLag)
	if build.err == nil {
		_, build.err = build.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			of := metric.WithAttributes(b.service)
			o.ObserveFloat64(lag, max(0, time.Since(b.judged).Seconds()), of)
			if b.last != nil {
				o.ObserveFloat64(missing, float64(b.last.Missing), of)
				o.ObserveFloat64(unbalanced, float64(b.last.Unbalanced), of)
				o.ObserveFloat64(open, float64(b.last.Open), of)
			}
			return nil
		}, missing, unbalanced, open, lag)
	}
	if build.err != nil {
		return nil, &outlast.Error{Op: "new measure of the books", Code: outlast.CodeInternal, Err: build.err}
	}
	b.failures.Add(background, 0, metric.WithAttributes(b.service))
	return b, nil
}

// Report notes what a look at the books found.
func (b *Books) Report(c *journey.Closing, _ outlast.Kept, err error) {
	if err != nil {
		b.failures.Add(background, 1, metric.WithAttributes(b.service))
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = c
	if !c.Judged.IsZero() {
		b.judged = c.Judged
	}
}
