package outlast

import (
	"context"
	"errors"
	"time"
)

// The hooks of this file surround what they observe, as tracing needs it. They are
// called as other hooks are: they must be quick, and a panic in one is recovered.

// HookEnqueuing is called before messages are written into an outbox. It may set their
// TraceParent and TraceState, where these are empty, and nothing else; a nil done is
// fine. done is told when the statement has ended: nil means that the messages are in
// the transaction, which may still roll back.
type HookEnqueuing interface {
	OnEnqueuing(ctx context.Context, msgs []*Message) (done func(err error))
}

// HookAround surrounds each run of a handler. Around gets the context that the handler is
// to get and returns the one it gets. done, which may be nil, is called once when
// it is known what became of the try: after the commit, with the same Handled as
// [HookHandled] gets, or with HandledAgain or HandledCut when nothing was recorded.
type HookAround interface {
	Around(ctx context.Context, d *Delivered) (inner context.Context, done func(Handled))
}

// Results of a try that left no trace in the database; only HookAround is told of them.
const (
	// HandledAgain: the transaction was rolled back, and the message is tried again
	// without a cost.
	HandledAgain HandledResult = "again"
	// HandledCut: the consumer ended before the try did; the message is delivered again.
	HandledCut HandledResult = "cut"
)

// HookResults is told what became of publishes, those together that were heard of
// together. [HookPublished] is told the same one by one.
type HookResults interface {
	OnResults(rs []Published)
}

// Published is the end of one publish.
type Published struct {
	Row     *Row
	Outcome Outcome
	Err     error
	// Sent is when it was handed to the publisher.
	Sent time.Time
}

// enqueuing tells the hooks that msgs are about to be written, and returns who is to
// be told when they are.
func (h *hooks) enqueuing(ctx context.Context, msgs []*Message) []func(error) {
	if h.none() {
		return nil
	}
	var ends []func(error)
	eachHook(h, func(hook HookEnqueuing) {
		if done := hook.OnEnqueuing(ctx, msgs); done != nil {
			ends = append(ends, done)
		}
	})
	return ends
}

func (h *hooks) enqueued(ends []func(error), err error) {
	for _, done := range ends {
		h.guard(func() { done(err) })
	}
}

// trial is a try that hooks watch. The zero value watches nothing.
type trial struct {
	hooks *hooks
	ends  []func(Handled)
	h     Handled // what is known at its begin
	began time.Time
}

// try lets the hooks begin a try of d.
func (h *hooks) try(ctx context.Context, d *Delivered) (context.Context, trial) {
	if h.none() {
		return ctx, trial{}
	}
	return h.watch(ctx, d)
}

func (h *hooks) watch(ctx context.Context, d *Delivered) (context.Context, trial) {
	t := trial{hooks: h, h: Handled{Group: d.Group, Message: d.Message, Attempt: d.Attempt}}
	eachHook(h, func(hook HookAround) {
		inner, done := hook.Around(ctx, d)
		if inner != nil {
			ctx = inner
		}
		if done != nil {
			t.ends = append(t.ends, done)
		}
	})
	if t.ends != nil {
		t.began = time.Now()
	}
	return ctx, t
}

// end tells the hooks what became of the try, once.
func (t *trial) end(h Handled) {
	ends := t.ends
	t.ends = nil
	if h.Duration == 0 && ends != nil {
		h.Duration = time.Since(t.began)
	}
	for _, done := range ends {
		t.hooks.guard(func() { done(h) })
	}
}

// undone ends a try of which nothing was recorded.
func (t *trial) undone(result HandledResult, err error) {
	if t.ends == nil {
		return
	}
	h := t.h
	h.Result, h.Err, h.Duration = result, err, time.Since(t.began)
	t.end(h)
}

// traceID is the id of the trace that a message was created in, for logs; "" for none.
func traceID(m *Message) string {
	if len(m.TraceParent) != 55 {
		return ""
	}
	return m.TraceParent[3:35]
}

// ErrorClass names what kind of error ended a try, for metrics: one of a small fixed
// set of words, however many texts errors have. "" for nil; "dead_letter", "snoozed"
// and "unavailable" for the verdicts; "panic", "deadline" and "expired"; the [Code] of
// an *[Error]; "canceled" for a context that ended; "error" for anything else.
func ErrorClass(err error) string {
	if err == nil {
		return "" // before anything that errors.As would move to the heap
	}
	var p *panicError
	var e *Error
	v, isVerdict := verdictOf(err)
	switch {
	case isVerdict && v.kind == verdictSnooze:
		return "snoozed"
	case isVerdict && v.kind == verdictUnavailable:
		return "unavailable"
	case isVerdict:
		return "dead_letter"
	case errors.As(err, &p):
		return "panic"
	case errors.Is(err, errDeadline):
		return "deadline"
	case errors.Is(err, errExpired):
		return "expired"
	case errors.As(err, &e) && e.Code != "":
		return string(e.Code)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "canceled"
	}
	return "error"
}
