package check

import (
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest/history"
)

// session is one subscription: its open deliveries by tag.
type session struct {
	open map[uint64]int32
	last uint64 // the highest tag delivered
}

// group takes what a consumer does.
func (c *checker) group(e *history.Entry) {
	i, g := c.message(e.M), c.groups.of(e.G)
	r := c.reception(i, g)
	switch e.E {
	case history.Deliver:
		c.deliver(e, i, r)
	case history.Start:
		c.start(e, i, r)
	case history.Tried:
		if e.O == "failed" {
			inc(&r.fails)
		}
	case history.Effect:
		c.effect(e, i, r)
	case history.Park:
		c.park(e, i, r)
	case history.Dead:
		if outcomeOf(e.O) == ok {
			r.flags |= isDead | wasDead
			inc(&r.deaths)
			c.deadLetter(e, i, r)
			c.attempts(e, i, r)
			if r.spent = 0; e.Why == outlast.DeadSpent {
				r.spent = uint16(min(e.N, 1<<16-1))
			}
		} else {
			c.unsureOf(e, r)
		}
	case history.Known:
		r.flags |= isKnown
	case history.Settle:
		c.settle(e, i, r)
	}
}

func (c *checker) deliver(e *history.Entry, i int32, r *reception) {
	m := c.messages.at(i)
	m.flags |= isDelivered
	inc(&r.delivered)
	if m.typ == 0 {
		m.typ = c.types.of(e.Type)
	}
	if e.Redelivered {
		c.rare[rareAgain]++
	}
	if e.Session != "" {
		s := c.sessions[e.Session]
		if s == nil {
			s = &session{open: map[uint64]int32{}}
			c.sessions[e.Session] = s
		}
		s.open[e.Tag] = i
		s.last = max(s.last, e.Tag)
	}
	if m.flags&isEnqueued == 0 {
		return // the end tells whether it is a ghost
	}
	c.tested[3]++
	if m.hash != number(e.Hash) {
		c.violated(3, Example{m: i, g: r.g, at: e.T}, "what was delivered to %s is not what was enqueued: hash %s, not %x", e.G, e.Hash, m.hash)
	}
}

func (c *checker) start(e *history.Entry, i int32, r *reception) {
	x := Example{m: i, g: r.g, at: e.T}
	c.tested[10]++
	switch {
	case r.handled != 0:
		c.violated(10, x, "%s began to handle it again after it had been handled at %s", e.G, clock(r.handled))
	case r.flags&isDead != 0 && r.deaths > r.replays: // a replay may be told before the death that it undoes
		c.violated(10, x, "%s began to handle it although it was a dead letter that nobody had replayed", e.G)
	}
	const slack = int64(time.Second) // its transaction may have begun, and waited, before its handler
	if e.T+slack < r.notBefore {
		c.violated(12, x, "%s tried it again %v before its pause was over", e.G, time.Duration(r.notBefore-e.T).Round(time.Millisecond))
	}
	r.notBefore, r.started = 0, e.T
	if e.T-r.minute > int64(time.Minute) {
		r.minute, r.tries = e.T, 0
	}
	inc(&r.tries)
	if int(r.tries) == c.opt.TriesPerMinute+1 {
		c.violated(12, x, "%s tried it more than %d times in a minute", e.G, c.opt.TriesPerMinute)
	}
}

func (c *checker) effect(e *history.Entry, i int32, r *reception) {
	o := outcomeOf(e.O)
	if e.Tx != "" {
		c.txs.at(c.transaction(e.Tx)).effect = o
	}
	switch o {
	case ok:
		c.tested[4]++
		if e.Why == "expired" {
			r.flags |= isDropped
			return
		}
		inc(&r.effects)
		if r.effects == 1 {
			r.handled = e.T
			c.order.effect(c, i, r, e.T)
		}
	case failed:
		inc(&r.fails) // a constraint at the commit is the message's own failure
	default:
		c.unsureOf(e, r)
	}
}

