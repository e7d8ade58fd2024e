package check_test

import (
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest/check"
	"github.com/outlastmq/outlast/outlasttest/history"
)

// A good history violates nothing.
func TestGoodHistory(t *testing.T) {
	t.Parallel()
	r := good().check(t)
	for _, v := range r.Verdicts {
		if v.State == check.Violated {
			t.Errorf("%s is violated: %+v", v.ID, v.Examples)
		}
	}
	for _, id := range []string{"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I15", "I16", "I17"} {
		if v := r.Verdict(id); v.State != check.Holds {
			t.Errorf("%s: %s (%s); want holds", id, v.State, v.Note)
		}
	}
}

// Every invariant has a history that violates it and that the checker catches.
func TestF85_EveryInvariantCatchesItsViolation(t *testing.T) {
	t.Parallel()
	m1, m2, m3 := messageID(1), messageID(2), messageID(3)
	cases := []struct {
		invariant string
		name      string
		history   func(*testing.T) script
		says      string
	}{
		{"I1", "a row is deleted as sent and nobody got the message", func(t *testing.T) script {
			s := good().drop(t, history.Bind, "")
			for _, k := range []history.Kind{history.Deliver, history.Begin, history.Start, history.Tried, history.Effect, history.Settle} {
				s = s.drop(t, k, m1)
			}
			return s.drop(t, history.LedgerRow, "effect-1")
		}, "nobody got it"},
		{"I1", "a bound group never got it", func(t *testing.T) script {
			return good().before(t, history.Claim, m1, "audit", history.Event{E: history.Bind, O: history.On, G: "audit", Type: "order.placed.v1"})
		}, "nothing became of it in audit"},
		{"I1", "its effect is not in the ledger", func(t *testing.T) script { return good().drop(t, history.LedgerRow, "effect-1") }, "nothing became of it"},
		{"I1", "it is still in the outbox", func(t *testing.T) script {
			return good().drop(t, history.Mark, m1).after(t, history.Quiesce, "", "test", history.Event{E: history.Left, Name: "pending", M: m1})
		}, "still in the outbox"},
		{"I2", "it was sent and its transaction did not commit", func(t *testing.T) script { return good().drop(t, history.LedgerRow, "business-1") }, "did not commit"},
		{"I2", "nobody enqueued it", func(t *testing.T) script {
			return good().drop(t, history.Enqueue, m1)
		}, "nobody in this history"},
		{"I2", "it was published before it was written", func(t *testing.T) script {
			return good().before(t, history.Enqueue, m1, "orders", history.Event{E: history.Publish, M: m1, Slot: 1, Epoch: 1, Try: 1})
		}, "before it was enqueued"},
		{"I2", "it was published before its commit was asked for", func(t *testing.T) script {
			return good().before(t, history.Committing, "business-1", "orders", history.Event{E: history.Publish, M: m1, Slot: 1, Epoch: 1, Try: 1})
		}, "before the commit of the transaction"},
		{"I3", "the body changed", func(t *testing.T) script {
			return good().change(t, history.Deliver, m1, func(e *history.Event) { e.Hash = "dead" })
		}, "not what was enqueued"},
		{"I4", "two effects in the ledger", func(t *testing.T) script {
			return good().after(t, history.LedgerRow, "effect-1", "test", history.Event{E: history.LedgerRow, Name: "billing", Tx: "other", G: "billing", M: m1, Seq: 9, At: 6})
		}, "2 times"},
		{"I5", "two messages of a key change places", func(t *testing.T) script {
			return good().change(t, history.Enqueue, m1, func(e *history.Event) { e.KeySeq = 2 }).change(t, history.Enqueue, m2, func(e *history.Event) { e.KeySeq = 1 })
		}, "after that of number 2"},
		{"I6", "it was acknowledged before the commit", func(t *testing.T) script {
			return good().before(t, history.Begin, "effect-1", "billing", history.Event{E: history.Settle, G: "billing", M: m1, Session: "s1", Tag: 1, O: history.Ack}).
				change(t, history.LedgerRow, "effect-1", func(e *history.Event) { e.At = 1 << 50 })
		}, "had not committed"},
		{"I7", "its row is deleted without a confirm", func(t *testing.T) script { return good().drop(t, history.Confirm, m1) }, "no publish of it"},
		{"I7", "its row is deleted after a return", func(t *testing.T) script {
			return good().change(t, history.Confirm, m1, func(e *history.Event) { e.E, e.O = history.Return, "" })
		}, "no publish of it"},
		{"I7", "the confirm came later", func(t *testing.T) script {
			return good().drop(t, history.Confirm, m1).after(t, history.Mark, m1, "orders", history.Event{E: history.Confirm, M: m1, Slot: 1, Epoch: 1, Try: 1, O: history.Ack})
		}, "no publish of it"},
		{"I8", "settled twice", func(t *testing.T) script {
			return good().after(t, history.Settle, m1, "billing", history.Event{E: history.Settle, G: "billing", M: m1, Session: "s1", Tag: 1, O: history.Ack})
		}, "settled twice"},
		{"I8", "settled on another session", func(t *testing.T) script {
			return good().change(t, history.Settle, m1, func(e *history.Event) { e.Session = "s2" })
		}, "nothing had been delivered"},
		{"I8", "the tag of another message", func(t *testing.T) script {
			return good().change(t, history.Settle, m1, func(e *history.Event) { e.Tag = 2 })
		}, "that of another"},
		{"I9", "a lease is taken before the other one ends", func(t *testing.T) script {
			return good().after(t, history.Mark, m3, "late", history.Event{E: history.Lease, Scope: scope, Owner: owner2, O: "gained", At: 2_000_000, Exp: 99_000_000, Slots: []history.SlotEpoch{{1, 2}}})
		}, "while relay-1 had it"},
		{"I9", "two owners under one epoch", func(t *testing.T) script {
			return good().after(t, history.Mark, m3, "late", history.Event{E: history.Lease, Scope: scope, Owner: owner2, O: "gained", At: 12_000_000, Exp: 99_000_000, Slots: []history.SlotEpoch{{1, 1}}})
		}, "two owners"},
		{"I9", "a stale mark is effective", func(t *testing.T) script {
			return good().before(t, history.Mark, m1, "late", history.Event{E: history.Claim, M: m1, Source: "orders", Slot: 1, Epoch: 2})
		}, "another relay had claimed it"},
		{"I9", "a stale hold is effective", func(t *testing.T) script {
			return good().before(t, history.Publish, m1, "late", history.Event{E: history.Claim, M: m1, Source: "orders", Slot: 1, Epoch: 2}).
				change(t, history.Mark, m1, func(e *history.Event) { e.E, e.Why = history.Hold, "route closed" })
		}, "its row was held under epoch 1"},
		{"I9", "a stale release is effective", func(t *testing.T) script {
			return good().before(t, history.Claim, m1, "late", history.Event{E: history.Claim, M: m1, Source: "orders", Slot: 1, Epoch: 2}).
				drop(t, history.Publish, m1).drop(t, history.Confirm, m1).
				change(t, history.Mark, m1, func(e *history.Event) { e.E = history.Release })
		}, "its row was moved back to the outbox under epoch 1"},
		{"I10", "a row is claimed after it was deleted", func(t *testing.T) script {
			return good().after(t, history.Mark, m1, "orders", history.Event{E: history.Claim, M: m1, Source: "orders", Slot: 1, Epoch: 1})
		}, "claimed under epoch 1 after"},
		{"I10", "a handled message is handled", func(t *testing.T) script {
			return good().after(t, history.Settle, m1, "billing", history.Event{E: history.Start, G: "billing", M: m1, N: 1})
		}, "after it had been handled"},
		{"I10", "a dead letter is handled", func(t *testing.T) script {
			return good().after(t, history.Settle, m3, "billing", history.Event{E: history.Start, G: "billing", M: m3, N: 2})
		}, "nobody had replayed"},
		{"I10", "a dead letter is handled that died again after its replay", func(t *testing.T) script {
			return good().after(t, history.Settle, m3, "billing", history.Event{E: history.Operator, Name: "replay", G: "billing", M: m3}, history.Event{E: history.Start, G: "billing", M: m3, N: 1},
				history.Event{E: history.Dead, G: "billing", M: m3, Why: "verdict", N: 1, O: history.OK}, history.Event{E: history.Start, G: "billing", M: m3, N: 1})
		}, "nobody had replayed"},
		{"I11", "two confirms, and nothing explains the second", func(t *testing.T) script {
			return good().after(t, history.Confirm, m1, "orders", history.Event{E: history.Publish, M: m1, Slot: 1, Epoch: 1, Try: 2}, history.Event{E: history.Confirm, M: m1, Slot: 1, Epoch: 1, Try: 2, O: history.Ack})
		}, "2 publishes of it were confirmed"},
		{"I12", "the relay counts an outage", func(t *testing.T) script {
			return good().after(t, history.Publish, m1, "orders", history.Event{E: history.Confirm, M: m1, Slot: 1, Epoch: 1, Try: 1, O: history.Unknown},
				history.Event{E: history.Hold, M: m1, Slot: 1, Epoch: 1, O: history.OK, Why: "backoff", N: 1}, history.Event{E: history.Publish, M: m1, Slot: 1, Epoch: 1, Try: 2})
		}, "an outage was counted"},
		{"I12", "the consumer counts an outage", func(t *testing.T) script {
			return good().change(t, history.Tried, m2, func(e *history.Event) { e.O = "transient" })
		}, "something else was counted"},
		{"I12", "tried before the pause was over", func(t *testing.T) script {
			return good().change(t, history.Park, m2, func(e *history.Event) { e.Wait = 60_000_000_000 })
		}, "before its pause was over"},
		{"I13", "it does not come to rest", func(t *testing.T) script {
			return good().change(t, history.Quiesce, "", func(e *history.Event) { e.O = history.Timeout }).before(t, history.Claim, m1, "test", history.Event{E: history.Fault, Name: "broker cut"})
		}, "did not come to rest"},
		{"I13", "a subscription does not come back", func(t *testing.T) script {
			return good().after(t, history.Mark, m3, "test", history.Event{E: history.Fault, Name: "broker cut"}).
				before(t, history.Quiesce, "", "billing", history.Event{E: history.Link, Name: "billing.0", O: "down", Why: "connection lost"})
		}, "never came back"},
		{"I14", "a commit fails while the broker is down", func(t *testing.T) script {
			return good().before(t, history.Begin, "business-1", "test", history.Event{E: history.Fault, Name: "broker down", O: history.On}).
				after(t, history.Commit, "business-1", "orders", history.Event{E: history.Begin, Tx: "x"}, history.Event{E: history.Commit, Tx: "x", O: history.Fail, Error: "no"})
		}, "only the broker was down"},
		{"I15", "a dead letter without a reason", func(t *testing.T) script {
			return good().change(t, history.Dead, m3, func(e *history.Event) { e.Why = "" })
		}, "has not a reason"},
		{"I15", "a dead letter without an attempt", func(t *testing.T) script {
			return good().change(t, history.Dead, m3, func(e *history.Event) { e.N = 0 })
		}, "has not an attempt"},
		{"I15", "a dead letter whose attempts change", func(t *testing.T) script {
			return good().change(t, history.Dead, m3, func(e *history.Event) { e.Why = outlast.DeadSpent }).
				change(t, history.Left, m3, func(e *history.Event) { e.Why, e.N = outlast.DeadSpent, 2 })
		}, "says 2 attempts, and was buried after 1"},
		{"I15", "a dead letter that nobody has seen", func(t *testing.T) script {
			return good().change(t, history.Left, m3, func(e *history.Event) { e.At = 0 })
		}, "when it was first seen"},
		{"I15", "a dead letter that was seen after it was buried", func(t *testing.T) script {
			return good().change(t, history.Left, m3, func(e *history.Event) { e.At = 7 })
		}, "first seen later"},
		{"I15", "dead and handled", func(t *testing.T) script {
			return good().after(t, history.LedgerRow, "effect-1", "test", history.Event{E: history.LedgerRow, Name: "billing", Tx: "effect-3", G: "billing", M: m3, Seq: 9, At: 6})
		}, "dead letter that nobody replayed"},
		{"I15", "replayed, handled, and dead all the same", func(t *testing.T) script {
			return good().after(t, history.Settle, m3, "billing", history.Event{E: history.Operator, Name: "replay", G: "billing", M: m3}).
				after(t, history.LedgerRow, "effect-1", "test", history.Event{E: history.LedgerRow, Name: "billing", Tx: "effect-3", G: "billing", M: m3, Seq: 9, At: 6})
		}, "dead letter that nobody replayed"},
		{"I16", "the inbox forgets what is not settled", func(t *testing.T) script {
			return good().before(t, history.Publish, m3, "billing", history.Event{E: history.Purge, G: "billing", Source: "orders", N: 1, At: 1 << 50, O: history.OK})
		}, "is still being sent"},
		{"I17", "a commit was told and did not happen", func(t *testing.T) script { return good().drop(t, history.LedgerRow, "business-1") }, "its ledger row is not there"},
		{"I17", "a failed commit happened", func(t *testing.T) script {
			return good().change(t, history.Commit, "business-1", func(e *history.Event) { e.O = history.Fail })
		}, "its ledger row is there"},
		{"I18", "goroutines leak", func(t *testing.T) script {
			return good().after(t, history.Deliver, m1, "billing", history.Event{E: history.Gauge, Name: "goroutines", Value: 20}, history.Event{E: history.Gauge, Name: "goroutines", Value: 400})
		}, "20 at first, 400 in the end"},
		{"I18", "one more than the limit", func(t *testing.T) script {
			return good().after(t, history.Deliver, m1, "billing", history.Event{E: history.Gauge, Name: "files", Value: 20}, history.Event{E: history.Gauge, Name: "files", Value: 41})
		}, "the limit is 40"},
	}
	covered := map[string]bool{}
	for _, c := range cases {
		covered[c.invariant] = true
		t.Run(c.invariant+" "+c.name, func(t *testing.T) {
			t.Parallel()
			r := c.history(t).check(t)
			v := r.Verdict(c.invariant)
			if v.State != check.Violated {
				t.Fatalf("%s: %s (%s); want violated", c.invariant, v.State, v.Note)
			}
			if !strings.Contains(v.Examples[0].Text, c.says) {
				t.Errorf("it says %q; want something with %q", v.Examples[0].Text, c.says)
			}
			if len(v.Examples[0].Story) == 0 && c.invariant != "I18" {
				t.Error("it tells no story")
			}
		})
	}
	for _, v := range good().check(t).Verdicts {
		if later := v.ID >= "I19" && len(v.ID) == 3; !covered[v.ID] && !later {
			t.Errorf("no history violates %s", v.ID)
		}
	}
}

