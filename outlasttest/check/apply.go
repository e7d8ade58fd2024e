package check

import "github.com/outlastmq/outlast/outlasttest/history"

// apply takes the next event.
func (c *checker) apply(e *history.Entry) {
	c.report.Events++
	if c.began == 0 {
		c.began = e.T
	}
	c.ended = e.T
	switch e.E {
	case history.Open:
		c.report.Processes++
	case history.Killed:
		c.report.Killed++
		if c.quiesced == 0 {
			c.faults.strike(e.T)
		}
		c.faults.forget(e.Process, c.quiesced != 0)
	case history.Close:
		c.faults.forget(e.Process, c.quiesced != 0)
	case history.Begin, history.Committing, history.Commit, history.Enqueue, history.Withdraw:
		c.business(e)
	case history.Lease:
		c.lease(e)
	case history.Claim, history.Publish, history.Return, history.Confirm, history.Mark, history.Hold, history.Release:
		c.relay(e)
	case history.Bind:
		c.bind(e)
	case history.Deliver, history.Start, history.Tried, history.Effect, history.Park, history.Dead, history.Known, history.Settle:
		c.group(e)
	case history.Purge:
		c.purged(e)
	case history.Operator:
		c.operator(e)
	case history.Link:
		c.link(e)
	case history.Fault:
		c.fault(e)
	case history.Seen:
		c.rare[e.Name]++
	case history.Gauge:
		c.gauge(e)
	case history.Quiesce:
		c.quiesced, c.quiesce = e.T, e.O
	case history.LedgerRow:
		c.ledgerRow(e)
	case history.Left:
		c.left(e)
	}
}

// business takes what a producer does, and a handler's own transaction.
func (c *checker) business(e *history.Entry) {
	i := c.transaction(e.Tx)
	switch e.E {
	case history.Begin:
		t := c.txs.at(i)
		t.name, t.began = c.ledgers.of(e.Name), e.T
		if e.M != "" {
			t.m, t.g = c.message(e.M), c.groups.of(e.G)
		}
	case history.Committing:
		c.txs.at(i).committing = true
	case history.Commit:
		t := c.txs.at(i)
		t.commit = outcomeOf(e.O)
		if t.commit == unknown {
			c.rare[rareCommit]++
		}
		c.faults.committed(c, e, t)
	case history.Enqueue:
		at := c.message(e.M)
		m := c.messages.at(at)
		if m.first != 0 {
			c.violated(2, Example{m: at, at: e.T}, "it was published before it was enqueued")
		}
		if m.flags&isEnqueued != 0 { // its producer tried again: one of the transactions, or both
			i = 0
			inc(&m.replays)
		}
		m.flags |= isEnqueued
		if e.Why == "unheard" {
			m.flags |= isUnheard
		}
		m.hash, m.tx, m.typ, m.key, m.keySeq, m.enqueued = number(e.Hash), i, c.types.of(e.Type), c.keys.of(e.Key), e.KeySeq, e.T
		c.enqueued[m.typ] = true
		c.report.Messages++
	case history.Withdraw:
		c.messages.at(c.message(e.M)).flags |= isWithdrawn
	}
}

// operator takes what a person did.
func (c *checker) operator(e *history.Entry) {
	if e.M == "" {
		return
	}
	i := c.message(e.M)
	m := c.messages.at(i)
	if e.G == "" {
		if e.Name == "withdraw" {
			m.flags |= isWithdrawn
		}
		return
	}
	r := c.reception(i, c.groups.of(e.G))
	switch e.Name {
	case "replay":
		inc(&r.replays)
		r.flags &^= isDead
		r.notBefore, r.spent = 0, 0
	case "now":
		r.notBefore = 0
	case "discard":
		r.flags |= isDropped | wasDead
	}
}

// ledgerRow takes the judge's word on a transaction.
func (c *checker) ledgerRow(e *history.Entry) {
	name := c.ledgers.of(e.Name)
	if e.Tx == "" {
		if e.O == history.OK {
			c.complete[name] = true
		}
		return
	}
	t := c.txs.at(c.transaction(e.Tx))
	t.row, t.name = true, name
	if e.M == "" {
		return
	}
	m, g := c.message(e.M), c.groups.of(e.G)
	t.m, t.g = m, g
	c.judged[g] = name
	r := c.reception(m, g)
	inc(&r.rows)
	if r.early != 0 && e.At*1000 <= r.early {
		r.early = 0 // it had committed, or was about to: its process did not live to tell
	}
	if r.rows == 1 {
		c.ledger.effect(c, m, r, e.At*1000)
	}
}

// left takes where a message still is at the end.
func (c *checker) left(e *history.Entry) {
	if e.M == "" {
		return
	}
	i := c.message(e.M)
	m := c.messages.at(i)
	switch e.Name {
	case "pending":
		m.flags |= isPending
	case "held":
		m.flags |= isHeld
	case "retry":
		c.reception(i, c.groups.of(e.G)).flags |= leftRetry
	case "dead":
		r := c.reception(i, c.groups.of(e.G))
		r.flags |= leftDead
		c.deadLetter(e, i, r)
		c.leftDead(e, i, r)
	}
}
