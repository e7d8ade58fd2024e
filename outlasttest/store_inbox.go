package outlasttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

var inboxTests = []storeTest{
	{name: "Inbox_knows_a_message_from_first_sight", run: (*storeFixture).inboxStates},
	{name: "Inbox_tells_another_content_under_the_same_id", run: (*storeFixture).inboxConflict},
	{name: "Inbox_keeps_later_messages_of_a_waiting_key_behind", run: (*storeFixture).inboxBehind},
	{name: "F56_Inbox_commits_mark_and_effect_together", run: (*storeFixture).inboxEffect},
	{name: "Inbox_rolls_back_mark_and_effect_together", run: (*storeFixture).inboxRollback},
	{name: "Inbox_keeps_groups_and_sources_apart", run: (*storeFixture).inboxApart},
	{name: "F58_F67_Inbox_Begin_waits_for_another_transaction_of_the_message", run: (*storeFixture).inboxWaits},
	{name: "Inbox_Begin_takes_a_mark_over_from_a_rollback", run: (*storeFixture).inboxTakesOver},
	{name: "Inbox_Begin_stops_waiting_when_its_context_ends", run: (*storeFixture).inboxGivesUp},
	{name: "Inbox_batches_in_opposite_orders_do_not_deadlock", run: (*storeFixture).inboxOpposite},
	{name: "Inbox_states_follow_the_order_of_marks", run: (*storeFixture).inboxBatch},
}

const group = "billing"

// received makes a message as a consumer has it.
func received(key string) *outlast.Message {
	m := message(key)
	m.Source = "orders"
	m.EnqueuedAt = time.Now().Add(-time.Minute).Truncate(time.Microsecond).UTC()
	return m
}

func markOf(m *outlast.Message) outlast.Mark {
	return outlast.Mark{Source: m.Source, ID: m.ID, Key: m.Envelope.Key, Hash: 4711, EnqueuedAt: m.EnqueuedAt}
}

// mark begins a transaction of the group on messages.
func (f *storeFixture) mark(msgs ...*outlast.Message) outlast.InboxTx {
	f.Helper()
	var marks []outlast.Mark
	for _, m := range msgs {
		mark := markOf(m)
		mark.Redelivered = f.redelivered
		marks = append(marks, mark)
	}
	tx, err := f.s.Inbox().Begin(f.ctx, group, marks)
	f.must(err)
	want(f, "number of states", len(tx.States()), len(msgs))
	f.Cleanup(tx.Rollback)
	return tx
}

// seen returns what the inbox knows of a message.
func (f *storeFixture) seen(m *outlast.Message) outlast.Seen {
	f.Helper()
	tx := f.mark(m)
	defer tx.Rollback()
	return tx.States()[0]
}

func (f *storeFixture) wantSeen(m *outlast.Message, state outlast.Seen) {
	f.Helper()
	want(f, "state of message "+m.ID, f.seen(m), state)
}

// handle commits a message as handled.
func (f *storeFixture) handle(m *outlast.Message) {
	f.Helper()
	tx := f.mark(m)
	f.must(tx.Commit(f.ctx))
}

func waitingOf(m *outlast.Message, wait time.Duration) *outlast.Waiting {
	return &outlast.Waiting{Group: group, Message: m, Ordered: m.Envelope.Key != "", Attempts: 1,
		Wait: wait, Reason: "failed", Error: "boom\n\"quoted\""}
}

// wait commits a message as waiting.
func (f *storeFixture) wait(m *outlast.Message, wait time.Duration) {
	f.Helper()
	tx := f.mark(m)
	f.must(tx.Wait(f.ctx, waitingOf(m, wait)))
	f.must(tx.Commit(f.ctx))
}

func deadOf(m *outlast.Message) *outlast.DeadLetterRecord {
	return &outlast.DeadLetterRecord{Group: group, Message: m, Ordered: m.Envelope.Key != "", Reason: "verdict",
		Error: "card expired\n\"quoted\"", Attempts: 3, Fingerprint: "f00d"}
}

// bury commits a message as dead.
func (f *storeFixture) bury(m *outlast.Message) {
	f.Helper()
	tx := f.mark(m)
	f.must(tx.Bury(f.ctx, deadOf(m)))
	f.must(tx.Commit(f.ctx))
}