// A relay that has lost its slot and does not know yet may send once more; whose history
// comes first does not matter. Without its claim the second confirm has no explanation.
func TestARelayThatDoesNotKnowExplainsOneMore(t *testing.T) {
	t.Parallel()
	m1 := messageID(1)
	publish := history.Event{E: history.Publish, M: m1, Slot: 1, Epoch: 1, Try: 1}
	confirm := history.Event{E: history.Confirm, M: m1, Slot: 1, Epoch: 1, Try: 1, O: history.Ack}
	claim := history.Event{E: history.Claim, M: m1, Source: "orders", Slot: 1, Epoch: 1}
	for name, c := range map[string]struct {
		events []history.Event
		want   check.State
	}{
		"claimed by both":             {[]history.Event{claim, publish, confirm}, check.Holds},
		"claimed by one":              {[]history.Event{publish, confirm}, check.Violated},
		"sent once more than claimed": {[]history.Event{claim, publish, confirm, claim, publish, confirm}, check.Violated},
	} {
		s := good()
		for _, e := range []history.Kind{history.Claim, history.Publish, history.Confirm, history.Mark} {
			s = s.change(t, e, m1, func(e *history.Event) { e.Epoch = 2 })
		}
		if v := s.after(t, history.Claim, m1, "orders", c.events...).check(t).Verdict("I11"); v.State != c.want {
			t.Errorf("%s: %s, want %s: %+v", name, v.State, c.want, v.Examples)
		}
	}
}

