package outlast

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// TransientErrors is implemented by an [InboxStore] that can tell its engine's
// errors apart. Transient reports whether err, which a handler returned or Commit
// gave, is the database's own trouble: a deadlock, a serialization failure, a lost
// connection, a server that shuts down. Such a try costs no attempt.
type TransientErrors interface {
	Transient(err error) bool
}

var (
	errDeadline = errors.New("the handler's deadline passed")
	errGrace    = errors.New("the consumer's grace is over")
)

// panicError is a handler's panic as an error.
type panicError struct{ value any }

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// tryKind is how a try ended, as far as it concerns who pays for it.
type tryKind int

const (
	tryOK          tryKind = iota
	tryFailed              // the message's own failure, or its handler's verdict
	tryTransient           // the database's trouble: no attempt
	tryInterrupted         // the consumer was cut: no attempt, nothing to record
)

// try is the end of one call of a handler.
type try struct {
	kind      tryKind
	err       error
	published publishNote // what it wrote into outboxes
	trial     trial
}

// publishedKey is where a handler's context carries that something was published
// under it.
type publishedKey struct{}

// publishNote says whether messages were written into an outbox, 0: none, and when the first of
// them was, in nanoseconds of Unix. It is blind when the relay was not told the slot of one.
type publishNote int64

const blind publishNote = 1

func (n publishNote) merge(m publishNote) publishNote {
	if n == 0 || m == 0 {
		return max(n, m)
	}
	return min(n, m)
}

// first is the time of the first publish, or the zero time.
func (n publishNote) first() time.Time {
	if n == blind {
		return time.Time{}
	}
	return time.Unix(0, int64(n))
}

// notePublished is told of every publish of any outbox: a handler often has one of
// its own, made before the service.
func notePublished(ctx context.Context, hinted bool) {
	p, ok := ctx.Value(publishedKey{}).(*atomic.Int64)
	if !ok {
		return
	}
	note := blind
	if hinted {
		note = publishNote(time.Now().UnixNano())
	}
	for {
		was := p.Load()
		if p.CompareAndSwap(was, int64(publishNote(was).merge(note))) {
			return
		}
	}
}

// runHandler calls a handler with its deadline and catches its panics. It returns
// when the handler has returned, however late: the transaction is used by one
// goroutine. from is nil for a retry.
func (c *Consumer) runHandler(ctx context.Context, tx Tx, h *boundHandler, m *Message, from *Delivery, attempt int) try {
	var published atomic.Int64
	inner := context.WithValue(withCause(ctx, &m.Envelope), publishedKey{}, &published)
	inner, cancel := context.WithTimeoutCause(inner, h.deadline, errDeadline)
	defer cancel()
	if !c.hooks.none() {
		eachHook(&c.hooks, func(h HookTried) { h.OnTrying(c.conf.Group, m, attempt) })
	}
	d := &Delivered{Message: m, Group: c.conf.Group, Attempt: attempt}
	if from != nil {
		d.Exchange, d.RoutingKey, d.Queue, d.Tag = from.Exchange, from.RoutingKey, from.Queue, from.Tag
	}
	watched, trial := c.hooks.try(inner, d)
	err := untimed(ctx, func() error { return c.call(watched, tx, h, d) })
	cause := context.Cause(inner)
	t := try{err: err, published: publishNote(published.Load()), trial: trial}
	_, isVerdict := verdictOf(err)
	switch {
	case ctx.Err() != nil && err != nil:
		t.kind = tryInterrupted
	case isVerdict:
		t.kind = tryFailed
	case cause == errDeadline:
		t.kind, t.err = tryFailed, errors.Join(fmt.Errorf("%w after %v", errDeadline, h.deadline), err)
	case err == nil:
		t.kind = tryOK
	case c.transient(err):
		t.kind = tryTransient
	default:
		t.kind = tryFailed
	}
	if !c.hooks.none() {
		eachHook(&c.hooks, func(h HookTried) { h.OnTried(c.conf.Group, m, attempt, t.kind.told(), t.err) })
	}
	return t
}

