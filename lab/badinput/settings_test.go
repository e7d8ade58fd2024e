package badinput

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

// wantFields checks that one error names all bad fields and no other.
func wantFields(t *testing.T, err error, want ...string) {
	t.Helper()
	found := fields(t, err)
	for _, name := range want {
		if _, ok := found[name]; !ok {
			t.Errorf("%s is not among the bad fields of: %v", name, err)
		}
	}
	if len(found) != len(want) {
		t.Errorf("%d bad fields, want %d: %v", len(found), len(want), err)
	}
}

func TestSettingsOfTheRelay(t *testing.T) {
	t.Parallel()
	_, err := outlast.NewRelay(outlast.RelayConfig{
		Source: "Orders!", Interval: time.Nanosecond, LeaseTTL: time.Second, InFlight: -1, InFlightBytes: 1, Buffer: 1 << 30,
		ConfirmDeadline: time.Hour, Lanes: 65, Grace: time.Hour,
	})
	wantFields(t, err, "RelayConfig.Source", "RelayConfig.Store", "RelayConfig.Broker", "RelayConfig.Interval", "RelayConfig.LeaseTTL",
		"RelayConfig.InFlight", "RelayConfig.InFlightBytes", "RelayConfig.Buffer", "RelayConfig.ConfirmDeadline", "RelayConfig.Lanes", "RelayConfig.Grace")
}

func TestSettingsOfTheConsumer(t *testing.T) {
	t.Parallel()
	_, err := outlast.NewConsumer(outlast.ConsumerConfig{
		Group: "-", Retry: outlast.RetryPolicy{Attempts: 1001, First: time.Hour, Longest: time.Minute}, OnDead: 9, Declare: 9,
		Workers: 1025, Batch: 1001, Prefetch: 65536, HandlerDeadline: time.Hour, Grace: time.Hour, Partitions: 65, Generation: 10000,
		HeartbeatInterval: time.Hour, LeaseTTL: time.Second, DedupWindow: time.Second,
	})
	wantFields(t, err, "ConsumerConfig.Group", "ConsumerConfig.Store", "ConsumerConfig.Broker", "ConsumerConfig.Retry.Attempts",
		"ConsumerConfig.Retry.First", "ConsumerConfig.OnDead", "ConsumerConfig.Declare", "ConsumerConfig.Workers", "ConsumerConfig.Batch",
		"ConsumerConfig.Prefetch", "ConsumerConfig.HandlerDeadline", "ConsumerConfig.Grace", "ConsumerConfig.Partitions", "ConsumerConfig.Generation",
		"ConsumerConfig.HeartbeatInterval", "ConsumerConfig.LeaseTTL", "ConsumerConfig.DedupWindow", "ConsumerConfig.Handlers")
}

func TestATypeHasOneHandlerInAGroup(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	handler := outlast.Handle(outlast.Event[order]("order.placed", 1), func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil })
	_, err := outlast.NewConsumer(outlast.ConsumerConfig{
		Group: "billing", Store: postgres.Store(w.DB), Broker: rabbitmq.Broker(w.Broker), Handlers: []outlast.Handler{handler, handler},
	})
	wantFields(t, err, "ConsumerConfig.Handlers[1] order.placed.v1")
	contains(t, err.Error(), "the only handler of its type")
}

// TestFlagsOutOfRange: exit code 2, the flag by its name, its range, and what was given.
func TestFlagsOutOfRange(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	w.Fill(1, 1)
	for _, c := range []struct{ command, flag, value string }{
		{"relay", "--lanes", "65"}, {"relay", "--lanes", "0"}, {"relay", "--lanes", "many"}, {"relay", "--in-flight", "65537"},
		{"relay", "--in-flight", "0"}, {"relay", "--in-flight", "-1"}, {"relay", "--in-flight-bytes", "1KiB"}, {"relay", "--lease", "1s"},
		{"relay", "--lease", "0"}, {"relay", "--interval", "1ms"}, {"relay", "--confirm-deadline", "6m"}, {"relay", "--confirm-deadline", "soon"},
		{"relay", "--grace", "-1s"}, {"relay", "--grace", "6m"}, {"relay", "--report-interval", "1ms"}, {"relay", "--warn-pending", "-1"},
		{"relay", "--log", "xml"}, {"relay", "--log-level", "loud"}, {"relay", "--timeout", "0"}, {"relay", "--source", "Orders!"},
		{"publish", "--batch", "0"}, {"publish", "--batch", "10001"}, {"publish", "--skip", "-1"}, {"publish", "--max-body", "17MiB"},
		{"list", "--limit", "0"}, {"list", "--limit", "10001"}, {"list", "--older-than", "-1s"}, {"status", "--interval", "1ms"},
		{"topology", "--partitions", "65"}, {"topology", "--partitions", "0"}, {"topology", "--generation", "10000"},
	} {
		args := map[string][]string{
			"relay": {"relay", "--source", "orders"}, "publish": {"publish", "--type", "a.v1", "--body", "1"},
			"list": {"outbox", "list"}, "status": {"status"}, "topology": {"topology", "apply", "--group", "g", "--handles", "a.v1"},
		}[c.command]
		p := w.Fails(2, append(args, c.flag+"="+c.value)...)
		bare := strings.TrimLeft(c.flag, "-")
		named := false
		for _, f := range p.Fields {
			named = named || strings.Contains(strings.ToLower(f.Field), bare) && f.Limit != "" && f.Given != ""
		}
		if p.Code != outlast.CodeInvalid || !named {
			t.Errorf("%s %s=%s: %+v", c.command, c.flag, c.value, p)
		}
	}
	if waiting := w.Waiting(); waiting != 1 {
		t.Errorf("%d messages wait, want 1", waiting)
	}
}
