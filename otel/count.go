package otel

import (
	"context"
	"time"

	"github.com/outlastmq/outlast"
	"go.opentelemetry.io/otel/metric"
)

// OnEnqueued counts messages that were written into the outbox.
func (t *Telemetry) OnEnqueued(ctx context.Context, msgs []*outlast.Message) {
	for _, m := range msgs {
		t.meters.enqueued.Add(ctx, 1, t.meters.byType.get(m.Type).add...)
	}
}

// OnResults counts publishes, and makes their spans.
func (t *Telemetry) OnResults(rs []outlast.Published) {
	now := time.Now()
	m := &t.meters
	for i := range rs {
		p := &rs[i]
		l := m.published.get(publishKey{p.Row.Route(), p.Row.Type, p.Outcome})
		m.outcomes.Add(background, 1, l.outcome.add...)
		m.sent.Add(background, 1, l.messaging.add...)
		m.operation.Record(background, now.Sub(p.Sent).Seconds(), l.operation.record...)
		if p.Outcome == outlast.OutcomeConfirmed && !p.Row.EnqueuedAt.IsZero() {
			m.commitToConfirm.Record(background, since(now, p.Row.EnqueuedAt), m.byType.get(p.Row.Type).record...)
		}
	}
	if t.traces {
		t.publishSpans(rs, now)
	}
}

// since never is negative: clocks of two machines differ.
func since(now, then time.Time) float64 { return max(now.Sub(then), 0).Seconds() }

// OnSettled counts what became of rows. Those of leases that have passed to another
// relay were left alone.
func (t *Telemetry) OnSettled(s *outlast.Settlement, stale []outlast.Lease) {
	var left map[int]bool
	for _, l := range stale {
		if left == nil {
			left = map[int]bool{}
		}
		left[l.Slot] = true
	}
	count := func(row *outlast.Row, result string) {
		if !left[row.Slot] {
			t.meters.settled.Add(background, 1, t.meters.settle.get(settleKey{row.Type, result}).add...)
		}
	}
	for _, row := range s.Sent {
		if row.Expired {
			count(row, "expired")
		} else {
			count(row, "sent")
		}
	}
	for _, h := range s.Hold {
		count(h.Row, "held")
	}
	for _, row := range s.Release {
		count(row, "released")
	}
	if len(s.Sent) > 0 {
		t.mu.Lock()
		t.since = time.Now()
		t.mu.Unlock()
	}
}

// OnHandled counts ends of messages and of tries.
func (t *Telemetry) OnHandled(h outlast.Handled) {
	m := &t.meters
	l := m.handling.get(handledKey{h.Group, h.Message.Type, h.Result})
	m.handled.Add(background, 1, l.outcome.add...)
	if h.Result == outlast.HandledOK && !h.Message.EnqueuedAt.IsZero() {
		m.commitToHandled.Record(background, since(time.Now(), h.Message.EnqueuedAt), l.latency.record...)
	}
	if h.Replays > 0 {
		m.replayed.Add(background, 1, m.replays.get(replayKey{h.Group, handledWord(h.Result)}).add...)
	}
	t.promised(groupType{h.Group, h.Message.Type}, h.Message.Within)
}

// promised keeps what the contract of a type promises, for the gauges.
func (t *Telemetry) promised(of groupType, within time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if within <= 0 {
		delete(t.within, of)
	} else if _, known := t.within[of]; known || len(t.within) < maxLabels {
		t.within[of] = within
	}
}

// OnDelivered counts each delivery as it comes. What nobody handles may have any type.
func (t *Telemetry) OnDelivered(group string, d *outlast.Delivery) {
	typ := other
	if d.Message != nil && d.Problem == nil {
		typ = d.Message.Type
	}
	t.meters.consumed.Add(background, 1, t.meters.delivered.get(groupType{group, typ}).add...)
}

// OnLease counts the relay's leases that ended before they were renewed.
func (t *Telemetry) OnLease(c outlast.LeaseChange) {
	if c.Scope == outlast.RelayScope && c.What == outlast.LeaseLost {
		t.meters.lapsed.Add(background, int64(len(c.Leases)), t.meters.service.add...)
	}
}

// tried counts the end of one run of a handler.
func (t *Telemetry) tried(h outlast.Handled, class string) {
	l := t.meters.failed.get(failedKey{h.Group, h.Message.Type, class})
	t.meters.process.Record(background, h.Duration.Seconds(), l.process.record...)
	if class != "" {
		t.meters.failures.Add(background, 1, l.failures.add...)
	}
}

// OnLink keeps the state of connections for the gauges.
func (t *Telemetry) OnLink(what string, link outlast.Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.links[what] = link
}

// OnLeases keeps the relay's share for the gauges.
func (t *Telemetry) OnLeases(scope, _ string, held, _ int) {
	if scope != outlast.RelayScope {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slots, t.leased = int64(held), true
}

// OnRoute keeps the closed routes for the gauges.
func (t *Telemetry) OnRoute(route outlast.Route, open bool, _ string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if open {
		delete(t.closed, route)
	} else {
		t.closed[route] = true
	}
}

// ownGauges are what hooks have told of this process.
type ownGauges struct {
	t                                           *Telemetry
	all                                         []metric.Observable
	slots, closed, progress, linkUp, linkBlocks metric.Float64ObservableGauge
	certificates, deadline                      metric.Float64ObservableGauge
}

func (t *Telemetry) ownGauges(b *builder) *ownGauges {
	g := &ownGauges{t: t, slots: b.gauge(slots), closed: b.gauge(closedRoutes), progress: b.gauge(progress), linkUp: b.gauge(linkUp), linkBlocks: b.gauge(linkBlocked),
		certificates: b.gauge(certificateExpiry), deadline: b.gauge(handlingDeadline)}
	g.all = []metric.Observable{g.slots, g.closed, g.progress, g.linkUp, g.linkBlocks, g.certificates, g.deadline}
	return g
}

func (g *ownGauges) observe(_ context.Context, o metric.Observer) error {
	t := g.t
	t.mu.Lock()
	defer t.mu.Unlock()
	service := serviceOf(t)
	for what, link := range t.links {
		of := metric.WithAttributes(service, label("link", what))
		o.ObserveFloat64(g.linkUp, flag(link.State == outlast.LinkUp), of)
		o.ObserveFloat64(g.linkBlocks, flag(link.State == outlast.LinkBlocked), of)
		if !link.Expires.IsZero() {
			o.ObserveFloat64(g.certificates, float64(link.Expires.Unix()), of)
		}
	}
	for of, within := range t.within {
		o.ObserveFloat64(g.deadline, within.Seconds(), metric.WithAttributes(service, label("group", of.group), label("type", of.typ)))
	}
	if t.leased { // this process has a relay
		of := metric.WithAttributes(service)
		o.ObserveFloat64(g.slots, float64(t.slots), of)
		o.ObserveFloat64(g.closed, float64(len(t.closed)), of)
		o.ObserveFloat64(g.progress, float64(t.since.UnixMilli())/1000, of)
	}
	return nil
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
