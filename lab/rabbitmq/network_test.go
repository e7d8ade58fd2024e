package rabbitmq_test

import (
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
)

// TestF81_SilentNode: a node that says nothing any more is found out by its heartbeats.
func TestF81_SilentNode(t *testing.T) {
	t.Parallel()
	c := cluster(t, "")
	b := broker(c.URL() + "?heartbeat=2&connection_timeout=1000")
	g := group("billing", "order.placed.v1")
	sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true})
	sub.autoAck = true
	sub.link(outlast.LinkUp)
	p, r := publisher(t, b)
	r.link(outlast.LinkUp)
	first := message("order.placed.v1") // opens the lane
	p.Send(0, []*outlast.Publishing{first})
	if got := r.result(first); got.Outcome != outlast.OutcomeConfirmed {
		t.Fatalf("%v, %v", got.Outcome, got.Err)
	}
	if err := c.Node(0).Pause(); err != nil {
		t.Fatal(err)
	}
	lost := messages(100, "order.placed.v1")
	p.Send(0, lost)
	r.link(outlast.LinkDown)
	sub.link(outlast.LinkDown)
	for _, x := range lost {
		if got := r.result(x); got.Outcome != outlast.OutcomeUnknown {
			t.Fatalf("%v, %v", got.Outcome, got.Err)
		}
	}
	if err := c.Node(0).Continue(); err != nil {
		t.Fatal(err)
	}
	r.link(outlast.LinkUp)
	sub.link(outlast.LinkUp)
	x := message("order.placed.v1")
	p.Send(0, []*outlast.Publishing{x})
	if got := r.result(x); got.Outcome != outlast.OutcomeConfirmed {
		t.Errorf("%v, %v", got.Outcome, got.Err)
	}
	sub.until("the message", func() bool {
		for _, d := range sub.deliveries {
			if d.Message.ID == x.Message.ID {
				return true
			}
		}
		return false
	})
}

// TestF62_ConsumerTimeout: the broker closes the channel of a consumer that keeps a message
// for too long, or ends its subscription, as RabbitMQ 4.3 does, and it starts again.
func TestF62_ConsumerTimeout(t *testing.T) {
	t.Parallel()
	c := cluster(t, "consumer_timeout = 1000")
	ctl(t, c, "eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
	b := broker(c.URL())
	g := group("slow", "slow.v1")
	sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true})
	sub.link(outlast.LinkUp)
	p, r := publisher(t, b)
	r.link(outlast.LinkUp)
	p.Send(0, messages(1, "slow.v1"))
	sub.until("a second delivery", func() bool { return len(sub.deliveries) >= 2 })
	sub.mu.Lock()
	old, again, reason := sub.deliveries[0], sub.deliveries[1], sub.links[1].Reason
	sub.mu.Unlock()
	if old.Message.ID != again.Message.ID || !again.Redelivered || !strings.Contains(reason, "time") {
		t.Errorf("delivered %q, then %q, redelivered %v, after %q", old.Message.ID, again.Message.ID, again.Redelivered, reason)
	}
	old.Ack() // must not meet the new channel's first tag
	again.Ack()
	if b.(interface{ StaleAcks() uint64 }).StaleAcks() == 0 {
		t.Error("the stale acknowledgement was not counted")
	}
}

// freePort is below the ports that the system gives to outgoing connections.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		port := 15_000 + mathrand.IntN(15_000)
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			listener.Close()
			return port
		}
	}
}
