package outlast

import (
	"context"
	"sync"
	"time"
)

const (
	retryIdleFirst = time.Second // between two looks when nothing is due
	retryIdle      = 2 * time.Second
	retrySpin      = 20 * time.Millisecond // when something is due and nobody can have it
)

// retryLoop tries waiting messages again when they are due. The table is the
// truth: it is looked at when something comes due, and every two seconds besides.
type retryLoop struct {
	r     *consumerRun
	slots chan struct{} // one for each retry that runs
	runs  sync.WaitGroup
	poke  chan struct{}

	mu   sync.Mutex
	next time.Time // this process knows of something due then; zero: of nothing

	kept map[messageID]keptFate // guarded by mu

	// Tries in a row that ended in trouble of the database. After each nothing is claimed
	// before resume: what cannot be recorded stays due, and would be claimed at once.
	troubles int       // guarded by mu
	resume   time.Time // guarded by mu

	// What follows belongs to the loop's goroutine.
	alone bool // the last look found a suspect: the next is while nothing else runs
	// Looks in a row that found something due and locked, nothing due:
	spins, empty int
}

// claimed is a waiting message in its transaction.
type claimed struct {
	tx     RetryTx
	w      *Waiting
	h      *boundHandler
	alone  bool // it may have killed a process
	guilty bool // its effects were refused for a reason of its own
	trial  trial
}

func newRetryLoop(r *consumerRun) *retryLoop {
	return &retryLoop{r: r, slots: make(chan struct{}, r.c.conf.Workers), poke: make(chan struct{}, 1), kept: map[messageID]keptFate{}}
}

// due tells the loop that a message comes due after d.
func (l *retryLoop) due(d time.Duration) {
	at := time.Now().Add(d)
	l.mu.Lock()
	sooner := l.next.IsZero() || at.Before(l.next)
	if sooner {
		l.next = at
	}
	l.mu.Unlock()
	if !sooner {
		return
	}
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// run claims until stop ends, and returns when the retries that it started have.
func (l *retryLoop) run(stop, work context.Context) {
	defer l.runs.Wait()
	for stop.Err() == nil {
		l.sleep(stop, l.claim(stop, work))
	}
}

// troubled notes that a claim, or a try, ended in trouble of the database.
func (l *retryLoop) troubled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.resume) {
		return // it was under way when another one met the same
	}
	if now.Sub(l.resume) > holdLongest {
		l.troubles = 0 // those were others
	}
	pause := doubling(holdFirst, holdLongest, l.troubles)
	l.resume = now.Add(pause/2 + jitter(pause/2))
	l.troubles++
}

// untroubled notes that the database took the end of a try.
func (l *retryLoop) untroubled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.troubles = 0
}

// hold waits while the database has trouble, whatever comes due.
func (l *retryLoop) hold(stop context.Context) {
	l.mu.Lock()
	resume := l.resume
	l.mu.Unlock()
	if d := time.Until(resume); d > 0 {
		sleep(stop, d, nil)
	}
}

// claim takes one due message, starts its run, and returns how long to wait before
// the next look.
func (l *retryLoop) claim(stop, work context.Context) time.Duration {
	if l.r.paused.Load() {
		return retryIdle
	}
	select {
	case l.slots <- struct{}{}:
	case <-stop.Done():
		return 0
	}
	l.hold(stop)
	// A suspect that was found runs alone; a mere look holds nobody up.
	if !l.r.gate.enter(l.alone, func() bool { return stop.Err() != nil }) {
		<-l.slots
		return 0
	}
	ctx, end := impatient(work, 0)
	cl, next, err := l.begin(ctx)
	if cl != nil {
		l.spins, l.empty = 0, 0
		l.runs.Go(func() {
			defer l.finish()
			defer end()
			l.retry(ctx, cl)
		})
		return 0
	}
	err = silence(ctx, err)
	end()
	<-l.slots
	l.r.gate.leave()
	return l.pause(next, err)
}