func (f *storeFixture) inboxStates() {
	handled, waiting, buried := received(""), received(""), received("")
	for _, m := range []*outlast.Message{handled, waiting, buried} {
		f.wantSeen(m, outlast.SeenNew)
	}
	f.handle(handled)
	f.wait(waiting, time.Hour)
	f.bury(buried)
	for range 2 {
		f.wantSeen(handled, outlast.SeenHandled)
		f.wantSeen(waiting, outlast.SeenWaiting)
		f.wantSeen(buried, outlast.SeenDead)
	}
	// A duplicate that is seen and committed changes nothing.
	for _, m := range []*outlast.Message{handled, waiting, buried} {
		f.handle(m)
	}
	f.wantSeen(waiting, outlast.SeenWaiting)
	f.wantSeen(buried, outlast.SeenDead)
}

func (f *storeFixture) inboxConflict() {
	m := received("")
	f.handle(m)
	other := markOf(m)
	other.Hash = -1
	tx, err := f.s.Inbox().Begin(f.ctx, group, []outlast.Mark{other})
	f.must(err)
	defer tx.Rollback()
	want(f, "state", tx.States()[0], outlast.SeenConflict)
	copied := *m
	copied.Body = []byte(`{"other":true}`)
	d := deadOf(&copied)
	d.Reason = "conflict"
	f.must(tx.Bury(f.ctx, d))
	f.must(tx.Commit(f.ctx))
	f.wantSeen(m, outlast.SeenHandled)
	items, err := f.s.Operator().Dead().List(f.ctx, outlast.Filter{Group: group, Reason: "conflict"})
	f.must(err)
	want(f, "dead letters", len(items), 1)
	want(f, "id", items[0].Envelope.ID, m.ID)
}

func (f *storeFixture) inboxBehind() {
	first, second, free, unkeyed := received("k"), received("k"), received("other"), received("")
	f.wait(first, time.Hour)
	f.wantSeen(second, outlast.SeenBehind)
	f.wantSeen(free, outlast.SeenNew)
	f.wantSeen(unkeyed, outlast.SeenNew)
	unordered := received("u")
	tx := f.mark(unordered)
	w := waitingOf(unordered, time.Hour)
	w.Ordered = false
	f.must(tx.Wait(f.ctx, w))
	f.must(tx.Commit(f.ctx))
	f.wantSeen(received("u"), outlast.SeenNew)

	tx = f.mark(second)
	want(f, "state", tx.States()[0], outlast.SeenBehind)
	w = waitingOf(second, 0)
	w.Reason, w.Attempts = "behind", 0
	f.must(tx.Wait(f.ctx, w))
	f.must(tx.Commit(f.ctx))
	f.wantSeen(second, outlast.SeenWaiting)
}

// effect writes into the transaction what can be found afterwards.
func (f *storeFixture) effect(tx outlast.Tx) *outlast.Message {
	f.Helper()
	m := message("effect")
	f.must(f.s.Outbox().Insert(f.ctx, tx, []*outlast.Message{m}))
	return m
}

func (f *storeFixture) inboxEffect() {
	leases, m := f.lease("a"), received("")
	tx := f.mark(m)
	e := f.effect(tx.Tx())
	f.must(tx.Commit(f.ctx))
	wantRows(f, f.pending(leases), e)
	f.wantSeen(m, outlast.SeenHandled)
	if err := tx.Commit(f.ctx); err == nil {
		f.Fatalf("a second commit succeeded")
	}
}

func (f *storeFixture) inboxRollback() {
	leases, m := f.lease("a"), received("")
	for _, end := range []func(tx outlast.InboxTx){
		func(outlast.InboxTx) {},
		func(tx outlast.InboxTx) { f.must(tx.Wait(f.ctx, waitingOf(m, 0))) },
		func(tx outlast.InboxTx) { f.must(tx.Bury(f.ctx, deadOf(m))) },
	} {
		tx := f.mark(m)
		want(f, "state", tx.States()[0], outlast.SeenNew)
		f.effect(tx.Tx())
		end(tx)
		tx.Rollback()
		tx.Rollback()
		wantRows(f, f.pending(leases))
		f.wantSeen(m, outlast.SeenNew)
	}
	dead, err := f.s.Operator().Dead().List(f.ctx, outlast.Filter{})
	f.must(err)
	retries, err := f.s.Operator().Retries().List(f.ctx, outlast.Filter{})
	f.must(err)
	want(f, "dead and waiting messages", len(dead)+len(retries), 0)
}

func (f *storeFixture) inboxApart() {
	m := received("k")
	f.wait(m, time.Hour)
	tx, err := f.s.Inbox().Begin(f.ctx, "shipping", []outlast.Mark{markOf(m)})
	f.must(err)
	want(f, "state in another group", tx.States()[0], outlast.SeenNew)
	tx.Rollback()
	other := markOf(m)
	other.Source, other.Key = "returns", ""
	tx, err = f.s.Inbox().Begin(f.ctx, group, []outlast.Mark{other})
	f.must(err)
	want(f, "state of another source", tx.States()[0], outlast.SeenNew)
	tx.Rollback()
	retry, wait, err := f.s.Inbox().BeginRetry(f.ctx, "shipping", []string{m.Type})
	f.must(err)
	if retry != nil || wait >= 0 {
		f.Fatalf("another group's retry: %v, in %v", retry, wait)
	}
}

