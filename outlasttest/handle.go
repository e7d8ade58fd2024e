package outlasttest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// Result is what a handler did with one message.
type Result struct {
	// Err is the handler's verdict: nil, or what decides on the message's fate.
	Err error
	// Message is the message as the handler got it.
	Message *outlast.Message

	t         testing.TB
	published []*outlast.Message
}

// HandleOption refines a call of [Handle].
type HandleOption func(*handling)

type handling struct {
	outbox  *Outbox
	attempt int
	group   string
	source  string
	ctx     context.Context
}

// PublishesTo names the outbox that the handler publishes into, so that the result
// knows what it published.
func PublishesTo(o *Outbox) HandleOption { return func(h *handling) { h.outbox = o } }

// Attempt is which try the handler believes this to be. Default 1.
func Attempt(n int) HandleOption { return func(h *handling) { h.attempt = n } }

// FromSource is the service that the message claims to come from. Default "test".
func FromSource(name string) HandleOption { return func(h *handling) { h.source = name } }

// InGroup is the group that handles. Default "test".
func InGroup(name string) HandleOption { return func(h *handling) { h.group = name } }

// WithContext replaces the test's own context.
func WithContext(ctx context.Context) HandleOption { return func(h *handling) { h.ctx = ctx } }

// Handle runs a handler on one message as a consumer would, without servers: the
// message is checked and travels through the headers of the wire, so that what
// cannot be sent or read fails here too. The test fails at once when the message
// cannot be published or is of another type than the handler's; a panic of the
// handler is the caller's, with its stack.
//
// tx is the handler's transaction: the caller's own (*sql.Tx, *memory.Tx), which
// the caller commits or rolls back, or [NoDB]. Middleware, inbox and deadline are
// not part of it.
func Handle(t testing.TB, handler outlast.Handler, tx outlast.Tx, m outlast.Message, opts ...HandleOption) *Result {
	t.Helper()
	h := handling{attempt: 1, group: "test", source: "test", ctx: t.Context()}
	for _, o := range opts {
		o(&h)
	}
	if m.Type != handler.Type() {
		t.Fatalf("the message is of type %q, the handler handles %q", m.Type, handler.Type())
	}
	got := travel(t, m, h.source)
	before := 0
	if h.outbox != nil {
		before = len(h.outbox.Published())
	}
	r := &Result{Message: got, t: t}
	r.Err = handler.Run(h.ctx, tx, &outlast.Delivered{Message: got, Group: h.group, Attempt: h.attempt})
	if h.outbox != nil {
		r.published = h.outbox.Published()[before:]
	}
	return r
}

// travel sends m through an outbox and over the wire.
func travel(t testing.TB, m outlast.Message, source string) *outlast.Message {
	t.Helper()
	sender := NewOutbox()
	if err := sender.Outbox().Publish(context.Background(), NoDB(), m); err != nil {
		t.Fatalf("the message cannot be published: %v", err)
	}
	sent := sender.Published()[0]
	sent.Source, sent.EnqueuedAt = source, time.Now()
	got := &outlast.Message{Body: sent.Body}
	got.ContentType = sent.ContentType
	if err := outlast.DecodeHeaders(got, outlast.EncodeHeaders(sent)); err != nil {
		t.Fatalf("the message cannot be received: %v", err)
	}
	return got
}

// Published returns what the handler published into the outbox of [PublishesTo].
func (r *Result) Published() []*outlast.Message { return r.published }

// Published returns the bodies of what the handler published of one contract, in
// order. The test fails when a body cannot be decoded.
func Published[T any](r *Result, c outlast.Contract[T]) []T {
	r.t.Helper()
	var bodies []T
	h := outlast.Handle(c, func(_ context.Context, _ outlast.Tx, m outlast.Received[T]) error {
		bodies = append(bodies, m.Body)
		return nil
	})
	for _, m := range r.published {
		if m.Type != c.Type() {
			continue
		}
		if err := h.Run(context.Background(), NoDB(), &outlast.Delivered{Message: m, Attempt: 1}); err != nil {
			r.t.Fatalf("message %s of type %s was published with a body that does not fit: %v", m.ID, m.Type, err)
		}
	}
	return bodies
}

// Types returns the types of what the handler published, in order.
func (r *Result) Types() []string {
	var types []string
	for _, m := range r.published {
		types = append(types, m.Type)
	}
	return types
}

func (r *Result) String() string { return fmt.Sprintf("error %v, published %v", r.Err, r.Types()) }
