package outlast_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// widths notes of how many slots each pick is; a pick takes pickTime.
type widths struct {
	outlast.Store
	fails atomic.Bool
	more  atomic.Int64 // nanoseconds that a pick takes besides pickTime
	mu    sync.Mutex
	picks []int
}

func (s *widths) Relay() outlast.RelayStore { return widthsRelay{s.Store.Relay(), s} }

type widthsRelay struct {
	outlast.RelayStore
	s *widths
}

func (r widthsRelay) Reader() outlast.OutboxReader {
	return widthsReader{r.RelayStore.Reader(), r.s}
}

type widthsReader struct {
	outlast.OutboxReader
	s *widths
}

func (r widthsReader) Pick(ctx context.Context, leases []outlast.Lease, maxRows, maxBytes int) ([]*outlast.Row, error) {
	r.s.mu.Lock()
	r.s.picks = append(r.s.picks, len(leases))
	r.s.mu.Unlock()
	time.Sleep(pickTime + time.Duration(r.s.more.Load()))
	if r.s.fails.Load() {
		return nil, &outlast.Error{Op: "pick", Code: outlast.CodeUnavailable}
	}
	return r.OutboxReader.Pick(ctx, leases, maxRows, maxBytes)
}

// since returns the picks that began after n others.
func (s *widths) since(n int) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.picks[n:]...)
}

// sentAt notes when the message with a key was published.
type sentAt struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (s *sentAt) OnPublished(row *outlast.Row, _ outlast.Outcome, _ error, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[row.Envelope.Key] = time.Now()
}

func (s *sentAt) of(key string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[key]
}

// hotRig is a service that has been idle for a minute, or that publishes the key "busy" all the time
// since then.
func hotRig(t *testing.T, busy bool, handlers ...outlast.Handler) (store *memory.Store, looks *widths, s *outlast.Service, sent *sentAt) {
	store, sent = memory.NewStore(), &sentAt{at: map[string]time.Time{}}
	looks = &widths{Store: store}
	if handlers == nil {
		handlers = []outlast.Handler{
			outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil }),
			outlast.Handle(noted, func(context.Context, outlast.Tx, outlast.Received[note]) error { return nil })}
	}
	s, err := outlast.NewService(outlast.ServiceConfig{Name: "orders", Store: looks, Broker: memory.NewBroker(), Handlers: handlers,
		Relay: outlast.RelayConfig{Interval: time.Hour}, Hooks: []outlast.Hook{sent}})
	if err != nil {
		t.Fatal(err)
	}
	idleFor(t, s, time.Minute)
	if busy {
		ended := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		t.Cleanup(func() { stop(); <-ended })
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				publish(t, store, s.Outbox(), noted.Message(note{1}, outlast.Key("busy")))
				time.Sleep(2 * time.Millisecond)
			}
		}()
		time.Sleep(time.Second)
	}
	return store, looks, s, sent
}

// A wake-up is about few slots: the relay looks into these alone, and into all of them by the time
// when a commit may have been missed.
func TestAWakeUpLooksIntoTheSlotsOfItsMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, looks, s, sent := hotRig(t, false)
		before := len(looks.since(0))
		publish(t, store, s.Outbox(), placed.Message(order{ID: "a"}), placed.Message(order{ID: "b"}))
		committed := time.Now()
		time.Sleep(15 * time.Millisecond)
		synctest.Wait()
		for _, key := range []string{"a", "b"} {
			if took := sent.of(key).Sub(committed); took < 0 || took > pickTime {
				t.Errorf("%s was published %s after its commit, want at most %s", key, took, pickTime)
			}
		}
		narrow := looks.since(before)
		for _, n := range narrow {
			if n > 2 {
				t.Errorf("picks of %v slots after a wake-up, want 2 at most", narrow)
				break
			}
		}
		time.Sleep(15 * time.Millisecond)
		synctest.Wait()
		if all := looks.since(before + len(narrow)); len(all) == 0 || all[len(all)-1] != store.Slots() {
			t.Errorf("picks of %v slots when the wake-up was over, want one of all %d", all, store.Slots())
		}
	})
}

// Most picks of a busy service are of few slots. What the relay was not told of is found all the same.
func TestWhatNobodyToldOfIsFoundBesideHotSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, looks, s, sent := hotRig(t, true)
		before := len(looks.since(0))
		time.Sleep(time.Second)
		sweeps, picks := 0, looks.since(before)
		for _, n := range picks {
			if n == store.Slots() {
				sweeps++
			}
		}
		if sweeps < 30 || sweeps > 60 || len(picks) < 3*sweeps {
			t.Errorf("%d of %d picks in a second are of all slots, want one in 20 ms", sweeps, len(picks))
		}
		for key, outbox := range map[string]*outlast.Outbox{"foreign": outlast.NewOutbox(store), "open for long": s.Outbox()} {
			tx := store.Begin()
			if err := outbox.Publish(t.Context(), tx, placed.Message(order{ID: key})); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			committed := time.Now()
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if took := sent.of(key).Sub(committed); took < 0 || took > 20*time.Millisecond+3*pickTime {
				t.Errorf("%s: published %s after the commit", key, took)
			}
		}
	})
}