// told is the kind as hooks are told it.
func (k tryKind) told() TryEnd {
	switch k {
	case tryOK:
		return TryOK
	case tryTransient:
		return TryTransient
	case tryInterrupted:
		return TryInterrupted
	}
	return TryFailed
}

func (c *Consumer) call(ctx context.Context, tx Tx, h *boundHandler, d *Delivered) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p}
			c.log.ErrorContext(ctx, "a handler panicked", "type", h.typ, "id", d.Message.ID, "panic", CleanErrorText(fmt.Sprint(p)), "stack", string(debug.Stack()))
		}
	}()
	return h.run(ctx, tx, d)
}

// transient reports whether a handler's error is the database's trouble.
func (c *Consumer) transient(err error) bool {
	if s, ok := c.inbox.(TransientErrors); ok && s.Transient(err) {
		return true
	}
	var e *Error
	return errors.Is(err, driver.ErrBadConn) || errors.As(err, &e) && e.Code == CodeUnavailable
}

// storeTrouble reports whether an error of the inbox says nothing about the message.
func (c *Consumer) storeTrouble(err error) bool {
	switch CodeOf(err) {
	case CodeSchema, CodeDenied:
		return true // the tables or rights changed under us: a person will change them again
	}
	return Retryable(err) || c.transient(err)
}

// fate is what becomes of a message: exactly one of wait and dead is set.
type fate struct {
	result HandledResult
	err    error // the handler's
	wait   *Waiting
	dead   *DeadLetterRecord
}

// decide turns a failed try into the message's fate.
func (r *consumerRun) decide(m *Message, h history, err error) fate {
	if v, ok := verdictOf(err); ok {
		switch v.kind {
		case verdictSnooze:
			wait := v.wait
			if wait <= 0 {
				wait = time.Second
			}
			return r.c.postpone(m, h, WaitSnoozed, min(wait, MaxDelay), err)
		case verdictUnavailable:
			return r.c.postpone(m, h, WaitUnavailable, r.gate.unavailable(messageID{m.Source, m.ID}), err)
		default:
			h.attempts++
			return r.c.bury(m, h, DeadVerdict, err)
		}
	}
	h.attempts++
	if h.attempts >= r.c.conf.Retry.Attempts {
		return r.c.bury(m, h, DeadSpent, err)
	}
	return r.c.postpone(m, h, WaitFailed, r.c.conf.Retry.backoff(h.attempts), err)
}

const troubledLongest = 30 * time.Second

// postponeTroubled makes a message wait that the database fails, at no cost of an attempt.
// Nobody counts, so that the pause grows with the time that it waits already: from a second
// and a backoff to half a minute or so, after four of them.
func (c *Consumer) postponeTroubled(m *Message, h history, err error) fate {
	spread := c.conf.Retry.longest(1)
	if !h.firstAt.IsZero() {
		spread = min(max(spread, time.Since(h.firstAt)/8), max(spread, troubledLongest))
	}
	return c.postpone(m, h, WaitUnavailable, time.Second+jitter(spread), err)
}

// postpone makes the message wait.
func (c *Consumer) postpone(m *Message, h history, reason string, wait time.Duration, err error) fate {
	w := &Waiting{
		Group: c.conf.Group, Message: m, Ordered: c.keyOf(m) != "",
		Attempts: h.attempts, Replays: h.replays, FirstAt: h.firstAt,
		Wait: wait, Reason: reason,
	}
	if err != nil {
		w.Error = CleanErrorText(err.Error())
	}
	return fate{result: HandledRetry, err: err, wait: w}
}

// bury makes the message a dead letter, or holds it where dead letters hold keys.
func (c *Consumer) bury(m *Message, h history, reason string, err error) fate {
	if c.conf.OnDead == DeadHoldsKey && c.keyOf(m) != "" {
		return c.postpone(m, h, WaitSpent, holdForever, fmt.Errorf("%s: %w", reason, err))
	}
	return fate{result: HandledDead, err: err, dead: c.deadRecord(m, h, reason, err.Error())}
}
