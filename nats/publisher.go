package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/outlastmq/outlast"
)

// publisher reports every message once. Lanes are only sets of messages here: NATS
// has nothing that an error of one message closes for the others.
type publisher struct {
	b   *broker
	cfg outlast.PublisherConfig
	log *slog.Logger

	mu      sync.Mutex
	session *pubSession // nil without a connection
	lanes   map[int]map[*flight]struct{}

	reports   []outlast.Result
	reporting bool
	quiet     *sync.Cond // reporting has ended
}

// flight is one message from Send to its result.
type flight struct {
	p       *outlast.Publishing
	lane    int
	subject string
	view    *view
	state   flightState
	// after is the number of the refresh of the view that must be over before a
	// parked flight can be judged.
	after uint64
}

type flightState int

const (
	unsent  flightState = iota
	sent                // waits for the stream's word
	nobody              // the server had no stream to give it to
	stored              // acknowledged, by a stream of which we know that its consumers changed
	settled             // reported
)

// Publisher returns a publisher. See the package's text for what a confirm means.
func (b *broker) Publisher(cfg outlast.PublisherConfig) outlast.Publisher {
	p := &publisher{b: b, cfg: cfg, log: logger(cfg.Logger), lanes: map[int]map[*flight]struct{}{}}
	p.quiet = sync.NewCond(&p.mu)
	return p
}

func (p *publisher) Run(ctx context.Context) error {
	if p.b.err != nil {
		return p.b.err
	}
	state := linkReporter{report: p.cfg.Link}
	pause := backoff{limit: p.b.maxBackoff}
	for {
		began, err := p.runSession(ctx, &state)
		if ctx.Err() != nil {
			state.set(outlast.LinkDown, ctx.Err())
			p.drainReports()
			return nil
		}
		pause.lived(began)
		state.set(outlast.LinkDown, err)
		if state.told.Due(outlast.LinkDown) {
			p.log.Warn("not publishing to nats", "broker", p.b.address, "error", err)
		}
		if !pause.wait(ctx, err) {
			p.drainReports()
			return nil
		}
	}
}

// runSession is one connection's life. began is when messages could be published by it; zero
// when they could not.
func (p *publisher) runSession(ctx context.Context, state *linkReporter) (began time.Time, err error) {
	l, err := p.b.dial(ctx, "publisher", p.routeDenied)
	if err != nil {
		return began, err
	}
	defer l.end()
	ctx, cancel := context.WithCancel(ctx)
	s := &pubSession{p: p, l: l, ctx: ctx, prefix: l.NewRespInbox() + ".", flights: map[string]*flight{}, views: map[string]*view{}}
	defer s.lookers.Wait()
	defer cancel()
	if err := s.listen(); err != nil {
		return began, p.b.fault("listen for acknowledgements", outlast.CodeUnavailable, err)
	}
	p.mu.Lock()
	p.session = s
	p.mu.Unlock()
	defer p.detach()
	began = time.Now()
	state.expires = l.expires()
	state.set(outlast.LinkUp, nil)
	if state.told.Due(outlast.LinkUp) {
		p.log.Info("publishing to nats", "broker", p.b.address)
	}
	select {
	case <-ctx.Done():
		return began, ctx.Err()
	case <-l.closed:
		err := l.LastError()
		if err == nil {
			err = errors.New("the server closed the connection")
		}
		return began, p.b.fault("publish", outlast.CodeUnavailable, err)
	}
}

// detach ends the session for messages: what is unresolved is unknown.
func (p *publisher) detach() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = nil
	for lane := range p.lanes {
		p.dropLane(lane, "the connection ended before the broker's word")
	}
}

func (p *publisher) Drop(lane int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLane(lane, "the lane was dropped before the broker's word")
}

func (p *publisher) dropLane(lane int, why string) {
	for f := range p.lanes[lane] {
		outcome, code := outlast.OutcomeUnknown, outlast.CodeUnknown
		if f.state == unsent || f.state == nobody {
			outcome, code = outlast.OutcomeNotSent, outlast.CodeUnavailable
		}
		p.settle(f, outcome, &outlast.Error{Op: "publish " + f.subject, Code: code, Err: errors.New(why)}, false)
	}
	delete(p.lanes, lane)
}

func (p *publisher) Send(lane int, ps []*outlast.Publishing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pub := range ps {
		f := &flight{p: pub, lane: lane, subject: pub.Exchange + "." + pub.RoutingKey}
		if p.lanes[lane] == nil {
			p.lanes[lane] = map[*flight]struct{}{}
		}
		p.lanes[lane][f] = struct{}{}
		p.send(f)
	}
}

func (p *publisher) send(f *flight) {
	if err := checkExchange(f.p.Exchange); err != nil {
		p.settle(f, outlast.OutcomeLaneError, err, true)
		return
	}
	if err := checkRoutingKey(f.p.RoutingKey); err != nil {
		p.settle(f, outlast.OutcomeRefused, err, false)
		return
	}
	s := p.session
	if s == nil {
		p.settle(f, outlast.OutcomeNotSent, &outlast.Error{Op: "publish " + f.subject, Code: outlast.CodeUnavailable, Err: errors.New("not connected")}, false)
		return
	}
	f.view = s.view(f.p.Exchange)
	if !f.view.wants(f.subject) {
		f.view.park(f)
		return
	}
	s.publish(f)
}

