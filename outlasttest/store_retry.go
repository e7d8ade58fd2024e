package outlasttest

import (
	"time"

	"github.com/outlastmq/outlast"
)

var retryTests = []storeTest{
	{name: "Retry_gives_the_message_back_as_it_was", run: (*storeFixture).retryKeeps},
	{name: "Retry_says_when_the_next_is_due", run: (*storeFixture).retryNext},
	{name: "Retry_comes_in_order_of_time", run: (*storeFixture).retryDueOrder},
	{name: "Retry_runs_only_the_lowest_of_a_key", run: (*storeFixture).retryLowest},
	{name: "Retry_skips_what_another_holds", run: (*storeFixture).retrySkips, concurrent: true},
	{name: "Retry_claims_only_known_types", run: (*storeFixture).retryTypes},
	{name: "Retry_Done_handles_with_its_effects", run: (*storeFixture).retryDone},
	{name: "Retry_Undo_keeps_the_lock_and_loses_the_effects", run: (*storeFixture).retryUndo},
	{name: "Retry_Wait_keeps_the_place_of_the_message", run: (*storeFixture).retryWait},
	{name: "Retry_Bury_frees_the_key", run: (*storeFixture).retryBury},
	{name: "Retry_Rollback_changes_nothing", run: (*storeFixture).retryRollback},
}

var ourTypes = []string{"order.cancelled.v1", "order.placed.v1"}

// retry begins the next retry, which must be of m.
func (f *storeFixture) retry(m *outlast.Message) outlast.RetryTx {
	f.Helper()
	tx, wait, err := f.s.Inbox().BeginRetry(f.ctx, group, ourTypes)
	f.must(err)
	if tx == nil {
		f.Fatalf("nothing is due for %v, want message %s", wait, m.ID)
	}
	f.Cleanup(tx.Rollback)
	want(f, "message", tx.Waiting().Message.ID, m.ID)
	return tx
}

// noRetry checks that nothing is due, and returns for how long.
func (f *storeFixture) noRetry(types ...string) time.Duration {
	f.Helper()
	if len(types) == 0 {
		types = ourTypes
	}
	tx, wait, err := f.s.Inbox().BeginRetry(f.ctx, group, types)
	f.must(err)
	if tx != nil {
		id := tx.Waiting().Message.ID
		tx.Rollback()
		f.Fatalf("message %s is due", id)
	}
	return wait
}

func (f *storeFixture) retryKeeps() {
	m := full()
	m.Source = "orders"
	m.EnqueuedAt = time.Date(2031, 2, 3, 4, 5, 7, 123_456_000, time.UTC)
	m.ExpiresAt = m.EnqueuedAt.Add(time.Hour)
	m.SettledBefore = m.EnqueuedAt.Add(-time.Hour)
	f.wait(m, 0)
	tx := f.retry(m)
	w := tx.Waiting()
	wantMessage(f, w.Message, m)
	want(f, "source", w.Message.Source, m.Source)
	for _, x := range [][2]time.Time{{w.Message.EnqueuedAt, m.EnqueuedAt}, {w.Message.ExpiresAt, m.ExpiresAt}} {
		if !x[0].Equal(x[1]) {
			f.Fatalf("time: got %v, want %v", x[0], x[1])
		}
	}
	want(f, "group", w.Group, group)
	want(f, "ordered", w.Ordered, true)
	want(f, "attempts", w.Attempts, 1)
	want(f, "reason", w.Reason, "failed")
	want(f, "error", w.Error, "boom\n\"quoted\"")
	want(f, "replays", w.Replays, 0)
	if w.FirstAt.IsZero() || w.Seq == 0 {
		f.Fatalf("first seen %v, seq %d", w.FirstAt, w.Seq)
	}
	tx.Rollback()
	f.handleRetryOf(m)
	for _, body := range [][]byte{{}, {0, 1, 2, 0xff}} {
		b := received("")
		b.Body = body
		f.wait(b, 0)
		tx := f.retry(b)
		wantMessage(f, tx.Waiting().Message, b)
		tx.Rollback()
		f.handleRetryOf(b)
	}
}

