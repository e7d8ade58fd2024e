package storm

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// TestAnOperatorIsPatient: nodes are looked after when something has failed for long, and again
// after as long; never when all is well.
func TestAnOperatorIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, fails := time.Now(), true
		var helped []time.Duration
		try := patiently(func(context.Context) error {
			if fails {
				return errors.New("it hangs")
			}
			return nil
		}, func(context.Context) error {
			helped = append(helped, time.Since(began))
			return nil
		})
		for time.Since(began) < 2*startLimit+20*time.Second {
			if try(t.Context()) == nil {
				t.Fatal("the failure is not told")
			}
			time.Sleep(4 * time.Second)
		}
		if len(helped) != 2 || helped[0] < startLimit || helped[1] < 2*startLimit {
			t.Errorf("it helped after %v", helped)
		}
		fails = false
		for range 100 {
			if err := try(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(4 * time.Second)
		}
		if len(helped) != 2 {
			t.Errorf("it helped although all was well: %v", helped)
		}
	})
}
