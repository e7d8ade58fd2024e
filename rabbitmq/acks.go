package rabbitmq

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// ackPause is the time between two looks at what is done and not told.
const ackPause = 5 * time.Millisecond

// ackState is how far a delivery is.
type ackState uint8

const (
	ackOpen   ackState = iota // in hand
	ackDone                   // not told yet
	ackWaited                 // the same, and it was so at an earlier look
)

type ackEntry struct {
	tag   uint64
	state ackState
}

// acks are the acknowledgements of one channel. Deliveries that are done without a gap
// from the oldest on are told by one command; one behind a gap waits a little for that to
// close. Nothing waits when all is done or when what waits takes up half of the prefetch.
type acks struct {
	tell  func(tag uint64, multiple bool) error
	stale func()
	pause time.Duration // between two looks
	limit int           // told at once when so many wait; half of it, when the oldest is done

	// mu is held while something is told: nothing is any more when end returns, so that
	// it can never meet another channel's tags.
	mu      sync.Mutex
	untold  []ackEntry // what the broker waits for, in the order of tags
	last    uint64     // the tag of the last delivery
	waiting int        // done and not told
	single  bool       // by itself, at once
	over    bool
	armed   bool
	timer   *time.Timer
}

func newAcks(prefetch int, tell func(tag uint64, multiple bool) error, stale func()) *acks {
	return &acks{tell: tell, stale: stale, pause: ackPause, limit: max(1, prefetch/2)}
}

// delivered notes the next delivery. The tags of a channel rise; a broker that counts
// otherwise gets each acknowledgement by itself from then on.
func (a *acks) delivered(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.single || tag <= a.last {
		a.single = true
		return
	}
	a.last = tag
	a.untold = append(a.untold, ackEntry{tag: tag})
}

// inHand reports whether the broker waits, or may wait, for an acknowledgement.
func (a *acks) inHand() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.single || len(a.untold) > 0
}

// ack reports whether the channel was still there. What was not told when it ends, the
// broker delivers again.
func (a *acks) ack(tag uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		a.stale()
		return false
	}
	i, ok := slices.BinarySearchFunc(a.untold, tag, func(e ackEntry, tag uint64) int { return cmp.Compare(e.tag, tag) })
	if !ok || a.untold[i].state != ackOpen {
		return a.say(tag, false, 1)
	}
	a.untold[i].state = ackDone
	a.waiting++
	switch {
	case a.single || a.waiting == len(a.untold) || a.waiting >= a.limit:
		a.tellRun()
		a.tellSingly(ackDone)
	case a.waiting >= a.limit/2 && a.untold[0].state != ackOpen:
		a.tellRun()
	default:
		a.arm()
	}
	return !a.over
}

// end tells what is left, and nothing after it.
func (a *acks) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tellRun()
	a.tellSingly(ackDone)
	a.over = true
	if a.timer != nil {
		a.timer.Stop()
	}
}

func (a *acks) arm() {
	switch {
	case a.armed || a.waiting == 0:
		return
	case a.timer == nil:
		a.timer = time.AfterFunc(a.pause, a.look)
	default:
		a.timer.Reset(a.pause)
	}
	a.armed = true
}

// look tells what may be told together, and by itself what has waited since the last look.
func (a *acks) look() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed = false
	if a.over {
		return
	}
	a.tellRun()
	a.tellSingly(ackWaited)
	for i := range a.untold {
		if a.untold[i].state == ackDone {
			a.untold[i].state = ackWaited
		}
	}
	a.arm()
}

// tellSingly tells each delivery by itself that is as far as state.
func (a *acks) tellSingly(state ackState) {
	if a.waiting == 0 {
		return
	}
	a.untold = slices.DeleteFunc(a.untold, func(e ackEntry) bool {
		if e.state < state {
			return false
		}
		a.waiting--
		a.say(e.tag, false, 1)
		return true
	})
}

// tellRun tells the deliveries that are done from the oldest on, where tags have an order.
func (a *acks) tellRun() {
	run := 0
	for !a.single && run < len(a.untold) && a.untold[run].state != ackOpen {
		run++
	}
	if run > 0 {
		a.waiting -= run
		a.say(a.untold[run-1].tag, run > 1, run)
	}
	a.untold = a.untold[run:] // append moves the rest when the array's end is reached
}

// say tells the broker that count deliveries are done. Without the channel there is
// nothing to tell any more.
func (a *acks) say(tag uint64, multiple bool, count int) bool {
	if !a.over && a.tell(tag, multiple) == nil {
		return true
	}
	a.over = true
	for range count {
		a.stale()
	}
	return false
}
