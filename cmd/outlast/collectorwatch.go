package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// collectorWatch tells of a collector's rounds: in the log, by health endpoints and metrics.
type collectorWatch struct {
	log       *slog.Logger
	every     time.Duration
	began     time.Time
	hide      func(string) string
	store     *collector.Store
	collector *collector.Collector
	listeners []net.Listener

	mu      sync.Mutex
	ended   time.Time // of the last round that did
	problem string    // of the collector's own database
	unknown map[string]time.Time
	why     map[string]string
	kept    int
	rounds  int64
	failed  int64
}

func (w *collectorWatch) closeAll() error {
	var errs []error
	for _, l := range w.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// report notes what a round did, and logs what is news.
func (w *collectorWatch) report(r collector.Report, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed++
		text := w.hide(err.Error())
		if w.problem == "" {
			w.log.Warn("a round failed; the next one tries again", "error", text)
		}
		w.problem = text
		return
	}
	if w.problem != "" {
		w.log.Info("rounds go on")
	}
	w.problem, w.ended, w.kept, w.why = "", time.Now(), r.Kept, map[string]string{}
	w.rounds++
	for name, text := range r.Unknown {
		w.why[name] = w.hide(text)
		if w.unknown[name].IsZero() {
			w.unknown[name] = time.Now()
			w.log.Warn("a database does not answer: what is kept of it grows old", "database", name, "error", w.why[name])
		}
	}
	for name := range w.unknown {
		if w.why[name] == "" {
			delete(w.unknown, name)
			w.log.Info("a database answers again", "database", name)
		}
	}
	if r.Shed > 0 {
		w.log.Warn("there was no room for everything: raise --rows or --bytes", "shed", r.Shed)
	}
	w.log.Debug("round", "asked", r.Asked, "kept", r.Kept)
}

// collectorReport is the body of the health endpoints.
type collectorReport struct {
	Ready    bool      `json:"ready"`
	Problems []string  `json:"problems"`
	Warnings []string  `json:"warnings"`
	Kept     int       `json:"kept"`
	Round    time.Time `json:"last_round,omitzero"`
}

func (w *collectorWatch) current() (r collectorReport, alive bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r = collectorReport{Ready: w.problem == "" && !w.ended.IsZero(), Problems: []string{}, Warnings: []string{}, Kept: w.kept, Round: w.ended}
	if w.problem != "" {
		r.Problems = append(r.Problems, w.problem)
	}
	for name, since := range w.unknown {
		r.Warnings = append(r.Warnings, name+" does not answer since "+timeText(since)+": "+w.why[name])
	}
	slices.Sort(r.Warnings)
	// While its own database is away it waits, as a relay does.
	return r, w.problem != "" || time.Since(w.lastRound()) < max(stuckAfter, 10*w.every)
}

// lastRound is when the last round ended that did not fail; the start before. It is called
// with mu held.
func (w *collectorWatch) lastRound() time.Time {
	if w.ended.IsZero() {
		return w.began
	}
	return w.ended
}

func (w *collectorWatch) serveHealth(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(out http.ResponseWriter, _ *http.Request) {
		r, _ := w.current()
		answer(out, r.Ready, r)
	})
	mux.HandleFunc("GET /livez", func(out http.ResponseWriter, _ *http.Request) {
		_, alive := w.current()
		answer(out, alive, struct {
			Alive bool `json:"alive"`
		}{alive})
	})
	return serveUntil(ctx, l, mux)
}

// serveUntil serves until ctx ends.
func serveUntil(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serveMetrics shows how old what is kept is, how much it is, and what was shed.
func (w *collectorWatch) serveMetrics(ctx context.Context, l net.Listener) error {
	exporter, err := prometheus.New("collector")
	if err != nil {
		return err
	}
	defer func() { _ = exporter.Shutdown(context.Background()) }()
	if err := w.measure(exporter.MeterProvider().Meter("github.com/outlastmq/outlast/collector")); err != nil {
		return err
	}
	return serveUntil(ctx, l, exporter)
}

func (w *collectorWatch) measure(m metric.Meter) error {
	var errs []error
	gauge := func(name, unit, text string) metric.Float64ObservableGauge {
		g, err := m.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return g
	}
	counter := func(name, unit, text string) metric.Int64ObservableCounter {
		c, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return c
	}
	lag := gauge("outlast.collector.lag", "s", "Time since a database last answered the collector; since it was first asked, when it never did.")
	kept := gauge("outlast.collector.messages", "{message}", "Messages that are kept, by reason.")
	bytes := gauge("outlast.collector.store", "By", "What their facts take.")
	overdue := gauge("outlast.overdue.messages", "{message}", "Messages that are kept and past their deadline, by the service that sent them.")
	shed := counter("outlast.collector.shed", "{message}", "Messages dropped for want of room: of the share of flows, what was over, what was open.")
	ended := gauge("outlast.collector.last_round_timestamp", "s", "When the last round that did not fail ended, in Unix time; the start before.")
	rounds := counter("outlast.collector.rounds", "{round}", "Rounds by result: done, failed.")
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		w.mu.Lock()
		done, failed, last := w.rounds, w.failed, w.lastRound()
		w.mu.Unlock()
		o.ObserveFloat64(ended, float64(last.UnixMilli())/1000)
		o.ObserveInt64(rounds, done, metric.WithAttributes(attribute.String("result", "done")))
		o.ObserveInt64(rounds, failed, metric.WithAttributes(attribute.String("result", "failed")))
		counts := w.collector.Shed()
		for _, what := range []string{"sample", "over", "open"} {
			o.ObserveInt64(shed, counts[what], metric.WithAttributes(attribute.String("what", what)))
		}
		places, err := w.store.Places(ctx)
		if err != nil {
			return err
		}
		for _, p := range places {
			since := p.AnsweredAt
			if since.IsZero() {
				since = p.UnknownSince
			}
			o.ObserveFloat64(lag, time.Since(since).Seconds(), metric.WithAttributes(attribute.String("database", p.Name)))
		}
		held, err := w.store.Held(ctx)
		if err != nil {
			return err
		}
		var sum int64
		for _, h := range held {
			sum += h.Bytes
			o.ObserveFloat64(kept, float64(h.Messages), metric.WithAttributes(attribute.String("why", h.Why)))
		}
		o.ObserveFloat64(bytes, float64(sum))
		late, err := w.store.Overdue(ctx)
		if err != nil {
			return err
		}
		for source, n := range byService(places, late) {
			o.ObserveFloat64(overdue, float64(n), metric.WithAttributes(attribute.String("service", source)))
		}
		return nil
	}, lag, kept, bytes, overdue, shed, ended, rounds)
	return err
}

// byService counts for each service whose database is asked, and for all others together:
// what a message says of its source may be anything.
func byService(places []collector.Place, counts map[string]int) map[string]int {
	all := map[string]int{}
	for _, p := range places {
		if p.Service != "" {
			all[p.Service] = 0
		}
	}
	for source, n := range counts {
		if _, known := all[source]; !known {
			source = "_OTHER"
		}
		all[source] += n
	}
	return all
}
