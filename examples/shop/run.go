package shop

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

// Services are the names of the shop's services.
var Services = []string{"orders", "payments", "stock", "shipping", "notifications"}

// Settings that make the shop quick to recover and to give up, for a demo of a minute.
// In production the defaults are better.
const (
	heartbeat = 2 * time.Second
	leaseTTL  = 5 * time.Second
)

var retryPolicy = outlast.RetryPolicy{Attempts: 3, First: 200 * time.Millisecond, Longest: time.Second}

// Config says what one process of the shop is.
type Config struct {
	// Service is one of [Services].
	Service  string
	Database *Database
	Broker   outlast.Broker
	// Listen is the address of the HTTP API, for orders only.
	Listen string
	// WithoutRelay leaves the service's relay to a process of its own: see [RunRelay].
	WithoutRelay bool
	// AnyCard lets payments take the cards that it refuses otherwise, as after a mistake
	// of it was mended.
	AnyCard bool
	Logger  *slog.Logger
	// Hooks observe the service: outlasttest.Crash kills it by them.
	Hooks []outlast.Hook
	// Ready is called once, when every queue of the service is bound and its API takes
	// orders; api is the address of the API, or empty.
	Ready func(api string)
}

// Run runs one service until ctx ends. The tables must be there: see [Database.Prepare].
func Run(ctx context.Context, conf Config) error {
	service, api, err := build(conf)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	address := ""
	served := make(chan struct{})
	close(served)
	if api != nil {
		listener, err := net.Listen("tcp", conf.Listen)
		if err != nil {
			return fmt.Errorf("listen for orders: %w", err)
		}
		address = listener.Addr().String()
		served = make(chan struct{})
		go func() {
			defer close(served)
			if err := serve(ctx, listener, api); err != nil {
				stop(err)
			}
		}()
	}
	announced := make(chan struct{})
	go func() {
		defer close(announced)
		if awaitSubscribed(ctx, service.Consumers()) && conf.Ready != nil {
			conf.Ready(address)
		}
	}()
	err = service.Run(ctx)
	stop(nil)
	<-served
	<-announced
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// part is what makes a service this service.
type part struct {
	handlers []outlast.Handler
	book     *journal
	api      http.Handler // of orders only
}

// newPart knows the services by name.
func newPart(name string, db *sql.DB, anyCard bool) (part, error) {
	switch name {
	case "orders":
		s := &orders{db: db}
		return part{s.handlers(), &s.journal, s.routes()}, nil
	case "payments":
		s := &payments{anyCard: anyCard}
		return part{s.handlers(), &s.journal, nil}, nil
	case "stock":
		s := &stock{}
		return part{s.handlers(), &s.journal, nil}, nil
	case "shipping":
		s := &shipping{}
		return part{s.handlers(), &s.journal, nil}, nil
	case "notifications":
		s := &notifications{}
		return part{s.handlers(), &s.journal, nil}, nil
	}
	return part{}, &outlast.Error{Op: "find a service of the shop", Code: outlast.CodeInvalid,
		Fields: []outlast.FieldError{{Field: "service", Limit: "one of " + strings.Join(Services, ", "), Given: fmt.Sprintf("%q", name)}}}
}

// build makes the service, and its API if it has one.
func build(conf Config) (*outlast.Service, http.Handler, error) {
	p, err := newPart(conf.Service, conf.Database.DB, conf.AnyCard)
	if err != nil {
		return nil, nil, err
	}
	service, err := outlast.NewService(outlast.ServiceConfig{
		Name:         conf.Service,
		Store:        conf.Database.Store,
		Broker:       conf.Broker,
		Handlers:     p.handlers,
		Middleware:   []outlast.Middleware{noteEffect},
		Consumer:     consumerConfig(),
		Relay:        relayConfig(conf),
		WithoutRelay: conf.WithoutRelay,
		Hooks:        conf.Hooks,
		Logger:       conf.Logger,
	})
	if err != nil {
		return nil, nil, err
	}
	p.book.outbox = service.Outbox()
	return service, p.api, nil
}

func consumerConfig() outlast.ConsumerConfig {
	return outlast.ConsumerConfig{
		Retry: retryPolicy, HeartbeatInterval: heartbeat, LeaseTTL: leaseTTL,
		// All that the shop's handlers do is in the transaction, so that several messages
		// may share one, and one fsync. A handler that asks a real bank must not: it would
		// ask again after the rollback of a batch.
		Batch: 16, Workers: 4,
	}
}

func relayConfig(conf Config) outlast.RelayConfig {
	return outlast.RelayConfig{
		Source: conf.Service, Store: conf.Database.Store, Broker: conf.Broker,
		// In a process of its own the relay is not woken by the service.
		Interval: 100 * time.Millisecond, LeaseTTL: leaseTTL, Logger: conf.Logger,
	}
}

// RunRelay runs only the relay of a service, until ctx ends, as `outlast relay` would.
func RunRelay(ctx context.Context, conf Config) error {
	relay, err := outlast.NewRelay(relayConfig(conf))
	if err != nil {
		return err
	}
	if conf.Ready != nil {
		conf.Ready("")
	}
	return relay.Run(ctx)
}

// Topology returns what the broker must have for a service.
func Topology(conf Config) (outlast.Topology, error) {
	service, _, err := build(conf)
	if err != nil {
		return outlast.Topology{}, err
	}
	return service.Topology(), nil
}

// awaitSubscribed waits until every queue is subscribed to, and reports whether it is.
func awaitSubscribed(ctx context.Context, consumers []*outlast.Consumer) bool {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		waits := slices.ContainsFunc(consumers, func(c *outlast.Consumer) bool {
			return slices.ContainsFunc(c.Health().Subscriptions, func(s outlast.SubscriptionHealth) bool {
				return s.Link.State != outlast.LinkUp
			})
		})
		if !waits {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// serve answers until ctx ends, and then lets the requests in hand finish.
func serve(ctx context.Context, listener net.Listener, api http.Handler) error {
	server := &http.Server{Handler: api, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(grace) // what lasts longer is cut with the process
	}()
	err := server.Serve(listener)
	if !errors.Is(err, http.ErrServerClosed) {
		server.Close()
		return err
	}
	<-ended
	return nil
}
