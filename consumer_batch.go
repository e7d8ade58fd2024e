package outlast

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// batchSize is how many messages a transaction may hold now: halved when the
// database aborts one for its concurrency, and grown by one with each that succeeds.
type batchSize struct {
	mu  sync.Mutex
	now int
	max int
}

func (b *batchSize) get() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *batchSize) halve() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = max(1, b.now/2)
}

func (b *batchSize) grow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = min(b.max, b.now+1)
}

// settleAll brings tasks to their end, in one transaction as far as that works.
// When one message fails, it runs alone and the rest again in batches, in order;
// only its failure alone counts.
func (r *consumerRun) settleAll(ctx context.Context, ts []*task) {
	for ctx.Err() == nil {
		if ts = unbroken(ts); len(ts) < 2 {
			break
		}
		culprit, err := r.tryBatch(ctx, ts)
		switch {
		case err == nil:
			r.batch.grow()
			return
		case culprit >= 0:
			r.settleAll(ctx, ts[:culprit])
			r.settleOne(ctx, ts[culprit])
			ts = ts[culprit+1:]
		case errors.Is(err, errBusy):
			r.batch.halve()
			r.settleAll(ctx, ts[:len(ts)/2])
			ts = ts[len(ts)/2:]
		default: // an outage, an unknown commit, or one that nobody owns up to
			for _, t := range ts {
				r.settleOne(ctx, t)
			}
			return
		}
	}
	for _, t := range ts {
		r.settleOne(ctx, t)
	}
}

// unbroken leaves out what must not run because an earlier message of its lane
// was dropped.
func unbroken(ts []*task) []*task {
	return slices.DeleteFunc(slices.Clone(ts), func(t *task) bool { return t.lane.broken })
}

// batchItem is what one transaction makes of one of its messages.
type batchItem struct {
	result    HandledResult
	err       error
	wait      *Waiting
	published publishNote
	ran       bool
}

// tryBatch handles tasks in one transaction. With an error nothing has happened,
// unless the commit's outcome is unknown; culprit is the index of the message that
// must run alone, or -1.
func (r *consumerRun) tryBatch(ctx context.Context, ts []*task) (culprit int, err error) {
	ctx, end := impatient(ctx, r.c.longest)
	defer end()
	marks := make([]Mark, len(ts))
	for i, t := range ts {
		marks[i] = t.mark
	}
	tx, err := r.c.inbox.Begin(ctx, r.c.conf.Group, marks)
	if err != nil {
		return -1, err
	}
	items := make([]batchItem, len(ts))
	for i, seen := range tx.States() {
		if items[i], err = r.batchStep(ctx, tx, ts[i], seen); err != nil {
			tx.Rollback()
			for _, t := range ts[:i+1] {
				t.trial.undone(HandledAgain, err)
			}
			if errors.Is(err, errBusy) || ctx.Err() != nil {
				return -1, err
			}
			return i, err
		}
	}
	err = tx.Commit(ctx)
	for i, t := range ts {
		if items[i].result != HandledDuplicate {
			r.c.recorded(t.m, fate{result: items[i].result, wait: items[i].wait}, err)
		}
	}
	if err != nil {
		for _, t := range ts {
			t.unsure = CodeOf(err) == CodeUnknown
		}
		if r.c.transient(err) {
			err = errors.Join(errBusy, err)
		}
		return -1, err
	}
	r.finishBatch(ts, items)
	return -1, nil
}

// batchStep is one message's part of a batch.
func (r *consumerRun) batchStep(ctx context.Context, tx InboxTx, t *task, seen Seen) (batchItem, error) {
	switch {
	case seen == SeenBehind:
		f := r.c.postpone(t.m, history{}, WaitBehind, 0, nil)
		return batchItem{result: HandledBehind, wait: f.wait}, tx.Wait(ctx, f.wait)
	case seen == SeenConflict:
		return batchItem{}, errors.New("its name is taken")
	case seen != SeenNew:
		r.c.known(t.m, seen)
		return batchItem{result: HandledDuplicate}, nil
	case expired(t.m):
		return batchItem{result: HandledExpired, err: errExpired}, nil
	}
	end := r.runTask(ctx, tx, t)
	if end.kind == tryTransient {
		return batchItem{}, errors.Join(errBusy, end.err)
	}
	return batchItem{result: HandledOK, published: end.published, ran: true}, end.err
}

func (r *consumerRun) finishBatch(ts []*task, items []batchItem) {
	var published publishNote
	ran := false
	for i, t := range ts {
		r.finish(t, fate{result: items[i].result, err: items[i].err, wait: items[i].wait})
		published = published.merge(items[i].published)
		ran = ran || items[i].ran
	}
	if ran {
		r.gate.available()
	}
	r.afterCommit(published)
}