type begun struct {
	tx  outlast.InboxTx
	err error
}

// markBeside begins a transaction that must wait for an open one.
func (f *storeFixture) markBeside(ctx context.Context, m *outlast.Message) <-chan begun {
	f.Helper()
	done := make(chan begun, 1)
	go func() {
		tx, err := f.s.Inbox().Begin(ctx, group, []outlast.Mark{markOf(m)})
		done <- begun{tx, err}
	}()
	select {
	case <-done:
		f.Fatalf("Begin returned while another transaction held the mark")
	case <-time.After(settling):
	}
	return done
}

func (f *storeFixture) inboxWaits() {
	m := received("")
	first := f.mark(m)
	done := f.markBeside(f.ctx, m)
	f.must(first.Commit(f.ctx))
	second := <-done
	f.must(second.err)
	want(f, "state", second.tx.States()[0], outlast.SeenHandled)
	second.tx.Rollback()

	waits := received("")
	first = f.mark(waits)
	done = f.markBeside(f.ctx, waits)
	f.must(first.Wait(f.ctx, waitingOf(waits, time.Hour)))
	f.must(first.Commit(f.ctx))
	third := <-done
	f.must(third.err)
	defer third.tx.Rollback()
	want(f, "state", third.tx.States()[0], outlast.SeenWaiting)
}

func (f *storeFixture) inboxTakesOver() {
	m := received("")
	first := f.mark(m)
	done := f.markBeside(f.ctx, m)
	first.Rollback()
	second := <-done
	f.must(second.err)
	want(f, "state", second.tx.States()[0], outlast.SeenNew)
	f.must(second.tx.Commit(f.ctx))
	f.wantSeen(m, outlast.SeenHandled)
}

func (f *storeFixture) inboxGivesUp() {
	m := received("")
	first := f.mark(m)
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	done := f.markBeside(ctx, m)
	cancel()
	second := <-done
	if second.err == nil {
		second.tx.Rollback()
		f.Fatalf("Begin succeeded though its context ended")
	}
	f.wantCode(second.err, outlast.CodeUnavailable)
	if !errors.Is(second.err, context.Canceled) {
		f.Logf("the error does not say that the context ended: %v", second.err)
	}
	f.must(first.Commit(f.ctx))
	f.wantSeen(m, outlast.SeenHandled)
}

func (f *storeFixture) inboxOpposite() {
	for range 15 {
		a, b, c := received(""), received(""), received("")
		orders := [][]*outlast.Message{{a, b, c}, {c, b, a}, {b, c, a}}
		var wg sync.WaitGroup
		fresh := make([]int, len(orders))
		for i, msgs := range orders {
			wg.Go(func() {
				var marks []outlast.Mark
				for _, m := range msgs {
					marks = append(marks, markOf(m))
				}
				tx, err := f.s.Inbox().Begin(f.ctx, group, marks)
				if err != nil {
					f.Errorf("begin: %v", err)
					return
				}
				for _, s := range tx.States() {
					if s == outlast.SeenNew {
						fresh[i]++
					}
				}
				if err := tx.Commit(f.ctx); err != nil {
					f.Errorf("commit: %v", err)
				}
			})
		}
		wg.Wait()
		want(f, fmt.Sprintf("messages new to one transaction (%v)", fresh), fresh[0]+fresh[1]+fresh[2], 3)
	}
}

func (f *storeFixture) inboxBatch() {
	handled, waiting, dead := received(""), received("k"), received("")
	f.handle(handled)
	f.wait(waiting, time.Hour)
	f.bury(dead)
	fresh, behind := received("free"), received("k")
	tx := f.mark(fresh, dead, handled, behind, waiting)
	wantList(f, "states", tx.States(), []outlast.Seen{
		outlast.SeenNew, outlast.SeenDead, outlast.SeenHandled, outlast.SeenBehind, outlast.SeenWaiting})
	f.must(tx.Wait(f.ctx, waitingOf(behind, 0)))
	f.must(tx.Commit(f.ctx))
	f.wantSeen(fresh, outlast.SeenHandled)
	f.wantSeen(behind, outlast.SeenWaiting)
	empty, err := f.s.Inbox().Begin(f.ctx, group, nil)
	f.must(err)
	e := f.effect(empty.Tx())
	f.must(empty.Commit(f.ctx))
	wantRows(f, f.pending(f.lease("a")), e)
}
