package outlast

import (
	"context"
	"errors"
	"time"

	"github.com/outlastmq/outlast/internal/planted"
)

// errAgain says that a step has learnt something and the next one can use it at once.
var errAgain = errors.New("again")

// errBusy marks trouble of the database that a repeat by itself may end, such as
// a deadlock: the database is not out.
var errBusy = errors.New("the transaction could not be completed")

const (
	holdFirst   = 50 * time.Millisecond
	holdLongest = 5 * time.Second
	// transientTries is how often the database may fail a handler before its message
	// waits among the retries, where it blocks no worker.
	transientTries = 3
)

// settleOne brings a task to its end: acknowledged when the inbox has committed
// what became of it, or dropped when it will be delivered again anyway. While the
// database is out it holds the task, and with it the key. A task whose lane has
// lost an earlier one is dropped too: the broker delivers both again, in order.
func (r *consumerRun) settleOne(ctx context.Context, t *task) {
	if t.lane.broken {
		return
	}
	id := t.id() // a conflict gets another
	defer func() {
		t.lane.broken = !t.settled
		r.suspects.release(id)
		t.trial.undone(HandledCut, context.Cause(ctx))
	}()
	for n := 0; ; {
		err := r.stepInTime(ctx, t)
		switch {
		case err == nil:
			r.c.noteStore(partWork, nil)
			return
		case errors.Is(err, errAgain):
			continue
		case ctx.Err() != nil:
			return // cut: no attempt, and the delivery goes back
		}
		r.suspects.release(id) // the process has survived the step
		if !errors.Is(err, errBusy) {
			r.c.noteStore(partWork, err)
		}
		if !sleep(ctx, jitter(doubling(holdFirst, holdLongest, n)), t.sub.leaving) || r.queue.void(t) {
			return
		}
		n++
	}
}

func (r *consumerRun) stepInTime(ctx context.Context, t *task) error {
	ctx, end := impatient(ctx, r.c.longest)
	defer end()
	return silence(ctx, r.step(ctx, t))
}

// step takes a task one transaction further. Nil means that it is settled; an
// error, that the database gave trouble and the same step must be taken again.
func (r *consumerRun) step(ctx context.Context, t *task) error {
	if planted.On(planted.AckBeforeCommit) {
		r.ack(t)
	}
	tx, err := r.c.inbox.Begin(ctx, r.c.conf.Group, []Mark{t.mark})
	if err != nil {
		return err
	}
	switch seen := tx.States()[0]; seen {
	case SeenNew, SeenBehind:
		return r.first(ctx, tx, t, seen == SeenBehind)
	case SeenConflict:
		tx.Rollback()
		if t.unfit != nil { // the same derived name, other content: it is buried already
			r.finish(t, fate{result: HandledDuplicate})
			return nil
		}
		t.bury("conflict-", &unfit{DeadConflict, "another message with the id " + quoted(t.m.ID) + " of " + quoted(t.m.Source) + " has other content"})
		return errAgain
	default:
		tx.Rollback()
		r.c.known(t.m, seen)
		r.finishKnown(t, seen)
		return nil
	}
}

// finishKnown acknowledges a message that the inbox knows. When a commit was in
// doubt, it has happened.
func (r *consumerRun) finishKnown(t *task, seen Seen) {
	switch {
	case t.unsure && t.fate != nil && seen != SeenHandled:
		r.finish(t, *t.fate)
	case t.unsure && t.fate == nil && seen == SeenHandled:
		r.finish(t, fate{result: HandledOK})
		r.afterCommit(blind)
	default:
		r.finish(t, fate{result: HandledDuplicate})
	}
}

