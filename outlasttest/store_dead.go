package outlasttest

import (
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

var deadTests = []storeTest{
	{name: "F71_Dead_letters_tell_what_a_person_needs", run: (*storeFixture).showDead},
	{name: "Dead_letters_can_be_filtered", run: (*storeFixture).filterDead},
	{name: "Dead_Replay_keeps_the_id_and_counts_anew", run: (*storeFixture).replay},
	{name: "Dead_Replay_is_bounded_by_the_limit", run: (*storeFixture).replayLimit},
	{name: "F74_Dead_Replay_twice_runs_once", run: (*storeFixture).replayTwice},
	{name: "Dead_Discard_is_remembered", run: (*storeFixture).discard},
	{name: "Dead_Edit_puts_a_new_message_into_its_place", run: (*storeFixture).edit},
}

func (f *storeFixture) deadLetters(filter outlast.Filter) []outlast.Item {
	f.Helper()
	items, err := f.s.Operator().Dead().List(f.ctx, filter)
	f.must(err)
	return items
}

func (f *storeFixture) showDead() {
	m := full()
	m.Source = "orders"
	f.bury(m)
	items := f.deadLetters(outlast.Filter{})
	f.wantItems(items, m)
	item, err := f.s.Operator().Dead().Show(f.ctx, group, m.ID)
	f.must(err)
	for _, i := range []outlast.Item{items[0], *item} {
		want(f, "where", i.Where, "dead")
		want(f, "group", i.Group, group)
		want(f, "source", i.Envelope.Source, "orders")
		want(f, "type", i.Envelope.Type, m.Type)
		want(f, "reason", i.Reason, "verdict")
		want(f, "error", i.Error, "card expired\n\"quoted\"")
		want(f, "attempts", i.Attempts, 3)
		want(f, "fingerprint", i.Fingerprint, "f00d")
		want(f, "body size", i.BodySize, len(m.Body))
		want(f, "time of death shown", i.LastAt.IsZero(), false)
	}
	shown := &outlast.Message{Envelope: item.Envelope, Body: m.Body}
	wantMessage(f, shown, m)
	want(f, "body shown", len(item.Body) > 0, true)
	_, err = f.s.Operator().Dead().Show(f.ctx, group, outlast.NewID())
	f.wantCode(err, outlast.CodeNotFound)
}

func (f *storeFixture) filterDead() {
	a, b, c := received("1"), received("2"), received("1")
	b.Type = "order.cancelled.v1"
	f.bury(a)
	f.bury(b)
	tx := f.mark(c)
	d := deadOf(c)
	d.Reason, d.Fingerprint = "attempts spent", "beef"
	f.must(tx.Bury(f.ctx, d))
	f.must(tx.Commit(f.ctx))
	for _, x := range []struct {
		filter outlast.Filter
		want   []*outlast.Message
	}{
		{outlast.Filter{}, []*outlast.Message{a, b, c}},
		{outlast.Filter{Group: group, Type: b.Type}, []*outlast.Message{b}},
		{outlast.Filter{Group: "shipping"}, nil},
		{outlast.Filter{Key: "1"}, []*outlast.Message{a, c}},
		{outlast.Filter{Reason: "attempts spent"}, []*outlast.Message{c}},
		{outlast.Filter{Fingerprint: "f00d"}, []*outlast.Message{a, b}},
		{outlast.Filter{IDs: []string{b.ID}}, []*outlast.Message{b}},
		{outlast.Filter{OlderThan: time.Hour}, nil},
		{outlast.Filter{NewerThan: time.Hour, Limit: 2}, []*outlast.Message{a, b}},
	} {
		f.Logf("filter %+v", x.filter)
		f.wantItems(f.deadLetters(x.filter), x.want...)
	}
	items := f.deadLetters(outlast.Filter{})
	f.wantItems(f.deadLetters(outlast.Filter{After: items[1].Seq}), c)
}

func (f *storeFixture) replay() {
	m, other := received("k"), received("k2")
	f.bury(m)
	f.bury(other)
	n, err := f.s.Operator().Dead().Replay(f.ctx, outlast.Filter{IDs: []string{m.ID}}, by)
	f.must(err)
	want(f, "replayed", n, 1)
	f.wantItems(f.deadLetters(outlast.Filter{}), other)
	f.wantSeen(m, outlast.SeenWaiting)
	f.wantSeen(received("k"), outlast.SeenBehind)
	tx := f.retry(m)
	w := tx.Waiting()
	wantMessage(f, w.Message, m)
	want(f, "source", w.Message.Source, m.Source)
	want(f, "attempts", w.Attempts, 0)
	want(f, "replays", w.Replays, 1)
	want(f, "ordered", w.Ordered, true)
	d := deadOf(m)
	d.Replays = w.Replays
	f.must(tx.Bury(f.ctx, d))
	f.must(tx.Commit(f.ctx))
	item, err := f.s.Operator().Dead().Show(f.ctx, group, m.ID)
	f.must(err)
	want(f, "replays", item.Replays, 1)
	f.wantSeen(m, outlast.SeenDead)
	n, err = f.s.Operator().Dead().Replay(f.ctx, outlast.Filter{IDs: []string{m.ID}}, by)
	f.must(err)
	want(f, "replayed again", n, 1)
	tx = f.retry(m)
	want(f, "replays", tx.Waiting().Replays, 2)
	f.must(tx.Done(f.ctx))
	f.must(tx.Commit(f.ctx))
	f.wantSeen(m, outlast.SeenHandled)
}

func (f *storeFixture) replayLimit() {
	for range 5 {
		f.bury(received(""))
	}
	n, err := f.s.Operator().Dead().Replay(f.ctx, outlast.Filter{Limit: 2}, by)
	f.must(err)
	want(f, "replayed", n, 2)
	want(f, "left", len(f.deadLetters(outlast.Filter{})), 3)
	n, err = f.s.Operator().Dead().Discard(f.ctx, outlast.Filter{Limit: 2}, by)
	f.must(err)
	want(f, "discarded", n, 2)
	want(f, "left", len(f.deadLetters(outlast.Filter{})), 1)
}

func (f *storeFixture) replayTwice() {
	m := received("")
	f.bury(m)
	counts := make([]int, 4)
	var wg sync.WaitGroup
	for i := range counts {
		wg.Go(func() {
			n, err := f.s.Operator().Dead().Replay(f.ctx, outlast.Filter{IDs: []string{m.ID}}, by)
			if err != nil {
				f.Errorf("replay: %v", err)
			}
			counts[i] = n
		})
	}
	wg.Wait()
	want(f, "replays in all", counts[0]+counts[1]+counts[2]+counts[3], 1)
	f.handleRetryOf(m)
	f.noRetry()
}

func (f *storeFixture) discard() {
	m := received("k")
	f.bury(m)
	n, err := f.s.Operator().Dead().Discard(f.ctx, outlast.Filter{IDs: []string{m.ID}}, by)
	f.must(err)
	want(f, "discarded", n, 1)
	want(f, "left", len(f.deadLetters(outlast.Filter{})), 0)
	f.wantSeen(m, outlast.SeenDead)
	n, err = f.s.Operator().Dead().Replay(f.ctx, outlast.Filter{IDs: []string{m.ID}}, by)
	f.must(err)
	want(f, "replayed after it was discarded", n, 0)
}

func (f *storeFixture) edit() {
	old, edited := full(), full()
	old.Source = "orders"
	f.bury(old)
	edited.ID, edited.Source, edited.Body = outlast.NewID(), "operator", []byte(`{"fixed":true}`)
	edited.CausationID, edited.CorrelationID = old.ID, old.CorrelationID
	dead := f.s.Operator().Dead()
	by := outlast.Action{Who: "ann", Reason: "a wrong address"}
	f.wantCode(dead.Edit(f.ctx, "shipping", old.ID, edited, by), outlast.CodeNotFound)
	known := received("")
	known.Source = edited.Source
	f.handle(known)
	taken := *edited
	taken.ID = known.ID
	f.wantCode(dead.Edit(f.ctx, group, old.ID, &taken, by), outlast.CodeConflict)
	want(f, "dead letters after a conflict", len(f.deadLetters(outlast.Filter{})), 1)

	f.must(dead.Edit(f.ctx, group, old.ID, edited, by))
	want(f, "dead letters", len(f.deadLetters(outlast.Filter{})), 0)
	f.wantCode(dead.Edit(f.ctx, group, old.ID, edited, by), outlast.CodeNotFound)
	f.wantSeen(old, outlast.SeenDead)
	f.wantFacts(of(old), "dead/"+group, "discarded/"+group, "failed/"+group)
	actions, err := f.s.Operator().Actions(f.ctx, outlast.ActionQuery{Limit: 1})
	f.must(err)
	want(f, "what was done", actions[0].What, "dead edit")
	want(f, "target", actions[0].Target, old.ID+" as "+edited.ID)
	want(f, "reason", actions[0].Reason, "a wrong address")
	tx, _, err := f.s.Inbox().BeginRetry(f.ctx, group, []string{edited.Type})
	f.must(err)
	if tx == nil {
		f.Fatal("the new message is not due")
	}
	w := tx.Waiting()
	wantMessage(f, w.Message, edited)
	want(f, "its source", w.Message.Source, "operator")
	want(f, "its cause", w.Message.CausationID, old.ID)
	want(f, "its reason", w.Reason, "edited")
	f.must(tx.Done(f.ctx))
	f.must(tx.Commit(f.ctx))
}
