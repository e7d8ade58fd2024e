package outlast_test

import (
	"cmp"
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// pickTime is how long a pick of a slowPicks takes, from what it sees to its answer.
const pickTime = 3 * time.Millisecond

// slowPicks is a store far away: what a pick answers was true a while ago.
type slowPicks struct {
	outlast.Store
	picks atomic.Int32
	fails atomic.Bool
	more  atomic.Int64 // nanoseconds that a pick takes besides pickTime
}

func (s *slowPicks) Relay() outlast.RelayStore { return slowRelay{s.Store.Relay(), s} }

type slowRelay struct {
	outlast.RelayStore
	s *slowPicks
}

func (r slowRelay) Reader() outlast.OutboxReader { return slowReader{r.RelayStore.Reader(), r.s} }

type slowReader struct {
	outlast.OutboxReader
	s *slowPicks
}

func (r slowReader) Pick(ctx context.Context, leases []outlast.Lease, maxRows, maxBytes int) ([]*outlast.Row, error) {
	r.s.picks.Add(1)
	defer func() { time.Sleep(pickTime + time.Duration(r.s.more.Load())) }()
	if r.s.fails.Load() {
		return nil, &outlast.Error{Op: "pick", Code: outlast.CodeUnavailable}
	}
	return r.OutboxReader.Pick(ctx, leases, maxRows, maxBytes)
}

// publishedAt is told when a message was published, or tried again.
type publishedAt func(time.Time)

func (f publishedAt) OnPublished(*outlast.Row, outlast.Outcome, error, time.Duration) { f(time.Now()) }

// wakeRig is a service that has been idle for a minute: its relay sweeps by itself every half minute, and less and less often.
func wakeRig(t *testing.T) (store *memory.Store, slow *slowPicks, s *outlast.Service, sent *time.Time) {
	store, sent = memory.NewStore(), new(time.Time)
	slow = &slowPicks{Store: store}
	s, err := outlast.NewService(outlast.ServiceConfig{Name: "orders", Store: slow, Broker: memory.NewBroker(),
		Relay: outlast.RelayConfig{Interval: time.Hour},
		Hooks: []outlast.Hook{publishedAt(func(at time.Time) { *sent = cmp.Or(*sent, at) })}})
	if err != nil {
		t.Fatal(err)
	}
	idleFor(t, s, time.Minute)
	return store, slow, s, sent
}

// The commit comes while a pick is under way that cannot see it: the next one follows
// at once, though the one before found nothing.
func TestAWakeUpDuringAPickIsNotLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, _, s, sent := wakeRig(t)
		s.Outbox().Wake()
		time.Sleep(time.Millisecond)
		publish(t, store, s.Outbox(), placed.Message(order{ID: "a"}))
		committed := time.Now()
		time.Sleep(time.Minute)
		synctest.Wait()
		// The rest of the pick, as long a pause, and the pick that sees it.
		if took := sent.Sub(committed); took < 0 || took > 3*pickTime {
			t.Errorf("published %s after the commit, want at most %s", took, 3*pickTime)
		}
	})
}

// That pick fails, after a long time without any: it is soon tried again.
func TestAWakeUpDuringAPickThatFailsIsNotLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, slow, s, sent := wakeRig(t)
		slow.fails.Store(true)
		before := slow.picks.Load()
		for slow.picks.Load() == before { // by itself, after half a minute
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		publish(t, store, s.Outbox(), placed.Message(order{ID: "a"}))
		committed := time.Now()
		time.Sleep(pickTime)
		slow.fails.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if took := sent.Sub(committed); took < 0 || took > 10*pickTime {
			t.Errorf("published %s after the commit, want at most %s", took, 10*pickTime)
		}
	})
}

// While reading fails and writing works, as without room for temporary files, what is published
// makes the database no more work: reads follow each other ever more slowly, 5 s apart in the end.
func TestWakeUpsDoNotHurryAPickThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, slow, s, sent := wakeRig(t)
		slow.fails.Store(true)
		before := slow.picks.Load()
		for range 6000 {
			s.Outbox().Wake()
			time.Sleep(10 * time.Millisecond)
		}
		if n := slow.picks.Load() - before; n < 5 || n > 60 {
			t.Errorf("%d failing picks in a minute", n)
		}
		slow.fails.Store(false)
		publish(t, slow.Store.(*memory.Store), s.Outbox(), placed.Message(order{ID: "a"}))
		committed := time.Now()
		time.Sleep(time.Minute)
		synctest.Wait()
		if took := sent.Sub(committed); took < 0 || took > 10*time.Second {
			t.Errorf("published %s after the commit", took)
		}
	})
}

// Most commits follow their publish within a millisecond or two: the first pick waits for
// that, rather than find nothing.
func TestAPublishIsSweptAfterItsCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, slow, s, sent := wakeRig(t)
		before := slow.picks.Load()
		tx := store.Begin()
		if err := s.Outbox().Publish(t.Context(), tx, placed.Message(order{ID: "a"})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		committed := time.Now()
		time.Sleep(3 * pickTime)
		synctest.Wait()
		if took := sent.Sub(committed); took < 0 || took > 2*pickTime || slow.picks.Load() > before+2 {
			t.Errorf("published %s after the commit, in %d picks; want at most %s, in one and the one that follows", took, slow.picks.Load()-before, 2*pickTime)
		}
	})
}

// Wake-ups come faster than picks end: half of the time goes to them at most.
func TestWakeUpsLeaveTheDatabaseTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, slow, s, _ := wakeRig(t)
		before := slow.picks.Load()
		for range 6000 {
			s.Outbox().Wake()
			time.Sleep(100 * time.Microsecond)
		}
		synctest.Wait()
		if n := slow.picks.Load() - before; n < 90 || n > 101 {
			t.Errorf("%d picks of %s in 600 ms, want half of the time", n, pickTime)
		}
	})
}

// The database is slow, and the commit comes right after a pick that saw nothing: the pause
// that the database gets does not grow with its slowness.
func TestSlowPicksDoNotDelayWakeUps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, slow, s, _ := wakeRig(t)
		const took = 100 * time.Millisecond
		slow.more.Store(int64(took - pickTime))
		nextPick := func() (waited time.Duration) {
			began, before := time.Now(), slow.picks.Load()
			for slow.picks.Load() == before {
				time.Sleep(time.Millisecond)
				synctest.Wait()
			}
			return time.Since(began)
		}
		nextPick() // by itself, after half a minute
		time.Sleep(took)
		s.Outbox().Wake()
		if waited := nextPick(); waited > 10*time.Millisecond { // of which 8 ms are the bound
			t.Errorf("the next pick began %s after the wake-up", waited)
		}
	})
}
