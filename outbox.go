package outlast

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Outbox writes messages into the caller's own transaction. It is safe for
// concurrent use and starts nothing, but for the wake-ups that [OutboxConfig] may ask for.
type Outbox struct {
	store  OutboxStore
	conf   OutboxConfig
	hooks  hooks
	relay  *Relay    // of the same process, or nil
	slots  SlotNamer // of store, or nil
	others *notifier // of relays in other processes, or nil
}

// OutboxConfig refines an outbox.
type OutboxConfig struct {
	// MaxBody is the greatest body in bytes. Range 1 to 16 MiB, the constant MaxBody;
	// default 1 MiB, the constant DefaultMaxBody.
	MaxBody int
	// WakeUps wakes relays of other processes that listen ([RelayConfig].WakeUps), some 2 ms
	// after a publish and after Wake: at most once in 10 ms, by a short transaction of its
	// own on a connection of the store's pool, beside the caller, which may outlive
	// [Service.Run] by two seconds. One that fails is logged and forgotten: the message is
	// found at the next sweep. Handlers that run for longer than the 2 ms need it in
	// [ServiceConfig].Outbox, which wakes after their commits. Default false. PostgreSQL
	// only; [NewService] refuses it for other stores, where it would do nothing.
	WakeUps bool
	// Hooks observe.
	Hooks []Hook
	// Logger is told when relays of other processes cannot be woken. Default: no logs.
	Logger *slog.Logger
}

// NewOutbox returns an outbox on store: for a program that only writes, and for
// handlers, which are made before their service is. What a handler publishes
// through it wakes the relay of the handler's service after the commit, as with
// [Service.Outbox]. What it does not do, and that one does: wake the relay when
// something is published outside of handlers, so that such a message waits for the
// next sweep ([RelayConfig].Interval), and call the hooks of [ServiceConfig].
func NewOutbox(store Store, conf ...OutboxConfig) *Outbox {
	o := &Outbox{store: store.Outbox()}
	if len(conf) > 0 {
		o.conf = conf[0]
		o.hooks.list = o.conf.Hooks
	}
	o.slots, _ = o.store.(SlotNamer)
	if to, ok := o.store.(WakeNotifier); ok && o.conf.WakeUps {
		o.others = &notifier{store: to, logger: o.conf.Logger}
	}
	return o
}

// Publish writes messages within tx, in one statement. When tx commits, they will
// be delivered; when it does not, nothing was ever sent. The broker is not
// touched: it may be down.
//
// Under the context of a handler the messages inherit the flow of the message
// being handled. Errors: CodeInvalid, with every bad field, before anything is
// written; otherwise the database's error, and the caller rolls back.
//
// A message published without an id gets one; the caller's messages are
// not changed, nor is a slice that was spread. To know the id, set it with [ID] and [NewID].
func (o *Outbox) Publish(ctx context.Context, tx LiveTx, msgs ...Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if tx == nil {
		return &Error{Op: "publish", Code: CodeInvalid, Fields: []FieldError{{"tx", "a live transaction", "nil"}}}
	}
	cause := causeOf(ctx)
	own := slices.Clone(msgs) // the caller's may be a slice of his, spread
	prepared := make([]*Message, len(own))
	for i := range own {
		m := &own[i]
		if err := m.Validate(o.conf.MaxBody); err != nil {
			if len(msgs) > 1 {
				return &Error{Op: fmt.Sprintf("publish message %d of %d", i+1, len(msgs)), Code: CodeOf(err), Err: err}
			}
			return err
		}
		o.complete(m, cause)
		prepared[i] = m
	}
	watching := o.hooks.enqueuing(ctx, prepared)
	err := o.store.Insert(ctx, tx, prepared)
	o.hooks.enqueued(watching, err)
	if err != nil {
		return err
	}
	slots := o.slotsOf(prepared)
	notePublished(ctx, slots != nil)
	eachHook(&o.hooks, func(h HookEnqueued) { h.OnEnqueued(ctx, prepared) })
	if o.relay != nil {
		o.relay.expect(slots)
	}
	if o.others != nil {
		o.others.want(time.Now().Add(commitTime))
	}
	return nil
}

// slotsOf returns the slots of messages for the relay of the same process: nil when it cannot be
// told all of them.
func (o *Outbox) slotsOf(msgs []*Message) []int {
	if o.relay == nil || o.slots == nil {
		return nil
	}
	slots := make([]int, len(msgs))
	for i, m := range msgs {
		if slots[i] = o.slots.SlotOf(m); slots[i] < 0 {
			return nil
		}
	}
	return slots
}

// complete fills what every message has: its id and its flow.
func (o *Outbox) complete(m *Message, cause *Envelope) {
	if m.ID == "" {
		m.ID = NewID()
	}
	if m.Kind == "" {
		m.Kind = KindEvent
	}
	if cause != nil {
		if m.CausationID == "" {
			m.CausationID = cause.ID
		}
		if m.CorrelationID == "" {
			m.CorrelationID = cause.CorrelationID
		}
		if m.CorrelationID == "" {
			m.CorrelationID = cause.ID
		}
	}
	if m.CorrelationID == "" {
		m.CorrelationID = m.ID
	}
}

// Withdraw cancels, within tx, a message that waits for its due time, and reports
// whether it did: false means that it was sent already, or is being sent, or was
// never there. When tx commits after true, the message is never sent.
func (o *Outbox) Withdraw(ctx context.Context, tx LiveTx, id string) (bool, error) {
	return o.store.Withdraw(ctx, tx, id)
}

// Wake tells the relay of the same process that a transaction with messages has
// committed, so that it need not wait for its next sweep, and with
// [OutboxConfig].WakeUps those of other processes. It is a hint: without it
// everything is delivered too. It waits for nothing. Rows that were written past this
// Outbox, or by it more than 20 ms ago, are seen up to 20 ms later when others are published
// meanwhile: see [SlotNamer].
func (o *Outbox) Wake() { o.committed(time.Now()) }

// committed is Wake for a transaction whose first message was published at a time; the zero time: in
// slots that the relay was not told.
func (o *Outbox) committed(first time.Time) {
	if o.relay != nil {
		o.relay.committed(first)
	}
	if o.others != nil {
		o.others.want(time.Now())
	}
}
