package history

import (
	"context"
	"time"

	"github.com/outlastmq/outlast"
)

// OnEnqueued implements [outlast.HookEnqueued].
func (r *Recorder) OnEnqueued(ctx context.Context, msgs []*outlast.Message) {
	tx, seq := txOf(ctx), keySeqOf(ctx)
	events := make([]Event, 0, len(msgs))
	for _, m := range msgs {
		e := Event{E: Enqueue, Tx: tx, M: m.ID, Type: m.Type, Key: m.Envelope.Key, KeySeq: seq, Hash: hashOf(m)}
		if m.MayBeUnheard {
			e.Why = "unheard"
		}
		events = append(events, e)
	}
	r.Record(events...)
}

// OnClaimed implements [outlast.HookClaimed].
func (r *Recorder) OnClaimed(row *outlast.Row, lease outlast.Lease) {
	r.Record(Event{E: Claim, M: row.ID, Source: row.Source, Slot: lease.Slot, Epoch: lease.Epoch, Why: string(row.Reason)})
}

// OnSending implements [outlast.HookSending].
func (r *Recorder) OnSending(t outlast.Try, lane int) {
	e := ofTry(Publish, t)
	e.Lane = lane
	r.Record(e)
}

// OnAnswered implements [outlast.HookAnswered].
func (r *Recorder) OnAnswered(t outlast.Try, o outlast.Outcome, err error) {
	e := ofTry(Confirm, t)
	if err != nil {
		e.Error = outlast.CleanErrorText(err.Error())
	}
	switch o {
	case outlast.OutcomeConfirmed:
		e.O = Ack
	case outlast.OutcomeUnroutable:
		e.E = Return
	case outlast.OutcomeNacked:
		e.O = Nack
	case outlast.OutcomeRefused:
		e.O = Refused
	case outlast.OutcomeLaneError:
		e.O = Closed
	case outlast.OutcomeNotSent:
		e.O = NotSent
	default:
		e.O = Unknown
	}
	r.Record(e)
}

func ofTry(kind Kind, t outlast.Try) Event {
	return Event{E: kind, M: t.Row.ID, Slot: t.Lease.Slot, Epoch: t.Lease.Epoch, Try: t.Number}
}

// OnSettled implements [outlast.HookSettled].
func (r *Recorder) OnSettled(s *outlast.Settlement, stale []outlast.Lease) {
	isStale := map[outlast.Lease]bool{}
	for _, l := range stale {
		isStale[l] = true
	}
	r.settlement(s, func(l outlast.Lease) string {
		if isStale[l] {
			return Stale
		}
		return OK
	}, "")
}

// OnSettleFailed implements [outlast.HookSettleFailed].
func (r *Recorder) OnSettleFailed(s *outlast.Settlement, err error) {
	o := outcomeOf(err)
	r.settlement(s, func(outlast.Lease) string { return o }, outlast.CleanErrorText(err.Error()))
}

// outcomeOf is what a failed commit of a store says.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return OK
	case outlast.CodeOf(err) == outlast.CodeUnknown:
		return Unknown
	default:
		return Fail
	}
}

func (r *Recorder) settlement(s *outlast.Settlement, outcome func(outlast.Lease) string, text string) {
	leases := map[int]outlast.Lease{}
	for _, l := range s.Leases {
		leases[l.Slot] = l
	}
	events := make([]Event, 0, len(s.Sent)+len(s.Hold)+len(s.Release))
	event := func(kind Kind, row *outlast.Row) *Event {
		l := leases[row.Slot]
		events = append(events, Event{E: kind, M: row.ID, Slot: l.Slot, Epoch: l.Epoch, O: outcome(l), Error: text})
		return &events[len(events)-1]
	}
	for _, row := range s.Sent {
		e := event(Mark, row)
		switch {
		case row.Expired:
			e.Why = "expired"
		case row.MayBeUnheard:
			e.Why = "unheard"
		}
	}
	for _, h := range s.Hold {
		e := event(Hold, h.Row)
		e.Why, e.N, e.Wait = string(h.Reason), h.Attempts, int64(h.Wait)
	}
	for _, row := range s.Release {
		event(Release, row)
	}
	r.Record(events...)
}

// OnRoute implements [outlast.HookRoute].
func (r *Recorder) OnRoute(route outlast.Route, open bool, reason string) {
	o := Off
	if open {
		o = On
	}
	r.Record(Event{E: Route, Name: route.String(), O: o, Why: outlast.CleanErrorText(reason)})
}

