package check

import (
	"math"
	"slices"
	"time"

	"github.com/outlastmq/outlast/outlasttest/history"
)

const (
	rareCommit    = "commit unknown"
	rareConfirm   = "confirm unknown"
	rareReturn    = "return"
	rareLease     = "lease expiry"
	rareStaleMark = "stale mark"
	rareAgain     = "redelivery"
	rareSettle    = "stale settle"
	rareBlocked   = "blocked connection"
	rareLeader    = "leader change"
)

// relay takes what a relay does to a row.
func (c *checker) relay(e *history.Entry) {
	i := c.message(e.M)
	m := c.messages.at(i)
	switch e.E {
	case history.Claim:
		c.claim(e, i, m)
	case history.Publish:
		c.publish(e, i, m)
	case history.Return:
		c.rare[rareReturn]++
		inc(&m.returns)
		m.at(e.Epoch)
	case history.Confirm:
		c.confirm(e, m)
	case history.Mark:
		c.mark(e, i, m)
	case history.Hold:
		c.hold(e, i, m)
	case history.Release:
		if e.O == history.Stale {
			c.rare[rareStaleMark]++
		}
		c.moved(e, i, m, "moved back to the outbox")
	}
}

// at notes that a relay was at work on the row under an epoch.
func (m *message) at(epoch int64) {
	if epoch < m.claimed {
		m.late = epoch
	}
}

// moved judges a row that was held or released. Such a row is still there, and may be claimed
// by the next relay before the one that moved it tells of it: only what was asked for after
// that claim had to be refused, which is what a relay does that was at work on it since.
func (c *checker) moved(e *history.Entry, i int32, m *message, did string) {
	c.tested[9]++
	if e.O == history.OK && m.late != 0 && m.late == e.Epoch && e.Epoch < m.claimed {
		c.violated(9, Example{m: i, at: e.T}, "its row was %s under epoch %d, although another relay had claimed it under epoch %d", did, e.Epoch, m.claimed)
	}
}

func (c *checker) claim(e *history.Entry, i int32, m *message) {
	c.tested[10]++
	if m.source == 0 {
		m.source = c.sources.of(e.Source)
	}
	if m.marked != 0 && e.Epoch >= m.marked {
		c.violated(10, Example{m: i, at: e.T}, "its row was claimed under epoch %d after it had been deleted as sent under epoch %d", e.Epoch, m.marked)
	}
	switch {
	case e.Epoch > m.claimed:
		m.claimed = e.Epoch
		inc(&m.epochs)
	case e.Epoch < m.claimed && e.Epoch != m.behind: // a relay that does not know yet
		m.behind = e.Epoch
		inc(&m.epochs)
	}
	m.at(e.Epoch)
}

func (c *checker) publish(e *history.Entry, i int32, m *message) {
	if m.first == 0 {
		m.first = e.T
		if m.tx != 0 && !c.txs.at(m.tx).committing {
			m.flags |= isEarly
		}
	}
	m.at(e.Epoch)
	if m.marked != 0 && e.Epoch >= m.marked {
		c.violated(10, Example{m: i, at: e.T}, "it was published under epoch %d after its row had been deleted as sent", e.Epoch)
	}
	if p, found := c.purges[m.source]; found && e.Epoch == m.claimed && m.enqueued != 0 && m.enqueued/1000+1000 < p.before {
		c.violated(16, Example{m: i, at: e.T}, "it was enqueued at %s and is still being sent, although the inbox of %s forgot at %s what was enqueued before %s",
			clock(m.enqueued), p.group, clock(p.at), clock(p.before*1000))
	}
}

func (c *checker) confirm(e *history.Entry, m *message) {
	m.at(e.Epoch)
	switch e.O {
	case history.Ack:
		inc(&m.acks)
		m.acked, m.lastAck = max(m.acked, e.Epoch), e.T
	case history.Unknown:
		c.rare[rareConfirm]++
		inc(&m.unsure)
	case history.Nack, history.Refused, history.Closed:
		inc(&m.refusals)
	}
}

