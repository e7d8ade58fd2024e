package memory_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// rig is a broker with a publisher and a group, within a bubble.
type rig struct {
	t          *testing.T
	b          *memory.Broker
	p          outlast.Publisher
	g          outlast.GroupTopology
	results    map[*outlast.Publishing]outlast.Result
	links      []outlast.LinkState
	deliveries []*outlast.Delivery
}

// inBubble runs a test on a rig; all of the rig has ended when it returns.
func inBubble(t *testing.T, run func(t *testing.T, r *rig), opts ...memory.BrokerOption) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, b: memory.NewBroker(opts...), results: map[*outlast.Publishing]outlast.Result{}}
		r.g = outlast.GroupTopology{Group: "billing", Partitions: 1, Generation: 1, Ordered: true,
			Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "order.placed.v1"}}}
		must(t, r.b.Topology().Apply(t.Context(), outlast.Topology{Groups: []outlast.GroupTopology{r.g}}))
		r.p = r.b.Publisher(outlast.PublisherConfig{
			Results: func(rs []outlast.Result) {
				for _, one := range rs {
					if had, twice := r.results[one.P]; twice {
						t.Errorf("a message is %s after it was %s", one.Outcome, had.Outcome)
					}
					r.results[one.P] = one
				}
			},
			Link: func(l outlast.Link) { r.links = append(r.links, l.State) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = r.p.Run(ctx) }()
		synctest.Wait()
		run(t, r)
		cancel()
		synctest.Wait()
	})
}

// send publishes n messages and waits until nothing moves any more.
func (r *rig) send(lane, n int) []*outlast.Publishing {
	var ps []*outlast.Publishing
	for range n {
		m := &outlast.Message{Body: []byte("{}")}
		m.ID, m.Type, m.Source = outlast.NewID(), "order.placed.v1", "orders"
		ps = append(ps, &outlast.Publishing{Message: m, Exchange: outlast.EventExchange, RoutingKey: m.Address()})
	}
	r.p.Send(lane, ps)
	synctest.Wait()
	return ps
}

// counts returns how many of ps have each outcome; those without are under 0.
func (r *rig) counts(ps []*outlast.Publishing) map[outlast.Outcome]int {
	c := map[outlast.Outcome]int{}
	for _, p := range ps {
		c[r.results[p].Outcome]++
	}
	return c
}

func (r *rig) want(ps []*outlast.Publishing, o outlast.Outcome, n int) {
	r.t.Helper()
	if got := r.counts(ps)[o]; got != n {
		r.t.Fatalf("%d are %s, want %d: %v", got, o, n, r.counts(ps))
	}
}

func (r *rig) ready() int {
	r.t.Helper()
	d, err := r.b.Topology().Depth(r.t.Context(), r.g.Queue(0))
	must(r.t, err)
	return d.Messages
}

// hear subscribes until the returned function is called.
func (r *rig) hear() (stop func()) {
	s := r.b.Subscriber(outlast.SubscriberConfig{Group: r.g, Prefetch: 100, Declare: true,
		Deliver: func(d *outlast.Delivery) { r.deliveries = append(r.deliveries, d) }})
	ctx, cancel := context.WithCancel(r.t.Context())
	go func() { _ = s.Run(ctx) }()
	synctest.Wait()
	return func() { cancel(); synctest.Wait() }
}