// OnLink implements [outlast.HookLink].
func (r *Recorder) OnLink(what string, link outlast.Link) {
	r.Record(Event{E: Link, Name: what, O: string(link.State), Why: outlast.CleanErrorText(link.Reason)})
}

// OnLease implements [outlast.HookLease].
func (r *Recorder) OnLease(c outlast.LeaseChange) {
	e := Event{E: Lease, Scope: c.Scope, Owner: c.Owner, O: string(c.What), At: micros(c.Now), Exp: micros(c.Expires)}
	for _, l := range c.Leases {
		e.Slots = append(e.Slots, SlotEpoch{int64(l.Slot), l.Epoch})
	}
	r.Record(e)
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// OnSubscribed implements [outlast.HookSubscribed].
func (r *Recorder) OnSubscribed(g outlast.GroupTopology, _ string, foreign bool) {
	if foreign {
		return
	}
	for _, b := range g.Bindings {
		e := Event{E: Bind, O: On, G: g.Group, Type: b.Type}
		if g.Ordered {
			e.Why = "ordered"
		}
		r.Record(e)
	}
}

// OnDelivered implements [outlast.HookDelivered].
func (r *Recorder) OnDelivered(group string, d *outlast.Delivery) {
	e := ofDelivery(Deliver, group, d)
	e.Queue, e.Redelivered = d.Queue, d.Redelivered
	if d.Message != nil {
		e.Type, e.Source, e.Key, e.Hash = d.Message.Type, d.Message.Source, d.Message.Envelope.Key, hashOf(d.Message)
	}
	if d.Problem != nil {
		e.Error = outlast.CleanErrorText(d.Problem.Error())
	}
	r.Record(e)
}

func ofDelivery(kind Kind, group string, d *outlast.Delivery) Event {
	e := Event{E: kind, G: group, Session: d.Session, Tag: d.Tag}
	if d.Message != nil {
		e.M = d.Message.ID
	}
	return e
}

// OnTrying implements [outlast.HookTried].
func (r *Recorder) OnTrying(group string, m *outlast.Message, attempt int) {
	r.Record(Event{E: Start, G: group, M: m.ID, N: attempt})
}

// OnTried implements [outlast.HookTried].
func (r *Recorder) OnTried(group string, m *outlast.Message, attempt int, end outlast.TryEnd, err error) {
	e := Event{E: Tried, G: group, M: m.ID, N: attempt, O: string(end)}
	if err != nil {
		e.Why = outlast.CleanErrorText(err.Error())
	}
	r.Record(e)
	if end != outlast.TryOK {
		r.effects.Delete(effectKey{group, m.ID})
	}
}

// OnRecorded implements [outlast.HookRecorded].
func (r *Recorder) OnRecorded(rec outlast.Recorded) {
	e := Event{E: Effect, G: rec.Group, M: rec.Message.ID, O: outcomeOf(rec.Err)}
	if rec.Err != nil {
		e.Error = outlast.CleanErrorText(rec.Err.Error())
	}
	switch {
	case rec.Result == outlast.HandledDuplicate:
		e.E, e.Why = Known, string(rec.Known)
	case rec.Dead != nil:
		e.E, e.Why, e.N, e.At = Dead, rec.Dead.Reason, rec.Dead.Attempts, micros(rec.Dead.FirstAt)
		e.Type, e.Source, e.Error = rec.Message.Type, rec.Message.Source, rec.Dead.Error
	case rec.Waiting != nil:
		e.E, e.Why, e.N, e.Wait = Park, rec.Waiting.Reason, rec.Waiting.Attempts, int64(rec.Waiting.Wait)
	default:
		if tx, ok := r.effects.LoadAndDelete(effectKey{rec.Group, rec.Message.ID}); ok {
			e.Tx = tx.(string)
		}
		if rec.Result != outlast.HandledOK {
			e.Why = string(rec.Result)
		}
	}
	r.Record(e)
}

// OnAcked implements [outlast.HookAcked].
func (r *Recorder) OnAcked(group string, d *outlast.Delivery, ok bool) {
	e := ofDelivery(Settle, group, d)
	if e.O = Stale; ok {
		e.O = Ack
	}
	r.Record(e)
}

// OnPurged implements [outlast.HookPurged].
func (r *Recorder) OnPurged(p outlast.PurgeRequest, forgotten int, err error) {
	r.Record(Event{E: Purge, G: p.Group, Source: p.Source, N: forgotten, At: micros(p.SettledBefore), Wait: int64(p.Age), O: outcomeOf(err)})
}