// What a relay had done before the next one claimed the row may be told after it: only what it
// asked for later had to be refused.
func TestWhatIsToldLateWasNotStale(t *testing.T) {
	t.Parallel()
	m1 := messageID(1)
	for _, kind := range []history.Kind{history.Hold, history.Release} {
		s := good().change(t, history.Mark, m1, func(e *history.Event) { e.E, e.Why = kind, "route closed" })
		s = s.before(t, kind, m1, "late", history.Event{E: history.Claim, M: m1, Source: "orders", Slot: 1, Epoch: 2})
		// Nor was it when a third relay, of an epoch between them, is at work.
		s = s.before(t, kind, m1, "late", history.Event{E: history.Claim, M: m1, Source: "orders", Slot: 1, Epoch: 3}).
			before(t, kind, m1, "between", history.Event{E: history.Claim, M: m1, Source: "orders", Slot: 1, Epoch: 2})
		if v := s.check(t).Verdict("I9"); v.State != check.Holds {
			t.Errorf("%s: %s (%s): %+v", kind, v.State, v.Note, v.Examples)
		}
	}
}

// Histories of before there was such an event say nothing of when a commit was asked for.
func TestWithoutCommittingNothingIsSaidOfIt(t *testing.T) {
	t.Parallel()
	s := good().before(t, history.Committing, "business-1", "orders", history.Event{E: history.Publish, M: messageID(1), Slot: 1, Epoch: 1, Try: 1}).
		drop(t, history.Committing, "business-1")
	if v := s.check(t).Verdict("I2"); v.State != check.Holds {
		t.Errorf("%s (%s): %+v", v.State, v.Note, v.Examples)
	}
}

