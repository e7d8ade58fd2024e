package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// publisher keeps all its state under the broker's mu and calls back only from Run.
type publisher struct {
	b    *Broker
	conf outlast.PublisherConfig
	wake chan struct{}

	running bool
	link    outlast.LinkState
	pending []sending
	lanes   map[int][]*inflight
	results []outlast.Result
	links   []outlast.Link
}

type sending struct {
	lane int
	ps   []*outlast.Publishing
}

// inflight is a message that the broker has taken and not confirmed.
type inflight struct {
	p       *outlast.Publishing
	waits   []*queue // sick ones
	dropped bool
}

func (p *publisher) poke() { poke(p.wake) }

// Run returns nil when ctx ends.
func (p *publisher) Run(ctx context.Context) error {
	p.b.mu.Lock()
	p.running = true
	p.b.publishers[p] = true
	p.b.mu.Unlock()
	for ctx.Err() == nil {
		p.round()
		select {
		case <-p.wake:
		case <-ctx.Done():
		}
	}
	p.b.mu.Lock()
	p.cut("the publisher ended")
	p.running = false
	delete(p.b.publishers, p)
	results, links := p.takeReports()
	p.b.mu.Unlock()
	p.report(results, links)
	return nil
}

// round does what is to be done and reports it.
func (p *publisher) round() {
	p.b.mu.Lock()
	p.observe()
	pending := p.pending
	p.pending = nil
	for _, s := range pending {
		p.publish(s)
	}
	if len(p.results) > 1 && p.b.chance(p.b.conf.reordering) {
		p.b.rng.Shuffle(len(p.results), func(i, j int) { p.results[i], p.results[j] = p.results[j], p.results[i] })
	}
	results, links := p.takeReports()
	p.b.mu.Unlock()
	p.report(results, links)
}

func (p *publisher) takeReports() ([]outlast.Result, []outlast.Link) {
	results, links := p.results, p.links
	p.results, p.links = nil, nil
	return results, links
}

func (p *publisher) report(results []outlast.Result, links []outlast.Link) {
	if p.conf.Link != nil {
		for _, l := range links {
			p.conf.Link(l)
		}
	}
	if len(results) > 0 && p.conf.Results != nil {
		p.conf.Results(results)
	}
}

// observe notes a change of the link.
func (p *publisher) observe() {
	switch {
	case p.b.down:
		p.setLink(outlast.LinkDown, "the broker is down")
	case p.b.block != "":
		p.setLink(outlast.LinkBlocked, p.b.block)
	default:
		p.setLink(outlast.LinkUp, "")
	}
}

func (p *publisher) setLink(state outlast.LinkState, reason string) {
	if p.link == state {
		return
	}
	p.link = state
	p.links = append(p.links, outlast.Link{State: state, Since: time.Now(), Reason: reason})
}

// cut ends the connection.
func (p *publisher) cut(reason string) {
	err := unavailable("publish", errors.New(reason))
	for _, s := range p.pending {
		p.resolve(s.ps, outlast.OutcomeNotSent, err)
	}
	p.pending = nil
	for lane := range p.lanes {
		p.drop(lane, reason)
	}
	p.setLink(outlast.LinkDown, reason)
}

func (p *publisher) resolve(ps []*outlast.Publishing, o outlast.Outcome, err error) {
	for _, one := range ps {
		p.results = append(p.results, outlast.Result{P: one, Outcome: o, Err: err})
	}
}

// drop ends a lane: nobody will learn what became of its messages.
func (p *publisher) drop(lane int, reason string) {
	err := &outlast.Error{Op: "publish", Code: outlast.CodeUnknown, Err: errors.New(reason)}
	for _, f := range p.lanes[lane] {
		p.resolve([]*outlast.Publishing{f.p}, outlast.OutcomeUnknown, err)
	}
	delete(p.lanes, lane)
}

// Send hands messages over; results come from Run. While Run is not running they
// come at once, from the caller's goroutine.
func (p *publisher) Send(lane int, ps []*outlast.Publishing) {
	p.b.mu.Lock()
	usable := p.running && !p.b.down && p.b.block == ""
	if usable {
		p.pending = append(p.pending, sending{lane, slices.Clone(ps)})
	} else {
		p.resolve(ps, outlast.OutcomeNotSent, unavailable("publish", errors.New("no connection")))
	}
	var results []outlast.Result
	if !p.running {
		results, _ = p.takeReports()
	}
	p.b.mu.Unlock()
	p.report(results, nil)
	p.poke()
}

