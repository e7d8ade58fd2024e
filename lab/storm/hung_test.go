package storm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/lab/servers"
)

// TestAHungNodeIsRestarted: one that says nothing answers again, and is told of in the timeline;
// one that is well is left alone.
func TestAHungNodeIsRestarted(t *testing.T) {
	cluster, err := servers.RabbitMQ(t.Context(), servers.RabbitConfig{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	var log bytes.Buffer
	s := &stage{config: Config{Nodes: 1}, rabbit: cluster, timeline: fault.NewTimeline(&log)}
	if err := s.restartHung(t.Context()); err != nil || log.Len() > 0 {
		t.Fatalf("%v; %s", err, &log)
	}
	if err := cluster.Node(0).Pause(); err != nil {
		t.Fatal(err)
	}
	if err := s.restartHung(t.Context()); err != nil || !strings.Contains(log.String(), "restart rabbit1") {
		t.Fatalf("%v; %s", err, &log)
	}
	if err := s.ctl(t.Context(), 0, "await_startup", "--timeout", "60"); err != nil {
		t.Error(err)
	}
}
