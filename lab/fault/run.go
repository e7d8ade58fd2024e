package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// offPause is how long a fault that cannot be undone yet is left before the next try: a
// server that starts slowly, say.
const offPause = time.Second

// Run carries out a plan and returns when every fault is off again: after the last step,
// or soon after ctx ends. It writes to t as it goes. What a fault hits is its own until it
// is off; a fault that finds it taken, as undoing took longer than was planned, waits for it
// as long as it was to be on, and is then left out. A fault that could not be undone in
// limit is an error; a fault that could not be made is only noted in the timeline.
func Run(ctx context.Context, plan []Step, t *Timeline, limit time.Duration) error {
	begin := time.Now()
	things := &locks{taken: map[string]bool{}, freed: make(chan struct{})}
	errs := make(chan error, len(plan))
	var steps sync.WaitGroup
	for _, s := range plan {
		steps.Go(func() {
			if !sleepUntil(ctx, begin.Add(s.At)) || !things.take(ctx, s.Fault.Hits, begin.Add(s.At+s.For)) {
				return
			}
			defer things.free(s.Fault.Hits)
			errs <- s.run(ctx, t, limit)
		})
	}
	steps.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// locks are the things that faults hit.
type locks struct {
	mu    sync.Mutex
	taken map[string]bool
	freed chan struct{} // closed, and replaced, when something becomes free
}

// take waits until all are free, and reports false when they were not until then.
func (l *locks) take(ctx context.Context, things []string, until time.Time) bool {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		l.mu.Lock()
		if !slices.ContainsFunc(things, func(thing string) bool { return l.taken[thing] }) {
			for _, thing := range things {
				l.taken[thing] = true
			}
			l.mu.Unlock()
			return true
		}
		freed := l.freed
		l.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return false
		}
	}
}

func (l *locks) free(things []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, thing := range things {
		delete(l.taken, thing)
	}
	close(l.freed)
	l.freed = make(chan struct{})
}

func (s Step) run(ctx context.Context, t *Timeline, limit time.Duration) error {
	line := t.begin(s.Fault)
	// A fault that is being made is finished, so that it can be undone.
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.For+limit)
	defer cancel()
	made := s.Fault.On(work)
	t.on(line, made)
	if made == nil {
		sleepUntil(ctx, time.Now().Add(s.For))
		if s.Fault.Struck != nil && !s.Fault.Struck() {
			t.missed(line)
		}
	}
	for {
		t.ending(line)
		err := s.Fault.Off(work)
		if err == nil {
			t.off(line)
			return nil
		}
		if !sleepUntil(work, time.Now().Add(offPause)) {
			t.failed(line, err)
			return fmt.Errorf("end %q: %w", s.Fault.Name, err)
		}
	}
}

// sleepUntil reports false when ctx ended first.
func sleepUntil(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
