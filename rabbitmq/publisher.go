package rabbitmq

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/linklog"
)

var (
	errBlocked = errors.New("the broker takes no messages for now (a resource alarm)")
	errNacked  = errors.New("the broker refused the message (a full queue, or a queue without a majority)")
	errDown    = errors.New("there is no connection to rabbitmq")
	errStopped = errors.New("the publisher does not run")
	errDropped = errors.New("the lane was closed before the broker's confirm")
)

// publisher is one supervised connection with lanes on it.
type publisher struct {
	b   *broker
	c   outlast.PublisherConfig
	log *slog.Logger

	mu      sync.Mutex
	running bool
	session *session // nil when not usable
	lanes   map[int]*lane
	down    error // why there is no session

	events   *events
	told     linklog.Log
	warnedOf string // what could not be asserted, so that it is logged once
}

func newPublisher(b *broker, c outlast.PublisherConfig) *publisher {
	if c.Results == nil {
		c.Results = func([]outlast.Result) {}
	}
	if c.Link == nil {
		c.Link = func(outlast.Link) {}
	}
	return &publisher{b: b, c: c, log: b.loggerOr(c.Logger), events: newEvents(c), down: errDown}
}

// Run connects, and connects again after every loss, until ctx ends; it then returns
// nil. It returns an error only at once, for invalid settings or when it runs already.
func (p *publisher) Run(ctx context.Context) error {
	if p.b.invalid != nil {
		return p.b.invalid
	}
	if err := p.start(); err != nil {
		return err
	}
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		p.events.run()
	}()
	pause := backoff{limit: p.b.maxBackoff}
	for ctx.Err() == nil {
		up, err := p.once(ctx)
		if ctx.Err() != nil {
			break
		}
		pause.lived(up)
		p.link(outlast.LinkDown, err.Error())
		wait(ctx, pause.next(err))
	}
	p.link(outlast.LinkDown, "stopped")
	p.mu.Lock()
	p.running, p.down = false, errStopped
	p.mu.Unlock()
	p.events.stop()
	<-reported
	return nil
}

func (p *publisher) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running {
		return &outlast.Error{Op: "run publisher", Code: outlast.CodeInvalid, Err: errors.New("it runs already")}
	}
	p.running, p.down = true, errDown
	p.events.begin()
	return nil
}

// once is one session: from the connect to its end, whose reason it returns, and for
// how long it was up.
func (p *publisher) once(ctx context.Context) (up time.Duration, err error) {
	s, err := p.b.dial(ctx, "publisher", p.log)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	p.assertExchanges(s)
	p.begin(s)
	select {
	case <-s.dead:
		err = s.why()
	case <-ctx.Done():
		err = ended("publish", ctx)
	}
	up = time.Since(began)
	p.end(err, ctx.Err() != nil)
	s.close()
	return up, err
}

// assertExchanges declares the conventional exchanges. A service may lack the right,
// and then they are there or the messages will tell.
func (p *publisher) assertExchanges(s *session) {
	for _, name := range []string{outlast.EventExchange, outlast.CommandExchange} {
		err := s.ensureExchange(name)
		if err != nil && s.alive() && p.warnedOf != err.Error() {
			p.warnedOf = err.Error()
			p.log.Warn("an exchange could not be asserted", "exchange", name, "error", err)
		}
	}
}

func (p *publisher) begin(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session, p.lanes = s, map[int]*lane{}
	s.mu.Lock()
	s.onBlocked = p.blocked // waits for p.mu
	blocked, reason := s.wire.blocked.Load(), s.blockedBy
	s.mu.Unlock()
	if blocked {
		p.linkLocked(outlast.LinkBlocked, reason)
		return
	}
	p.linkLocked(outlast.LinkUp, "")
}

// end resolves everything that was on the session.
func (p *publisher) end(err error, stopped bool) {
	p.mu.Lock()
	lanes := p.lanes
	p.session, p.lanes, p.down = nil, nil, err
	p.mu.Unlock()
	unwritten := outlast.OutcomeNotSent
	if stopped {
		unwritten = outlast.OutcomeUnknown
	}
	for _, l := range lanes {
		l.end(unwritten, &outlast.Error{Op: "publish", Code: outlast.CodeUnknown, Err: err})
	}
}

func (p *publisher) blocked(blocked bool, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == nil {
		return
	}
	if !blocked {
		p.linkLocked(outlast.LinkUp, "")
		return
	}
	p.linkLocked(outlast.LinkBlocked, reason)
}

func (p *publisher) link(state outlast.LinkState, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.linkLocked(state, reason)
}

// linkLocked reports a change, and logs it.
func (p *publisher) linkLocked(state outlast.LinkState, reason string) {
	l := outlast.Link{State: state, Since: time.Now(), Reason: reason}
	if p.session != nil && state != outlast.LinkDown {
		l.Expires = p.session.expires
	}
	p.events.link(l)
	switch {
	case reason == "stopped" || !p.told.Due(state):
	case state == outlast.LinkUp:
		p.log.Info("publishing to rabbitmq", "address", p.b.Address())
	default:
		p.log.Warn("not publishing to rabbitmq", "state", string(state), "reason", reason)
	}
}

// Send queues messages on a lane; the lane's goroutine writes them. It never blocks.
func (p *publisher) Send(number int, ps []*outlast.Publishing) {
	if len(ps) == 0 {
		return
	}
	p.mu.Lock()
	s, why := p.session, p.down
	if s != nil && s.wire.blocked.Load() {
		s, why = nil, errBlocked
	}
	if s == nil {
		p.mu.Unlock()
		p.events.report(results(ps, outlast.OutcomeNotSent,
			&outlast.Error{Op: "publish", Code: outlast.CodeUnavailable, Err: why}))
		return
	}
	defer p.mu.Unlock()
	l := p.lanes[number]
	if l == nil {
		l = newLane(s, p.events.report)
		p.lanes[number] = l
		s.tasks.Go(l.run)
	}
	if !l.send(ps) {
		p.events.report(results(ps, outlast.OutcomeNotSent, l.unusable()))
	}
}

// Drop closes a lane. The next Send on its number opens a new channel.
func (p *publisher) Drop(number int) {
	p.mu.Lock()
	l := p.lanes[number]
	delete(p.lanes, number)
	p.mu.Unlock()
	if l != nil {
		l.end(outlast.OutcomeUnknown, &outlast.Error{Op: "publish", Code: outlast.CodeUnknown, Err: errDropped})
	}
}

// ensureExchange asserts a durable topic exchange. One of the user's own is only
// made when it is missing, since it may be of another type; it is refused when that is
// the delayed-message plugin's, which returns what it routes later.
func (s *session) ensureExchange(name string) error {
	op := "declare exchange " + strconv.Quote(name)
	passive := func() error {
		return s.aside(op, exchangeObject(name).passive)
	}
	conventional := name == outlast.EventExchange || name == outlast.CommandExchange
	if !conventional {
		err := passive()
		if err == nil {
			// To declare what is there changes nothing, and only so its type shows.
			if d, ok := conflictOf(s.aside(op, exchangeObject(name).active)); ok && d.Have == delayedExchange {
				return conflictError(op, d)
			}
			return nil
		}
		if replyCode(err) != replyNotFound {
			return declareError(op, err)
		}
	}
	err := s.aside(op, exchangeObject(name).active)
	if conventional && replyCode(err) == replyAccessRefused && passive() == nil {
		return nil // it is there
	}
	return declareError(op, err)
}

// wait ends early with ctx.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
