package memory

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest"
)

// The bugs that the suite for brokers must find.
var brokenBrokers = []struct {
	name, caughtBy string
	wrap           func(b *Broker) outlast.Broker
}{
	{"confirms what it cannot route", "F33_Unroutable_is_reported_and_never_confirmed", func(b *Broker) outlast.Broker {
		return brokenBroker{Broker: b, results: func(r outlast.Result) []outlast.Result {
			r.Outcome, r.Err = outlast.OutcomeConfirmed, nil
			return []outlast.Result{r}
		}}
	}},
	{"reports twice", "F45_Many_in_flight_resolve_each_once", func(b *Broker) outlast.Broker {
		return brokenBroker{Broker: b, results: func(r outlast.Result) []outlast.Result { return []outlast.Result{r, r} }}
	}},
	{"calls an outage unknown", "Without_a_connection_nothing_is_sent", func(b *Broker) outlast.Broker {
		return brokenBroker{Broker: b, results: func(r outlast.Result) []outlast.Result {
			if r.Outcome == outlast.OutcomeNotSent {
				r.Outcome = outlast.OutcomeUnknown
			}
			return []outlast.Result{r}
		}}
	}},
	{"delivers everything twice", "A_lane_keeps_its_order", func(b *Broker) outlast.Broker {
		b.Inject(Duplicate(1))
		return b
	}},
	{"loses confirms", "F45_Many_in_flight_resolve_each_once", func(b *Broker) outlast.Broker {
		b.Inject(DropConfirm(1))
		return b
	}},
	{"acknowledges by itself", "F68_Unacked_messages_come_again_in_order", func(b *Broker) outlast.Broker {
		return brokenBroker{Broker: b, subscriber: func(c *outlast.SubscriberConfig) {
			deliver := c.Deliver
			c.Deliver = func(d *outlast.Delivery) { d.Ack(); deliver(d) }
		}}
	}},
	{"ignores the prefetch", "F66_Prefetch_bounds_what_is_unsettled", func(b *Broker) outlast.Broker {
		return brokenBroker{Broker: b, subscriber: func(c *outlast.SubscriberConfig) { c.Prefetch = 1000 }}
	}},
	{"serves ordered queues to all", "An_ordered_queue_serves_one_consumer_after_the_other", func(b *Broker) outlast.Broker {
		return brokenBroker{Broker: b, subscriber: func(c *outlast.SubscriberConfig) { c.Group.Ordered = false }}
	}},
	{"binds every bucket to every partition", "Partitions_get_their_share_of_the_buckets", func(b *Broker) outlast.Broker {
		return brokenBroker{Broker: b, subscriber: func(c *outlast.SubscriberConfig) {
			if c.Group.Partitions > 1 {
				b.DeclareQueue(c.Group.Queue(c.Partition))
				_ = b.Bind(c.Group.Queue(c.Partition), outlast.EventExchange, "#")
			}
		}}
	}},
	{"loses the flow", "A_message_arrives_as_it_was_sent", func(b *Broker) outlast.Broker {
		return brokenBroker{Broker: b, subscriber: func(c *outlast.SubscriberConfig) {
			deliver := c.Deliver
			c.Deliver = func(d *outlast.Delivery) { d.Message.CausationID = ""; deliver(d) }
		}}
	}},
}

type brokenBroker struct {
	*Broker
	results    func(outlast.Result) []outlast.Result
	subscriber func(*outlast.SubscriberConfig)
}

func (b brokenBroker) Publisher(c outlast.PublisherConfig) outlast.Publisher {
	if report := c.Results; b.results != nil {
		c.Results = func(rs []outlast.Result) {
			var all []outlast.Result
			for _, r := range rs {
				all = append(all, b.results(r)...)
			}
			report(all)
		}
	}
	return b.Broker.Publisher(c)
}

func (b brokenBroker) Subscriber(c outlast.SubscriberConfig) outlast.Subscriber {
	if b.subscriber != nil {
		b.subscriber(&c)
	}
	return b.Broker.Subscriber(c)
}

const brokenBrokerVariable = "OUTLAST_BROKEN_BROKER"

// TestBrokerSuiteFindsBugs runs the suite over every broken broker, in a process of
// its own because it must fail.
func TestBrokerSuiteFindsBugs(t *testing.T) {
	for _, b := range brokenBrokers {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			run := "^TestBrokenBroker$/^" + b.caughtBy + "$"
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+run, "-test.timeout=6s")
			cmd.Env = append(os.Environ(), brokenBrokerVariable+"="+b.name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("the suite passed over a broker that %s:\n%s", b.name, out)
			}
			if !strings.Contains(string(out), "--- FAIL: TestBrokenBroker/"+b.caughtBy) {
				t.Fatalf("the broker that %s was not caught by %s: %v\n%s", b.name, b.caughtBy, err, out)
			}
		})
	}
}

// TestBrokenBroker does something only in the processes of TestBrokerSuiteFindsBugs.
func TestBrokenBroker(t *testing.T) {
	for _, b := range brokenBrokers {
		if b.name != os.Getenv(brokenBrokerVariable) {
			continue
		}
		outlasttest.Broker(t, func(*testing.T) outlasttest.BrokerUnderTest {
			inner := NewBroker()
			return outlasttest.BrokerUnderTest{
				Broker: b.wrap(inner),
				Stop:   func(context.Context) error { inner.Die(); return nil },
				Start:  func(context.Context) error { inner.Revive(); return nil },
			}
		})
	}
}
