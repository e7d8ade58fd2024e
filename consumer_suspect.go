package outlast

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

const (
	// killsProcess is how many processes may die with a message in hand: the first time
	// it is not known which message did it, then it runs alone.
	killsProcess = 3
	// forgetDead is how long the record of a silent instance makes redelivered messages
	// suspects. After it the record is removed; an instance that comes back renews it.
	forgetDead = 10 * time.Minute
	// suspectRetries is how long, after a death was noticed, retries run alone: no
	// redelivered flag tells which of them was in hand.
	suspectRetries = time.Minute
)

// peers is what is known of the group's other instances.
type peers struct {
	mu    sync.Mutex
	stale time.Duration // without a sign of life for so long: probably dead
	known map[string]*peer
}

type peer struct {
	age      time.Duration
	seen     time.Time
	advanced bool      // it gave a sign of life since we know it
	dead     time.Time // since when it counts as perhaps dead; zero: it does not
}

func newPeers(stale time.Duration) *peers {
	return &peers{stale: stale, known: map[string]*peer{}}
}

// look takes in the records of others. One that was not seen to advance may belong
// to a dead process, however young it is: a process that died a second ago and was
// started again looks like that.
func (p *peers) look(list []Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	known := make(map[string]*peer, len(list))
	for _, in := range list {
		was := p.known[in.Name]
		n := &peer{age: in.Age, seen: now}
		if was != nil {
			n.dead = was.dead
			n.advanced = was.advanced || in.Age < was.age+now.Sub(was.seen)/2
		}
		switch alive := n.advanced && in.Age < p.stale; {
		case alive:
			n.dead = time.Time{}
		case n.dead.IsZero():
			n.dead = now
		}
		known[in.Name] = n
	}
	p.known = known
}

// anyDead reports whether a process of the group may have died.
func (p *peers) anyDead() bool { return p.deadFor(math.MaxInt64) }

// newlyDead reports whether a death was noticed not long ago.
func (p *peers) newlyDead() bool { return p.deadFor(suspectRetries) }

func (p *peers) deadFor(atMost time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.known {
		if !n.dead.IsZero() && time.Since(n.dead) < atMost {
			return true
		}
	}
	return false
}

// forgotten returns the instances whose records are of no more use.
func (p *peers) forgotten() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name, n := range p.known {
		if !n.dead.IsZero() && n.age > forgetDead {
			names = append(names, name)
		}
	}
	return names
}

// countSuspect has the inbox know that the task is about to run although a process
// died with it in hand, or decides that this has happened too often.
func (r *consumerRun) countSuspect(ctx context.Context, t *task) error {
	n, err := r.c.inbox.Suspect(ctx, r.c.conf.Group, t.mark.Source, t.mark.ID)
	if err != nil {
		return err
	}
	t.counted = true
	if n >= killsProcess {
		f := r.c.bury(t.m, history{}, DeadKills, errKills)
		t.fate = &f
	}
	return errAgain
}

var errKills = errors.New("three processes died with the message in hand, the last two times it was handled alone")
