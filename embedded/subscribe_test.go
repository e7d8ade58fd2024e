package embedded

import (
	"fmt"
	"slices"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/nats"
)

func TestSubscriber(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{true, false} {
		t.Run(fmt.Sprintf("ordered_%v/what_was_in_hand_comes_again_first_and_in_order", ordered), func(t *testing.T) {
			t.Parallel()
			b := brokerAt(startServer(t))
			g := group("billing", ordered)
			apply(t, b, g)
			p := publisher(t, b)
			p.confirm(messages(1, 20)...)
			first := subscribe(t, b, g, 10, false)
			if got := first.numbersAfter(10); !slices.Equal(got, count(1, 10)) {
				t.Fatalf("first: %v", got)
			}
			first.stop()
			first.got[0].Ack() // after the end of the session: does nothing
			second := subscribe(t, b, g, 5, true)
			if got := second.numbersAfter(20); !slices.Equal(got, count(1, 20)) {
				t.Fatalf("second: %v", got)
			}
			for i, d := range second.got {
				if i == 10 && !ordered {
					continue // taken and given back unseen by the end of the first
				}
				if again := i < 10; d.Redelivered != again {
					t.Errorf("message %d: redelivered %v", i+1, d.Redelivered)
				}
			}
		})
		t.Run(fmt.Sprintf("ordered_%v/a_cut_connection_gives_in_hand_again", ordered), func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			b := brokerAt(s)
			g := group("billing", ordered)
			in := subscribe(t, b, g, 10, false)
			publisher(t, b).confirm(messages(1, 20)...)
			in.numbersAfter(10)
			cut(t, s, "outlast subscriber billing.0")
			in.until("up again", func() bool { return in.up == 2 })
			if got := in.numbersAfter(20)[10:]; !slices.Equal(got, count(1, 10)) {
				t.Fatalf("after the cut: %v", got)
			}
			in.got[0].Ack() // of the first session: must not acknowledge anything
			in.mu.Lock()
			again := slices.Clone(in.got[10:])
			in.ack = true
			in.mu.Unlock()
			for _, d := range again {
				d.Ack()
			}
			if got := in.numbersAfter(30)[20:]; !slices.Equal(got, count(11, 10)) {
				t.Fatalf("the rest: %v", got)
			}
		})
	}
	t.Run("ordered_by_single_steps_on_old_servers", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		b := brokerAt(s)
		g := group("billing", true)
		apply(t, b, g)
		j := js(t, s)
		c, err := j.Consumer(testContext(t), "OUTLAST_EVENTS", "billing_0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := c.CachedInfo().Config
		cfg.MaxAckPending = 1
		if _, err := j.UpdateConsumer(testContext(t), "OUTLAST_EVENTS", cfg); err != nil {
			t.Fatal(err)
		}
		publisher(t, b).confirm(messages(1, 20)...)
		in := &inbox{t: t, b: b, news: make(chan struct{})}
		run := func(ack bool) {
			in.change(func() { in.ack = ack })
			in.stop = background(t, b.Subscriber(outlast.SubscriberConfig{Group: g, Prefetch: 10, Deliver: in.deliver}).Run)
		}
		run(false)
		in.numbersAfter(1)
		in.stop()
		run(true)
		if got, want := in.numbersAfter(21), append([]string{"1"}, count(1, 20)...); !slices.Equal(got, want) {
			t.Fatalf("got %v", got)
		}
	})
	t.Run("of_two_on_an_ordered_queue_neither_skips", func(t *testing.T) {
		t.Parallel()
		b := brokerAt(startServer(t))
		g := group("billing", true)
		old := subscribe(t, b, g, 100, false)
		p := publisher(t, b)
		p.confirm(messages(1, 5)...)
		old.numbersAfter(5)
		successor := subscribe(t, b, g, 100, false) // the old one has requests waiting
		p.confirm(messages(6, 50)...)
		old.stop()
		// Whatever was disturbed, each session is an unbroken sequence from 1 on.
		successor.until("the last message", func() bool { n := numbers(successor.got); return len(n) > 0 && n[len(n)-1] == "55" })
		for _, got := range [][]string{numbers(successor.got), numbers(old.got)} {
			for i, n := range got {
				if n != "1" && (i == 0 || n != fmt.Sprint(number(got[i-1])+1)) {
					t.Fatalf("%q follows a gap in %v", n, got)
				}
			}
		}
	})
	t.Run("never_more_in_hand_than_prefetch", func(t *testing.T) {
		t.Parallel()
		b := brokerAt(startServer(t))
		g := group("billing", false)
		g.Bindings = append(g.Bindings, outlast.Binding{Exchange: outlast.CommandExchange, Type: "order.place.v1"})
		in := subscribe(t, b, g, 1, false)
		p := publisher(t, b)
		events, commands := messages(1, 3), messages(4, 3)
		for _, c := range commands {
			c.Exchange, c.RoutingKey = outlast.CommandExchange, "order.place.v1.0"
		}
		p.confirm(append(events, commands...)...)
		for n := 1; n <= 6; n++ {
			in.numbersAfter(n)
			in.mu.Lock()
			d, have := in.got[n-1], len(in.got)
			in.mu.Unlock()
			if have != n {
				t.Fatalf("%d deliveries while 1 may be in hand", have-n+1)
			}
			d.Ack()
			d.Ack()
		}
	})
	t.Run("every_group_gets_every_message_and_the_stream_forgets_it", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		b := brokerAt(s)
		g := group("billing", false)
		g.Partitions = 3
		apply(t, b, group("mail_out", false), g)
		ps := messages(1, 50)
		for i, m := range ps {
			m.Message.Envelope.Key = fmt.Sprint(i)
			m.RoutingKey = m.Message.Address()
		}
		publisher(t, b).confirm(ps...)
		mail := subscribe(t, b, group("mail_out", false), 16, true)
		mail.numbersAfter(50)
		parts := make([]*inbox, 3)
		total := 0
		for i := range parts {
			in := &inbox{t: t, b: b, news: make(chan struct{}), ack: true}
			parts[i] = in
			in.stop = background(t, b.Subscriber(outlast.SubscriberConfig{Group: g, Partition: i, Prefetch: 7, Declare: true, Deliver: in.deliver}).Run)
			expect := 0
			for _, m := range ps {
				if outlast.Bucket(m.Message.Envelope.Key, m.Message.ID)%3 == i {
					expect++
				}
			}
			total += len(in.numbersAfter(expect))
		}
		if total != 50 {
			t.Fatalf("%d of 50", total)
		}
		mail.stop()
		for _, in := range parts {
			in.stop()
		}
		j, ctx := js(t, s), testContext(t)
		for { // the server works on acknowledgements in the background
			stream, err := j.Stream(ctx, "OUTLAST_EVENTS")
			if err != nil {
				t.Fatal(err)
			}
			if stream.CachedInfo().State.Msgs == 0 {
				break
			}
		}
	})
	t.Run("a_message_in_hand_for_longer_than_the_wait_stays_there", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		b := brokerAt(s, nats.AckWait(2e9))
		g := group("billing", false)
		in := subscribe(t, b, g, 2, false)
		p := publisher(t, b)
		p.confirm(messages(1, 1)...)
		in.numbersAfter(1)
		// Two waits of the server go by, seen through a message whose holder gives no
		// sign of life.
		silent := silentHolder(t, s, b, p)
		silent()
		silent()
		if got := in.numbersAfter(1); len(got) != 1 {
			t.Fatalf("delivered again: %v", got)
		}
		in.got[0].Ack()
	})
}

func number(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}
