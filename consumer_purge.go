package outlast

import (
	"context"
	"sync"
	"time"

	"github.com/outlastmq/outlast/internal/planted"
)

const (
	purgeEvery  = 45 * time.Second
	purgeRows   = 1000
	purgeRounds = 20          // per source and turn, so that a backlog of one keeps no other waiting
	purgeAgain  = time.Second // after a turn that left something
	maxSources  = 1000
)

// purger knows what the inbox may forget: what each producer has settled, by the
// newest word of it that a message brought.
type purger struct {
	mu     sync.Mutex
	before map[string]time.Time
}

func (p *purger) saw(m *Message) {
	if m.SettledBefore.IsZero() && !planted.On(planted.DeleteByAge) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was, known := p.before[m.Source]
	if !known && len(p.before) >= maxSources {
		return // its rows are purged by an instance or a run that knows it
	}
	if m.SettledBefore.After(was) || planted.On(planted.DeleteByAge) {
		p.before[m.Source] = m.SettledBefore
	}
}

func (p *purger) requests(group string, age time.Duration) []PurgeRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]PurgeRequest, 0, len(p.before))
	for source, t := range p.before {
		if planted.On(planted.DeleteByAge) {
			t, age = time.Now(), time.Second
		}
		list = append(list, PurgeRequest{Group: group, Source: source, SettledBefore: t, Age: age, Limit: purgeRows})
	}
	return list
}

// purgeLoop has the inbox forget, rarely and in small pieces. Where a turn left something, the
// next one comes soon: a group that handles thousands a second forgets as many.
func (r *consumerRun) purgeLoop(ctx context.Context) {
	pause := purgePause()
	for sleep(ctx, pause, nil) {
		pause = purgePause()
		for _, req := range r.purge.requests(r.c.conf.Group, r.c.conf.DedupWindow) {
			left, err := r.purgeSource(ctx, req)
			if err != nil && ctx.Err() == nil {
				r.c.log.Warn("purge the inbox: trying again later", "source", req.Source, "error", err)
				pause = purgePause()
				break
			}
			if left {
				pause = purgeAgain
			}
		}
	}
}

func purgePause() time.Duration {
	if planted.On(planted.DeleteByAge) {
		return time.Second
	}
	return purgeEvery/2 + jitter(purgeEvery)
}

// purgeSource reports whether the turn's rounds left something to forget.
func (r *consumerRun) purgeSource(ctx context.Context, req PurgeRequest) (left bool, err error) {
	for range purgeRounds {
		var n int
		err := inTime(ctx, func(ctx context.Context) (err error) {
			n, err = r.c.inbox.Purge(ctx, req)
			return err
		})
		eachHook(&r.c.hooks, func(h HookPurged) { h.OnPurged(req, n, err) })
		if err != nil || n < req.Limit {
			return false, err
		}
		if !sleep(ctx, 50*time.Millisecond, nil) {
			return false, nil
		}
	}
	return true, nil
}
