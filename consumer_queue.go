package outlast

import (
	"slices"
	"sync"
)

// workQueue holds the deliveries that no worker has taken yet. Tasks of one key
// form a lane: a worker who takes from a lane keeps it until it has settled what it
// took, so that a key's messages run one after another. Unkeyed tasks have lanes
// of their own. Its size is bounded by the subscriptions' prefetch.
type workQueue struct {
	mu     sync.Mutex
	work   sync.Cond          // a lane is ready, or the queue is closed
	idle   sync.Cond          // a task left a worker's hands
	lanes  map[string]*lane   // of keys
	all    map[*lane]struct{} // the unkeyed ones too
	ready  []*lane
	hand   map[*task]struct{}
	closed bool
	// ours are deliveries that a lost session took from this process: their
	// redelivery says nothing about a dead process.
	ours map[messageID]struct{}
}

// lane is the queue of one key.
type lane struct {
	key    string
	tasks  []*task
	hand   int  // tasks of it in workers' hands
	listed bool // in ready, or parked at a limiter
	// broken: of the tasks that a worker took together, one was dropped, and those
	// behind it must not run. It belongs to that worker.
	broken bool
}

// maxOurs bounds what is remembered of lost sessions.
const maxOurs = 100_000

func newWorkQueue() *workQueue {
	q := &workQueue{lanes: map[string]*lane{}, all: map[*lane]struct{}{}, hand: map[*task]struct{}{}, ours: map[messageID]struct{}{}}
	q.work.L, q.idle.L = &q.mu, &q.mu
	return q
}

// offer adds a task, unless its subscription is being given up.
func (q *workQueue) offer(t *task, maybeSuspect bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.sub.leaves || q.closed {
		return
	}
	t.session = t.sub.session
	_, ours := q.ours[t.id()]
	t.suspect = maybeSuspect && !ours && t.unfit == nil
	l := q.lanes[t.mark.Key]
	if t.mark.Key == "" || l == nil {
		l = &lane{key: t.mark.Key}
		q.all[l] = struct{}{}
		if l.key != "" {
			q.lanes[l.key] = l
		}
	}
	t.lane = l
	l.tasks = append(l.tasks, t)
	q.list(l)
}

// list makes a lane available when it has tasks and no worker has any of it.
func (q *workQueue) list(l *lane) {
	switch {
	case l.listed || l.hand > 0:
	case len(l.tasks) == 0:
		delete(q.all, l)
		if q.lanes[l.key] == l {
			delete(q.lanes, l.key)
		}
	default:
		l.listed = true
		q.ready = append(q.ready, l)
		q.work.Signal()
	}
}

// take waits for tasks and returns up to n of them that may share a transaction;
// more than one only from whole lanes, in order. It returns nil once closed.
func (q *workQueue) take(n int) []*task {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed {
		if ts := q.gather(n); len(ts) > 0 {
			return ts
		}
		q.work.Wait()
	}
	return nil
}

func (q *workQueue) gather(n int) []*task {
	var ts []*task
	names := map[messageID]bool{}
	for len(ts) < n {
		l := q.front(len(ts) > 0)
		if l == nil {
			break
		}
		before := len(ts)
		for len(l.tasks) > 0 && len(ts) < n {
			t := l.tasks[0]
			if len(ts) > 0 && (!t.batchable() || names[t.id()]) {
				break
			}
			l.tasks = l.tasks[1:]
			l.hand++
			q.hand[t] = struct{}{}
			names[t.id()] = true
			ts = append(ts, t)
			if !t.batchable() {
				return ts
			}
		}
		if len(ts) == before { // its first task does not fit this batch
			q.list(l)
			break
		}
	}
	return ts
}

// front removes and returns the first lane whose head may start. With batch set
// it returns nil instead of a lane whose head must run by itself.
func (q *workQueue) front(batch bool) *lane {
	for len(q.ready) > 0 {
		l := q.ready[0]
		if len(l.tasks) > 0 && batch && !l.tasks[0].batchable() {
			return nil
		}
		q.ready = q.ready[1:]
		if len(l.tasks) == 0 { // dropped meanwhile
			l.listed = false
			q.list(l)
			continue
		}
		if h := l.tasks[0].h; h != nil && h.limit != nil && !h.limit.admit(q) {
			h.limit.park(l, q)
			continue
		}
		l.listed = false
		return l
	}
	return nil
}

// done gives tasks back that take returned. Those that are neither settled nor
// delivered again by the broker anyway go back to the front of their lanes.
func (q *workQueue) done(ts []*task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range slices.Backward(ts) {
		if !t.settled && !q.gone(t) {
			t.lane.tasks = slices.Insert(t.lane.tasks, 0, t)
		}
		delete(q.hand, t)
		if t.settled && t.session == t.sub.session {
			delete(q.ours, t.id())
		}
		if t.h != nil && t.h.limit != nil {
			t.h.limit.release(q)
		}
		t.lane.hand--
		t.lane.broken = false
		q.list(t.lane)
	}
	q.idle.Broadcast()
}

// lost voids the deliveries of a subscription's ended session: those that nobody
// has taken are forgotten, and all of them will come again.
func (q *workQueue) lost(s *subscription) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.session++
	if len(q.ours) > maxOurs {
		clear(q.ours)
	}
	for _, t := range q.drop(s) {
		q.ours[t.id()] = struct{}{}
	}
	for t := range q.hand {
		if t.sub == s {
			q.ours[t.id()] = struct{}{}
		}
	}
}

// leave takes no more from a subscription.
func (q *workQueue) leave(s *subscription) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !s.leaves {
		s.leaves = true
		close(s.leaving)
	}
	q.drop(s)
}

// wait returns when nothing of a subscription is in anybody's hands.
func (q *workQueue) wait(s *subscription) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.holds(s) {
		q.idle.Wait()
	}
}

func (q *workQueue) holds(s *subscription) bool {
	for t := range q.hand {
		if t.sub == s {
			return true
		}
	}
	return false
}

// drop removes and returns what nobody has taken of a subscription.
func (q *workQueue) drop(s *subscription) []*task {
	var dropped []*task
	for l := range q.all {
		kept := l.tasks[:0]
		for _, t := range l.tasks {
			if t.sub == s {
				dropped = append(dropped, t)
			} else {
				kept = append(kept, t)
			}
		}
		clear(l.tasks[len(kept):])
		l.tasks = kept
	}
	return dropped
}

// void reports whether the broker will deliver the task again by itself, so that
// one that did not start need not.
func (q *workQueue) void(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.gone(t)
}

func (q *workQueue) gone(t *task) bool {
	return t.session != t.sub.session || t.sub.leaves || q.closed
}

// close ends every take; nothing more is handed out.
func (q *workQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.work.Broadcast()
}