func TestBrokerFaults(t *testing.T) {
	t.Run("loses some confirms, never the messages", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			ps := r.send(0, 200)
			lost := r.counts(ps)[0]
			if lost < 20 || lost > 180 {
				t.Fatalf("%d of 200 confirms are lost, want about half", lost)
			}
			r.p.Drop(0)
			synctest.Wait()
			r.want(ps, outlast.OutcomeUnknown, lost)
			if n := r.ready(); n != 200 {
				t.Fatalf("the queue has %d messages", n)
			}
		}, memory.DropConfirm(0.5))
	})
	t.Run("draws its faults from the seed", func(t *testing.T) {
		draw := func(seed uint64) (s string) {
			inBubble(t, func(t *testing.T, r *rig) {
				for _, p := range r.send(0, 50) {
					s += fmt.Sprint(int(r.results[p].Outcome))
				}
			}, memory.Nack(0.5), memory.Seed(seed))
			return s
		}
		if first := draw(1); first != draw(1) || first == draw(2) {
			t.Fatal("the faults do not follow the seed")
		}
	})
	t.Run("nacks without taking, and duplicates", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.want(r.send(0, 10), outlast.OutcomeNacked, 10)
			r.b.Inject(memory.Nack(0), memory.Duplicate(1))
			r.want(r.send(0, 10), outlast.OutcomeConfirmed, 10)
			if n := r.ready(); n != 20 {
				t.Fatalf("the queue has %d messages, want 10 twice", n)
			}
		}, memory.Nack(1))
	})
	t.Run("reorders results", func(t *testing.T) {
		var order []*outlast.Publishing
		inBubble(t, func(t *testing.T, r *rig) {
			p := r.b.Publisher(outlast.PublisherConfig{Results: func(rs []outlast.Result) {
				for _, one := range rs {
					order = append(order, one.P)
				}
			}})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { _ = p.Run(ctx) }()
			synctest.Wait()
			ps := r.send(0, 20)
			p.Send(0, ps)
			synctest.Wait()
			cancel()
			same := true
			for i := range ps {
				same = same && ps[i] == order[i]
			}
			if same || len(order) != 20 {
				t.Fatalf("%d results, in the order of sending: %t", len(order), same)
			}
		}, memory.Reorder(1))
	})
	t.Run("a message over the limit closes its lane only", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			must(t, r.b.SickQueue(r.g.Queue(0), true))
			beside, open := r.send(1, 1), r.send(0, 2)
			r.b.Inject(memory.MaxMessage(1))
			bad := r.send(0, 1)
			r.want(append(open, bad...), outlast.OutcomeLaneError, 3)
			r.want(beside, 0, 1)
			r.b.Inject(memory.MaxMessage(0))
			must(t, r.b.SickQueue(r.g.Queue(0), false))
			synctest.Wait()
			r.want(beside, outlast.OutcomeConfirmed, 1)
			r.want(r.send(0, 1), outlast.OutcomeConfirmed, 1)
		})
	})
	t.Run("a full queue refuses", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			must(t, r.b.MaxLength(r.g.Queue(0), 3))
			ps := r.send(0, 5)
			r.want(ps, outlast.OutcomeConfirmed, 3)
			r.want(ps, outlast.OutcomeNacked, 2)
		})
	})
	t.Run("dies with confirms open and keeps what it has", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			must(t, r.b.SickQueue(r.g.Queue(0), true))
			ps := r.send(0, 3)
			r.b.Die()
			synctest.Wait()
			r.want(ps, outlast.OutcomeUnknown, 3)
			r.want(r.send(0, 2), outlast.OutcomeNotSent, 2)
			r.b.Revive()
			synctest.Wait()
			if n := r.ready(); n != 3 {
				t.Fatalf("the queue has %d messages", n)
			}
		})
	})
	t.Run("blocks and unblocks", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.b.Block("disk")
			synctest.Wait()
			r.want(r.send(0, 1), outlast.OutcomeNotSent, 1)
			r.b.Unblock()
			synctest.Wait()
			r.want(r.send(0, 1), outlast.OutcomeConfirmed, 1)
			want := []outlast.LinkState{outlast.LinkUp, outlast.LinkBlocked, outlast.LinkUp}
			if fmt.Sprint(r.links) != fmt.Sprint(want) {
				t.Fatalf("links %v, want %v", r.links, want)
			}
		})
	})
	t.Run("loses bindings and queues behind our back", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			stop := r.hear()
			must(t, r.b.Unbind(r.g.Queue(0), outlast.EventExchange, "order.placed.v1.*"))
			r.want(r.send(0, 1), outlast.OutcomeUnroutable, 1)
			must(t, r.b.Bind(r.g.Queue(0), outlast.EventExchange, "order.#"))
			r.want(r.send(0, 1), outlast.OutcomeConfirmed, 1)
			must(t, r.b.DeleteQueue(r.g.Queue(0)))
			synctest.Wait() // the subscriber declares it again
			r.want(r.send(0, 1), outlast.OutcomeConfirmed, 1)
			if len(r.deliveries) != 2 {
				t.Fatalf("%d deliveries", len(r.deliveries))
			}
			stop()
			if n := r.ready(); n != 1 {
				t.Fatalf("%d messages went back to the new queue, want 1", n)
			}
		})
	})
}
