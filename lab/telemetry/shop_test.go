package telemetry_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/otel"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/prometheus"
	"github.com/outlastmq/outlast/rabbitmq"
)

// shop is a service on real servers that is measured. Its handler fails some orders
// once and buries some.
type shop struct {
	t        *testing.T
	url      string // of the database
	db       *sql.DB
	store    outlast.Store
	conf     outlast.ServiceConfig
	exporter *prometheus.Exporter
	outbox   *outlast.Outbox
	links    outlast.HookLink // told of connections
	orders   int              // published so far
	copies   int              // of them, second copies of an earlier one
}

func newShop(t *testing.T, broker string) *shop {
	t.Helper()
	url := servers.Database(t)
	db, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := &shop{t: t, url: url, db: db, store: postgres.Store(db)}
	if err := s.store.Migrations().Up(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if s.exporter, err = prometheus.New("shop"); err != nil {
		t.Fatal(err)
	}
	s.conf = outlast.ServiceConfig{Name: "shop", Store: s.store, Broker: rabbitmq.Broker(broker, rabbitmq.MaxBackoff(200*time.Millisecond))}
	s.conf.Consumer.Retry = outlast.RetryPolicy{Attempts: 5, First: 10 * time.Millisecond, Longest: 50 * time.Millisecond}
	s.conf.Relay.LeaseTTL, s.conf.Relay.ConfirmDeadline = 2*time.Second, 2*time.Second
	s.outbox = outlast.NewOutbox(s.store)
	var mu sync.Mutex
	seen := map[string]bool{}
	s.conf.Handlers = []outlast.Handler{outlast.Handle(placed, func(_ context.Context, _ outlast.Tx, m outlast.Received[order]) error {
		mu.Lock()
		defer mu.Unlock()
		again := seen[m.ID]
		seen[m.ID] = true
		switch n, _ := strconv.Atoi(m.Body.ID); {
		case n%50 == 7:
			return outlast.DeadLetter(errors.New("no such card"))
		case n%10 == 3 && !again:
			return errors.New("the card reader is unplugged")
		}
		return nil
	})}
	return s
}

// observe adds the telemetry to the service's hooks.
func (s *shop) observe() {
	s.t.Helper()
	telemetry, err := otel.New(otel.Config{Service: "shop", Store: s.store, Broker: s.conf.Broker, MeterProvider: s.exporter.MeterProvider(), SampleEvery: time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := telemetry.Close(); err != nil {
			s.t.Error(err)
		}
	})
	s.links = telemetry
	s.conf.Hooks = []outlast.Hook{telemetry}
	s.outbox = outlast.NewOutbox(s.store, outlast.OutboxConfig{Hooks: s.conf.Hooks})
}

func (s *shop) publish(msgs ...outlast.Message) {
	s.t.Helper()
	tx, err := s.db.BeginTx(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer tx.Rollback()
	if err := s.outbox.Publish(s.t.Context(), tx, msgs...); err != nil {
		s.t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		s.t.Fatal(err)
	}
}

// place publishes orders, some of them twice with one id.
func (s *shop) place(n int) {
	s.t.Helper()
	var msgs []outlast.Message
	for range n {
		id := outlast.NewID()
		m := placed.Message(order{ID: fmt.Sprint(s.orders)}, outlast.ID(id))
		if msgs = append(msgs, m); s.orders%20 == 1 {
			msgs = append(msgs, m)
			s.copies++
		}
		s.orders++
	}
	s.publish(msgs...)
}

// number asks the database for one.
func (s *shop) number(query string) (n float64) {
	s.t.Helper()
	if err := s.db.QueryRowContext(s.t.Context(), query).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// settled waits until every order has its end in the inbox.
func (s *shop) settled() {
	s.t.Helper()
	eventually(s.t, "every order is handled or dead", func() bool {
		return s.number(`SELECT count(*) FROM outlast_inbox WHERE state IN ('handled', 'dead')`) == float64(s.orders) &&
			s.number(`SELECT count(*) FROM outlast_outbox`) == 0
	})
}

// scrape is what Prometheus would get.
type scrape string

func (s *shop) scrape() scrape {
	s.t.Helper()
	answer := httptest.NewRecorder()
	s.exporter.ServeHTTP(answer, httptest.NewRequestWithContext(s.t.Context(), http.MethodGet, "/metrics", nil))
	if answer.Code != http.StatusOK {
		s.t.Fatalf("%d: %s", answer.Code, answer.Body)
	}
	return scrape(answer.Body.String())
}

// sum adds the values of all series of a metric that have the labels.
func (s scrape) sum(name string, labels ...string) (sum float64) {
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(string(s), -1) {
		has := true
		for _, l := range labels {
			has = has && strings.Contains(m[1], l)
		}
		if v, err := strconv.ParseFloat(m[2], 64); err == nil && has {
			sum += v
		}
	}
	return sum
}
