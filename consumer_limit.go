package outlast

import "time"

// limiter bounds how many messages of one type run at once and how many start in
// a second, in this process. Lanes whose head must wait are parked here, so that
// they hold no worker. It is guarded by the mutex of its workQueue.
type limiter struct {
	max    int           // 0: none
	gap    time.Duration // between two starts; 0: none
	inUse  int
	next   time.Time // no start before it
	parked []*lane
	timer  *time.Timer
}

func newLimiter(concurrency int, rate float64) *limiter {
	l := &limiter{max: concurrency}
	if rate > 0 {
		l.gap = time.Duration(float64(time.Second) / rate)
	}
	return l
}

// open reports whether a message could start now.
func (l *limiter) open() bool {
	return (l.max == 0 || l.inUse < l.max) && (l.gap == 0 || !time.Now().Before(l.next))
}

// admit takes the right to start one message, which release gives back.
func (l *limiter) admit(q *workQueue) bool {
	if !l.open() {
		return false
	}
	l.inUse++
	if l.gap > 0 {
		now := time.Now()
		if l.next.Before(now) {
			l.next = now
		}
		l.next = l.next.Add(l.gap)
		l.arm(q)
	}
	return true
}

// park keeps a listed lane until a start may be possible again.
func (l *limiter) park(ln *lane, q *workQueue) {
	l.parked = append(l.parked, ln)
	l.arm(q)
}

// arm wakes a parked lane when the rate allows the next start. What waits for
// concurrency is woken by release.
func (l *limiter) arm(q *workQueue) {
	wait := time.Until(l.next)
	if l.gap == 0 || wait <= 0 || len(l.parked) == 0 || l.timer != nil {
		return
	}
	l.timer = time.AfterFunc(wait, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		l.timer = nil
		l.unpark(q)
	})
}

// reset forgets an earlier run.
func (l *limiter) reset() {
	if l.timer != nil {
		l.timer.Stop()
	}
	*l = limiter{max: l.max, gap: l.gap}
}

// unpark lets the first parked lane try again.
func (l *limiter) unpark(q *workQueue) {
	if len(l.parked) == 0 {
		return
	}
	ln := l.parked[0]
	l.parked = l.parked[1:]
	q.ready = append(q.ready, ln)
	q.work.Signal()
}

func (l *limiter) release(q *workQueue) {
	l.inUse--
	l.unpark(q)
}

// open reports whether a message of this handler could start now.
func (q *workQueue) open(h *boundHandler) bool {
	if h.limit == nil {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return h.limit.open()
}

// reserve takes the right to run a message that did not come through the queue.
func (q *workQueue) reserve(h *boundHandler) bool {
	if h.limit == nil {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return h.limit.admit(q)
}

// unreserve gives the right back.
func (q *workQueue) unreserve(h *boundHandler) {
	if h.limit == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	h.limit.release(q)
}
