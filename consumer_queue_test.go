package outlast

import "testing"

func queued(sub *subscription, key, id string) *task {
	return &task{sub: sub, h: &boundHandler{}, m: &Message{}, mark: Mark{Key: key, ID: id}}
}

func ids(ts []*task) (s string) {
	for _, t := range ts {
		s += t.mark.ID
	}
	return s
}

func newSubscription() *subscription { return &subscription{leaving: make(chan struct{})} }

func TestWorkQueue(t *testing.T) {
	t.Parallel()
	t.Run("keeps_a_key_with_one_worker", func(t *testing.T) {
		q, sub := newWorkQueue(), newSubscription()
		for _, id := range []string{"1", "2", "3"} {
			q.offer(queued(sub, "k", id), false)
		}
		q.offer(queued(sub, "", "x"), false)
		first := q.take(1)
		if other := q.take(1); ids(first) != "1" || ids(other) != "x" {
			t.Fatalf("took %s and %s", ids(first), ids(other))
		}
		first[0].settled = true
		q.done(first)
		if next := q.take(8); ids(next) != "23" {
			t.Errorf("took %s", ids(next))
		}
	})
	t.Run("takes_back_what_was_not_settled", func(t *testing.T) {
		q, own, foreign := newWorkQueue(), newSubscription(), newSubscription()
		q.offer(queued(own, "k", "1"), false)
		q.offer(queued(foreign, "k", "2"), false)
		q.offer(queued(foreign, "k", "3"), false)
		q.offer(queued(foreign, "k", "4"), false)
		ts := q.take(3)
		q.lost(own)
		q.done(ts) // the broker delivers 1 again; the others only we have
		if again := q.take(8); ids(again) != "234" {
			t.Errorf("took %s", ids(again))
		}
	})
	t.Run("drops_what_the_broker_takes_back", func(t *testing.T) {
		q, sub := newWorkQueue(), newSubscription()
		q.offer(queued(sub, "k", "1"), false)
		q.offer(queued(sub, "", "x"), false)
		q.lost(sub)
		q.offer(queued(sub, "k", "1"), true)
		ts := q.take(8)
		if ids(ts) != "1" || ts[0].suspect {
			t.Errorf("took %s, suspect %v: its redelivery says nothing about a dead process", ids(ts), ts[0].suspect)
		}
		q.offer(queued(sub, "k", "2"), true)
		q.leave(sub)
		q.offer(queued(sub, "k", "3"), false)
		ts[0].settled = true
		q.done(ts)
		q.wait(sub)
		if len(q.all) != 0 || len(q.lanes) != 0 || len(q.hand) != 0 || len(q.ours) != 1 {
			t.Errorf("left: %d lanes, %d keys, %d in hand, %d ours (x)", len(q.all), len(q.lanes), len(q.hand), len(q.ours))
		}
	})
}