// handleRetryOf takes m out of the way.
func (f *storeFixture) handleRetryOf(m *outlast.Message) {
	f.Helper()
	tx := f.retry(m)
	f.must(tx.Done(f.ctx))
	f.must(tx.Commit(f.ctx))
}

func (f *storeFixture) retryNext() {
	if wait := f.noRetry(); wait >= 0 {
		f.Fatalf("nothing waits, but the next is due in %v", wait)
	}
	f.wait(received(""), 2*time.Hour)
	f.wait(received(""), time.Hour)
	if wait := f.noRetry(); wait <= 0 || wait > time.Hour {
		f.Fatalf("the next is due in %v, want up to an hour", wait)
	}
	soon := received("")
	f.wait(soon, 20*time.Millisecond)
	f.eventually("the short wait is over", func() bool {
		tx, _, err := f.s.Inbox().BeginRetry(f.ctx, group, ourTypes)
		f.must(err)
		if tx == nil {
			return false
		}
		defer tx.Rollback()
		want(f, "message", tx.Waiting().Message.ID, soon.ID)
		return true
	})
	f.handleRetryOf(soon)
	if wait := f.noRetry(); wait <= 0 || wait > time.Hour {
		f.Fatalf("the next is due in %v, want up to an hour", wait)
	}
}

func (f *storeFixture) retryDueOrder() {
	a, b, c := received(""), received(""), received("")
	// A wait begins when it is written: the differences are longer than a slow machine takes.
	f.wait(a, 3*time.Second)
	f.wait(b, 0)
	f.wait(c, 1500*time.Millisecond)
	time.Sleep(3*time.Second + settling) // until all are due
	for _, m := range []*outlast.Message{b, c, a} {
		f.handleRetryOf(m)
	}
	f.noRetry()
}

func (f *storeFixture) retryLowest() {
	first, second, third, free := received("k"), received("k"), received("k"), received("free")
	f.wait(first, 2*time.Second)
	f.wait(second, 0)
	f.wait(third, 0)
	if wait := f.noRetry(); wait <= 0 || wait > 2*time.Second {
		f.Fatalf("the first of the key is due in %v, want up to 2s", wait)
	}
	f.wait(free, 0)
	f.handleRetryOf(free)
	f.eventually("the first is due", func() bool {
		tx, _, err := f.s.Inbox().BeginRetry(f.ctx, group, ourTypes)
		f.must(err)
		if tx != nil {
			tx.Rollback()
		}
		return tx != nil
	})
	for _, m := range []*outlast.Message{first, second, third} {
		f.handleRetryOf(m)
	}
	f.wantSeen(received("k"), outlast.SeenNew)
}

func (f *storeFixture) retrySkips() {
	a, b, behind := received("a"), received(""), received("a")
	f.wait(a, 0)
	f.wait(b, 0)
	f.wait(behind, 0)
	one := f.retry(a)
	two := f.retry(b)
	f.noRetry()
	f.must(one.Done(f.ctx))
	f.noRetry() // the one behind waits for the commit
	f.wantSeen(a, outlast.SeenWaiting)
	f.must(one.Commit(f.ctx))
	f.handleRetryOf(behind)
	two.Rollback()
	f.handleRetryOf(b)
}

func (f *storeFixture) retryTypes() {
	first, second := received("k"), received("k")
	first.Type = "order.renamed.v9"
	f.wait(first, 0)
	f.wait(second, 0)
	f.noRetry() // the first of the key is of a type that this build does not know
	f.noRetry("order.other.v1")
	tx, _, err := f.s.Inbox().BeginRetry(f.ctx, group, []string{"order.renamed.v9"})
	f.must(err)
	if tx == nil {
		f.Fatalf("nothing is due for its own type")
	}
	want(f, "message", tx.Waiting().Message.ID, first.ID)
	f.must(tx.Done(f.ctx))
	f.must(tx.Commit(f.ctx))
	f.handleRetryOf(second)
}