// When somebody set the clock of a database, its instants do not tell an order.
func TestTheDatabasesClockMayBeSetBack(t *testing.T) {
	t.Parallel()
	s := good().change(t, history.Left, messageID(3), func(e *history.Event) { e.At = 7 }).
		before(t, history.Claim, messageID(1), "test", history.Event{E: history.Fault, Name: "clock of the databases -9 s"})
	if v := s.check(t).Verdict("I15"); v.State != check.Holds {
		t.Errorf("%s (%s): %+v", v.State, v.Note, v.Examples)
	}
}

// Numbers that are about the same are no leak, and one value alone is no comparison.
func TestResourcesAreComparedByTheirEnds(t *testing.T) {
	t.Parallel()
	for values, want := range map[[3]float64]check.State{
		{20}: check.NotExercised, {20, 400, 40}: check.Holds, {20, 20, 41}: check.Violated, {0, 10}: check.Holds,
	} {
		s := good()
		for i, value := range values {
			if i == 0 || value != 0 {
				s = s.before(t, history.Quiesce, "", "billing", history.Event{E: history.Gauge, Name: "goroutines", Value: value})
			}
		}
		if v := s.check(t).Verdict("I18"); v.State != want || v.Note == "" {
			t.Errorf("%v: %s (%s), want %s", values, v.State, v.Note, want)
		}
	}
}

