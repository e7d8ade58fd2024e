package check

import (
	"fmt"
	"strings"
	"time"
)

// end judges what only the whole history tells.
func (c *checker) end() {
	for g, name := range c.judged {
		if !c.complete[name] {
			delete(c.judged, g)
		}
	}
	for i := int32(1); i <= c.messages.n; i++ {
		m := c.messages.at(i)
		c.receptions(m, func(r *reception) { c.received(i, m, r) })
		c.ghost(i, m)
		c.loss(i, m)
		c.duplicates(i, m)
	}
	c.order.judge(c, func(g int32) bool { return c.judged[g] == 0 })
	c.ledger.judge(c, func(g int32) bool { return c.judged[g] != 0 })
	c.dangling()
	c.liveness()
	c.resources()
	c.independence()
	c.wasReal()
	c.verdicts()
}

// committed tells whether the transaction of a message has.
func (c *checker) committed(m *message) outcome {
	if m.tx == 0 {
		return noOutcome
	}
	t := c.txs.at(m.tx)
	switch {
	case t.row:
		return ok
	case t.name != 0 && c.complete[t.name]:
		return failed
	case t.g != 0:
		return t.effect
	}
	return t.commit
}

// effects is how often a message took effect in a group.
func (c *checker) effects(r *reception) uint16 {
	if c.judged[r.g] != 0 {
		return r.rows
	}
	return r.effects
}

// received judges a message in one group.
func (c *checker) received(i int32, m *message, r *reception) {
	g := c.groups.text(r.g)
	n := c.effects(r)
	if n > 1 {
		c.violated(4, Example{m: i, g: r.g}, "it took effect %d times in %s", n, g)
	}
	if r.early != 0 {
		c.violated(6, Example{m: i, g: r.g, at: r.early}, "%s acknowledged it, and had not committed what became of it", g)
	}
	if n > 0 && (r.flags&leftDead != 0 || r.flags&isDead != 0 && r.deaths > r.replays) {
		c.violated(15, Example{m: i, g: r.g}, "in %s it took effect, and it is a dead letter that nobody replayed", g)
	}
}

func (c *checker) ghost(i int32, m *message) {
	if m.flags&isDelivered == 0 && m.first == 0 {
		return
	}
	c.tested[2]++
	x := Example{m: i}
	switch {
	case m.flags&isEnqueued != 0:
		if o := c.committed(m); o == failed {
			c.violated(2, x, "it was sent, and the transaction that wrote it did not commit")
		} else if m.flags&isEarly != 0 && m.tx != 0 && c.txs.at(m.tx).committing {
			x.at = m.first
			c.violated(2, x, "it was published before the commit of the transaction that wrote it was asked for")
		}
	case m.flags&isDelivered == 0: // a publish whose enqueue was not told is delivered or not
	case c.enqueued[m.typ]:
		c.violated(2, x, "it was delivered, and nobody in this history enqueued it")
	default:
		c.strangers++
	}
}

// loss judges whether a message that was promised is accounted for.
func (c *checker) loss(i int32, m *message) {
	if m.flags&isEnqueued == 0 || c.quiesced == 0 {
		return
	}
	if o := c.committed(m); o == failed || o == unknown || o == noOutcome && m.first == 0 && m.claimed == 0 {
		return
	}
	c.tested[1]++
	switch {
	case m.flags&(isWithdrawn|isExpired|isHeld) != 0:
		return
	case m.flags&isPending != 0:
		c.violated(1, Example{m: i}, "it was committed, and is still in the outbox at the end")
		return
	}
	missing := c.missing(m)
	switch {
	case len(missing) > 0:
		c.violated(1, Example{m: i, g: missing[0]}, "it was committed, and nothing became of it in %s: no effect, not waiting, not dead", c.list(missing))
	case m.group != 0 || c.destroyedSomewhere(m):
	case m.flags&isUnheard == 0 && m.flags&isMarked != 0:
		c.violated(1, Example{m: i}, "it was committed, its row is deleted as sent, and nobody got it")
	case m.flags&(isMarked|isUnheard) == 0:
		c.violated(1, Example{m: i}, "it was committed, its row is gone, and nobody got it")
	}
}

// missing are the groups that should have it, and in which nothing became of it: those
// that were bound while it was sent, and those to which it was delivered, but for what an
// operator may have destroyed.
func (c *checker) missing(m *message) (groups []int32) {
	seen := map[int32]bool{}
	c.receptions(m, func(r *reception) {
		seen[r.g] = true
		if !c.accounted(r) && !c.destroyed(m, r.g) {
			groups = append(groups, r.g)
		}
	})
	if m.first == 0 {
		return groups
	}
	for key, b := range c.bindings {
		if key[1] == m.typ && !seen[key[0]] && b.had(m.first, max(m.first, m.lastAck)) && !c.destroyed(m, key[0]) {
			groups = append(groups, key[0])
		}
	}
	return groups
}

