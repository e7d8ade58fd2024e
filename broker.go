package outlast

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Broker carries messages from relays to consumers. The suite outlasttest.Broker
// proves an implementation. Constructors dial nothing; the Run methods do, and
// reconnect for ever with full jitter until their context ends.
type Broker interface {
	// Name is "rabbitmq", "nats" or "memory".
	Name() string
	// Address is where it is, without secrets.
	Address() string
	// Publisher returns a new publisher. It does nothing until its Run is called.
	Publisher(PublisherConfig) Publisher
	// Subscriber returns a new subscriber to one queue. It does nothing until Run.
	Subscriber(SubscriberConfig) Subscriber
	// Topology looks at and changes exchanges, queues and bindings.
	Topology() TopologyBroker
}

// Link is the state of a connection.
type Link struct {
	State LinkState
	// Since is when the state began, by this process's clock.
	Since time.Time
	// Reason is for people: the last error without secrets, or why the broker blocks.
	Reason string
	// Expires is when the first certificate of the connection ends, the broker's or this
	// side's own: after it no connection can be made. Zero without TLS, and while down.
	Expires time.Time
}

// LinkState is up, down or blocked.
type LinkState string

const (
	LinkDown LinkState = "down"
	LinkUp   LinkState = "up"
	// LinkBlocked: connected, but the broker takes no publishes (a resource alarm).
	LinkBlocked LinkState = "blocked"
)

// PublisherConfig is how a publisher reports. Callbacks come from the publisher's
// own goroutines, one at a time each, and must not block.
type PublisherConfig struct {
	// Results gets what became of sent messages: every Publishing exactly once.
	Results func([]Result)
	// Link gets every change of the connection.
	Link   func(Link)
	Logger *slog.Logger
}

// Publisher is one supervised connection to publish on.
type Publisher interface {
	// Run keeps the connection until ctx ends; then everything unresolved is reported
	// as OutcomeUnknown and Run returns with nothing of it alive.
	Run(ctx context.Context) error
	// Send publishes in order on a lane (an AMQP channel; opened when first used).
	// It returns at once or after a bounded write; results come by callback. Without
	// a usable connection every message is reported as OutcomeNotSent.
	// Lanes fail separately: an error of one does not disturb another where the
	// protocol allows.
	Send(lane int, ps []*Publishing)
	// Drop closes a lane; its unresolved messages are reported as OutcomeUnknown.
	Drop(lane int)
}

// Publishing is one message on its way to the broker.
type Publishing struct {
	Message    *Message
	Exchange   string
	RoutingKey string
	// Owner is the sender's own.
	Owner any
	// Try counts the sender's publishes of this message, from 1.
	Try int

	sent time.Time // by the relay
}

// Outcome of a publish.
type Outcome int

const (
	// OutcomeConfirmed: the broker has taken the message, and routed it to at least
	// one queue. Never given for a message that was returned.
	OutcomeConfirmed Outcome = iota + 1
	// OutcomeUnroutable: no queue is bound.
	OutcomeUnroutable
	// OutcomeNacked: the broker refused this message, for now (a full queue).
	OutcomeNacked
	// OutcomeRefused: the message can never be sent as it is (it cannot be encoded).
	OutcomeRefused
	// OutcomeNotSent: it was not written; an outage. Safe to say that the broker has
	// not got it.
	OutcomeNotSent
	// OutcomeUnknown: the connection or the lane ended before the broker's word.
	OutcomeUnknown
	// OutcomeLaneError: as unknown, and the broker closed the lane because of one of
	// the messages that were on it (too large, no such exchange, no right).
	OutcomeLaneError
)

func (o Outcome) String() string {
	switch o {
	case OutcomeConfirmed:
		return "confirmed"
	case OutcomeUnroutable:
		return "returned"
	case OutcomeNacked:
		return "nacked"
	case OutcomeRefused:
		return "refused"
	case OutcomeNotSent:
		return "not sent"
	case OutcomeUnknown:
		return "unknown"
	case OutcomeLaneError:
		return "lane error"
	default:
		return "none"
	}
}

// Result is what became of one Publishing.
type Result struct {
	P       *Publishing
	Outcome Outcome
	// Err says more, without secrets; nil for OutcomeConfirmed.
	Err error
	// RouteFault, with OutcomeLaneError, says that the fault is the route's and not
	// the message's: its exchange is missing, or publishing there is not permitted.
	RouteFault bool
}

// SubscriberConfig names one queue of a group.
type SubscriberConfig struct {
	Group GroupTopology
	// Partition is the queue's number, 0 to Group.Partitions-1.
	Partition int
	// Foreign, when set, subscribes to an existing queue instead; it is never declared.
	Foreign *ForeignQueue
	// Prefetch bounds unsettled deliveries. Range 1 to 65,535.
	Prefetch int
	// Declare asserts the queue and its bindings at every (re)subscription and every
	// few minutes; without it they are only used.
	Declare bool
	// Deliver gets deliveries in the queue's order. It must return quickly: the
	// receiver has room for Prefetch.
	Deliver func(*Delivery)
	// Link gets every change: up means subscribed now. When it goes down, all earlier
	// deliveries of this subscriber are void: the broker delivers them again.
	Link   func(Link)
	Logger *slog.Logger
}

// Subscriber is one supervised subscription.
type Subscriber interface {
	// Run subscribes and subscribes again after every loss until ctx ends; then it
	// closes its channel (whatever was not acknowledged goes back to the queue in
	// order) and returns. A topology conflict or a missing right is logged, shown by
	// Link, and tried again.
	Run(ctx context.Context) error
}

// Delivery is one message from a queue. It can be acknowledged once, on the session
// that it came from; later calls, and calls after the session ended, do nothing.
type Delivery struct {
	// Message is decoded by the adapter with [DecodeHeaders]; Problem is set when the
	// headers break a limit. Body is the raw body in any case.
	Message     *Message
	Problem     error
	Queue       string
	Redelivered bool
	// Exchange and RoutingKey are where the message was published, as the broker says.
	// On NATS the key is the whole subject, and there is no exchange.
	Exchange, RoutingKey string
	// Session and Tag name the delivery for observers: no two deliveries of a broker
	// have both in common.
	Session string
	Tag     uint64

	ack     func() bool
	settled atomic.Bool
}

// NewDelivery is for adapters: ack acknowledges the delivery on its session and
// reports whether that session was still there. It is called at most once; nil is for
// messages that were only looked at.
func NewDelivery(m *Message, queue string, redelivered bool, ack func() bool) *Delivery {
	return &Delivery{Message: m, Queue: queue, Redelivered: redelivered, ack: ack}
}

// Ack tells the broker that the message is safe elsewhere, and reports whether
// that was said: not the second time, and not when the session has ended. An adapter
// may say it some milliseconds later, with others. Whether the broker has heard it,
// nobody knows.
func (d *Delivery) Ack() bool {
	return d.settled.CompareAndSwap(false, true) && d.ack != nil && d.ack()
}
