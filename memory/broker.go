package memory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/outlastmq/outlast"
)

// Broker is an outlast.Broker in memory: durable topic exchanges and queues with
// the behaviour of RabbitMQ's quorum queues, and faults on demand. Publishers and
// subscribers work while their Run does.
type Broker struct {
	mu       sync.Mutex
	conf     brokerConf
	rng      *rand.Rand
	down     bool
	block    string // why it takes no publishes
	seq      int64
	sessions int64

	exchanges   map[string]bool
	queues      map[string]*queue
	publishers  map[*publisher]bool // those that run
	subscribers map[*subscriber]bool
}

var _ outlast.Broker = (*Broker)(nil)

type brokerConf struct {
	seed                              uint64
	drop, duplicate, nack, reordering float64
	maxMessage                        int
}

// BrokerOption sets up the broker and its faults; see [Broker.Inject].
type BrokerOption func(*brokerConf)

// DropConfirm loses the confirm of a taken message with probability p.
func DropConfirm(p float64) BrokerOption { return func(c *brokerConf) { c.drop = p } }

// Duplicate puts a message twice into each of its queues with probability p.
func Duplicate(p float64) BrokerOption { return func(c *brokerConf) { c.duplicate = p } }

// Nack refuses a message with probability p.
func Nack(p float64) BrokerOption { return func(c *brokerConf) { c.nack = p } }

// Reorder reports the results of a batch in another order with probability p.
// Messages themselves keep theirs.
func Reorder(p float64) BrokerOption { return func(c *brokerConf) { c.reordering = p } }

// MaxMessage closes the lane on which a body of more than n bytes is sent. 0 means
// no limit, the default.
func MaxMessage(n int) BrokerOption { return func(c *brokerConf) { c.maxMessage = n } }

// Seed makes the faults the same in every run. Default 1. It counts only in NewBroker.
func Seed(n uint64) BrokerOption { return func(c *brokerConf) { c.seed = n } }

// NewBroker returns an empty broker that is up.
func NewBroker(opts ...BrokerOption) *Broker {
	b := &Broker{
		exchanges:   map[string]bool{},
		queues:      map[string]*queue{},
		publishers:  map[*publisher]bool{},
		subscribers: map[*subscriber]bool{},
	}
	b.conf.seed = 1
	b.Inject(opts...)
	b.rng = rand.New(rand.NewPCG(b.conf.seed, 0))
	return b
}

// Inject changes the faults from now on.
func (b *Broker) Inject(opts ...BrokerOption) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range opts {
		o(&b.conf)
	}
}

// Name is "memory".
func (b *Broker) Name() string { return "memory" }

// Address is "memory".
func (b *Broker) Address() string { return "memory" }

func (b *Broker) Topology() outlast.TopologyBroker { return topology{b} }

func (b *Broker) Publisher(c outlast.PublisherConfig) outlast.Publisher {
	return &publisher{b: b, conf: c, wake: make(chan struct{}, 1), lanes: map[int][]*inflight{}}
}

func (b *Broker) Subscriber(c outlast.SubscriberConfig) outlast.Subscriber {
	return &subscriber{b: b, conf: c, wake: make(chan struct{}, 1)}
}

// Die drops every connection. What queues hold survives, as do exchanges and
// bindings; what no confirm was given for is unknown to its publisher.
func (b *Broker) Die() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down, b.block = true, ""
	for p := range b.publishers {
		p.cut("the broker died")
	}
	for _, q := range b.queues {
		for _, s := range slices.Clone(q.consumers) {
			s.close("the broker died")
		}
	}
	b.wakeAll()
}

// Revive lets publishers and subscribers connect again.
func (b *Broker) Revive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = false
	b.wakeAll()
}

// Block makes the broker take no publishes, as a resource alarm does. Messages sent
// meanwhile are reported as not sent.
func (b *Broker) Block(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.block = reason
	if reason == "" {
		b.block = "blocked"
	}
	b.wakeAll()
}

// Unblock ends Block.
func (b *Broker) Unblock() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.block = ""
	b.wakeAll()
}

// SickQueue makes a queue take messages and never confirm them, as one without its
// majority does; with sick false it confirms what it has taken.
func (b *Broker) SickQueue(name string, sick bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q, err := b.queue("make queue sick", name)
	if err != nil {
		return err
	}
	q.sick = sick
	for p := range b.publishers {
		p.confirmHealed()
		p.poke()
	}
	return nil
}

// MaxLength makes a queue refuse (nack) messages while it holds n. 0 ends it.
func (b *Broker) MaxLength(name string, n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q, err := b.queue("limit queue", name)
	if err == nil {
		q.limit = n
	}
	return err
}

// DeclareQueue makes a queue that no group owns, for foreign messages.
func (b *Broker) DeclareQueue(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.queues[name] == nil {
		b.queues[name] = newQueue(name, false)
	}
	b.wakeAll()
}

// DeleteQueue deletes a queue with all that it holds, behind everybody's back.
func (b *Broker) DeleteQueue(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q, err := b.queue("delete queue", name)
	if err != nil {
		return err
	}
	for _, s := range slices.Clone(q.consumers) {
		s.close("the queue was deleted")
	}
	delete(b.queues, name)
	b.wakeAll()
	return nil
}

// Bind adds a binding. Keys may have the wildcards * (one word) and # (any words).
func (b *Broker) Bind(queue, exchange, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q, err := b.queue("bind", queue)
	if err == nil {
		b.exchanges[exchange] = true
		q.bindings[binding{exchange, key}] = true
	}
	return err
}

// Unbind removes a binding behind everybody's back.
func (b *Broker) Unbind(queue, exchange, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q, err := b.queue("unbind", queue)
	if err == nil {
		delete(q.bindings, binding{exchange, key})
	}
	return err
}

// PublishForeign publishes as a program that does not know Outlast: properties such
// as "message-id" are given among the headers. It reports whether a queue took it.
func (b *Broker) PublishForeign(exchange, key string, headers []outlast.WireHeader, contentType string, body []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	queues := b.route(exchange, key)
	for _, q := range queues {
		b.enqueue(q, &stored{exchange: exchange, key: key, headers: slices.Clone(headers), contentType: contentType, body: slices.Clone(body)})
	}
	return len(queues) > 0
}

// queue is called with mu held.
func (b *Broker) queue(op, name string) (*queue, error) {
	q := b.queues[name]
	if q == nil {
		return nil, &outlast.Error{Op: fmt.Sprintf("%s %q", op, name), Code: outlast.CodeNotFound}
	}
	return q, nil
}

func (b *Broker) wakeAll() {
	for p := range b.publishers {
		p.poke()
	}
	for s := range b.subscribers {
		s.poke()
	}
}

func (b *Broker) chance(p float64) bool { return p > 0 && b.rng.Float64() < p }

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default: // it will look anyway
	}
}
