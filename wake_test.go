package outlast_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// wakeable is a store in memory whose wake-ups the test gives, and counts.
type wakeable struct {
	outlast.Store
	heard   chan func()
	lose    chan error // ends a Listen, or refuses one before it has heard anything
	refuses atomic.Pointer[outlast.Error]
	listens atomic.Int32

	notified atomic.Int32
	takes    time.Duration // a Notify
	fails    atomic.Bool

	links []string // what the hook was told of the listener's connection
}

func (s *wakeable) OnLink(what string, l outlast.Link) {
	if what == outlast.WakeUpsLink {
		s.links = append(s.links, strings.TrimSpace(string(l.State)+" "+l.Reason))
	}
}

func newWakeable() *wakeable {
	return &wakeable{Store: memory.NewStore(), heard: make(chan func(), 1), lose: make(chan error)}
}

func (s *wakeable) Relay() outlast.RelayStore   { return wakeableRelay{s.Store.Relay(), s} }
func (s *wakeable) Outbox() outlast.OutboxStore { return wakeableOutbox{s.Store.Outbox(), s} }

type wakeableRelay struct {
	outlast.RelayStore
	s *wakeable
}

func (r wakeableRelay) Listen(ctx context.Context, heard func()) error {
	r.s.listens.Add(1)
	if err := r.s.refuses.Load(); err != nil {
		return err
	}
	heard()
	r.s.heard <- heard
	select {
	case err := <-r.s.lose:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

type wakeableOutbox struct {
	outlast.OutboxStore
	s *wakeable
}

func (o wakeableOutbox) Notify(context.Context) error {
	time.Sleep(o.s.takes)
	o.s.notified.Add(1)
	if o.s.fails.Load() {
		return &outlast.Error{Op: "wake relays", Code: outlast.CodeUnavailable}
	}
	return nil
}

// listening is a service whose relay has listened and been idle for a minute.
func listening(t *testing.T, store *wakeable, interval time.Duration) (s *outlast.Service, sent *atomic.Int32, log *bytes.Buffer) {
	sent, log = new(atomic.Int32), new(bytes.Buffer)
	broker := memory.NewBroker()
	if err := broker.Topology().Apply(t.Context(), outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}}); err != nil {
		t.Fatal(err)
	}
	s, err := outlast.NewService(outlast.ServiceConfig{Name: "orders", Store: store, Broker: broker,
		Relay:  outlast.RelayConfig{Interval: interval, WakeUps: true},
		Hooks:  []outlast.Hook{publishedAt(func(time.Time) { sent.Add(1) }), store},
		Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	idleFor(t, s, time.Minute)
	return s, sent, log
}

var unheard = outlast.Event[order]("order.noted", 1, outlast.MayBeUnheard())

// publish commits a message; whom to wake is left to the caller.
func (s *wakeable) publish(t *testing.T, outbox *outlast.Outbox) {
	t.Helper()
	tx := s.Store.(*memory.Store).Begin()
	if err := outbox.Publish(t.Context(), tx, unheard.Message(order{ID: "a"})); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// What another process wrote is found at its wake-up, and not before.
func TestAWakeUpOfAnotherProcessIsHeard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWakeable()
		_, sent, _ := listening(t, store, time.Hour)
		store.publish(t, outlast.NewOutbox(store)) // it wakes nobody
		time.Sleep(time.Second)
		synctest.Wait()
		if sent.Load() != 0 {
			t.Fatal("found without a wake-up: the test proves nothing")
		}
		(<-store.heard)()
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		if sent.Load() != 1 {
			t.Error("the wake-up was not heard")
		}
	})
}

// While nothing is heard, the sweeps go on; the connection comes back, is told of once, and
// what was written before is found by it.
func TestALostListenerComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWakeable()
		_, sent, log := listening(t, store, 10*time.Second)
		<-store.heard
		store.refuses.Store(&outlast.Error{Op: "listen", Code: outlast.CodeUnavailable})
		store.lose <- &outlast.Error{Op: "listen", Code: outlast.CodeUnavailable}
		store.publish(t, outlast.NewOutbox(store))
		time.Sleep(10 * time.Second) // of the interval
		synctest.Wait()
		if sent.Load() != 1 {
			t.Error("the sweeps ended with the listener")
		}
		time.Sleep(10 * time.Minute)
		tries := store.listens.Load()
		if tries < 20 || tries > 100 { // 15 s apart on average, in the end
			t.Errorf("%d tries in ten minutes", tries)
		}
		store.refuses.Store(nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if store.listens.Load() != tries+1 {
			t.Error("it is not listened again")
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings of one loss:\n%s", n, log)
		}
		if n := strings.Count(log.String(), "listening for wake-ups"); n != 2 {
			t.Errorf("told %d times that it listens, want 2", n)
		}
		if want := []string{"up", "down listen: unavailable", "up"}; !slices.Equal(store.links, want) {
			t.Errorf("the hook was told %q, want %q", store.links, want)
		}
	})
}

