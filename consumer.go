package outlast

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Consumer handles a group's messages: each one in one transaction that holds its
// inbox mark, the handler's effects and the messages that the handler publishes.
// Only when that has committed is the message acknowledged.
//
// Guarantees per group: a message's effects commit once, however often it is
// delivered (TestConsumer/F60_handles_a_duplicate_once); messages of one ordering key
// take effect in the order of their arrival, through failures and redelivery
// (TestConsumer/keeps_the_order_of_a_key_through_failures); an outage of the broker
// or the database costs no attempt. Any number of consumers, in any processes,
// may serve one group.
type Consumer struct {
	conf     ConsumerConfig
	inbox    InboxStore
	ordered  bool
	handlers map[string]*boundHandler
	longest  time.Duration // deadline of a handler
	types    []string
	topology GroupTopology
	hooks    hooks
	log      *slog.Logger

	running atomic.Bool
	mu      sync.Mutex
	status  ConsumerHealth
	// storeErrors are the last errors of the database, empty for success.
	storeErrors [storeParts]string
}

// boundHandler is a handler as this group runs it.
type boundHandler struct {
	typ      string
	run      HandlerFunc // inside the group's middleware
	deadline time.Duration
	limit    *limiter // nil: none
}

// ConsumerHealth is what a consumer knows of itself.
type ConsumerHealth struct {
	Group string `json:"group"`
	// Running is false before Run and after it.
	Running bool `json:"running"`
	// Paused: an operator paused the group.
	Paused bool `json:"paused"`
	// Slow: handlers said that something outside is down; one probe runs at a time.
	Slow bool `json:"slow"`
	// Subscriptions are the group's queues, in order of their numbers, foreign ones last.
	Subscriptions []SubscriptionHealth `json:"subscriptions"`
	// StoreError is the last error of the database, empty when the last call went well.
	StoreError string `json:"store_error,omitempty"`
}

// SubscriptionHealth is one queue of a group.
type SubscriptionHealth struct {
	Queue string `json:"queue"`
	// Standby: another instance of the group serves the queue.
	Standby bool `json:"standby"`
	Link    Link `json:"link"`
}

// NewConsumer checks conf and returns a consumer that does nothing until Run. Its
// error names every bad field and declaration.
func NewConsumer(conf ConsumerConfig) (*Consumer, error) {
	conf.setDefaults()
	if err := conf.validate(); err != nil {
		return nil, err
	}
	c := &Consumer{
		conf:     conf,
		inbox:    conf.Store.Inbox(),
		ordered:  conf.ordered(),
		handlers: map[string]*boundHandler{},
		topology: conf.topology(),
		hooks:    hooks{conf.Hooks, conf.Logger},
		log:      conf.Logger.With("group", conf.Group),
	}
	for _, h := range conf.Handlers {
		c.handlers[h.Type()] = bind(h, &conf)
		c.longest = max(c.longest, c.handlers[h.Type()].deadline)
		c.types = append(c.types, h.Type())
	}
	slices.Sort(c.types)
	c.status = ConsumerHealth{Group: conf.Group, Subscriptions: c.idleSubscriptions()}
	return c, nil
}

func bind(h Handler, conf *ConsumerConfig) *boundHandler {
	b := &boundHandler{typ: h.Type(), run: h.run, deadline: h.limits.deadline}
	setDefault(&b.deadline, conf.HandlerDeadline)
	for _, wrap := range slices.Backward(conf.Middleware) {
		b.run = wrap(b.run)
	}
	if h.limits.concurrency > 0 || h.limits.rate > 0 {
		b.limit = newLimiter(h.limits.concurrency, h.limits.rate)
	}
	return b
}

// Topology returns the queues and bindings that the group needs.
func (c *Consumer) Topology() GroupTopology { return c.topology }

// Settings returns the configuration with every default filled in.
func (c *Consumer) Settings() ConsumerConfig { return c.conf }

// Health returns what the consumer knows of itself now.
func (c *Consumer) Health() ConsumerHealth {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.status
	h.Subscriptions = slices.Clone(h.Subscriptions)
	return h
}

// Run consumes until ctx ends. Then it starts nothing more, lets what was started
// end within Grace, settles it, closes its subscriptions and returns nil; what had
// to be cut is delivered again and costs no attempt. When Run returns, nothing
// that it started is alive; so a handler that ignores its context delays it.
//
// Outages of the broker or the database are waited out for ever. Run returns an
// error at once for what only a person can change: missing or foreign tables,
// missing rights, a second Run of the same consumer.
func (c *Consumer) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return &Error{Op: "run consumer " + quoted(c.conf.Group), Code: CodeConflict, Hint: "it runs already"}
	}
	defer c.running.Store(false)
	run := newConsumerRun(c, ctx)
	defer run.cut(nil)
	if err := run.prepare(); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	c.updateStatus(func(h *ConsumerHealth) { h.Running = true })
	defer c.updateStatus(func(h *ConsumerHealth) {
		*h = ConsumerHealth{Group: h.Group, Subscriptions: c.idleSubscriptions()}
		c.storeErrors = [storeParts]string{}
	})
	run.run()
	return nil
}

// keyOf returns the ordering key by which this group must keep m in order.
func (c *Consumer) keyOf(m *Message) string {
	if !c.ordered {
		return ""
	}
	return m.Envelope.Key
}

// slots is the number of queues: the group's own partitions, then foreign ones.
func (c *Consumer) slots() int {
	return c.topology.Partitions + len(c.conf.Foreign)
}

func (c *Consumer) queueName(slot int) string {
	if slot < c.topology.Partitions {
		return c.topology.Queue(slot)
	}
	return c.conf.Foreign[slot-c.topology.Partitions].Queue
}

func (c *Consumer) idleSubscriptions() []SubscriptionHealth {
	list := make([]SubscriptionHealth, c.slots())
	for slot := range list {
		list[slot] = SubscriptionHealth{Queue: c.queueName(slot), Link: Link{State: LinkDown, Since: time.Now(), Reason: "not started"}}
	}
	return list
}

func (c *Consumer) updateStatus(change func(*ConsumerHealth)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}

// storePart is a part of the work with the database that fails by itself.
type storePart int

const (
	partWork storePart = iota // messages
	partBeat                  // signs of life, pauses, leases
	storeParts
)

// noteStore keeps the last state of the database for Health and logs its changes.
func (c *Consumer) noteStore(part storePart, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.mu.Lock()
	was := c.status.StoreError
	c.storeErrors[part] = text
	now := cmp.Or(c.storeErrors[:]...)
	c.status.StoreError = now
	c.mu.Unlock()
	switch {
	case now != "" && was == "":
		c.log.Warn("the database does not answer as it should; trying again", "error", now)
	case now == "" && was != "":
		c.log.Info("the database answers again")
	}
}