// While reading fails and writing works, what is published makes the database no more work.
func TestPublishesDoNotHurryAPickThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, looks, s, sent := hotRig(t, true)
		looks.fails.Store(true)
		before := len(looks.since(0))
		time.Sleep(15 * time.Second)
		if n := len(looks.since(before)); n < 5 || n > 40 {
			t.Errorf("%d failing picks in 15 s", n)
		}
		looks.fails.Store(false)
		publish(t, store, s.Outbox(), placed.Message(order{ID: "a"}))
		committed := time.Now()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if took := sent.of("a").Sub(committed); took < 0 || took > 10*time.Second {
			t.Errorf("published %s after the commit", took)
		}
	})
}

// A transaction is open for long after its publish, and nobody says when it commits: sweeps go on,
// each after twice the pause of the one before.
func TestACommitLongAfterItsPublishIsFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, _, s, sent := hotRig(t, false)
		tx := store.Begin()
		began := time.Now()
		if err := s.Outbox().Publish(t.Context(), tx, placed.Message(order{ID: "a"})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		committed := time.Now()
		time.Sleep(time.Minute)
		synctest.Wait()
		if took := sent.of("a").Sub(committed); took < 0 || took > committed.Sub(began)+20*time.Millisecond {
			t.Errorf("published %s after a commit that came %s after its publish", took, committed.Sub(began))
		}
	})
}

// A handler commits long after it published, or publishes by an outbox of its own: the sweep after its
// commit is of all slots, at once, however busy others are.
func TestACommitOfAHandlerIsSweptBesideHotSlots(t *testing.T) {
	t.Parallel()
	for name, took := range map[string]time.Duration{"by the outbox of the service, long before": 50 * time.Millisecond, "by another outbox": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var outbox *outlast.Outbox
				var committed time.Time
				handle := outlast.Handle(placed, func(ctx context.Context, tx outlast.Tx, _ outlast.Received[order]) error {
					err := outbox.Publish(ctx, tx, noted.Message(note{2}, outlast.Key("follow-up")))
					time.Sleep(took)
					committed = time.Now()
					return err
				})
				store, _, s, sent := hotRig(t, true, handle, outlast.Handle(noted, func(context.Context, outlast.Tx, outlast.Received[note]) error { return nil }))
				if outbox = s.Outbox(); took == 0 {
					outbox = outlast.NewOutbox(store)
				}
				var last time.Duration
				for range 20 { // a sweep may have been due anyway
					publish(t, store, s.Outbox(), placed.Message(order{ID: "cause"}))
					time.Sleep(200 * time.Millisecond)
					synctest.Wait()
					last = max(last, sent.of("follow-up").Sub(committed))
				}
				if last <= 0 || last > 4*pickTime {
					t.Errorf("published up to %s after the commit, want at most the rest of a pick, as long a pause, and one more", last)
				}
			})
		})
	}
}

// slowDrain is a store to which rows take a while on their way to the held.
type slowDrain struct{ outlast.Store }

func (s slowDrain) Relay() outlast.RelayStore { return slowDrainRelay{s.Store.Relay()} }

type slowDrainRelay struct{ outlast.RelayStore }

func (r slowDrainRelay) Settle(ctx context.Context, s *outlast.Settlement) ([]outlast.Lease, error) {
	time.Sleep(5 * time.Millisecond)
	return r.RelayStore.Settle(ctx, s)
}

func (r slowDrainRelay) Held(ctx context.Context, q outlast.HeldQuery) (outlast.HeldPage, error) {
	time.Sleep(15 * time.Millisecond)
	return r.RelayStore.Held(ctx, q)
}

// A route that takes messages again is drained although more are published all the time: picks rest
// while rows are on their way to the held, whatever is hot.
func TestARouteDrainsBesideHotSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, broker := memory.NewStore(), memory.NewBroker()
		s, err := outlast.NewService(outlast.ServiceConfig{Name: "orders", Store: slowDrain{store}, Broker: broker,
			Relay: outlast.RelayConfig{Interval: time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		bind := func(queue, key string) {
			t.Helper()
			broker.DeclareQueue(queue)
			if err := broker.Bind(queue, outlast.EventExchange, key); err != nil {
				t.Fatal(err)
			}
		}
		bind("other", "nothing")
		idleFor(t, s, 5*time.Second)
		var backlog []outlast.Message
		for i := range 1000 {
			backlog = append(backlog, placed.Message(order{ID: fmt.Sprint(i)}))
		}
		publish(t, store, s.Outbox(), backlog...)
		time.Sleep(30 * time.Second)
		held := func() (n int) {
			status, err := store.Operator().Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range status.Held {
				n += h.Count
			}
			return n
		}
		if held() != len(backlog) {
			t.Fatalf("%d of %d messages are held without a queue", held(), len(backlog))
		}
		bind("sink", "#")
		for held() >= len(backlog) {
			time.Sleep(time.Millisecond)
		}
		for i := range 1000 {
			publish(t, store, s.Outbox(), placed.Message(order{ID: fmt.Sprint(i)}))
			time.Sleep(2 * time.Millisecond)
		}
		if n := held(); n > len(backlog)/10 {
			t.Errorf("%d messages are held 2 s after the queue came back", n)
		}
	})
}

// Picks are slow, and there is always something hot: a rest follows each all the same.
func TestHotSlotsLeaveTheDatabaseTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, looks, _, _ := hotRig(t, true)
		looks.more.Store(int64(40*time.Millisecond - pickTime))
		time.Sleep(time.Second)
		before := len(looks.since(0))
		time.Sleep(2 * time.Second)
		if n := len(looks.since(before)); n < 20 || n > 43 {
			t.Errorf("%d picks of 40 ms in 2 s, want a rest of 8 ms after each", n)
		}
	})
}
