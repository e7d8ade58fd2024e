package outlast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
)

// Service is one program's part in messaging: its outbox, the relay that delivers
// it, and the groups that it consumes with.
type Service struct {
	conf      ServiceConfig
	outbox    *Outbox
	relay     *Relay // nil with WithoutRelay
	consumers []*Consumer
}

// ServiceConfig is what a service is made of. Only Name, Store and Broker are
// needed; the zero value of everything else is its default.
type ServiceConfig struct {
	// Name is the service's name: the source of its messages and the name of its
	// default group. Lower-case letters, digits and '-', at most 63.
	Name   string
	Store  Store
	Broker Broker

	// Handlers are those of the default group, which is named like the service.
	// Without any, the service has no default group.
	Handlers   []Handler
	Middleware []Middleware
	// Consumer tunes the default group. Its Group, Store, Broker, Handlers and
	// Middleware are filled in.
	Consumer ConsumerConfig
	// Groups are further groups. Store and Broker are filled in where they are nil.
	Groups []ConsumerConfig

	// Relay tunes the relay. Its Source, Store and Broker are filled in.
	Relay RelayConfig
	// WithoutRelay leaves the relay to another program, such as `outlast relay`.
	WithoutRelay bool
	// Outbox refines the outbox.
	Outbox OutboxConfig

	// Hooks and Logger are for all parts, besides their own hooks. Default: no logs.
	Hooks  []Hook
	Logger *slog.Logger
}

// NewService checks everything and returns a service that does nothing until Run.
// Its error names every bad field and declaration.
func NewService(conf ServiceConfig) (*Service, error) {
	conf.fill()
	if err := conf.validate(); err != nil {
		return nil, err
	}
	s := &Service{conf: conf}
	if !conf.WithoutRelay {
		relay, err := NewRelay(conf.Relay)
		if err != nil {
			return nil, err
		}
		s.relay = relay
	}
	s.outbox = NewOutbox(conf.Store, conf.Outbox)
	s.outbox.relay = s.relay
	s.outbox.hooks = hooks{conf.Outbox.Hooks, conf.Logger}
	for _, group := range conf.Groups {
		group.published = s.outbox.committed
		c, err := NewConsumer(group)
		if err != nil {
			return nil, err
		}
		s.consumers = append(s.consumers, c)
	}
	return s, nil
}

// fill puts what the service knows into its parts, the default group becoming the
// first of Groups.
func (c *ServiceConfig) fill() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	groups := make([]ConsumerConfig, 0, len(c.Groups)+1)
	if len(c.Handlers) > 0 {
		c.Consumer.Group, c.Consumer.Handlers, c.Consumer.Middleware = c.Name, c.Handlers, c.Middleware
		groups = append(groups, c.Consumer)
	}
	c.Groups = append(groups, c.Groups...)
	for i := range c.Groups {
		g := &c.Groups[i]
		setDefault(&g.Store, c.Store)
		setDefault(&g.Broker, c.Broker)
		setDefault(&g.Logger, c.Logger)
		g.Hooks = joinHooks(c.Hooks, g.Hooks)
	}
	c.Relay.Source, c.Relay.Store, c.Relay.Broker = c.Name, c.Store, c.Broker
	setDefault(&c.Relay.Logger, c.Logger)
	c.Relay.Hooks = joinHooks(c.Hooks, c.Relay.Hooks)
	setDefault(&c.Outbox.Logger, c.Logger)
	c.Outbox.Hooks = joinHooks(c.Hooks, c.Outbox.Hooks)
}

func joinHooks(a, b []Hook) []Hook {
	return append(append(make([]Hook, 0, len(a)+len(b)), a...), b...)
}

// validate checks the service and all its parts, so that one error names all.
func (c *ServiceConfig) validate() error {
	var bad fieldErrors
	if !validServiceName(c.Name) {
		bad.add("ServiceConfig.Name", serviceNameRule, quoted(c.Name))
	}
	if c.Store == nil {
		bad.add("ServiceConfig.Store", "a store", "nil")
	}
	if c.Broker == nil {
		bad.add("ServiceConfig.Broker", "a broker", "nil")
	}
	if c.Outbox.MaxBody < 0 || c.Outbox.MaxBody > MaxBody {
		bad.add("ServiceConfig.Outbox.MaxBody", fmt.Sprintf("1..%d, or 0 for %d", MaxBody, DefaultMaxBody), c.Outbox.MaxBody)
	}
	if c.Outbox.WakeUps && c.Store != nil {
		if _, ok := c.Store.Outbox().(WakeNotifier); !ok {
			bad.add("ServiceConfig.Outbox.WakeUps", wakeUpsRule, c.Store.Engine())
		}
	}
	bad.broker(c.Broker)
	if !c.WithoutRelay {
		c.checkRelay(&bad)
	}
	names := map[string]bool{}
	for _, g := range c.Groups {
		if names[g.Group] {
			bad.add("ServiceConfig.Groups", "named once each", quoted(g.Group))
		}
		names[g.Group] = true
		g.setDefaults()
		for _, f := range g.check() {
			// What the service lacks itself is reported once.
			if (f.Field != "ConsumerConfig.Store" || c.Store != nil) && (f.Field != "ConsumerConfig.Broker" || c.Broker != nil) {
				f.Field = fmt.Sprintf("group %q: %s", g.Group, f.Field)
				bad = append(bad, f)
			}
		}
		c.checkGroupBroker(&bad, g)
	}
	return bad.err("new service "+quoted(c.Name), "")
}

