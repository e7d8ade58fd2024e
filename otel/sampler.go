package otel

import (
	"context"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// sampler reads the store when gauges are collected. What it has seen once, and types
// and groups that hooks have told of, it shows as 0: a series that is missing or
// vanishes looks like one that nobody measures.
type sampler struct {
	t   *Telemetry
	all []metric.Observable

	pending, oldestPending, neverAttempted, parked, oldestParked, eta, relays  metric.Float64ObservableGauge
	relaysPaused, retrying, retryOldest, overdue, dead, deadOldest, paused, at metric.Float64ObservableGauge

	mu     sync.Mutex
	asked  time.Time // the last question
	read   time.Time // the last answer
	status *outlast.StoreStatus
	past   []backlogAt
	acts   actions
	seen   map[series]bool
}

// series is one gauge with its labels.
type series struct {
	gauge metric.Float64ObservableGauge
	a, b  attribute.KeyValue
}

// backlogAt is how much was pending at a time.
type backlogAt struct {
	at    time.Time
	count int
}

// etaWindow is how far back the pace of the drain is measured.
const etaWindow = 5 * time.Minute

func newSampler(t *Telemetry, b *builder) *sampler {
	s := &sampler{
		t: t, seen: map[series]bool{}, acts: actions{t: t},
		pending: b.gauge(pending), oldestPending: b.gauge(oldestPending), neverAttempted: b.gauge(neverAttempted),
		parked: b.gauge(parked), oldestParked: b.gauge(oldestParked), eta: b.gauge(drainETA), relays: b.gauge(relays),
		retrying: b.gauge(retrying), retryOldest: b.gauge(retryOldest), overdue: b.gauge(retryOverdue),
		dead: b.gauge(dead), deadOldest: b.gauge(deadOldest), paused: b.gauge(paused), relaysPaused: b.gauge(relaysPaused), at: b.gauge(sampledAt),
	}
	s.all = []metric.Observable{s.pending, s.oldestPending, s.neverAttempted, s.parked, s.oldestParked, s.eta, s.relays,
		s.relaysPaused, s.retrying, s.retryOldest, s.overdue, s.dead, s.deadOldest, s.paused, s.at}
	t.sampler = s
	return s
}

// observe shows the newest sample, a fresh one when the last is old enough. Of several
// collections at once one asks the store, and the others wait for its answer.
func (s *sampler) observe(ctx context.Context, o metric.Observer) error {
	if s.t.conf.Store == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.asked.IsZero() || now.Sub(s.asked) >= s.t.conf.SampleEvery {
		s.ask(ctx)
		now = time.Now()
	}
	if s.status == nil {
		return nil
	}
	o.ObserveFloat64(s.at, float64(s.read.UnixMilli())/1000, metric.WithAttributes(serviceOf(s.t)))
	if now.Sub(s.read) <= s.t.conf.StaleAfter {
		s.show(o)
	}
	return nil
}

func (s *sampler) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.t.conf.SampleTimeout)
	defer cancel()
	s.asked = time.Now()
	status, err := s.t.conf.Store.Operator().Status(ctx)
	if err != nil {
		s.t.meters.sampleFailures.Add(background, 1, s.t.meters.service.add...)
		return
	}
	s.status, s.read = status, time.Now()
	count := 0
	for _, p := range status.Pending {
		count += p.Count
	}
	s.past = append(s.past, backlogAt{s.read, count})
	for len(s.past) > 1 && s.read.Sub(s.past[1].at) >= etaWindow {
		s.past = s.past[1:]
	}
	if err := s.acts.read(ctx); err != nil {
		s.t.meters.sampleFailures.Add(background, 1, s.t.meters.service.add...)
	}
}

