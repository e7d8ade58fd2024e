package rabbitmq

import (
	"sync"

	"github.com/outlastmq/outlast"
)

// events hands results and link changes to the user from one goroutine, in their
// order, so that neither the socket's readers nor senders wait for a callback.
// Results that come while a callback runs are handed over together by the next.
type events struct {
	results func([]outlast.Result)
	links   func(outlast.Link)

	calling sync.Mutex // held during a callback
	mu      sync.Mutex
	work    sync.Cond
	running bool
	last    outlast.Link
	queue   []event
}

// event is results or a link change.
type event struct {
	results []outlast.Result
	link    *outlast.Link
}

func newEvents(c outlast.PublisherConfig) *events {
	e := &events{results: c.Results, links: c.Link, last: outlast.Link{State: outlast.LinkDown}}
	e.work.L = &e.mu
	return e
}

func (e *events) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = true
}

// report takes results; it calls back at once only when nothing runs.
func (e *events) report(rs []outlast.Result) {
	if len(rs) == 0 {
		return
	}
	e.mu.Lock()
	if !e.running {
		e.mu.Unlock()
		e.call(event{results: rs})
		return
	}
	if n := len(e.queue); n > 0 && e.queue[n-1].link == nil {
		e.queue[n-1].results = append(e.queue[n-1].results, rs...)
	} else {
		e.queue = append(e.queue, event{results: rs})
	}
	e.mu.Unlock()
	e.work.Signal()
}

// link takes a state, which is handed on when it is news.
func (e *events) link(l outlast.Link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l.State == e.last.State && l.Reason == e.last.Reason {
		return
	}
	if l.State == e.last.State {
		l.Since = e.last.Since
	}
	e.last = l
	e.queue = append(e.queue, event{link: &l})
	e.work.Signal()
}

func (e *events) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = false
	e.work.Signal()
}

// run calls back until stop, and then until nothing is left.
func (e *events) run() {
	for {
		e.mu.Lock()
		for len(e.queue) == 0 && e.running {
			e.work.Wait()
		}
		queue := e.queue
		e.queue = nil
		e.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		for _, v := range queue {
			e.call(v)
		}
	}
}

func (e *events) call(v event) {
	e.calling.Lock()
	defer e.calling.Unlock()
	if v.link != nil {
		e.links(*v.link)
		return
	}
	e.results(v.results)
}
