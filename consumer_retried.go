package outlast

import (
	"context"
	"errors"
	"time"
)

// keptFate is what a try has decided when its transaction was lost, as by a
// deadline that breaks the connection: the next claim of the same try records it
// instead of running the handler again.
type keptFate struct {
	fate     fate
	attempts int
	replays  int
}

const maxKept = 10_000

// retry runs one claimed message and records what became of it.
func (l *retryLoop) retry(ctx context.Context, cl *claimed) {
	defer l.r.queue.unreserve(cl.h)
	err := silence(ctx, l.step(ctx, cl))
	if err != nil {
		cl.tx.Rollback()
		l.r.suspects.release(messageID{cl.w.Message.Source, cl.w.Message.ID})
		cl.trial.undone(HandledAgain, err)
	}
	if errors.Is(err, errBusy) {
		sleep(ctx, time.Second, l.r.stop.Done())
	} else if l.r.work.Err() == nil {
		l.r.c.noteStore(partWork, err)
		if err != nil && !cl.guilty {
			l.troubled()
		}
	}
}

func (l *retryLoop) step(ctx context.Context, cl *claimed) error {
	m, h := cl.w.Message, history{cl.w.Attempts, cl.w.Replays, cl.w.FirstAt}
	if f, ok := l.takeKept(cl.w); ok {
		return l.record(ctx, cl, f)
	}
	if cl.alone {
		kills, err := l.r.kills(messageID{m.Source, m.ID})
		if err != nil {
			return err
		}
		if kills {
			return l.record(ctx, cl, l.r.c.bury(m, h, DeadKills, errKills))
		}
	}
	if expired(m) {
		return l.done(ctx, cl, Handled{Result: HandledExpired, Err: errExpired})
	}
	began := time.Now()
	end := l.r.c.runHandler(ctx, cl.tx.Tx(), cl.h, m, nil, cl.w.Attempts+1)
	cl.trial = end.trial
	var f fate
	switch end.kind {
	case tryInterrupted:
		return end.err
	case tryOK:
		err := l.done(ctx, cl, Handled{Result: HandledOK, Attempt: cl.w.Attempts + 1, Duration: time.Since(began)})
		if err == nil {
			l.untroubled()
			l.r.gate.available()
			l.r.afterCommit(end.published)
		} else if ctx.Err() == nil {
			l.keepFailed(cl, h, err)
		}
		return err
	case tryTransient:
		l.troubled()
		f = l.r.c.postponeTroubled(m, h, end.err)
	default:
		f = l.r.decide(m, h, end.err)
	}
	if err := cl.tx.Undo(ctx); err != nil {
		l.keep(cl.w, f)
		return err
	}
	return l.record(ctx, cl, f)
}

// done records that the message is handled, or expired.
func (l *retryLoop) done(ctx context.Context, cl *claimed, end Handled) error {
	if err := cl.tx.Done(ctx); err != nil {
		return err
	}
	err := cl.tx.Commit(ctx)
	l.r.c.recorded(cl.w.Message, fate{result: end.Result}, err)
	if err != nil {
		return err // when the outcome is unknown, the row tells: gone, or due still
	}
	l.report(cl, end)
	return nil
}

// record writes a message's fate and commits it.
func (l *retryLoop) record(ctx context.Context, cl *claimed, f fate) error {
	var err error
	if f.dead != nil {
		err = cl.tx.Bury(ctx, f.dead)
	} else {
		err = cl.tx.Wait(ctx, f.wait)
	}
	if err == nil {
		err = cl.tx.Commit(ctx)
		l.r.c.recorded(cl.w.Message, f, err)
	}
	if err != nil {
		if CodeOf(err) != CodeUnknown {
			l.keep(cl.w, f)
		}
		return err
	}
	if f.wait == nil || f.wait.Reason != WaitUnavailable {
		l.untroubled()
	}
	l.r.logFate(cl.w.Message, f)
	if f.wait != nil {
		l.due(f.wait.Wait)
	}
	l.report(cl, Handled{Result: f.result, Err: f.err, Attempt: cl.w.Attempts + 1, Waiting: f.wait, Dead: f.dead})
	if f.wait != nil {
		l.r.suspects.survive(messageID{cl.w.Message.Source, cl.w.Message.ID}, l.r.peers.deathsNoticed())
	}
	return nil
}

func (l *retryLoop) report(cl *claimed, end Handled) {
	end.Group, end.Message, end.Replays = l.r.c.conf.Group, cl.w.Message, cl.w.Replays
	l.r.purge.saw(cl.w.Message)
	l.r.suspects.clear(messageID{cl.w.Message.Source, cl.w.Message.ID})
	cl.trial.end(end)
	eachHook(&l.r.c.hooks, func(hook HookHandled) { hook.OnHandled(end) })
}

// keepFailed keeps what becomes of a message whose effects could not be committed. It may be
// this message alone that the database refuses: it waits, as one whose handler met the trouble.
func (l *retryLoop) keepFailed(cl *claimed, h history, err error) {
	switch {
	case CodeOf(err) == CodeUnknown: // the row tells: gone, or due still
	case l.r.c.storeTrouble(err):
		l.keep(cl.w, l.r.c.postponeTroubled(cl.w.Message, h, err))
	default: // a deferred constraint, or a swallowed SQL error
		cl.guilty = true
		l.keep(cl.w, l.r.decide(cl.w.Message, h, err))
	}
}

func (l *retryLoop) keep(w *Waiting, f fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) >= maxKept {
		clear(l.kept)
	}
	l.kept[messageID{w.Message.Source, w.Message.ID}] = keptFate{f, w.Attempts, w.Replays}
}

// takeKept returns the fate of this very try, if it was decided already.
func (l *retryLoop) takeKept(w *Waiting) (fate, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := messageID{w.Message.Source, w.Message.ID}
	k, ok := l.kept[id]
	delete(l.kept, id)
	return k.fate, ok && k.attempts == w.Attempts && k.replays == w.Replays
}
