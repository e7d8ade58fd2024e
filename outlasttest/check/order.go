package check

// orders follows the first effects of each key in each group: by the ledger, where
// there is one, or by what processes told.
type orders struct {
	ordered map[int32]bool
	last    map[groupKey]placed
	late    []late
	tested  map[int32]int
	jumps   int
}

type groupKey struct{ g, key, source int32 }

// placed is the message of a key that came furthest.
type placed struct {
	m      int32
	keySeq int64
	at     int64
}

// late is a message whose first effect came after that of a later one.
type late struct {
	m, g, after int32
	at          int64
}

const maxLate = 10_000

func newOrders() orders {
	return orders{ordered: map[int32]bool{}, last: map[groupKey]placed{}, tested: map[int32]int{}}
}

// effect takes the first effect of a message in a group.
func (o *orders) effect(c *checker, i int32, r *reception, at int64) {
	m := c.messages.at(i)
	if m.key == 0 || m.keySeq == 0 || !o.ordered[r.g] {
		return
	}
	o.tested[r.g]++
	// Two producers have keys of their own, and so have two types of one flow.
	key := groupKey{r.g, m.key, m.typ}
	last, found := o.last[key]
	switch {
	case !found || m.keySeq > last.keySeq:
		if found && m.keySeq > last.keySeq+1 {
			o.jumps++
		}
		o.last[key] = placed{i, m.keySeq, at}
	case m.keySeq < last.keySeq && len(o.late) < maxLate:
		o.late = append(o.late, late{i, r.g, last.m, at})
	}
}

// judge reports the late ones that no recorded skip excuses.
func (o *orders) judge(c *checker, mine func(g int32) bool) {
	for g, n := range o.tested {
		if mine(g) {
			c.tested[5] += n
		}
	}
	for _, l := range o.late {
		r := c.reception(l.m, l.g)
		if !mine(l.g) || r.flags&(wasDead|isDropped) != 0 || r.replays > 0 {
			continue
		}
		m := c.messages.at(l.m)
		if b := c.bindings[[2]int32{l.g, m.typ}]; b != nil {
			switch {
			case m.first != 0 && !b.had(m.first, m.first):
				continue // the group heard of it by a later publish only: it was not bound at the first
			case b.revived(m.first, r.handled):
				continue
			}
		}
		c.violated(5, Example{m: l.m, g: l.g, at: l.at}, "number %d of key %q took its first effect in %s after that of number %d, %s",
			m.keySeq, c.keys.text(m.key), c.groups.text(l.g), c.messages.at(l.after).keySeq, c.text(l.after))
	}
}