// destroyed reports whether a message may have been in a queue of g that was destroyed, and
// counts it.
func (c *checker) destroyed(m *message, g int32) bool {
	b := c.bindings[[2]int32{g, m.typ}]
	if b == nil || m.first >= b.destroyed {
		return false
	}
	c.lostByHand++
	return true
}

// destroyedSomewhere reports whether any group's queue may have taken a message with it.
func (c *checker) destroyedSomewhere(m *message) bool {
	for key := range c.bindings {
		if key[1] == m.typ && c.destroyed(m, key[0]) {
			return true
		}
	}
	return false
}

func (c *checker) accounted(r *reception) bool {
	return c.effects(r) > 0 || r.flags&(isDropped|leftRetry|leftDead) != 0
}

func (c *checker) list(groups []int32) string {
	var names []string
	for _, g := range groups {
		names = append(names, c.groups.text(g))
	}
	return strings.Join(names, ", ")
}

func (c *checker) duplicates(i int32, m *message) {
	if m.acks == 0 {
		return
	}
	c.tested[11]++
	allowed := int(m.unsure) + max(int(m.epochs)-1, 0) + int(m.replays)
	if int(m.acks)-1 > allowed {
		c.violated(11, Example{m: i}, "%d publishes of it were confirmed; %d outcomes that were not known or changes of its relay explain %d", m.acks, allowed, allowed+1)
	}
}

// dangling judges every transaction by the ledger.
func (c *checker) dangling() {
	for key, i := range c.txIDs {
		t := c.txs.at(i)
		if t.name == 0 || !c.complete[t.name] {
			continue
		}
		c.tested[17]++
		x := Example{tx: key, m: t.m, g: t.g, at: t.began}
		told, who := t.commit, "the producer"
		if t.g != 0 {
			told, who = t.effect, c.groups.text(t.g)
		}
		switch {
		case told == ok && !t.row:
			c.violated(17, x, "%s was told that a transaction had committed, and its ledger row is not there", who)
		case told == failed && t.row:
			c.violated(17, x, "%s was told that a transaction had not committed, and its ledger row is there", who)
		}
	}
	if c.tested[17] == 0 {
		c.notes[17] = "no ledger was read to its end"
	}
}

func (c *checker) independence() {
	quiet, down := &c.faults.business[0], &c.faults.business[1]
	if c.tested[14] == 0 {
		c.notes[14] = "no business transaction committed while the broker was down"
		return
	}
	c.notes[14] = fmt.Sprintf("%d transactions committed while the broker was down, 99 in 100 within %v; otherwise %v", down.n(), down.p99(), quiet.p99())
}

// wasReal tells whether the rare events occurred: without them a run proves little.
func (c *checker) wasReal() {
	var missing []string
	c.report.Rare = map[string]int{}
	for _, what := range []string{rareCommit, rareConfirm, rareReturn, rareLease, rareStaleMark, rareAgain, rareSettle, rareBlocked, rareLeader} {
		if c.report.Rare[what] = c.rare[what]; c.rare[what] == 0 {
			missing = append(missing, what)
		}
	}
	if len(missing) > 0 {
		c.notes[24] = "it did not see: " + strings.Join(missing, ", ")
		return
	}
	c.tested[24] = 1
}

// verdicts fills the report.
func (c *checker) verdicts() {
	c.report.Span = time.Duration(c.ended - c.began).Seconds()
	if c.quiesced == 0 {
		c.notes[1] = "the history has no quiesce: what is missing may still come"
		c.tested[1] = 0
	}
	if c.lostByHand > 0 && c.tested[1] > 0 {
		c.notes[1] = fmt.Sprintf("tested %d times; %d times a message may have been in a queue that an operator deleted", c.tested[1], c.lostByHand)
	}
	if c.strangers > 0 {
		c.notes[2] = fmt.Sprintf("%d messages are of types that nobody in this history enqueued", c.strangers)
	}
	if n := c.order.jumps + c.ledger.jumps; n > 0 {
		c.notes[5] = fmt.Sprintf("%d gaps between effects of a key", n)
	}
	for n := invariant(1); n <= invariants; n++ {
		v := Verdict{ID: fmt.Sprintf("I%d", n), Name: titles[n], Note: c.notes[n], Violations: c.count[n], Examples: c.found[n]}
		switch {
		case c.count[n] > 0:
			v.State = Violated
		case c.tested[n] > 0:
			v.State = Holds
			if v.Note == "" && n != 24 {
				v.Note = fmt.Sprintf("tested %d times", c.tested[n])
			}
		default:
			v.State = NotExercised
			if v.Note == "" {
				v.Note = notYet[n]
			}
		}
		c.report.Verdicts = append(c.report.Verdicts, v)
	}
}