// show observes every gauge of the sample.
func (s *sampler) show(o metric.Observer) {
	values := map[series]float64{}
	set := func(g metric.Float64ObservableGauge, v float64, labels ...attribute.KeyValue) {
		k := series{gauge: g}
		if len(labels) > 0 {
			k.a = labels[0]
		}
		if len(labels) > 1 {
			k.b = labels[1]
		}
		values[k] = max(values[k], v)
	}
	s.outbox(set)
	s.groups(set)
	s.quiet(set)
	for k := range values {
		if len(s.seen) < maxLabels {
			s.seen[k] = true
		}
	}
	for k := range s.seen {
		if _, ok := values[k]; !ok && k.gauge != s.eta {
			values[k] = 0
		}
	}
	for k, v := range values {
		kvs := []attribute.KeyValue{serviceOf(s.t)}
		for _, l := range []attribute.KeyValue{k.a, k.b} {
			if l.Valid() {
				kvs = append(kvs, l)
			}
		}
		o.ObserveFloat64(k.gauge, v, metric.WithAttributes(kvs...))
	}
}

// setGauge notes a value of a gauge; of several for the same labels the greatest stays.
type setGauge func(metric.Float64ObservableGauge, float64, ...attribute.KeyValue)

func (s *sampler) outbox(set setGauge) {
	st := s.status
	var oldest time.Duration
	for _, p := range st.Pending {
		set(s.pending, float64(p.Count), label("type", p.Type))
		oldest = max(oldest, p.Oldest)
	}
	set(s.oldestPending, oldest.Seconds())
	set(s.neverAttempted, float64(st.Unattended.Count))
	for _, h := range st.Held {
		set(s.parked, float64(h.Count), label("type", h.Type), label("reason", string(h.Reason)))
		set(s.oldestParked, h.Oldest.Seconds(), label("reason", string(h.Reason)))
	}
	set(s.relays, float64(len(st.Relays)))
	paused := 0.0
	if st.RelaysPaused != nil {
		paused = 1
	}
	set(s.relaysPaused, paused)
	if eta, ok := s.drainETA(); ok {
		set(s.eta, eta.Seconds())
	}
}

// drainETA is the backlog divided by the pace at which it shrank; false while it does not.
func (s *sampler) drainETA() (time.Duration, bool) {
	first, last := s.past[0], s.past[len(s.past)-1]
	if last.count == 0 {
		return 0, true
	}
	shrunk, took := first.count-last.count, last.at.Sub(first.at)
	if shrunk <= 0 || took <= 0 {
		return 0, false
	}
	return time.Duration(float64(last.count) / float64(shrunk) * float64(took)), true
}

func (s *sampler) groups(set setGauge) {
	late := map[string]int{}
	for _, g := range s.status.Retry {
		set(s.retrying, float64(g.Count), label("group", g.Group), label("type", g.Type))
		set(s.retryOldest, g.Oldest.Seconds(), label("group", g.Group))
		late[g.Group] += g.Overdue
	}
	for group, n := range late {
		set(s.overdue, float64(n), label("group", group))
	}
	for _, g := range s.status.Dead {
		set(s.dead, float64(g.Count), label("group", g.Group), label("type", g.Type))
		set(s.deadOldest, g.Oldest.Seconds(), label("group", g.Group))
	}
	for _, p := range s.status.Groups {
		set(s.paused, 1, label("group", p.Group))
	}
}

// quiet shows, as 0, what is known to this process and waits nowhere.
func (s *sampler) quiet(set setGauge) {
	for _, typ := range s.t.meters.byType.keys() {
		set(s.pending, 0, label("type", typ))
	}
	for _, k := range s.t.meters.handling.keys() {
		group, typ := label("group", k.group), label("type", k.typ)
		set(s.retrying, 0, group, typ)
		set(s.dead, 0, group, typ)
		for _, g := range []metric.Float64ObservableGauge{s.retryOldest, s.overdue, s.deadOldest, s.paused} {
			set(g, 0, group)
		}
	}
}

func label(name, value string) attribute.KeyValue { return attribute.String(name, value) }

func serviceOf(t *Telemetry) attribute.KeyValue { return label("service", t.conf.Service) }
