package check

import (
	"github.com/outlastmq/outlast/outlasttest/history"
)

// leases follows who has which slot, by the clock of the database.
type leases struct {
	slots  map[slotOf]*held
	owners map[ownerOf]record
}

// record is an owner's, as its last renewal left it.
type record struct{ at, end int64 }

// renew notes a renewal at an instant of the database's clock. One that comes later may
// have been told sooner; but when the clock was set back, the earlier end is what counts.
func (r record) renew(at, end int64) record {
	if at >= r.at {
		end = max(end, r.end)
	}
	return record{at, end}
}

type slotOf struct {
	scope string
	slot  int64
}

type ownerOf struct{ scope, owner string }

// held is the last lease of a slot.
type held struct {
	owner string
	epoch int64
	over  bool   // released: nobody need wait for its end
	lost  record // of a lease that was lost, by what was known then; zero: its owner's record counts
}

func newLeases() leases {
	return leases{slots: map[slotOf]*held{}, owners: map[ownerOf]record{}}
}

func (c *checker) lease(e *history.Entry) {
	l := &c.leases
	who := ownerOf{e.Scope, e.Owner}
	switch e.O {
	case "renewed":
		l.owners[who] = l.owners[who].renew(e.At, e.Exp)
	case "gained":
		l.owners[who] = l.owners[who].renew(e.At, e.Exp)
		for _, s := range e.Slots {
			c.gained(e, slotOf{e.Scope, s[0]}, s[1])
		}
	case "lost", "released":
		expired := false
		for _, s := range e.Slots {
			h := l.slots[slotOf{e.Scope, s[0]}]
			if h == nil || h.owner != e.Owner || h.epoch != s[1] {
				continue
			}
			switch {
			case e.O == "released":
				h.over = true
			case !h.over:
				h.lost, expired = l.owners[who], true // what the owner gets later is another lease
			}
		}
		if expired {
			c.rare[rareLease]++
		}
	}
}

// gained compares a lease with the one before it: that must have ended.
func (c *checker) gained(e *history.Entry, at slotOf, epoch int64) {
	c.tested[9]++
	l := &c.leases
	h := l.slots[at]
	if h == nil {
		l.slots[at] = &held{owner: e.Owner, epoch: epoch}
		return
	}
	x := Example{scope: at.scope, slot: at.slot, at: e.T}
	switch {
	case epoch < h.epoch && e.Owner != h.owner:
		return // told late: what followed was told already
	case epoch == h.epoch && e.Owner != h.owner:
		c.violated(9, x, "slot %d of %s has two owners under epoch %d: %s and %s", at.slot, at.scope, epoch, h.owner, e.Owner)
	case epoch > h.epoch && e.Owner != h.owner && !h.over && e.At != 0:
		before := h.lost
		if before.end == 0 { // nobody told that it was lost: its owner is dead, or does not know yet
			c.rare[rareLease]++
			before = l.owners[ownerOf{at.scope, h.owner}]
		}
		// Since the clock was set back, a renewal may have committed that its owner never heard of,
		// with an earlier end than the one that is known.
		if setBack := e.At < before.at; !setBack && before.end > e.At {
			c.violated(9, x, "%s took slot %d of %s at %s by the database's clock, while %s had it until %s",
				e.Owner, at.slot, at.scope, clock(e.At*1000), h.owner, clock(before.end*1000))
		}
	}
	if epoch >= h.epoch {
		*h = held{owner: e.Owner, epoch: epoch}
	}
}