// When the database's clock is set back, a renewal ends sooner than the one before, and a
// lease that is taken after that end was free.
func TestALeaseEndsByItsLastRenewal(t *testing.T) {
	t.Parallel()
	s := good().after(t, history.Mark, messageID(3), "orders",
		history.Event{E: history.Lease, Scope: scope, Owner: owner1, O: "renewed", At: 500, Exp: 900_000}).
		before(t, history.Quiesce, "", "late",
			history.Event{E: history.Lease, Scope: scope, Owner: owner2, O: "gained", At: 2_000_000, Exp: 99_000_000, Slots: []history.SlotEpoch{{1, 2}}})
	if v := s.check(t).Verdict("I9"); v.State != check.Holds {
		t.Errorf("I9: %s (%s): %+v", v.State, v.Note, v.Examples)
	}
}

// A renewal that commits while its owner gives up waiting for the answer is in no history. After
// the clock was set back it ends sooner than the last one that was told of, and who takes the lease
// then took it from nobody (chaos, seed 9 on 56f5a9d: a commit that waited for the standby).
func TestALeaseMayHaveBeenRenewedWithoutAWord(t *testing.T) {
	t.Parallel()
	renewed := history.Event{E: history.Lease, Scope: scope, Owner: owner1, O: "renewed", At: 20_000_000, Exp: 31_000_000}
	lost := history.Event{E: history.Lease, Scope: scope, Owner: owner1, O: "lost", Slots: []history.SlotEpoch{{1, 1}}}
	givenBack := lost
	givenBack.O = "released"
	for name, c := range map[string]struct {
		told []history.Event
		at   int64
		want check.State
	}{
		"lost, and then given back":     {[]history.Event{renewed, lost, givenBack}, 25_000_000, check.Holds},
		"lost, and the clock set back":  {[]history.Event{renewed, lost}, 2_000_000, check.Holds},
		"the clock set back":            {[]history.Event{renewed}, 2_000_000, check.Holds},
		"lost, and the clock as it was": {[]history.Event{renewed, lost}, 25_000_000, check.Violated},
		"the clock as it was":           {[]history.Event{renewed}, 25_000_000, check.Violated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := good().after(t, history.Mark, messageID(3), "orders", c.told...).
				before(t, history.Quiesce, "", "late",
					history.Event{E: history.Lease, Scope: scope, Owner: owner2, O: "gained", At: c.at, Exp: 99_000_000, Slots: []history.SlotEpoch{{1, 2}}})
			if v := s.check(t).Verdict("I9"); v.State != c.want {
				t.Errorf("%s (%s), want %s: %+v", v.State, v.Note, c.want, v.Examples)
			}
		})
	}
}