func (l *retryLoop) finish() {
	l.r.gate.leave()
	<-l.slots
	l.due(0) // the next message of its key may be due
}

// begin locks a due message whose handler may start now. Without one it returns
// the time until the next is due.
func (l *retryLoop) begin(ctx context.Context) (*claimed, time.Duration, error) {
	types := l.r.openTypes()
	if len(types) == 0 {
		return nil, 0, nil
	}
	tx, next, err := l.r.c.inbox.BeginRetry(ctx, l.r.c.conf.Group, types)
	if err != nil || tx == nil {
		return nil, next, err
	}
	alone := l.alone
	l.alone = false
	if l.r.peers.newlyDead() && !l.r.suspects.innocent(retryID(tx), l.r.peers.deathsNoticed()) {
		if !alone {
			tx.Rollback()
			l.alone = true
			return nil, 0, nil
		}
		if tx, err = l.count(ctx, types, tx); err != nil || tx == nil {
			return nil, 0, err
		}
	}
	cl := &claimed{tx: tx, w: tx.Waiting(), alone: alone}
	cl.h = l.r.c.handlers[cl.w.Message.Type]
	if cl.h == nil || !l.r.queue.reserve(cl.h) {
		l.r.suspects.release(retryID(tx))
		tx.Rollback()
		return nil, 0, nil
	}
	return cl, 0, nil
}

// count has the inbox know that the message of tx is about to run shortly after a
// process died, perhaps with it in hand, and returns it locked again. The count is
// a transaction of its own, and some engines have one writer; when another
// instance is quicker in between, there is no transaction.
func (l *retryLoop) count(ctx context.Context, types []string, tx RetryTx) (RetryTx, error) {
	id := retryID(tx)
	counted, err := l.r.suspects.counted(id)
	if counted {
		return tx, nil
	}
	tx.Rollback()
	if err != nil {
		return nil, nil // the next look finds it again
	}
	if err := l.r.countSuspect(ctx, id); err != nil {
		return nil, err
	}
	tx, _, err = l.r.c.inbox.BeginRetry(ctx, l.r.c.conf.Group, types)
	if err == nil && tx != nil && retryID(tx) == id {
		return tx, nil
	}
	l.r.suspects.release(id)
	if tx != nil {
		tx.Rollback()
	}
	return nil, err
}

func retryID(tx RetryTx) messageID {
	m := tx.Waiting().Message
	return messageID{m.Source, m.ID}
}

// pause is the time until the next look when nothing was found.
func (l *retryLoop) pause(next time.Duration, err error) time.Duration {
	l.r.c.noteStore(partWork, err)
	if err != nil {
		l.troubled()
		return 0
	}
	l.empty++
	idle := doubling(retryIdleFirst, retryIdle, l.empty-1)
	switch {
	case next < 0:
		return idle
	case next < retrySpin: // due, but locked by somebody or limited
		l.spins++
		return doubling(retrySpin, retryIdleFirst, l.spins-1)
	default:
		l.spins = 0
		return min(next, idle)
	}
}

// sleep waits for d, or until something is due that this process knows of.
func (l *retryLoop) sleep(ctx context.Context, d time.Duration) {
	until := time.Now().Add(d)
	for {
		l.mu.Lock()
		now := time.Now()
		if !l.next.IsZero() && !l.next.After(now) {
			l.next = time.Time{}
			until = now
		}
		at := earliest(until, l.next)
		l.mu.Unlock()
		if !at.After(now) {
			return
		}
		timer := time.NewTimer(at.Sub(now))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		case <-l.poke:
			timer.Stop()
		}
	}
}

// openTypes are the types of which a message could start now.
func (r *consumerRun) openTypes() []string {
	types := make([]string, 0, len(r.c.types))
	for _, typ := range r.c.types {
		if r.queue.open(r.c.handlers[typ]) {
			types = append(types, typ)
		}
	}
	return types
}
