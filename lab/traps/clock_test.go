package traps

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/postgres"
)

type timed struct {
	Name string `json:"name"`
	// Fails is how many tries fail.
	Fails int `json:"fails"`
}

var wasTimed = outlast.Event[timed]("clock.timed", 1)

// tries notes when each message was tried, by monotonic time.
type tries struct {
	mu sync.Mutex
	at map[string][]time.Time
}

func (r *tries) handle(_ context.Context, _ outlast.Tx, m outlast.Received[timed]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at[m.Body.Name] = append(r.at[m.Body.Name], time.Now())
	if len(r.at[m.Body.Name]) <= m.Body.Fails {
		return errors.New("not yet")
	}
	return nil
}

func (r *tries) of(name string) []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[name]
}

// TestF80_ClocksThatDifferByHours: relay and consumer run on a machine whose clock is hours
// away from the database's, which then jumps to the other side while they run. What is due
// at once, later, or after a failure comes in its time; what has expired is dropped; and
// every instant in the tables is the database's.
func TestF80_ClocksThatDifferByHours(t *testing.T) {
	t.Parallel()
	if why := servers.LacksClock(); why != "" {
		t.Fatal(why)
	}
	for _, hours := range []time.Duration{6, -6} {
		t.Run(fmt.Sprintf("%+d hours", hours), func(t *testing.T) {
			t.Parallel()
			server, err := servers.Postgres(t.Context(), servers.PostgresConfig{NoSync: true, OwnClock: true})
			must(t, err)
			t.Cleanup(func() { must(t, server.Close()) })
			must(t, server.SetClock(hours*time.Hour))
			database, err := server.NewDatabase(t.Context())
			must(t, err)
			differ(t, rig.Bare(t, database, ""), func() {
				must(t, server.SetClock(-hours*time.Hour))
			})
		})
	}
}

func differ(t *testing.T, w *rig.World, jump func()) {
	store := postgres.Store(w.DB)
	must(t, store.Migrations().Up(t.Context(), 0))
	done := &tries{at: map[string][]time.Time{}}
	service, err := outlast.NewService(outlast.ServiceConfig{Name: "orders", Store: store, Broker: memory.NewBroker(),
		Handlers: []outlast.Handler{outlast.Handle(wasTimed, done.handle)},
		Consumer: outlast.ConsumerConfig{Retry: outlast.RetryPolicy{First: time.Second}}})
	must(t, err)
	publish := func(name string, fails int, opts ...outlast.MessageOption) time.Time {
		t.Helper()
		tx, err := w.DB.BeginTx(t.Context(), nil)
		must(t, err)
		must(t, service.Outbox().Publish(t.Context(), tx, wasTimed.Message(timed{name, fails}, opts...)))
		before := time.Now()
		must(t, tx.Commit())
		return before
	}
	publish("expired", 0, outlast.ExpiresIn(time.Second))
	w.Exec("SELECT pg_sleep(1.2)")

	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	defer func() {
		stop()
		must(t, <-ended)
	}()
	const delay = 2 * time.Second
	round := func(when string) {
		t.Helper()
		publish("now "+when, 0, outlast.ExpiresIn(24*time.Hour))
		publish("again "+when, 2)
		later := publish("later "+when, 0, outlast.After(delay))
		w.Eventually("all are handled "+when, func() bool {
			return len(done.of("now "+when)) == 1 && len(done.of("again "+when)) == 3 && len(done.of("later "+when)) == 1
		})
		if took := done.of("later " + when)[0].Sub(later); took < delay {
			t.Errorf("%s: what was due in %v came after %v", when, delay, took)
		}
		far := w.Text(`SELECT coalesce(string_agg(format('%s is %s off', what, at - clock_timestamp()), '; '), '') FROM (
			SELECT 'sent_at', sent_at FROM outlast_sent UNION ALL SELECT 'enqueued_at', enqueued_at FROM outlast_sent
			UNION ALL SELECT 'the inbox', at FROM outlast_inbox UNION ALL SELECT 'a lease', expires_at FROM outlast_owner
			UNION ALL SELECT 'a fact', at FROM outlast_fact) x (what, at)
			WHERE abs(extract(epoch FROM at - clock_timestamp())) > 600`)
		if when == "before" && far != "" {
			t.Errorf("instants that are not the database's: %s", far)
		}
	}
	round("before")
	if n := w.Number("SELECT count(*) FROM outlast_sent WHERE fate = 2"); n != 1 || done.of("expired") != nil {
		t.Errorf("%d messages expired, and the one that should was handled at %v", n, done.of("expired"))
	}
	jump()
	round("after the jump")
	w.Eventually("nothing is left", func() bool {
		return w.Waiting()+w.Number("SELECT (SELECT count(*) FROM outlast_retry) + (SELECT count(*) FROM outlast_dead)") == 0
	})
}