func (c *checker) mark(e *history.Entry, i int32, m *message) {
	c.tested[7]++
	if e.O != history.OK {
		inc(&m.unsure)
		if e.O == history.Stale {
			c.rare[rareStaleMark]++
		}
		return
	}
	switch {
	case e.Why == "expired":
		m.flags |= isExpired
	case e.Why == "unheard" && m.returns > 0:
		m.flags |= isExpired
	case m.acked != e.Epoch:
		c.violated(7, Example{m: i, at: e.T}, "its row was deleted as sent under epoch %d, and no publish of it under that epoch was confirmed before", e.Epoch)
	}
	m.flags |= isMarked
	m.marked = max(e.Epoch, 1)
	if m.claimed > e.Epoch {
		c.violated(9, Example{m: i, at: e.T}, "its row was deleted under epoch %d, although another relay had claimed it under epoch %d", e.Epoch, m.claimed)
	}
}

func (c *checker) hold(e *history.Entry, i int32, m *message) {
	if e.O == history.Stale {
		c.rare[rareStaleMark]++
	}
	c.moved(e, i, m, "held")
	if e.O != history.OK || (e.Why != "backoff" && e.Why != "refused") {
		return
	}
	c.tested[12]++
	if e.Why == "refused" { // by its own limits, perhaps, which the broker never saw
		inc(&m.refusals)
	}
	if e.N > int(m.refusals) {
		c.violated(12, Example{m: i, at: e.T}, "the relay counts %d failed attempts of it, and it was refused %d times: an outage was counted", e.N, m.refusals)
	}
}

// purge is the widest of a source so far.
type purge struct {
	before int64 // Unix microseconds
	at     int64
	group  string
}

func (c *checker) purged(e *history.Entry) {
	if e.O == history.Fail || e.N == 0 && e.O != history.Unknown {
		return
	}
	c.tested[16]++
	s := c.sources.of(e.Source)
	if e.At > c.purges[s].before {
		c.purges[s] = purge{before: e.At, at: e.T, group: e.G}
	}
}

// binding is what is known of a group's bindings for one type.
type binding struct {
	times []bound
	// away names the process that took it away and did not bring it back yet.
	away *history.Process
	// destroyed: what was first sent before it may have gone with a queue.
	destroyed int64
	// deletions are the times in which a queue was deleted and not yet back.
	deletions []bound
}

// bound is a time in which a binding was there.
type bound struct {
	from, to int64 // to 0: it is there still
}

func (c *checker) bind(e *history.Entry) {
	g := c.groups.of(e.G)
	if e.Why == "ordered" {
		c.order.ordered[g], c.ledger.ordered[g] = true, true
	}
	typ := c.types.of(e.Type)
	if e.O == history.On || typ != 0 {
		key := [2]int32{g, typ}
		b := c.bindings[key]
		if b == nil {
			b = &binding{}
			c.bindings[key] = b
		}
		b.apply(e)
		return
	}
	for key, b := range c.bindings {
		if key[0] == g {
			b.apply(e)
		}
	}
}

func (b *binding) apply(e *history.Entry) {
	there := len(b.times) > 0 && b.times[len(b.times)-1].to == 0
	if e.O == history.Off {
		b.away = e.Process
		if e.Why == history.Destroyed {
			b.destroyed = math.MaxInt64
			b.deletions = append(b.deletions, bound{from: e.T})
		}
		if there {
			b.times[len(b.times)-1].to = e.T
		}
		return
	}
	if b.away != nil && b.away != e.Process {
		return
	}
	b.away = nil
	if b.destroyed == math.MaxInt64 {
		b.destroyed = e.T
		b.deletions[len(b.deletions)-1].to = e.T
	}
	if !there {
		b.times = append(b.times, bound{from: e.T})
	}
}

// revived reports whether a message, first sent and handled then, may have been in a queue that
// was deleted in between. RabbitMQ can bring back what was in it after what came into the
// queue that was declared in its place: a cluster that was parted forgets the deletion.
func (b *binding) revived(sent, handled int64) bool {
	return slices.ContainsFunc(b.deletions, func(t bound) bool {
		return (t.to == 0 || sent < t.to) && (handled == 0 || handled > t.from)
	})
}

// had reports whether the binding was there all the time.
func (b *binding) had(from, to int64) bool {
	for _, t := range b.times {
		if t.from <= from && (t.to == 0 || t.to >= to) {
			return true
		}
	}
	return false
}

func clock(ns int64) string { return time.Unix(0, ns).UTC().Format("15:04:05.000000") }