// settle reports a flight. Called with mu held.
func (p *publisher) settle(f *flight, outcome outlast.Outcome, err error, routeFault bool) {
	if f.state == settled {
		return
	}
	f.state = settled
	if lane := p.lanes[f.lane]; lane != nil {
		delete(lane, f)
	}
	p.reports = append(p.reports, outlast.Result{P: f.p, Outcome: outcome, Err: err, RouteFault: routeFault})
	if !p.reporting && p.cfg.Results != nil {
		p.reporting = true
		go p.report()
	}
}

// report hands over results, in order, until there are none.
func (p *publisher) report() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.reports) > 0 {
		batch := p.reports
		p.reports = nil
		p.mu.Unlock()
		p.cfg.Results(batch)
		p.mu.Lock()
	}
	p.reporting = false
	p.quiet.Broadcast()
}

func (p *publisher) drainReports() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.reporting {
		p.quiet.Wait()
	}
}

// routeDenied settles what is under way to a subject that this user may not use:
// such a message gets no answer but an error of the connection.
func (p *publisher) routeDenied(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, lane := range p.lanes {
		for f := range lane {
			if f.state == sent && f.subject == subject {
				p.settle(f, outlast.OutcomeLaneError, &outlast.Error{Op: "publish " + subject, Code: outlast.CodeDenied,
					Hint: "this user may not publish there"}, true)
			}
		}
	}
}

// pubSession is one connection of a publisher. Its fields are guarded by p.mu.
type pubSession struct {
	p       *publisher
	l       *link
	ctx     context.Context
	prefix  string
	last    uint64
	flights map[string]*flight // by the subject of the acknowledgement
	views   map[string]*view   // by exchange
	lookers sync.WaitGroup
}

// listen subscribes to acknowledgements and to the news of deleted consumers.
func (s *pubSession) listen() error {
	acks, err := s.l.Subscribe(s.prefix+"*", s.acked)
	if err != nil {
		return err
	}
	if err := acks.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	for _, kind := range []string{"CONSUMER.DELETED", "STREAM.DELETED", "STREAM.UPDATED"} {
		// A user without the right to hear them has the timer.
		if _, err := s.l.Subscribe("$JS.EVENT.ADVISORY."+kind+".>", s.topologyChanged); err != nil {
			return err
		}
	}
	return s.l.FlushTimeout(apiTimeout)
}

func (s *pubSession) topologyChanged(*client.Msg) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	for _, v := range s.views {
		v.doubted = v.started
		v.wake()
	}
}

// publish writes one message. Called with mu held; the write is bounded.
func (s *pubSession) publish(f *flight) {
	s.last++
	reply := fmt.Sprintf("%s%x", s.prefix, s.last)
	m, err := encode(f.p.Message, f.subject, reply)
	if err == nil {
		f.state = sent
		s.flights[reply] = f
		err = s.l.PublishMsg(m)
	}
	if err == nil {
		return
	}
	delete(s.flights, reply)
	op := "publish " + f.subject
	switch {
	case f.state == unsent, errors.Is(err, client.ErrMaxPayload), errors.Is(err, client.ErrBadHeaderMsg), errors.Is(err, client.ErrBadSubject):
		e := s.p.b.fault(op, outlast.CodeRefused, err)
		if errors.Is(err, client.ErrMaxPayload) {
			e.Hint = fmt.Sprintf("the server takes at most %d bytes (max_payload)", s.l.MaxPayload())
		}
		s.p.settle(f, outlast.OutcomeRefused, e, false)
	case errors.Is(err, client.ErrConnectionClosed):
		s.p.settle(f, outlast.OutcomeNotSent, s.p.b.fault(op, outlast.CodeUnavailable, err), false)
	default:
		s.p.settle(f, outlast.OutcomeUnknown, s.p.b.fault(op, outlast.CodeUnknown, err), false)
	}
}

// acked judges the stream's answer to one message.
func (s *pubSession) acked(m *client.Msg) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	f := s.flights[m.Subject]
	if f == nil {
		return
	}
	delete(s.flights, m.Subject)
	if f.state != sent {
		return
	}
	if m.Header.Get("Status") == "503" {
		f.state = nobody
		f.view.park(f)
		return
	}
	var ack struct {
		Stream string    `json:"stream"`
		Seq    uint64    `json:"seq"`
		Error  *apiError `json:"error"`
	}
	op := "publish " + f.subject
	if err := json.Unmarshal(m.Data, &ack); err != nil || ack.Error == nil && ack.Seq == 0 {
		s.p.settle(f, outlast.OutcomeUnknown, &outlast.Error{Op: op, Code: outlast.CodeUnknown, Err: errors.New("an answer that is no acknowledgement of JetStream")}, false)
		return
	}
	if ack.Error != nil {
		s.nacked(f, ack.Error)
		return
	}
	f.state = stored
	if f.view.wants(f.subject) && !f.view.inDoubt() {
		s.p.settle(f, outlast.OutcomeConfirmed, nil, false)
		return
	}
	f.view.park(f)
}

// nacked sorts the stream's refusals: all of them are certain that it has not got
// the message.
func (s *pubSession) nacked(f *flight, e *apiError) {
	op := "publish " + f.subject
	switch {
	case e.ErrCode == errMessageTooLarge:
		s.p.settle(f, outlast.OutcomeRefused, s.p.b.fault(op, outlast.CodeRefused, e), false)
	case e.ErrCode == errStreamSealed:
		s.p.settle(f, outlast.OutcomeLaneError, s.p.b.fault(op, outlast.CodeRefused, e), true)
	default: // a limit of the stream, the account or the disk; a leader on its way out
		s.p.settle(f, outlast.OutcomeNacked, s.p.b.fault(op, outlast.CodeUnavailable, e), false)
	}
}
