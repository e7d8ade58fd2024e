package outlast

import (
	"slices"
	"sync"
	"time"
)

// SlotNamer is implemented by an [OutboxStore] that can tell in which slot Insert will write a
// message: those of packages postgres and memory. A relay of the same process then looks for a published
// message in its slot alone, which costs the database a tenth of a look into all of them
// (docs/performance.md). It is a hint: a wrong slot costs a message time, as if nobody had woken
// the relay, and nothing else.
type SlotNamer interface {
	// SlotOf returns the slot of a message with an id, or -1 when it is not known.
	SlotOf(m *Message) int
}

const (
	// hotTime is how long the relay looks into a slot after a publish. What commits later is
	// found by a sweep of all slots, the next of which comes by then.
	hotTime = 20 * time.Millisecond
	// hotMost is with how many slots a look at them is not worth it any more: it costs as much
	// as a sweep.
	hotMost = 96
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

// now returns the slots that are hot, and forgets the others.
func (h *hotSlots) now(now time.Time) map[int]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	var hot map[int]bool
	for slot, at := range h.slots {
		if now.Sub(at) >= hotTime {
			delete(h.slots, slot)
			continue
		}
		if hot == nil {
			hot = make(map[int]bool, len(h.slots))
		}
		hot[slot] = true
	}
	return hot
}

// glance makes the next look at the hot slots happen after a while, or sooner, and more of them
// follow quickly; and a sweep by when they are not hot any more. Without a hot slot it is a burst.
func (r *relayRun) glance(now time.Time, after time.Duration) {
	p := &r.picks
	if r.hot.now(now) == nil {
		p.burst(now.Add(after))
		return
	}
	p.hotAt, p.hotPause = earliest(p.hotAt, now.Add(after)), firstPause
	p.sweepBy, p.pause = earliest(p.sweepBy, now.Add(hotTime)), min(p.pause, hotTime/2)
}

// nextPick is when a pick is due, of whatever slots.
func (p *relayPicks) nextPick() time.Time {
	return earliest(p.nextSweep(), p.hotAt)
}

func (p *relayPicks) nextSweep() time.Time {
	by := p.sweepBy
	if !by.IsZero() && by.Before(p.rested) {
		by = p.rested
	}
	return earliest(p.at, by)
}

// pickOf returns those of the leases whose slots the pick that is due looks into: nil when none
// is due after all, and whether they are the hot ones alone.
func (r *relayRun) pickOf(now time.Time, leases []Lease) (some []Lease, hot bool) {
	p := &r.picks
	if !now.Before(p.nextSweep()) {
		p.sweepBy = time.Time{}
		if !p.hotAt.IsZero() && !now.Before(p.hotAt) {
			p.hotAt = now.Add(firstPause)
		}
		return leases, false
	}
	if now.Before(p.rested) {
		p.hotAt = p.rested
		return nil, false
	}
	p.hotAt = time.Time{}
	slots := r.hot.now(now)
	for _, l := range leases {
		if slots[l.Slot] {
			some = append(some, l)
		}
	}
	if len(some) > hotMost {
		return leases, false
	}
	return some, true
}

// glanced plans the next look at the hot slots after one that returned some rows.
func (p *relayPicks) glanced(now time.Time, rows int, full bool) {
	switch {
	case full:
		p.at, p.pause = now, firstPause // a backlog is for sweeps
	case rows > 0:
		p.hotPause = firstPause
	default:
		p.hotPause *= 2
	}
	p.hotAt = earliest(p.hotAt, now.Add(p.hotPause))
}

// swept plans the next sweep after one that returned some rows. Those of hot slots tell nothing:
// a look at these would have found them.
func (r *relayRun) swept(now time.Time, rows []*Row, full bool) {
	p := &r.picks
	hot := r.hot.now(now)
	unexpected := slices.ContainsFunc(rows, func(row *Row) bool { return !hot[row.Slot] })
	switch {
	case full:
		p.at, p.pause = now, firstPause
	case unexpected:
		p.pause = firstPause
		p.at = now.Add(p.pause)
	default:
		p.pause = min(max(2*p.pause, firstPause), r.conf.Interval)
		p.at = now.Add(p.pause)
	}
}
