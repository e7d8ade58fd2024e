// Package telemetry_test checks what the service tells of itself: traces against the
// OpenTelemetry SDK, counters against the tables, and alerts and dashboards against a
// real Prometheus.
package telemetry_test

import (
	"context"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

type order struct {
	ID string `json:"id" outlast:"key"`
}

var (
	placed  = outlast.Event[order]("order.placed", 1, outlast.Within(time.Hour))
	charged = outlast.Event[order]("order.charged", 1)
	unheard = outlast.Event[order]("order.unheard", 1)
)

// running starts a service and ends it with the test.
func running(t *testing.T, conf outlast.ServiceConfig) *outlast.Service {
	t.Helper()
	s, err := outlast.NewService(conf)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// eventually waits for what no signal tells.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
