package outlast

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"
)

// ConsumerConfig says what a group handles and how. The zero value of a tuning
// field is its default.
type ConsumerConfig struct {
	// Group names the subscribers that share one queue set and one inbox: lower-case
	// letters, digits and '-', at most 63.
	Group  string
	Store  Store
	Broker Broker
	// Handlers handle one type each.
	Handlers []Handler
	// Middleware wraps every handler, the first one outermost.
	Middleware []Middleware

	// Retry says when and how often a failed message is tried again.
	Retry RetryPolicy
	// OnDead says what becomes of the key of a message that cannot succeed.
	OnDead OnDead
	// Workers is how many messages are handled at once, and how many retries besides:
	// the database's pool must have room for both. Range 1 to 1,024; default 16.
	Workers int
	// Batch is how many messages one transaction may hold. More than 1 is only for
	// handlers whose effects are all in the transaction: they may run twice when a
	// batch is rolled back. Range 1 to 1,000; default 1.
	Batch int
	// Prefetch bounds the deliveries of one queue that are not settled. Range 1 to
	// 65,535; default 2 x Workers x Batch.
	Prefetch int
	// HandlerDeadline ends a handler's context. Range 1ms to 20min, below the broker's
	// consumer timeout; default 30s.
	HandlerDeadline time.Duration
	// Grace is how long Run lets handlers finish after its context ended, before it
	// cuts theirs. Range 1ms to 20min; default 15s; NoGrace for none.
	Grace time.Duration

	// Partitions is the number of the group's queues. An ordered queue is served by one
	// instance at a time, so that an ordered group uses at most Partitions instances.
	// Changing it is a procedure: "Changing the number of queues" in docs/protocol.md.
	// Range 1 to 64; default 1.
	Partitions int
	// Generation is part of the queues' names from 2 on; it must change with what a
	// queue cannot change, such as Unordered. Range 1 to 9,999; default 1.
	Generation int
	// Unordered gives up the order of keys. Without it a group is ordered when one of
	// its contracts has a key or one of its foreign queues names a KeyHeader.
	Unordered bool
	// Foreign are existing queues of other people's messages, consumed besides.
	Foreign []ForeignQueue
	// Declare says whether the group's queues and bindings are asserted.
	Declare Declare

	// Instance names this consumer among others of its group. Default: host, process
	// id and a random part.
	Instance string
	// HeartbeatInterval is how often the instance's record is renewed at least; pauses
	// are seen and partitions shared at twice that rate. Range 1s to 5min; default 10s.
	HeartbeatInterval time.Duration
	// LeaseTTL is how long partitions stay with an instance that gives no sign of
	// life. A clean shutdown gives them back at once. Range 1.5 x HeartbeatInterval to
	// 15min; default twice HeartbeatInterval.
	LeaseTTL time.Duration
	// DedupWindow is how long the inbox remembers at least what was handled; it
	// forgets only what its producer has settled besides. Messages that wait or are
	// dead are never forgotten. At least Retry.Horizon; default 7 days.
	DedupWindow time.Duration

	Hooks  []Hook
	Logger *slog.Logger

	// published is told after a commit that a handler's messages were part of: when the first
	// was published, see [Outbox.committed].
	published func(first time.Time)
}

// Declare says what a consumer does about topology.
type Declare int

const (
	// DeclareOwn asserts the group's own queues and bindings at every subscription and
	// every few minutes: a binding removed behind our back would lose messages without
	// a word. Nothing is ever changed or deleted. The default.
	DeclareOwn Declare = iota
	// DeclareNothing only uses what is there, for brokers where another role declares.
	DeclareNothing
)

