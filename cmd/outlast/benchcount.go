package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// benchCount counts until there are n, and takes the times of the first and the last.
type benchCount struct {
	mu    sync.Mutex
	n     int
	want  int
	start int // counted at once when the first came
	first time.Time
	last  time.Time
	full  chan struct{}
}

func newBenchCount(want int) *benchCount { return &benchCount{want: want, full: make(chan struct{})} }

func (c *benchCount) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.n
	c.n, c.last = c.n+n, time.Now()
	if before == 0 {
		c.start, c.first = n, c.last
	}
	if before < c.want && c.n >= c.want {
		close(c.full)
	}
}

// watch runs something until all is counted or the time is over, and returns how much
// was done, and how many of them a second since the first: without the time that it
// takes to connect.
func (c *benchCount) watch(ctx context.Context, limit time.Duration, run func(context.Context) error) (n int, rate float64, err error) {
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- run(inner) }()
	select {
	case <-c.full:
		cancel()
		err = <-ended
	case err = <-ended:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		return 0, 0, err
	case ctx.Err() != nil:
		return 0, 0, ctx.Err()
	case c.n == 0:
		return 0, 0, &outlast.Error{Op: "bench", Code: outlast.CodeUnavailable, Err: fmt.Errorf("nothing was done within %s", limit),
			Hint: "outlast doctor tells what stands in the way; --for gives more time"}
	}
	if c.start == c.n {
		return c.n, float64(c.n) / c.last.Sub(began).Seconds(), nil
	}
	return c.n, float64(c.n-c.start) / c.last.Sub(c.first).Seconds(), nil
}

// benchWindow publishes with a bounded number of unconfirmed messages.
type benchWindow struct {
	publisher outlast.Publisher
	slots     chan struct{}
	up        chan struct{}
	once      sync.Once
	upOnce    sync.Once
	failed    chan struct{}
	err       error
}

func newBenchWindow(b outlast.Broker, n int) *benchWindow {
	w := &benchWindow{slots: make(chan struct{}, n), up: make(chan struct{}), failed: make(chan struct{})}
	w.publisher = b.Publisher(outlast.PublisherConfig{
		Results: func(rs []outlast.Result) {
			for _, r := range rs {
				if r.Outcome != outlast.OutcomeConfirmed {
					w.fail(fmt.Errorf("a message was %s: %w", r.Outcome, r.Err))
				}
				<-w.slots
			}
		},
		Link: func(l outlast.Link) {
			if l.State == outlast.LinkUp {
				w.upOnce.Do(func() { close(w.up) })
			}
		}})
	return w
}

func (w *benchWindow) fail(err error) {
	if err != nil {
		w.once.Do(func() { w.err = err; close(w.failed) })
	}
}

func (w *benchWindow) untilUp(ctx context.Context) error {
	select {
	case <-w.up:
		return nil
	case <-w.failed:
		return w.err
	case <-ctx.Done():
		return &outlast.Error{Op: "connect to the broker", Code: outlast.CodeUnavailable, Err: ctx.Err()}
	}
}

// send publishes when there is room.
func (w *benchWindow) send(ctx context.Context, p *outlast.Publishing) error {
	select {
	case w.slots <- struct{}{}:
		w.publisher.Send(outlast.Bucket(p.Message.Envelope.Key, p.Message.ID)%4, []*outlast.Publishing{p})
		return nil
	case <-w.failed:
		return w.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain waits until everything is confirmed.
func (w *benchWindow) drain(ctx context.Context) error {
	for taken := range cap(w.slots) {
		select {
		case w.slots <- struct{}{}:
		case <-w.failed:
			return w.err
		case <-ctx.Done():
			return fmt.Errorf("wait for %d confirms: %w", cap(w.slots)-taken, ctx.Err())
		}
	}
	for range cap(w.slots) {
		<-w.slots
	}
	return nil
}