// checkRelay adds what is wrong with the relay's settings. What it has of the service
// is reported once, as the service's.
func (c *ServiceConfig) checkRelay(bad *fieldErrors) {
	relay := c.Relay
	relay.setDefaults()
	for _, f := range relay.check() {
		if f.Field != "RelayConfig.Source" && f.Field != "RelayConfig.Store" && f.Field != "RelayConfig.Broker" {
			*bad = append(*bad, f)
		}
	}
}

// checkGroupBroker adds what a group's own broker says; the service's is told already.
func (c *ServiceConfig) checkGroupBroker(bad *fieldErrors, g ConsumerConfig) {
	var own fieldErrors
	own.broker(g.Broker)
	for _, f := range own {
		if !slices.Contains(*bad, f) {
			f.Field = fmt.Sprintf("group %q: %s", g.Group, f.Field)
			*bad = append(*bad, f)
		}
	}
}

// broker adds what a broker says is wrong with its address and options.
func (f *fieldErrors) broker(b Broker) {
	if v, ok := b.(interface{ Validate() error }); ok {
		f.join("Broker", v.Validate())
	}
}

// join adds another constructor's fields.
func (f *fieldErrors) join(field string, err error) {
	var e *Error
	switch {
	case err == nil:
	case errors.As(err, &e) && len(e.Fields) > 0:
		*f = append(*f, e.Fields...)
	default:
		f.add(field, "valid", err.Error())
	}
}

// Outbox returns the service's outbox. What is published through it wakes the
// service's relay, inside a handler once more after the commit.
func (s *Service) Outbox() *Outbox { return s.outbox }

// Consumers returns the consumers of the service's groups, the default one first.
func (s *Service) Consumers() []*Consumer { return s.consumers }

// Relay returns the service's relay, or nil when it runs elsewhere.
func (s *Service) Relay() *Relay { return s.relay }

// Topology returns what the service's groups need of the broker.
func (s *Service) Topology() Topology {
	t := Topology{Exchanges: []Exchange{{EventExchange}, {CommandExchange}}}
	known := map[string]bool{EventExchange: true, CommandExchange: true}
	for _, c := range s.consumers {
		g := c.Topology()
		t.Groups = append(t.Groups, g)
		for _, b := range g.Bindings {
			if !known[b.Exchange] {
				known[b.Exchange] = true
				t.Exchanges = append(t.Exchanges, Exchange{b.Exchange})
			}
		}
	}
	return t
}

// Run relays and consumes until ctx ends, and returns when all parts have ended:
// nil after a clean shutdown. Outages are waited out for ever. When a part finds
// what only a person can change (missing tables or rights, an outbox that belongs
// to another service), the others are shut down cleanly and Run returns its error.
func (s *Service) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	runs := make([]func(context.Context) error, 0, len(s.consumers)+1)
	if s.relay != nil {
		runs = append(runs, s.relay.Run)
	}
	for _, c := range s.consumers {
		runs = append(runs, c.Run)
	}
	var telling sync.WaitGroup
	telling.Go(func() {
		<-ctx.Done()
		s.conf.Logger.Info("stopping: what is in hand is finished first", "service", s.conf.Name)
	})
	errs := make([]error, len(runs))
	var parts sync.WaitGroup
	for i, run := range runs {
		parts.Go(func() {
			if errs[i] = run(ctx); errs[i] != nil {
				stop()
			}
		})
	}
	if len(runs) == 0 {
		<-ctx.Done()
	}
	parts.Wait()
	stop()
	telling.Wait()
	return firstError(errs)
}

// firstError returns the only error as it is, and several joined.
func firstError(errs []error) error {
	var found []error
	for _, err := range errs {
		if err != nil {
			found = append(found, err)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return errors.Join(found...)
}
