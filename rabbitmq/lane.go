package rabbitmq

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

var errForeignReturn = errors.New("the broker returned a message that is not in flight on this channel")

// laneBurst is how many messages are put on the wire under one hold of the lane.
const laneBurst = 64

// lane is one AMQP channel in confirm mode, or the next one after an error of it.
// One goroutine writes to it; the session's reading goroutine resolves.
type lane struct {
	s      *session
	report func([]outlast.Result)

	mu      sync.Mutex
	work    sync.Cond
	queue   []*outlast.Publishing // not written
	book    tags                  // written, unresolved
	open    bool
	channel uint16
	ch      *amqp.Channel
	over    bool // no more of this lane
}

func newLane(s *session, report func([]outlast.Result)) *lane {
	l := &lane{s: s, report: report}
	l.work.L = &l.mu
	return l
}

// send queues messages; false when the lane is over.
func (l *lane) send(ps []*outlast.Publishing) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.queue = append(l.queue, ps...)
	l.work.Signal()
	return true
}

// run writes until the lane is over.
func (l *lane) run() {
	for l.await() {
		if err := l.ready(); err != nil {
			l.refuse(err)
			continue
		}
		if !l.s.wire.waitRoom() {
			l.refuse(l.unusable())
			continue
		}
		l.burst()
	}
	l.mu.Lock()
	ch := l.ch
	l.mu.Unlock()
	if ch != nil {
		_ = l.s.call("close a channel", ch.Close) // it ends with the session otherwise
	}
}

// await waits for something to write; false when the lane is over.
func (l *lane) await() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 && !l.over {
		l.work.Wait()
	}
	return !l.over
}

// ready opens a channel when there is none.
func (l *lane) ready() error {
	l.mu.Lock()
	open := l.open
	l.mu.Unlock()
	if open {
		return nil
	}
	ch, number, err := l.s.channel()
	if err != nil {
		return err
	}
	if err := l.s.wire.put(func(b []byte) []byte { return appendConfirmSelect(b, number) }); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ch, l.channel, l.open, l.book = ch, number, !l.over, tags{}
	if l.open {
		l.s.register(number, l)
	}
	return nil
}

func (l *lane) unusable() error {
	if l.s.wire.blocked.Load() {
		return &outlast.Error{Op: "publish", Code: outlast.CodeUnavailable, Err: errBlocked}
	}
	if err := l.s.wire.failure(); err != nil {
		return errorOf("publish", err)
	}
	return errorOf("publish", errWireClosed)
}

// refuse gives back what was not written.
func (l *lane) refuse(err error) {
	l.mu.Lock()
	queue := l.queue
	l.queue = nil
	l.mu.Unlock()
	l.report(results(queue, outlast.OutcomeNotSent, errorOf("publish", err)))
}

// burst writes some of the queue. A message is in the book before it is on the wire,
// and both under the lock with which the channel's end is noted: so nothing is
// written to a channel that has ended, and nothing written is forgotten.
func (l *lane) burst() {
	var refused []outlast.Result
	defer func() { l.report(refused) }()
	l.mu.Lock()
	defer l.mu.Unlock()
	for range laneBurst {
		if len(l.queue) == 0 || !l.open {
			return
		}
		p := l.queue[0]
		e, err := encode(p, l.s.user(), l.s.maxSize)
		if err != nil {
			l.queue = l.queue[1:]
			refused = append(refused, outlast.Result{P: p, Outcome: outlast.OutcomeRefused, Err: err})
			continue
		}
		err = l.s.wire.put(func(b []byte) []byte { return e.appendTo(b, l.channel, l.s.maxSize) })
		if err != nil {
			return // run finds out
		}
		l.queue = l.queue[1:]
		l.book.add(p)
	}
}

func (l *lane) current(channel uint16) bool { return l.open && l.channel == channel }

// confirmed resolves what the broker took or refused.
func (l *lane) confirmed(channel uint16, tag uint64, multiple, ack bool) {
	var out []outlast.Result
	l.mu.Lock()
	if l.current(channel) {
		l.book.settle(tag, multiple, func(e tagEntry) { out = append(out, verdict(e, ack)) })
	}
	l.mu.Unlock()
	l.report(out)
}

func verdict(e tagEntry, ack bool) outlast.Result {
	switch {
	case e.returned != nil:
		return outlast.Result{P: e.p, Outcome: outlast.OutcomeUnroutable, Err: e.returned}
	case ack:
		return outlast.Result{P: e.p, Outcome: outlast.OutcomeConfirmed}
	}
	return outlast.Result{P: e.p, Outcome: outlast.OutcomeNacked, Err: &outlast.Error{
		Op: "publish " + e.p.Message.Type, Code: outlast.CodeRefused, Err: errNacked,
	}}
}

// returned notes a message that no queue took. One that cannot be told apart puts
// every message of the channel in doubt.
func (l *lane) returned(channel uint16, r returnedMethod, id string) {
	l.mu.Lock()
	if !l.current(channel) {
		l.mu.Unlock()
		return
	}
	reason := &outlast.Error{
		Op: fmt.Sprintf("publish to exchange %q with routing key %q", r.exchange, r.key), Code: outlast.CodeNotFound,
		Err: replyError(r.code, r.text), Hint: "no queue is bound",
	}
	found := l.book.returned(r.exchange, r.key, id, reason)
	l.mu.Unlock()
	if !found {
		l.s.wire.abort(errForeignReturn)
	}
}

// closedByBroker resolves what was on a channel that the broker closed. The lane
// goes on with a new one.
func (l *lane) closedByBroker(channel uint16, code int, text string) {
	e := &outlast.Error{Op: "publish", Code: outlast.CodeRefused, Err: replyError(code, text)}
	route := code == replyNotFound || code == replyAccessRefused
	switch code {
	case replyNotFound:
		e.Code = outlast.CodeNotFound
	case replyAccessRefused:
		e.Code = outlast.CodeDenied
	}
	if code == replyPrecondition && strings.Contains(text, "user_id property") {
		l.s.userIDRefused()
	}
	var out []outlast.Result
	l.mu.Lock()
	if l.current(channel) {
		l.open, l.ch = false, nil
		l.book.drain(func(t tagEntry) {
			if t.returned != nil {
				out = append(out, verdict(t, true)) // its fate is known
				return
			}
			out = append(out, outlast.Result{P: t.p, Outcome: outlast.OutcomeLaneError, Err: e, RouteFault: route})
		})
	}
	l.mu.Unlock()
	l.report(out)
}

// end closes the lane. What was written is unknown; the outcome of what was not is
// the caller's.
func (l *lane) end(unwritten outlast.Outcome, err error) {
	var out []outlast.Result
	l.mu.Lock()
	l.over = true
	if l.open {
		l.s.forget(l.channel)
		l.open = false
	}
	l.book.drain(func(t tagEntry) {
		out = append(out, outlast.Result{P: t.p, Outcome: outlast.OutcomeUnknown, Err: err})
	})
	out = append(out, results(l.queue, unwritten, err)...)
	l.queue = nil
	l.work.Signal()
	l.mu.Unlock()
	l.report(out)
}

func results(ps []*outlast.Publishing, o outlast.Outcome, err error) []outlast.Result {
	out := make([]outlast.Result, 0, len(ps))
	for _, p := range ps {
		out = append(out, outlast.Result{P: p, Outcome: o, Err: err})
	}
	return out
}
