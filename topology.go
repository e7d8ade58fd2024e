package outlast

import (
	"context"
	"fmt"
)

// Topology is what a broker must have: derived from contracts and groups.
type Topology struct {
	Exchanges []Exchange      `json:"exchanges"`
	Groups    []GroupTopology `json:"groups"`
}

// Exchange is a durable topic exchange.
type Exchange struct {
	Name string `json:"name"`
}

// GroupTopology is the queue set of a group.
type GroupTopology struct {
	Group string `json:"group"`
	// Partitions is the number of queues. Default 1.
	Partitions int `json:"partitions"`
	// Generation is in the queues' names from 2 on; it changes with what a queue
	// cannot change, such as Ordered.
	Generation int `json:"generation"`
	// Ordered queues have a single active consumer.
	Ordered bool `json:"ordered"`
	// Bindings are the types that the group handles.
	Bindings []Binding `json:"bindings"`
}

// Binding is a type on an exchange.
type Binding struct {
	Exchange string `json:"exchange"`
	Type     string `json:"type"`
}

// DeliveryLimit is set on every quorum queue: large, because Outlast counts attempts
// itself, and because RabbitMQ 4 would otherwise drop a message after 21 deaths of
// its consumers' connections.
const DeliveryLimit = 1_000_000_000

// Queue returns the name of one partition's queue: "billing.0", or "billing.g2.0"
// in generation 2.
func (g GroupTopology) Queue(partition int) string {
	if g.Generation > 1 {
		return fmt.Sprintf("%s.g%d.%d", g.Group, g.Generation, partition)
	}
	return fmt.Sprintf("%s.%d", g.Group, partition)
}

// RoutingKeys returns the keys by which a binding's messages reach a partition:
// every bucket of the type, or the partition's share of the 64 buckets.
func (g GroupTopology) RoutingKeys(b Binding, partition int) []string {
	if g.Partitions <= 1 {
		return []string{b.Type + ".*"}
	}
	var keys []string
	for bucket := range Buckets {
		if bucket%g.Partitions == partition {
			keys = append(keys, fmt.Sprintf("%s.%d", b.Type, bucket))
		}
	}
	return keys
}

// ForeignQueue is an existing queue of somebody else's messages, with how they map.
type ForeignQueue struct {
	Queue string
	// Type is given to messages that carry none.
	Type string
	// IDHeader and KeyHeader name the headers (or "message-id", "correlation-id") to
	// take the id and the ordering key from. A message without an id gets one derived
	// from its content when DeriveID is true, else it becomes a dead letter.
	IDHeader  string
	KeyHeader string
	DeriveID  bool
	// Source stands for the producer. Default: the queue's name.
	Source string
}

// TopologyBroker looks at and changes what a broker has.
type TopologyBroker interface {
	// Check returns the differences between wanted and observed; none is good.
	Check(ctx context.Context, t Topology) ([]TopologyDifference, error)
	// Apply declares what is missing. It never changes or deletes anything: an
	// existing queue with other arguments is a CodeConflict that names both values.
	Apply(ctx context.Context, t Topology) error
	// Depth returns messages ready in a queue and its consumers.
	Depth(ctx context.Context, queue string) (QueueDepth, error)
	// Peek returns up to n messages of a queue without taking them.
	Peek(ctx context.Context, queue string, n int) ([]*Delivery, error)
	// Examine connects and returns findings for `outlast doctor`.
	Examine(ctx context.Context) ([]Finding, error)
}

// QueueDepth is a queue as the broker reports it.
type QueueDepth struct {
	Queue     string `json:"queue"`
	Messages  int    `json:"messages"`
	Consumers int    `json:"consumers"`
}

// TopologyDifference is one thing that is missing or other than wanted.
type TopologyDifference struct {
	Object   string `json:"object"` // `queue "billing.0"`
	Property string `json:"property,omitempty"`
	Want     string `json:"want"`
	Have     string `json:"have"`
	Hint     string `json:"hint,omitempty"`
}

func (d TopologyDifference) String() string {
	s := d.Object
	if d.Property != "" {
		s += " " + d.Property
	}
	return fmt.Sprintf("%s: want %s, have %s", s, d.Want, d.Have)
}

// Finding is one line of `outlast doctor`.
type Finding struct {
	Subject string       `json:"subject"`
	Level   FindingLevel `json:"level"`
	Text    string       `json:"text"`
	Hint    string       `json:"hint,omitempty"`
	// Promise is the promise that does not hold because of it, if any.
	Promise string `json:"promise,omitempty"`
}

// FindingLevel is ok, warn or fail.
type FindingLevel string

const (
	FindingOK   FindingLevel = "ok"
	FindingWarn FindingLevel = "warn"
	FindingFail FindingLevel = "fail"
)
