package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/otel"
	"github.com/outlastmq/outlast/prometheus"
)

// metricsServer shows a relay's metrics on a listener of its own: who may scrape need
// not reach anything else of the relay. It is there only when --metrics asks for it.
type metricsServer struct {
	listener net.Listener
	server   *http.Server
	served   sync.WaitGroup

	mu        sync.Mutex
	telemetry *otel.Telemetry
	exporter  *prometheus.Exporter // nil while the database is waited for
}

// startMetrics listens at the address; nil for none.
func startMetrics(address string) (*metricsServer, error) {
	if address == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, usageError{&outlast.Error{Op: "relay --metrics", Code: outlast.CodeInvalid, Err: err}}
	}
	m := &metricsServer{listener: listener}
	m.server = &http.Server{Handler: m, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute}
	m.served.Go(func() { _ = m.server.Serve(listener) })
	return m, nil
}

// observe returns the hook that measures a relay on db.
func (m *metricsServer) observe(source string, db outlast.Store, b outlast.Broker) ([]outlast.Hook, error) {
	if m == nil {
		return nil, nil
	}
	exporter, err := prometheus.New(source)
	if err != nil {
		return nil, err
	}
	telemetry, err := otel.New(otel.Config{Service: source, Store: db, Broker: b, MeterProvider: exporter.MeterProvider()})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.telemetry, m.exporter = telemetry, exporter
	return []outlast.Hook{telemetry}, nil
}

func (m *metricsServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	exporter := m.exporter
	m.mu.Unlock()
	if exporter == nil {
		http.Error(w, "the relay waits for its database", http.StatusServiceUnavailable)
		return
	}
	exporter.ServeHTTP(w, r)
}

// close ends the endpoint and, before the database is closed, the reading of it.
func (m *metricsServer) close() {
	if m == nil {
		return
	}
	_ = m.server.Close() // its connections are scrapes
	m.served.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exporter != nil {
		_ = m.telemetry.Close()
		_ = m.exporter.Shutdown(context.Background())
	}
	m.exporter = nil
}