// first works on a message that the inbox did not know, in its transaction.
func (r *consumerRun) first(ctx context.Context, tx InboxTx, t *task, behind bool) error {
	switch {
	case t.unfit != nil:
		dead := r.c.deadRecord(t.m, history{}, t.unfit.reason, t.unfit.text)
		return r.record(ctx, tx, t, fate{result: HandledDead, err: errors.New(t.unfit.text), dead: dead})
	case t.fate != nil:
		return r.record(ctx, tx, t, *t.fate)
	case behind:
		f := r.c.postpone(t.m, history{}, WaitBehind, 0, nil)
		f.result = HandledBehind
		return r.record(ctx, tx, t, f)
	case t.h == nil:
		f := r.c.postpone(t.m, history{}, WaitUnknownType, 0, nil)
		f.result = HandledUnknown
		return r.record(ctx, tx, t, f)
	case expired(t.m):
		return r.commit(ctx, tx, t, HandledExpired, errExpired)
	case t.suspect:
		return r.trySuspect(ctx, tx, t)
	}
	return r.try(ctx, tx, t)
}

// trySuspect runs a message that may have killed a process, once the inbox knows
// that it is about to run, or buries it when that has happened too often.
func (r *consumerRun) trySuspect(ctx context.Context, tx InboxTx, t *task) error {
	counted, err := r.suspects.counted(t.id())
	if err != nil {
		tx.Rollback()
		return err
	}
	if !counted {
		tx.Rollback() // the count is a transaction of its own, and some engines have one writer
		if err := r.countSuspect(ctx, t.id()); err != nil {
			return err
		}
		return errAgain
	}
	kills, err := r.kills(t.id())
	switch {
	case err != nil:
		tx.Rollback()
		return err
	case kills:
		return r.record(ctx, tx, t, r.c.bury(t.m, history{}, DeadKills, errKills))
	}
	return r.try(ctx, tx, t)
}

// try runs the handler in the message's transaction and commits it.
func (r *consumerRun) try(ctx context.Context, tx InboxTx, t *task) error {
	end := r.runTask(ctx, tx, t)
	switch end.kind {
	case tryOK:
		if err := r.commit(ctx, tx, t, HandledOK, nil); err != nil {
			return err
		}
		r.gate.available()
		r.afterCommit(end.published)
		return nil
	case tryInterrupted:
		tx.Rollback()
		return end.err
	case tryTransient:
		tx.Rollback()
		return r.again(t, end.err)
	default:
		tx.Rollback()
		f := r.decide(t.m, history{}, end.err)
		t.fate = &f
		return errAgain
	}
}

// runTask runs the handler for a task.
func (r *consumerRun) runTask(ctx context.Context, tx InboxTx, t *task) try {
	t.trial.undone(HandledAgain, nil)
	t.began = time.Now()
	end := r.c.runHandler(ctx, tx.Tx(), t.h, t.m, t.d, 1)
	t.trial = end.trial
	return end
}

// again has a task tried once more after trouble of the database, or has its
// message wait when that goes on: it may be this message that provokes it.
func (r *consumerRun) again(t *task, err error) error {
	if t.transient++; t.transient <= transientTries {
		return errors.Join(errBusy, err)
	}
	f := r.c.postponeTroubled(t.m, history{}, err)
	t.fate = &f
	return errAgain
}

// record writes a message's fate into its transaction and commits it.
func (r *consumerRun) record(ctx context.Context, tx InboxTx, t *task, f fate) error {
	t.fate = &f
	var err error
	if f.dead != nil {
		err = tx.Bury(ctx, f.dead)
	} else {
		err = tx.Wait(ctx, f.wait)
	}
	if err != nil {
		tx.Rollback()
		return err
	}
	err = tx.Commit(ctx)
	r.c.recorded(t.m, f, err)
	if err != nil {
		t.unsure = CodeOf(err) == CodeUnknown
		return err // the next Begin tells
	}
	r.logFate(t.m, f)
	if f.wait != nil && f.result == HandledRetry {
		r.retries.due(f.wait.Wait)
	}
	r.finish(t, f)
	if f.wait != nil && !t.began.IsZero() {
		r.suspects.survive(t.id(), r.peers.deathsNoticed())
	}
	return nil
}