// What an operator took away is away until he brings it back, whatever a consumer says; and
// what may have been in a deleted queue is not missing.
func TestF85_WhatAnOperatorTookAwayIsNotMissing(t *testing.T) {
	t.Parallel()
	m1, first, last := messageID(1), messageID(1), messageID(3)
	type at struct {
		before  history.Kind
		m       string
		process string
		o, why  string
	}
	for name, c := range map[string]struct {
		binds []at
		want  check.State
	}{
		"nobody else hears it, and the queue is deleted": {[]at{{"", "", "", "", ""}, {history.Claim, first, "test", history.On, ""}, {history.Quiesce, "", "test", history.Off, history.Destroyed}}, check.Holds},
		"a consumer declares what is away":               {[]at{{history.Claim, m1, "test", history.Off, ""}, {history.Claim, m1, "billing", history.On, ""}}, check.Holds},
		"the operator brings it back":                    {[]at{{history.Claim, m1, "test", history.Off, ""}, {history.Claim, m1, "test", history.On, ""}}, check.Violated},
		"it is taken away after all was sent":            {[]at{{history.Claim, first, "test", history.On, ""}, {history.Quiesce, "", "test", history.Off, ""}}, check.Violated},
		"its queue is deleted after all was sent":        {[]at{{history.Claim, first, "test", history.On, ""}, {history.Quiesce, "", "test", history.Off, history.Destroyed}}, check.Holds},
		"its queue is deleted and is back before most":   {[]at{{history.Claim, first, "test", history.Off, history.Destroyed}, {history.Claim, last, "test", history.On, ""}}, check.Violated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := good()
			for _, b := range c.binds {
				if b.before == "" { // nobody gets it
					s = s.drop(t, history.Bind, "").drop(t, history.LedgerRow, "effect-1")
					for _, k := range []history.Kind{history.Deliver, history.Begin, history.Start, history.Tried, history.Effect, history.Settle} {
						s = s.drop(t, k, m1)
					}
					continue
				}
				s = s.before(t, b.before, b.m, b.process, history.Event{E: history.Bind, O: b.o, Why: b.why, G: "audit", Type: "order.placed.v1"})
			}
			if v := s.check(t).Verdict("I1"); v.State != c.want {
				t.Errorf("%s (%s); want %s: %+v", v.State, v.Note, c.want, v.Examples)
			}
		})
	}
}

// The order of a key is promised from the binding on: what was first sent before it may
// come with a second publish, after later ones.
func TestF85_OrderIsPromisedFromTheBindingOn(t *testing.T) {
	t.Parallel()
	swapped := func() script {
		return good().change(t, history.Enqueue, messageID(1), func(e *history.Event) { e.KeySeq = 2 }).
			change(t, history.Enqueue, messageID(2), func(e *history.Event) { e.KeySeq = 1 })
	}
	if v := swapped().check(t).Verdict("I5"); v.State != check.Violated {
		t.Errorf("bound all the time: %s (%s)", v.State, v.Note)
	}
	bind := func(o string) history.Event {
		return history.Event{E: history.Bind, O: o, G: "billing", Type: "order.placed.v1", Why: "ordered"}
	}
	s := swapped().before(t, history.Publish, messageID(2), "test", bind(history.Off)).after(t, history.Publish, messageID(2), "test", bind(history.On))
	if v := s.check(t).Verdict("I5"); v.State != check.Holds {
		t.Errorf("not bound when the second was first sent: %s (%s)", v.State, v.Note)
	}
}

