package nats

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

// refreshPause keeps a stream of unroutable messages from asking the server
// without a break.
const refreshPause = 50 * time.Millisecond

// view is what a publisher knows of one stream's durable consumers. Its fields are
// guarded by the publisher's mu.
type view struct {
	s        *pubSession
	exchange string
	stream   string
	// started counts the refreshes begun, done is the number of the last one that
	// ended. Nobody may be called unheard on older news than the message itself.
	started, done uint64
	// doubted is the number of a refresh whose result, and all before it, may be out
	// of date: a consumer was deleted since it began.
	doubted uint64

	filters map[string][]string // by durable
	known   map[string]bool     // subjects asked for since the last refresh
	parked  []*flight
	kick    chan struct{}
}

// view returns the view of an exchange, and starts looking at it when it is new.
func (s *pubSession) view(exchange string) *view {
	v := s.views[exchange]
	if v == nil {
		v = &view{s: s, exchange: exchange, stream: StreamName(exchange), kick: make(chan struct{}, 1), known: map[string]bool{}}
		s.views[exchange] = v
		s.lookers.Go(func() { v.run(s.ctx) })
	}
	return v
}

// maxKnown bounds the memory of subjects; routing keys may be anybody's.
const maxKnown = 65_536

func (v *view) wants(subject string) bool {
	wanted, ok := v.known[subject]
	if ok {
		return wanted
	}
	for _, fs := range v.filters {
		for _, f := range fs {
			if wanted = covers(f, subject); wanted {
				break
			}
		}
		if wanted {
			break
		}
	}
	if len(v.known) >= maxKnown {
		clear(v.known)
	}
	v.known[subject] = wanted
	return wanted
}

func (v *view) inDoubt() bool { return v.doubted != 0 && v.done <= v.doubted }

// park keeps a flight until a refresh that begins from now on is over.
func (v *view) park(f *flight) {
	f.after = v.started + 1
	v.parked = append(v.parked, f)
	v.wake()
}

func (v *view) wake() {
	select {
	case v.kick <- struct{}{}:
	default:
	}
}

func (v *view) run(ctx context.Context) {
	tick := time.NewTicker(v.s.p.b.refresh)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-v.kick:
		}
		v.refresh(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(refreshPause):
		}
	}
}

// refresh asks the server and judges what was waiting for its answer.
func (v *view) refresh(ctx context.Context) {
	mu := &v.s.p.mu
	mu.Lock()
	v.started++
	number := v.started
	mu.Unlock()
	filters, missing, err := v.s.l.durableFilters(ctx, v.stream)
	if ctx.Err() != nil {
		return // the end of the session settles everything
	}
	mu.Lock()
	defer mu.Unlock()
	switch code := outlast.CodeOf(err); code {
	case "":
		for _, name := range missing { // it exists: what it wanted a moment ago stands
			if old, ok := v.filters[name]; ok {
				filters[name] = old
			}
		}
		v.replace(number, filters)
	case outlast.CodeNotFound, outlast.CodeDenied:
		v.replace(number, nil)
	default:
		v.s.p.log.Debug("consumers not listed", "stream", v.stream, "error", err)
	}
	v.judge(number, err)
}

func (v *view) replace(number uint64, filters map[string][]string) {
	v.done = number
	if !maps.EqualFunc(v.filters, filters, func(a, b []string) bool { return strings.Join(a, " ") == strings.Join(b, " ") }) {
		v.filters = filters
		clear(v.known)
	}
}

// judge settles or sends, in order, every parked flight that waited for no later
// refresh than this one. What is wanted now is sent however late it came: messages
// sent after it, straight away, must not overtake it.
func (v *view) judge(number uint64, err error) {
	waiting := v.parked
	v.parked = nil
	for _, f := range waiting {
		switch {
		case f.state == settled:
		case f.state == unsent && v.wants(f.subject):
			v.s.publish(f)
		case f.after > number:
			v.parked = append(v.parked, f)
		default:
			v.judgeFlight(f, err)
		}
	}
	if len(v.parked) > 0 || v.inDoubt() && err == nil {
		v.wake()
	}
}

func (v *view) judgeFlight(f *flight, err error) {
	p, op := v.s.p, "publish "+f.subject
	switch outlast.CodeOf(err) {
	case "":
	case outlast.CodeNotFound:
		p.settle(f, outlast.OutcomeLaneError, &outlast.Error{Op: op, Code: outlast.CodeNotFound,
			Err: fmt.Errorf("no stream %q for exchange %q", v.stream, v.exchange), Hint: "apply the topology"}, true)
		return
	case outlast.CodeDenied:
		p.settle(f, outlast.OutcomeLaneError, err, true)
		return
	default:
		// The consumers cannot be learnt now. A stored message was probably wanted, but
		// nobody can say so.
		outcome := outlast.OutcomeNotSent
		if f.state == stored {
			outcome = outlast.OutcomeUnknown
		}
		p.settle(f, outcome, err, false)
		return
	}
	wanted := v.wants(f.subject)
	switch {
	case f.state == stored && v.inDoubt():
		v.park(f) // a consumer was deleted while the server answered
	case f.state == nobody:
		p.settle(f, outlast.OutcomeNotSent, &outlast.Error{Op: op, Code: outlast.CodeUnavailable,
			Err: fmt.Errorf("stream %q has no leader or does not take the subject", v.stream)}, false)
	case !wanted:
		p.settle(f, outlast.OutcomeUnroutable, &outlast.Error{Op: op, Code: outlast.CodeNotFound,
			Err: fmt.Errorf("no durable consumer of stream %q wants it", v.stream)}, false)
	case f.state == stored:
		p.settle(f, outlast.OutcomeConfirmed, nil, false)
	default:
		v.s.publish(f)
	}
}