// What was committed while nobody listened is not waited for any longer.
func TestListeningBeginsWithASweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWakeable()
		_, sent, _ := listening(t, store, time.Hour)
		<-store.heard
		store.publish(t, outlast.NewOutbox(store))
		time.Sleep(time.Second)
		store.lose <- &outlast.Error{Op: "listen", Code: outlast.CodeUnavailable}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if sent.Load() != 1 {
			t.Error("not found by the listener that came back")
		}
	})
}

func TestAPoolerIsToldOfOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWakeable()
		store.refuses.Store(&outlast.Error{Op: "listen", Code: outlast.CodeInvalid})
		_, sent, log := listening(t, store, time.Second)
		store.publish(t, outlast.NewOutbox(store))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || store.listens.Load() != 1 || sent.Load() != 1 {
			t.Errorf("%d warnings, listened %d times, sent %d:\n%s", n, store.listens.Load(), sent.Load(), log)
		}
		if want := []string{"down listen: invalid"}; !slices.Equal(store.links, want) {
			t.Errorf("the hook was told %q, want %q", store.links, want)
		}
	})
}

// Any number of publishes and commits are one wake-up in 10 ms; none is sent without any.
func TestWakeUpsOfOthersAreCoalesced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWakeable()
		outbox := outlast.NewOutbox(store, outlast.OutboxConfig{WakeUps: true})
		time.Sleep(time.Hour)
		if n := store.notified.Load(); n != 0 {
			t.Fatalf("%d wake-ups of nothing", n)
		}
		for range 100 {
			for range 10 {
				store.publish(t, outbox)
				outbox.Wake()
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Hour)
		if n := store.notified.Load(); n < 10 || n > 12 {
			t.Errorf("%d wake-ups in 100 ms", n)
		}
	})
}

// Without Wake, a publish alone wakes.
func TestAPublishWakesOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWakeable()
		outbox := outlast.NewOutbox(store, outlast.OutboxConfig{WakeUps: true})
		store.publish(t, outbox)
		if synctest.Wait(); store.notified.Load() != 0 {
			t.Error("it wakes before most have committed")
		}
		time.Sleep(2 * time.Millisecond)
		if synctest.Wait(); store.notified.Load() != 1 {
			t.Error("nobody was woken")
		}
	})
}

// The wake-up under way may have come before the commit.
func TestAWakeUpDuringAnotherIsNotLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWakeable()
		store.takes = time.Second
		outbox := outlast.NewOutbox(store, outlast.OutboxConfig{WakeUps: true})
		outbox.Wake()
		time.Sleep(time.Second / 2)
		outbox.Wake()
		time.Sleep(time.Minute)
		if n := store.notified.Load(); n != 2 {
			t.Errorf("%d wake-ups, want 2", n)
		}
	})
}

// A publish is none the worse for a wake-up that fails.
func TestWakeUpsThatFailAreToldOfOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, log := newWakeable(), new(bytes.Buffer)
		store.fails.Store(true)
		outbox := outlast.NewOutbox(store, outlast.OutboxConfig{WakeUps: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
		for range 10 {
			store.publish(t, outbox)
			time.Sleep(time.Second)
		}
		before := store.notified.Load()
		for range 6000 {
			outbox.Wake()
			time.Sleep(10 * time.Millisecond)
		}
		if n := store.notified.Load() - before; n > 60 {
			t.Errorf("%d wake-ups failed in a minute", n)
		}
		store.fails.Store(false)
		outbox.Wake()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "can be woken again") {
			t.Errorf("%d warnings:\n%s", n, log)
		}
	})
}

func TestWakeUpsNeedAStoreThatCarriesThem(t *testing.T) {
	t.Parallel()
	_, err := outlast.NewService(outlast.ServiceConfig{Name: "orders", Store: memory.NewStore(), Broker: memory.NewBroker(),
		Relay: outlast.RelayConfig{WakeUps: true}, Outbox: outlast.OutboxConfig{WakeUps: true}})
	for _, want := range []string{"RelayConfig.WakeUps", "ServiceConfig.Outbox.WakeUps"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	outbox := outlast.NewOutbox(memory.NewStore(), outlast.OutboxConfig{WakeUps: true})
	outbox.Wake() // does nothing
}