func (c *ConsumerConfig) setDefaults() {
	c.Retry.setDefaults()
	setDefault(&c.Workers, 16)
	setDefault(&c.Batch, 1)
	setDefault(&c.Prefetch, min(2*c.Workers*c.Batch, 65535))
	setDefault(&c.HandlerDeadline, 30*time.Second)
	setDefault(&c.Grace, 15*time.Second)
	setDefault(&c.Partitions, 1)
	setDefault(&c.Generation, 1)
	setDefault(&c.HeartbeatInterval, 10*time.Second)
	setDefault(&c.LeaseTTL, 2*c.HeartbeatInterval)
	setDefault(&c.DedupWindow, 7*24*time.Hour)
	if c.Instance == "" {
		host, _ := os.Hostname()
		c.Instance = fmt.Sprintf("%.100s/%d/%s", host, os.Getpid(), NewID()[24:])
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
}

func (c *ConsumerConfig) validate() error {
	bad := c.check()
	bad.broker(c.Broker)
	return bad.err("new consumer "+quoted(c.Group), "")
}

// check returns every bad field and declaration, but for what the broker says of its own.
func (c *ConsumerConfig) check() fieldErrors {
	var bad fieldErrors
	if !validServiceName(c.Group) {
		bad.add("ConsumerConfig.Group", serviceNameRule, quoted(c.Group))
	}
	if c.Store == nil {
		bad.add("ConsumerConfig.Store", "a store", "nil")
	}
	if c.Broker == nil {
		bad.add("ConsumerConfig.Broker", "a broker", "nil")
	}
	c.Retry.check(&bad, "ConsumerConfig.Retry")
	inRange(&bad, "ConsumerConfig.OnDead", c.OnDead, DeadReleasesKey, DeadHoldsKey)
	inRange(&bad, "ConsumerConfig.Declare", c.Declare, DeclareOwn, DeclareNothing)
	inRange(&bad, "ConsumerConfig.Workers", c.Workers, 1, 1024)
	inRange(&bad, "ConsumerConfig.Batch", c.Batch, 1, 1000)
	inRange(&bad, "ConsumerConfig.Prefetch", c.Prefetch, 1, 65535)
	inRange(&bad, "ConsumerConfig.HandlerDeadline", c.HandlerDeadline, time.Millisecond, 20*time.Minute)
	if c.Grace != NoGrace {
		inRange(&bad, "ConsumerConfig.Grace", c.Grace, time.Millisecond, 20*time.Minute)
	}
	inRange(&bad, "ConsumerConfig.Partitions", c.Partitions, 1, Buckets)
	inRange(&bad, "ConsumerConfig.Generation", c.Generation, 1, 9999)
	inRange(&bad, "ConsumerConfig.HeartbeatInterval", c.HeartbeatInterval, time.Second, 5*time.Minute)
	inRange(&bad, "ConsumerConfig.LeaseTTL", c.LeaseTTL, c.HeartbeatInterval*3/2, 15*time.Minute)
	if horizon := c.Retry.Horizon(); c.DedupWindow < horizon {
		bad.add("ConsumerConfig.DedupWindow", fmt.Sprintf("at least the retry horizon of %v, or a late duplicate would take effect again", horizon), c.DedupWindow)
	}
	c.checkHandlers(&bad)
	c.checkForeign(&bad)
	return bad
}

func (c *ConsumerConfig) checkHandlers(bad *fieldErrors) {
	if len(c.Handlers) == 0 {
		bad.add("ConsumerConfig.Handlers", "at least one", "none")
	}
	seen := map[string]bool{}
	for i, h := range c.Handlers {
		field := fmt.Sprintf("ConsumerConfig.Handlers[%d]", i)
		if h.c == nil || h.run == nil {
			bad.add(field, "made with Handle", "a zero Handler")
			continue
		}
		field += " " + h.c.typ
		if h.c.err != nil {
			bad.add(field, "a valid declaration", h.c.err.Error())
		}
		if seen[h.c.typ] {
			bad.add(field, "the only handler of its type in the group", "a second one")
		}
		seen[h.c.typ] = true
		if h.c.routing != "" && len(c.Foreign) == 0 {
			bad.add(field, "of a contract without its own routing key, or fed by a queue in Foreign", quoted(h.c.routing))
		}
		h.limits.check(bad, field)
	}
	for i, m := range c.Middleware {
		if m == nil {
			bad.add(fmt.Sprintf("ConsumerConfig.Middleware[%d]", i), "a function", "nil")
		}
	}
}

func (l handlerLimits) check(bad *fieldErrors, field string) {
	if l.concurrency < 0 || l.concurrency > 10000 {
		bad.add(field+" Concurrency", "1..10000, or 0 for no limit", l.concurrency)
	}
	if l.rate != 0 && !(l.rate >= 1e-6 && l.rate <= 1e6) {
		bad.add(field+" Rate", "0.000001..1000000 a second, or 0 for no limit", l.rate)
	}
	if l.deadline != 0 {
		inRange(bad, field+" Deadline", l.deadline, time.Millisecond, 20*time.Minute)
	}
}

func (c *ConsumerConfig) checkForeign(bad *fieldErrors) {
	seen := map[string]bool{}
	for i, f := range c.Foreign {
		field := fmt.Sprintf("ConsumerConfig.Foreign[%d]", i)
		if f.Queue == "" || len(f.Queue) > MaxAttribute || !cleanText(f.Queue) {
			bad.add(field+".Queue", fmt.Sprintf("1 to %d bytes of clean text", MaxAttribute), quoted(f.Queue))
		}
		if seen[f.Queue] {
			bad.add(field+".Queue", "named once", quoted(f.Queue))
		}
		seen[f.Queue] = true
		handled := func(h Handler) bool { return h.c != nil && h.c.typ == f.Type }
		if f.Type != "" && !slices.ContainsFunc(c.Handlers, handled) {
			bad.add(field+".Type", "a type that the group handles", quoted(f.Type))
		}
	}
}

// ordered reports whether the group keeps the order of keys.
func (c *ConsumerConfig) ordered() bool {
	if c.Unordered {
		return false
	}
	return slices.ContainsFunc(c.Handlers, func(h Handler) bool { return h.c.key != nil }) ||
		slices.ContainsFunc(c.Foreign, func(f ForeignQueue) bool { return f.KeyHeader != "" })
}

// topology derives the group's queues and bindings from what it handles.
func (c *ConsumerConfig) topology() GroupTopology {
	g := GroupTopology{Group: c.Group, Partitions: c.Partitions, Generation: c.Generation, Ordered: c.ordered()}
	for _, h := range c.Handlers {
		if h.c.routing != "" {
			continue // comes by a foreign queue
		}
		exchange := h.c.exchange
		setDefault(&exchange, ExchangeOf(h.c.kind))
		g.Bindings = append(g.Bindings, Binding{Exchange: exchange, Type: h.c.typ})
	}
	return g
}