// commit ends a transaction that marks the message as handled.
func (r *consumerRun) commit(ctx context.Context, tx InboxTx, t *task, result HandledResult, cause error) error {
	err := tx.Commit(ctx)
	r.c.recorded(t.m, fate{result: result}, err)
	switch {
	case err == nil:
		r.finish(t, fate{result: result, err: cause})
		return nil
	case CodeOf(err) == CodeUnknown:
		t.unsure = true // neither acknowledged nor run again before the inbox has told
		return err
	case ctx.Err() != nil:
		return err
	case r.c.transient(err):
		return r.again(t, err)
	case r.c.storeTrouble(err):
		return err
	default: // a deferred constraint, or an SQL error that the handler swallowed
		f := r.decide(t.m, history{}, err)
		t.fate = &f
		return errAgain
	}
}

// finish acknowledges: what became of the message is safe in the database.
func (r *consumerRun) finish(t *task, f fate) {
	t.settled = true
	r.ack(t)
	r.purge.saw(t.m)
	r.suspects.clear(t.id())
	h := Handled{Group: r.c.conf.Group, Message: t.m, Result: f.result, Err: f.err, Acked: true, Waiting: f.wait, Dead: f.dead}
	if !t.began.IsZero() {
		h.Attempt, h.Duration = 1, time.Since(t.began)
	}
	t.trial.end(h)
	eachHook(&r.c.hooks, func(hook HookHandled) { hook.OnHandled(h) })
}

// ack acknowledges a delivery and tells hooks of it.
func (r *consumerRun) ack(t *task) {
	ok := t.d.Ack()
	if !r.c.hooks.none() {
		eachHook(&r.c.hooks, func(h HookAcked) { h.OnAcked(r.c.conf.Group, t.d, ok) })
	}
}

// recorded tells hooks how the transaction ended that says what became of m.
func (c *Consumer) recorded(m *Message, f fate, err error) {
	if c.hooks.none() {
		return
	}
	rec := Recorded{Group: c.conf.Group, Message: m, Result: f.result, Waiting: f.wait, Dead: f.dead, Err: err}
	eachHook(&c.hooks, func(h HookRecorded) { h.OnRecorded(rec) })
}

// known tells hooks what the inbox knew of a message.
func (c *Consumer) known(m *Message, seen Seen) {
	if c.hooks.none() {
		return
	}
	rec := Recorded{Group: c.conf.Group, Message: m, Result: HandledDuplicate, Known: seen}
	eachHook(&c.hooks, func(h HookRecorded) { h.OnRecorded(rec) })
}

// afterCommit wakes the service's relay when there is something for it.
func (r *consumerRun) afterCommit(published publishNote) {
	if published != 0 && r.c.conf.published != nil {
		r.c.conf.published(published.first())
	}
}

func (r *consumerRun) logFate(m *Message, f fate) {
	switch {
	case f.dead != nil:
		r.c.log.Error("a message became a dead letter", "type", m.Type, "id", m.ID, "source", m.Source, "reason", f.dead.Reason, "attempts", f.dead.Attempts, "error", f.dead.Error, "trace_id", traceID(m))
	case f.result == HandledUnknown:
		r.c.log.Warn("a message of a type that no handler of this build handles waits for one that does", "type", m.Type, "id", m.ID, "source", m.Source)
	case f.result == HandledRetry:
		r.c.log.Warn("a message waits for another try", "type", m.Type, "id", m.ID, "source", m.Source, "reason", f.wait.Reason, "attempts", f.wait.Attempts, "wait", f.wait.Wait, "error", f.wait.Error, "trace_id", traceID(m))
	}
}

// sleep waits for d and reports whether it did: false when ctx or stop ended.
func sleep(ctx context.Context, d time.Duration, stop <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-stop:
		return false
	}
}