func (p *publisher) Drop(lane int) {
	p.b.mu.Lock()
	for _, s := range p.pending {
		if s.lane == lane {
			for _, one := range s.ps {
				p.lanes[lane] = append(p.lanes[lane], &inflight{p: one})
			}
		}
	}
	p.pending = slices.DeleteFunc(p.pending, func(s sending) bool { return s.lane == lane })
	p.drop(lane, "the lane was dropped")
	p.b.mu.Unlock()
	p.poke()
}

// publish does one Send.
func (p *publisher) publish(s sending) {
	for i, one := range s.ps {
		err := p.b.laneFault(one)
		if err == nil {
			p.publishOne(s.lane, one)
			continue
		}
		p.closeLane(s.lane, s.ps[i:], one, err)
		return
	}
}

// laneFault returns what makes a broker close the channel that the message is on.
func (b *Broker) laneFault(one *outlast.Publishing) error {
	op := "publish " + one.Message.Type
	if size, limit := len(one.Message.Body), b.conf.maxMessage; limit > 0 && size > limit {
		return &outlast.Error{Op: op, Code: outlast.CodeRefused, Err: fmt.Errorf("message of %d bytes: at most %d", size, limit)}
	}
	if one.Exchange != "" && !b.exchanges[one.Exchange] {
		return &outlast.Error{Op: op, Code: outlast.CodeNotFound, Err: fmt.Errorf("no exchange %q", one.Exchange)}
	}
	return nil
}

// closeLane reports everything on the lane, and what had not been read from it.
func (p *publisher) closeLane(lane int, rest []*outlast.Publishing, culprit *outlast.Publishing, err error) {
	routeFault := outlast.CodeOf(err) == outlast.CodeNotFound
	var all []*outlast.Publishing
	for _, f := range p.lanes[lane] {
		all = append(all, f.p)
	}
	delete(p.lanes, lane)
	for _, one := range append(all, rest...) {
		p.results = append(p.results, outlast.Result{
			P: one, Outcome: outlast.OutcomeLaneError, Err: err,
			RouteFault: routeFault && one.Exchange == culprit.Exchange,
		})
	}
}

func (p *publisher) publishOne(lane int, one *outlast.Publishing) {
	b := p.b
	op := "publish " + one.Message.Type
	if len(one.RoutingKey) > 255 {
		p.resolve([]*outlast.Publishing{one}, outlast.OutcomeRefused,
			invalid(op, "routing_key", "at most 255 bytes", fmt.Sprintf("%d bytes", len(one.RoutingKey))))
		return
	}
	queues := b.route(one.Exchange, one.RoutingKey)
	if len(queues) == 0 {
		p.resolve([]*outlast.Publishing{one}, outlast.OutcomeUnroutable,
			&outlast.Error{Op: op, Code: outlast.CodeRefused, Err: fmt.Errorf("no queue is bound to %q on %q", one.RoutingKey, one.Exchange)})
		return
	}
	if b.chance(b.conf.nack) || slices.ContainsFunc(queues, (*queue).full) {
		p.resolve([]*outlast.Publishing{one}, outlast.OutcomeNacked, &outlast.Error{Op: op, Code: outlast.CodeRefused, Err: errors.New("the queue refused it")})
		return
	}
	copies := 1
	if b.chance(b.conf.duplicate) {
		copies = 2
	}
	f := &inflight{p: one, dropped: b.chance(b.conf.drop)}
	for _, q := range queues {
		for range copies {
			b.enqueue(q, encode(one))
		}
		if q.sick {
			f.waits = append(f.waits, q)
		}
	}
	if f.dropped || len(f.waits) > 0 {
		p.lanes[lane] = append(p.lanes[lane], f)
		return
	}
	p.resolve([]*outlast.Publishing{one}, outlast.OutcomeConfirmed, nil)
}

// confirmHealed confirms what waited only for queues that are well again.
func (p *publisher) confirmHealed() {
	for lane, fs := range p.lanes {
		p.lanes[lane] = slices.DeleteFunc(fs, func(f *inflight) bool {
			if f.dropped || slices.ContainsFunc(f.waits, func(q *queue) bool { return q.sick }) {
				return false
			}
			p.resolve([]*outlast.Publishing{f.p}, outlast.OutcomeConfirmed, nil)
			return true
		})
	}
}
