package outlast

import (
	"sync"
	"time"
)

// gate decides when a message that is ready may start, whether it was delivered
// or is retried: a suspect runs alone, and while something outside is down one
// probe runs at a time.
type gate struct {
	mu      sync.Mutex
	changed sync.Cond
	running int
	alone   bool // the one that runs wants nobody beside it
	queued  int  // suspects at the gate: others let them go first
	closed  bool

	streak []messageID // different messages in a row that said "unavailable"
	slow   bool
	pause  time.Duration // between two probes
	next   time.Time     // no probe before it
	timer  *time.Timer
	onSlow func(slow bool)
}

const (
	unavailableStreak = 3 // different messages in a row that slow the group
	probeFirst        = time.Second
	probeLongest      = 30 * time.Second
)

func newGate(onSlow func(bool)) *gate {
	g := &gate{onSlow: onSlow}
	g.changed.L = &g.mu
	return g
}

// enter waits until the caller may start a message, and returns false when gone
// says that there is no point any more, or the gate is closed. After true the
// caller leaves again.
func (g *gate) enter(alone bool, gone func() bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if alone {
		g.queued++
		defer func() { g.queued-- }()
	}
	for {
		if g.closed || gone() {
			g.changed.Broadcast() // somebody else may be next
			return false
		}
		if g.free(alone) {
			g.running++
			g.alone = alone
			return true
		}
		g.changed.Wait()
	}
}

func (g *gate) free(alone bool) bool {
	switch {
	case g.alone:
		return false
	case alone && g.running > 0:
		return false
	case !alone && g.queued > 0:
		return false
	case g.slow:
		return g.running == 0 && !time.Now().Before(g.next)
	}
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.alone = false
	g.changed.Broadcast()
}

// poke lets everybody who waits look again whether it is gone.
func (g *gate) poke() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changed.Broadcast()
}

// unavailable notes that a handler said so of something outside, and returns the
// pause that its message should wait.
func (g *gate) unavailable(id messageID) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, known := range g.streak {
		if known == id {
			return g.slower(g.slow)
		}
	}
	if len(g.streak) < unavailableStreak {
		g.streak = append(g.streak, id)
	}
	return g.slower(len(g.streak) >= unavailableStreak)
}

// slower closes the gate for a while if it is to be slow.
func (g *gate) slower(slow bool) time.Duration {
	if !slow {
		return probeFirst
	}
	switch {
	case !g.slow:
		g.slow = true
		g.pause = probeFirst
		g.onSlow(true)
	case time.Now().Before(g.next):
		return time.Until(g.next) // it was under way before: not a probe
	default:
		g.pause = min(2*g.pause, probeLongest)
	}
	// Half of the pause is random, so that the instances of a group spread.
	wait := g.pause/2 + jitter(g.pause/2)
	g.next = time.Now().Add(wait)
	if g.timer != nil {
		g.timer.Stop()
	}
	g.timer = time.AfterFunc(wait, g.poke)
	return wait
}

// available notes that a handler succeeded: everything may run again.
func (g *gate) available() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.streak = g.streak[:0]
	if g.slow {
		g.slow = false
		g.onSlow(false)
		g.changed.Broadcast()
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.timer != nil {
		g.timer.Stop()
	}
	g.changed.Broadcast()
}