func (f *storeFixture) retryDone() {
	leases, m := f.lease("a"), received("k")
	f.wait(m, 0)
	tx := f.retry(m)
	e := f.effect(tx.Tx())
	f.must(tx.Done(f.ctx))
	f.must(tx.Commit(f.ctx))
	f.wantSeen(m, outlast.SeenHandled)
	wantRows(f, f.pending(leases), e)
	if wait := f.noRetry(); wait >= 0 {
		f.Fatalf("a handled message is due in %v", wait)
	}
}

func (f *storeFixture) retryUndo() {
	leases, m := f.lease("a"), received("k")
	f.wait(m, 0)
	tx := f.retry(m)
	f.effect(tx.Tx())
	f.must(tx.Undo(f.ctx))
	if f.u.ConcurrentWriters {
		f.noRetry()
	}
	w := tx.Waiting()
	w.Attempts, w.Wait, w.Error = 2, time.Hour, "again"
	f.must(tx.Wait(f.ctx, w))
	f.must(tx.Commit(f.ctx))
	wantRows(f, f.pending(leases))
	f.wantSeen(m, outlast.SeenWaiting)
	f.noRetry()
	item, err := f.s.Operator().Retries().Show(f.ctx, group, m.ID)
	f.must(err)
	want(f, "attempts", item.Attempts, 2)
	want(f, "error", item.Error, "again")
}

func (f *storeFixture) retryWait() {
	first, second := received("k"), received("k")
	f.wait(first, 0)
	f.wait(second, 0)
	tx := f.retry(first)
	before := tx.Waiting()
	w := tx.Waiting()
	w.Attempts, w.Wait, w.Reason, w.Error = 5, 0, "snoozed", "later"
	f.must(tx.Wait(f.ctx, w))
	f.must(tx.Commit(f.ctx))
	tx = f.retry(first) // still the first of its key
	after := tx.Waiting()
	want(f, "attempts", after.Attempts, 5)
	want(f, "reason", after.Reason, "snoozed")
	want(f, "error", after.Error, "later")
	want(f, "seq", after.Seq, before.Seq)
	if !after.FirstAt.Equal(before.FirstAt) {
		f.Fatalf("first seen %v, was %v", after.FirstAt, before.FirstAt)
	}
	wantMessage(f, after.Message, first)
}

func (f *storeFixture) retryBury() {
	leases, first, second := f.lease("a"), received("k"), received("k")
	f.wait(first, 0)
	f.wait(second, 0)
	tx := f.retry(first)
	f.effect(tx.Tx())
	f.must(tx.Undo(f.ctx))
	f.must(tx.Bury(f.ctx, deadOf(first)))
	f.must(tx.Commit(f.ctx))
	wantRows(f, f.pending(leases))
	f.wantSeen(first, outlast.SeenDead)
	item, err := f.s.Operator().Dead().Show(f.ctx, group, first.ID)
	f.must(err)
	want(f, "attempts", item.Attempts, 3)
	f.handleRetryOf(second)
}

func (f *storeFixture) retryRollback() {
	leases, m := f.lease("a"), received("k")
	f.wait(m, 0)
	for i, end := range []func(tx outlast.RetryTx) error{
		func(outlast.RetryTx) error { return nil },
		func(tx outlast.RetryTx) error { return tx.Done(f.ctx) },
		func(tx outlast.RetryTx) error { return tx.Bury(f.ctx, deadOf(m)) },
		func(tx outlast.RetryTx) error { return tx.Wait(f.ctx, waitingOf(m, time.Hour)) },
	} {
		f.Logf("case %d", i)
		tx := f.retry(m)
		f.effect(tx.Tx())
		f.must(end(tx))
		tx.Rollback()
		f.wantSeen(m, outlast.SeenWaiting)
	}
	wantRows(f, f.pending(leases))
	f.handleRetryOf(m)
}