// What was in a queue that the run deleted may come back after what followed it (chaos, seed 8 on
// ed13ba7: RabbitMQ 3.10 deleted it while a node was cut off, and brought the old one back).
func TestF85_OrderIsNotPromisedOfADeletedQueue(t *testing.T) {
	t.Parallel()
	swapped := func() script {
		return good().change(t, history.Enqueue, messageID(1), func(e *history.Event) { e.KeySeq = 2 }).
			change(t, history.Enqueue, messageID(2), func(e *history.Event) { e.KeySeq = 1 })
	}
	gone := history.Event{E: history.Bind, O: history.Off, Why: history.Destroyed, G: "billing"}
	back := history.Event{E: history.Bind, O: history.On, G: "billing", Type: "order.placed.v1", Why: "ordered"}
	for name, c := range map[string]struct {
		s    script
		want check.State
	}{
		"deleted between its publish and its effect": {swapped().after(t, history.Publish, messageID(2), "test", gone, back), check.Holds},
		"deleted and back before it was sent":        {swapped().before(t, history.Claim, messageID(1), "test", gone, back), check.Violated},
		"deleted after it was handled":               {swapped().before(t, history.Quiesce, "", "test", gone, back), check.Violated},
	} {
		if v := c.s.check(t).Verdict("I5"); v.State != c.want {
			t.Errorf("%s: %s (%s), want %s: %+v", name, v.State, v.Note, c.want, v.Examples)
		}
	}
}

// A run is real only when it saw every rare event.
func TestRareEvents(t *testing.T) {
	t.Parallel()
	m1 := messageID(1)
	if v := good().check(t).Verdict("I24"); v.State != check.NotExercised || !strings.Contains(v.Note, "stale mark") {
		t.Errorf("a quiet run: %s (%s)", v.State, v.Note)
	}
	s := good().after(t, history.Publish, m1, "orders",
		history.Event{E: history.Confirm, M: m1, Slot: 1, Epoch: 1, Try: 1, O: history.Unknown}, history.Event{E: history.Return, M: m1, Slot: 1, Epoch: 1, Try: 2},
		history.Event{E: history.Mark, M: m1, Slot: 1, Epoch: 1, O: history.Stale}, history.Event{E: history.Link, Name: "relay", O: "blocked"}, history.Event{E: history.Link, Name: "relay", O: "up"},
		history.Event{E: history.Begin, Tx: "lost", Name: "orders"}, history.Event{E: history.Commit, Tx: "lost", O: history.Unknown}).
		after(t, history.Deliver, m1, "billing",
			history.Event{E: history.Deliver, M: m1, G: "billing", Session: "s0", Tag: 1, Redelivered: true, Hash: "abc1"},
			history.Event{E: history.Settle, M: m1, G: "billing", Session: "s0", Tag: 1, O: history.Stale}).
		before(t, history.Quiesce, "", "orders", history.Event{E: history.Lease, Scope: scope, Owner: owner1, O: "lost", Slots: []history.SlotEpoch{{1, 1}}}).
		before(t, history.Quiesce, "", "test", history.Event{E: history.Seen, Name: "leader change"})
	if v := s.check(t).Verdict("I24"); v.State != check.Holds {
		t.Errorf("a run with everything: %s (%s)", v.State, v.Note)
	}
}

func TestNothingIsJudgedLostBeforeTheEnd(t *testing.T) {
	t.Parallel()
	v := good().drop(t, history.Quiesce, "").drop(t, history.LedgerRow, "effect-1").check(t).Verdict("I1")
	if v.State == check.Holds {
		t.Errorf("I1 holds (%s) in a history without an end", v.Note)
	}
}
