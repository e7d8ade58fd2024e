package prometheus_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/otel"
	"github.com/outlastmq/outlast/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, h http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return answer
}

// observed returns an exporter of telemetry that has seen one of everything.
func observed(t *testing.T) *prometheus.Exporter {
	t.Helper()
	exporter, err := prometheus.New("billing")
	if err != nil {
		t.Fatal(err)
	}
	telemetry, err := otel.New(otel.Config{Service: "billing", Store: memory.NewStore(), Broker: memory.NewBroker(), MeterProvider: exporter.MeterProvider()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := telemetry.Close(); err != nil {
			t.Error(err)
		}
	})
	m := &outlast.Message{}
	m.ID, m.Type, m.EnqueuedAt = outlast.NewID(), "order.placed.v1", time.Now()
	row := &outlast.Row{Message: *m}
	telemetry.OnEnqueued(t.Context(), []*outlast.Message{m})
	telemetry.OnResults([]outlast.Published{{Row: row, Outcome: outlast.OutcomeConfirmed, Sent: time.Now()}})
	telemetry.OnSettled(&outlast.Settlement{Sent: []*outlast.Row{row}}, nil)
	telemetry.OnLink("relay", outlast.Link{State: outlast.LinkUp, Expires: time.Unix(1_800_000_000, 0)})
	telemetry.OnLeases(outlast.RelayScope, "one", 256, 1)
	_, done := telemetry.Around(t.Context(), &outlast.Delivered{Message: m, Group: "billing", Attempt: 1})
	h := outlast.Handled{Group: "billing", Message: m, Result: outlast.HandledOK, Acked: true, Replays: 1, Duration: time.Second}
	done(h)
	telemetry.OnHandled(h)
	return exporter
}

func TestExporter(t *testing.T) {
	t.Parallel()
	exporter := observed(t)

	t.Run("names metrics as Prometheus does", func(t *testing.T) {
		t.Parallel()
		body := get(t, exporter, http.MethodGet, "/metrics").Body.String()
		for _, want := range []string{
			`outlast_relay_outcomes_total{outcome="confirmed",service="billing",type="order.placed.v1"} 1`,
			`outlast_handled_total{group="billing",outcome="ok",service="billing",type="order.placed.v1"} 1`,
			`outlast_outbox_oldest_pending_age_seconds{service="billing"} 0`,
			`outlast_link_certificate_expiry_timestamp_seconds{link="relay",service="billing"} 1.8e+09`,
			`outlast_relay_slots{service="billing"} 256`,
			`messaging_client_sent_messages_total{messaging_destination_name="outlast.events:order.placed.v1",messaging_operation_name="publish",messaging_system="memory"} 1`,
			`messaging_process_duration_seconds_count{`,
			`target_info{service_name="billing"} 1`,
			`go_goroutines `,
		} {
			if !strings.Contains(body, want) {
				t.Errorf("no %s in\n%s", want, body)
			}
		}
	})

	t.Run("shows no metric that is not listed, and no other name", func(t *testing.T) {
		t.Parallel()
		var listed []string
		for _, i := range otel.Instruments() {
			listed = append(listed, i.Prometheus())
		}
		body := get(t, exporter, http.MethodGet, "/metrics").Body.String()
		found := regexp.MustCompile(`(?m)^# TYPE ((?:outlast|messaging)\S+)`).FindAllStringSubmatch(body, -1)
		if len(found) < 15 {
			t.Fatalf("only %d metrics", len(found))
		}
		for _, m := range found {
			if !slices.Contains(listed, m[1]) {
				t.Errorf("%s is shown and not listed", m[1])
			}
		}
	})

	t.Run("has no id among its labels", func(t *testing.T) {
		t.Parallel()
		body := get(t, exporter, http.MethodGet, "/metrics").Body.String()
		if id := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-`).FindString(body); id != "" {
			t.Errorf("%q looks like an id in\n%s", id, body)
		}
	})

	t.Run("answers nothing else", func(t *testing.T) {
		t.Parallel()
		if code := get(t, exporter, http.MethodGet, "/debug/pprof/").Code; code != http.StatusNotFound {
			t.Errorf("another path: %d", code)
		}
		if code := get(t, exporter, http.MethodPost, "/metrics").Code; code != http.StatusMethodNotAllowed {
			t.Errorf("POST: %d", code)
		}
	})
}

func TestShutdown_ends_the_provider(t *testing.T) {
	t.Parallel()
	exporter, err := prometheus.New("billing")
	if err != nil {
		t.Fatal(err)
	}
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
