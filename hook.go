package outlast

import (
	"context"
	"log/slog"
	"time"
)

// Hook observes. A hook implements one or more of the Hook... interfaces below;
// new ones may be added, so that no release breaks an observer. Hooks are called
// from working goroutines: they must be quick, must not block, and cannot change
// or stop anything. A panic in a hook is recovered and logged.
type Hook any

// HookEnqueued is told of messages written into an outbox, before their
// transaction commits (it may still roll back).
type HookEnqueued interface {
	OnEnqueued(ctx context.Context, msgs []*Message)
}

// HookPublished is told what became of each publish.
type HookPublished interface {
	OnPublished(row *Row, outcome Outcome, err error, took time.Duration)
}

// HookSettled is told when a settlement has committed.
type HookSettled interface {
	OnSettled(s *Settlement, stale []Lease)
}

// HookRoute is told when a route stops or begins again to take messages.
type HookRoute interface {
	OnRoute(route Route, open bool, reason string)
}

// HookLink is told of every change of a connection; what is "relay", a queue's name,
// or [WakeUpsLink] for a relay that is to listen.
type HookLink interface {
	OnLink(what string, link Link)
}

// HookLeases is told of every change of a relay's share.
type HookLeases interface {
	OnLeases(scope, owner string, held, owners int)
}

// HookHandled is told the end of each try to handle a message, after the commit.
type HookHandled interface {
	OnHandled(h Handled)
}

// Handled is the end of one try.
type Handled struct {
	Group   string
	Message *Message
	// Result is what became of the message.
	Result HandledResult
	// Err is the handler's error, if it failed.
	Err      error
	Attempt  int
	Duration time.Duration
	// Replays is how often a person brought the message back from the dead letters.
	Replays int
	// Acked: the message came from the broker, and was acknowledged. A retry comes from
	// the group's own table.
	Acked bool
	// Waiting is set when the message waits, Dead when it is a dead letter.
	Waiting *Waiting
	Dead    *DeadLetterRecord
}

// HandledResult is what became of a message after a try.
type HandledResult string

const (
	HandledOK        HandledResult = "ok"
	HandledDuplicate HandledResult = "duplicate"
	HandledRetry     HandledResult = "retry"
	HandledBehind    HandledResult = "behind"
	HandledDead      HandledResult = "dead"
	HandledExpired   HandledResult = "expired"
	HandledUnknown   HandledResult = "unknown type"
)

// hooks calls every hook of a kind.
type hooks struct {
	list   []Hook
	logger *slog.Logger
}

func eachHook[H any](h *hooks, call func(H)) {
	for _, hook := range h.list {
		if v, ok := hook.(H); ok {
			h.guard(func() { call(v) })
		}
	}
}

func (h *hooks) guard(call func()) {
	defer func() {
		if p := recover(); p != nil && h.logger != nil {
			h.logger.Error("a hook panicked", "panic", p)
		}
	}()
	call()
}