func (c *checker) unsureOf(e *history.Entry, r *reception) {
	if outcomeOf(e.O) == unknown {
		c.rare[rareCommit]++
		inc(&r.unsure)
	}
}

func (c *checker) park(e *history.Entry, i int32, r *reception) {
	if outcomeOf(e.O) != ok {
		c.unsureOf(e, r)
		return
	}
	r.flags |= isParked
	if e.Why == "failed" {
		c.attempts(e, i, r)
	}
	if r.started != 0 && e.Wait > 0 {
		r.notBefore = r.started + e.Wait
	}
}

// attempts compares those that the consumer counts with the failures of the message.
func (c *checker) attempts(e *history.Entry, i int32, r *reception) {
	c.tested[12]++
	if (e.Why == "failed" || e.Why == outlast.DeadSpent) && e.N > int(r.fails) {
		c.violated(12, Example{m: i, g: r.g, at: e.T}, "%s counts %d failed attempts, and it failed %d times: something else was counted", e.G, e.N, r.fails)
	}
}

// deadLetter judges what a dead letter says, when it is buried and when it is still there at
// the end. A verdict, and attempts that are spent, come of at least one.
func (c *checker) deadLetter(e *history.Entry, i int32, r *reception) {
	c.tested[15]++
	for _, f := range []struct {
		name    string
		missing bool
	}{{"an id", e.M == ""}, {"a reason", e.Why == ""}, {"a type", e.Type == "" && e.Why == outlast.DeadSpent}, {"an origin", e.Source == ""},
		{"an attempt", e.N < 1 && (e.Why == outlast.DeadSpent || e.Why == outlast.DeadVerdict)}} {
		if f.missing {
			c.violated(15, Example{m: i, g: r.g, at: e.T}, "the dead letter of %s has not %s", e.G, f.name)
		}
	}
}

// leftDead compares a dead letter that is there at the end with what was told of it. Both its
// instants are the database's.
func (c *checker) leftDead(e *history.Entry, i int32, r *reception) {
	x := Example{m: i, g: r.g, at: e.T}
	switch {
	case e.At == 0:
		c.violated(15, x, "the dead letter of %s does not say when it was first seen", e.G)
	case e.Last != 0 && e.Last < e.At && !c.clockSet:
		c.violated(15, x, "the dead letter of %s was buried at %s, and first seen later, at %s", e.G, clock(e.Last*1000), clock(e.At*1000))
	}
	if e.Why == outlast.DeadSpent && r.spent != 0 && e.N != int(r.spent) {
		c.violated(15, x, "the dead letter of %s says %d attempts, and was buried after %d", e.G, e.N, r.spent)
	}
}

func (c *checker) settle(e *history.Entry, i int32, r *reception) {
	c.tested[8]++
	if e.O == history.Stale {
		c.rare[rareSettle]++
	}
	x := Example{m: i, g: r.g, at: e.T}
	if e.Session != "" {
		var owner int32
		var open bool
		s := c.sessions[e.Session]
		if s != nil {
			owner, open = s.open[e.Tag]
			delete(s.open, e.Tag)
		}
		switch {
		case s == nil || !open && e.Tag > s.last:
			c.violated(8, x, "tag %d of session %s was settled, and nothing had been delivered under it", e.Tag, e.Session)
		case !open:
			c.violated(8, x, "tag %d of session %s was settled twice", e.Tag, e.Session)
		case owner != i:
			c.violated(8, x, "tag %d of session %s was settled for this message, and is that of another, %s", e.Tag, e.Session, c.text(owner))
		}
	}
	if e.O != history.Ack {
		return
	}
	c.tested[6]++
	if r.effects == 0 && r.flags&(isParked|isDead|wasDead|isKnown|isDropped) == 0 && r.early == 0 {
		r.early = e.T // the ledger may know better
	}
}
