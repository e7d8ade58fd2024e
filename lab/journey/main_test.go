// Package journey_test proves tracking on real servers: that a lost message is named,
// that it is found quickly among many, and what that costs.
package journey_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(killedEnv); text != "" { // a process of a test
		var k killed
		err := json.Unmarshal([]byte(text), &k)
		if err == nil {
			err = k.run()
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	servers.Main(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// service is a database with the tables of a service in it.
type service struct {
	name  string
	db    *sql.DB
	store outlast.Store
}

func open(t testing.TB, name string) *service {
	t.Helper()
	return openAt(t, name, servers.Database(t))
}

func openAt(t testing.TB, name, address string) *service {
	t.Helper()
	db, err := postgres.Open(t.Context(), address)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	s := &service{name, db, postgres.Store(db, postgres.SettledMargin(0))}
	must(t, s.store.Migrations().Up(t.Context(), 0))
	must(t, s.store.Relay().Identify(t.Context(), name))
	return s
}

func (s *service) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	_, err := s.db.ExecContext(t.Context(), query, args...)
	must(t, err)
}

func (s *service) number(t testing.TB, query string, args ...any) (n int64) {
	t.Helper()
	must(t, s.db.QueryRowContext(t.Context(), query, args...).Scan(&n))
	return n
}

// run runs something until the test or the returned function ends it.
func run(t testing.TB, f func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			must(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}

func relay(t testing.TB, s *service, broker string, track bool) (stop func()) {
	t.Helper()
	r, err := outlast.NewRelay(outlast.RelayConfig{Source: s.name, Store: s.store, Broker: rabbitmq.Broker(broker), NoTracking: !track})
	must(t, err)
	return run(t, r.Run)
}

func consumer(t testing.TB, s *service, broker string, handlers ...outlast.Handler) (stop func()) {
	t.Helper()
	c, err := outlast.NewConsumer(outlast.ConsumerConfig{Group: s.name, Store: s.store, Broker: rabbitmq.Broker(broker), Handlers: handlers})
	must(t, err)
	return run(t, c.Run)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func channel(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	must(t, err)
	return ch
}
