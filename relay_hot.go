package outlast

import (
	"slices"
	"sync"
	"time"
)

// SlotNamer is implemented by an [OutboxStore] that can tell in which slot Insert will write a
// message: those of packages postgres and memory. A relay of the same process then looks for a
// published message in its slot alone, which costs the database less than a look into all of them
// (docs/decisions/polling-is-the-truth.md). It is a hint: a wrong slot costs a message time, as if
// nobody had woken the relay, and nothing else.
type SlotNamer interface {
	// SlotOf returns the slot of a message with an id, or -1 when it is not known.
	SlotOf(m *Message) int
}

const (
	// hotTime is how long the relay looks into a slot after a publish. What commits later is
	// found by a sweep of all slots, the next of which comes by then.
	hotTime = 20 * time.Millisecond
	// hotShare: when more than one in so many slots is hot, a look at them costs as much as a
	// sweep, and is one.
	hotShare = 3
)

// hotSlots are those that publishes of this process have written to, with the last time.
type hotSlots struct {
	mu    sync.Mutex
	slots map[int]time.Time
}

func (h *hotSlots) add(slots []int, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.slots == nil {
		h.slots = map[int]time.Time{}
	}
	for _, slot := range slots {
		h.slots[slot] = now
	}
}

// any reports whether a slot is hot.
func (h *hotSlots) any(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, at := range h.slots {
		if now.Sub(at) < hotTime {
			return true
		}
	}
	return false
}

// now returns the slots that are hot, and forgets the others.
func (h *hotSlots) now(now time.Time) map[int]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	hot := make(map[int]bool, len(h.slots))
	for slot, at := range h.slots {
		if now.Sub(at) < hotTime {
			hot[slot] = true
		} else {
			delete(h.slots, slot)
		}
	}
	return hot
}

// glance makes the next look at the hot slots happen after a while, or sooner, and more of them
// follow quickly; and a sweep by when they are not hot any more. Without a hot slot it is a burst.
func (r *relayRun) glance(now time.Time, after time.Duration) {
	p := &r.picks
	if !r.hot.any(now) {
		p.burst(now.Add(after))
		return
	}
	p.hotAt, p.hotPause = earliest(p.hotAt, now.Add(after)), firstPause
	p.sweepBy, p.pause = earliest(p.sweepBy, now.Add(hotTime)), min(p.pause, hotTime/2)
}

// nextPick is when a pick is due, of whatever slots.
func (p *relayPicks) nextPick() time.Time {
	next := p.nextSweep()
	if !p.hotAt.IsZero() {
		next = earliest(next, latest(p.hotAt, p.rested))
	}
	return latest(next, p.notBefore)
}

func (p *relayPicks) nextSweep() time.Time {
	if p.sweepBy.IsZero() {
		return p.at
	}
	return earliest(p.at, latest(p.sweepBy, p.rested))
}

// pickOf returns those of the leases whose slots the pick that is due looks into, none when it would
// see nothing, and whether they are the hot ones alone.
func (r *relayRun) pickOf(now time.Time, leases []Lease) (some []Lease, hot bool) {
	p := &r.picks
	sweep, look := !now.Before(p.nextSweep()), !p.hotAt.IsZero() && !now.Before(p.hotAt)
	if look {
		p.hotAt = time.Time{}
		slots := r.hot.now(now)
		for _, l := range leases {
			if slots[l.Slot] {
				some = append(some, l)
			}
		}
		sweep = sweep || hotShare*len(some) > len(leases)
	}
	if !sweep {
		return some, true
	}
	p.sweepBy = time.Time{}
	if len(some) > 0 {
		p.lookAgain(now, false)
	}
	return leases, false
}

// lookAgain plans the next look at slots that are hot, whose commits may be still to come.
func (p *relayPicks) lookAgain(now time.Time, found bool) {
	if found {
		p.hotPause = firstPause
	}
	p.hotAt = earliest(p.hotAt, now.Add(p.hotPause))
	p.hotPause *= 2
}

// swept plans the next sweep after one that returned some rows. Those of hot slots tell nothing, a
// look at these would have found them, unless they left no room for others.
func (r *relayRun) swept(now time.Time, rows []*Row, taken pickTaken) {
	p := &r.picks
	hot := r.hot.now(now)
	unexpected := slices.ContainsFunc(rows, func(row *Row) bool { return !hot[row.Slot] })
	switch {
	case taken == tookAll:
		p.at, p.pause = now, firstPause
	case unexpected || taken == tookMuch:
		p.pause = firstPause
		p.at = now.Add(p.pause)
	default:
		p.pause = min(max(2*p.pause, firstPause), r.conf.Interval)
		p.at = now.Add(p.pause)
	}
}

// pickTaken is how much of the room that a pick had it has taken: as many rows as it might, at least
// half of the bytes, or less.
type pickTaken int

const (
	tookLittle pickTaken = iota
	tookMuch
	tookAll
)

func takenBy(rows []*Row, most, bytes int) pickTaken {
	size := 0
	for _, row := range rows {
		size += len(row.Body)
	}
	switch {
	case len(rows) >= most:
		return tookAll
	case size >= bytes/2:
		return tookMuch
	}
	return tookLittle
}
