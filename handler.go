package outlast

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// LiveTx is a database transaction that has begun and not ended. *sql.Tx,
// *sqlx.Tx and *bun.Tx are; *sql.DB and *sql.Conn are not, so that the compiler
// refuses to publish outside a transaction.
type LiveTx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	StmtContext(ctx context.Context, stmt *sql.Stmt) *sql.Stmt
}

// Tx is the transaction that a handler works in. It holds the inbox mark, the
// handler's effects and the messages it publishes; Outlast commits it after the
// handler has returned nil, and rolls it back otherwise. It has no Commit.
type Tx interface {
	LiveTx
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// Received is a message as a handler gets it: the envelope and the typed body.
type Received[T any] struct {
	Envelope
	Body T
	// Attempt counts from 1; only failures of the message itself count.
	Attempt int
}

// Delivered is a message before its body is decoded, as middleware sees it.
type Delivered struct {
	Message *Message
	Group   string
	Attempt int
	// Exchange, RoutingKey, Queue and Tag are those of the [Delivery], for observers.
	// They are empty for a retry, which comes from the group's own table.
	Exchange, RoutingKey, Queue string
	Tag                         uint64
}

// HandlerFunc is a handler without its type.
type HandlerFunc func(ctx context.Context, tx Tx, d *Delivered) error

// Middleware wraps every handler of a group, the first one outermost.
type Middleware func(next HandlerFunc) HandlerFunc

// Handler handles one type of message in one group. Make it with [Handle].
type Handler struct {
	c      *contract
	run    HandlerFunc
	limits handlerLimits
}

type handlerLimits struct {
	concurrency int
	rate        float64
	deadline    time.Duration
}

// HandleOption refines one handler.
type HandleOption func(*handlerLimits)

// Concurrency lets at most n messages of this type be handled at once by one
// process. Range 1 to 10,000; default: no limit but the group's workers.
func Concurrency(n int) HandleOption { return func(l *handlerLimits) { l.concurrency = n } }

// Rate starts at most perSecond messages of this type a second in one process.
// Default: no limit.
func Rate(perSecond float64) HandleOption { return func(l *handlerLimits) { l.rate = perSecond } }

// Deadline ends the handler's context after d; what it did is rolled back and the
// attempt counts. Range 1 ms to 20 min; default ConsumerConfig.HandlerDeadline.
func Deadline(d time.Duration) HandleOption { return func(l *handlerLimits) { l.deadline = d } }

// Handle joins a contract to the function that handles it.
//
// The function's verdict is its error: nil commits, [DeadLetter] buries at once,
// [Snooze] tries again later, [Unavailable] says that something outside is down,
// and anything else, a panic or an overrun deadline included, is a failed attempt.
func Handle[T any](c Contract[T], fn func(ctx context.Context, tx Tx, m Received[T]) error, opts ...HandleOption) Handler {
	h := Handler{c: c.c}
	for _, o := range opts {
		o(&h.limits)
	}
	h.run = func(ctx context.Context, tx Tx, d *Delivered) error {
		body, err := c.decode(d.Message)
		if err != nil {
			return DeadLetter(err)
		}
		return fn(ctx, tx, Received[T]{Envelope: d.Message.Envelope, Body: body, Attempt: d.Attempt})
	}
	return h
}

// Type returns the type that the handler handles.
func (h Handler) Type() string { return h.c.typ }

// Run calls the handler as a consumer would, without middleware and without the
// consumer's safety (inbox, deadline, recovery). It is for test harnesses.
func (h Handler) Run(ctx context.Context, tx Tx, d *Delivered) error {
	return h.run(withCause(ctx, &d.Message.Envelope), tx, d)
}

type verdictKind int

const (
	verdictDead verdictKind = iota + 1
	verdictSnooze
	verdictUnavailable
)

// verdict is an error by which a handler says what shall become of its message.
type verdict struct {
	kind verdictKind
	err  error
	wait time.Duration
}

func (v *verdict) Error() string {
	switch v.kind {
	case verdictSnooze:
		return fmt.Sprintf("snoozed for %s", v.wait)
	case verdictUnavailable:
		return "unavailable: " + v.err.Error()
	default:
		return v.err.Error()
	}
}

func (v *verdict) Unwrap() error { return v.err }

// DeadLetter is the verdict that no retry can help. A nil err stands for "no reason given".
func DeadLetter(err error) error {
	if err == nil {
		err = errors.New("no reason given")
	}
	return &verdict{kind: verdictDead, err: err}
}

// Snooze asks for the message again after d, by the database's clock, without
// counting an attempt. Later messages of its key wait behind it. A d that is not positive,
// as that of a time which is over, is a second.
func Snooze(d time.Duration) error { return &verdict{kind: verdictSnooze, wait: d} }

// Unavailable says that something outside is down. No attempt is counted, and when
// different messages of a group say so in a row, the group slows to one probe.
func Unavailable(err error) error {
	if err == nil {
		err = errors.New("no reason given")
	}
	return &verdict{kind: verdictUnavailable, err: err}
}

// verdictOf returns the verdict in err's chain, if there is one.
func verdictOf(err error) (*verdict, bool) {
	var v *verdict
	ok := errors.As(err, &v)
	return v, ok
}

type causeKey struct{}

// withCause remembers the message being handled, so that what is published under
// ctx inherits its flow.
func withCause(ctx context.Context, cause *Envelope) context.Context {
	return context.WithValue(ctx, causeKey{}, cause)
}

func causeOf(ctx context.Context) *Envelope {
	c, _ := ctx.Value(causeKey{}).(*Envelope)
	return c
}
