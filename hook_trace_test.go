package outlast_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
)

// around counts the begins and ends of tries, and gives handlers a context of its own.
type around struct {
	mu    sync.Mutex
	begun int
	ends  []outlast.Handled
}

type aroundKey struct{}

func (a *around) Around(ctx context.Context, _ *outlast.Delivered) (context.Context, func(outlast.Handled)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun++
	return context.WithValue(ctx, aroundKey{}, a), func(h outlast.Handled) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.ends = append(a.ends, h)
	}
}

func (a *around) results() (list []outlast.HandledResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.ends {
		list = append(list, h.Result)
	}
	return list
}

// watched returns a rig whose tries are watched.
func watched(t *testing.T, conf outlast.ConsumerConfig) (*rig, *around) {
	r, a := newRig(t, conf), &around{}
	r.conf.Hooks = append(r.conf.Hooks, a)
	return r, a
}

func TestHookAround(t *testing.T) {
	t.Parallel()
	bubble(t, "is told the end of each try once, and its context reaches the handler", testAroundTries)
	bubble(t, "is told of tries that a batch rolled back", testAroundBatch)
	bubble(t, "is told of a try that was cut", testAroundCut)
	bubble(t, "may panic", testAroundPanics)
}

func testAroundTries(t *testing.T) {
	r, a := watched(t, outlast.ConsumerConfig{})
	tries := 0
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		if ctx.Value(aroundKey{}) != a {
			t.Error("the handler's context is not the hook's")
		}
		if tries++; tries == 1 {
			return errors.New("once")
		}
		return r.record(ctx, tx, m)
	})
	defer r.start()()
	r.send(orders("a", 1, 1)...)
	time.Sleep(time.Minute)
	synctest.Wait()
	if got := a.results(); !slices.Equal(got, []outlast.HandledResult{outlast.HandledRetry, outlast.HandledOK}) || a.begun != 2 {
		t.Fatalf("%d begins, ends %v", a.begun, got)
	}
	if !a.ends[0].Acked || a.ends[1].Acked {
		t.Error("the first try was of a delivery, the second was not")
	}
	if outlast.ErrorClass(a.ends[0].Err) != "error" || a.ends[1].Err != nil {
		t.Errorf("errors %v, %v", a.ends[0].Err, a.ends[1].Err)
	}
}

func testAroundBatch(t *testing.T) {
	r, a := watched(t, outlast.ConsumerConfig{Workers: 1, Batch: 8, Prefetch: 8, Retry: outlast.RetryPolicy{Attempts: 1}})
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		if m.Body.N == 5 {
			return errors.New("always")
		}
		return r.record(ctx, tx, m)
	})
	defer r.start()()
	r.send(orders("a", 1, 8)...)
	time.Sleep(time.Minute)
	synctest.Wait()
	count, told := map[outlast.HandledResult]int{}, false
	for _, h := range a.ends {
		count[h.Result]++
		told = told || h.Result == outlast.HandledAgain && h.Err != nil
	}
	if !told {
		t.Error("no roll-back tells its error")
	}
	if count[outlast.HandledOK] != 7 || count[outlast.HandledDead] != 1 || count[outlast.HandledAgain] == 0 || len(a.ends) != a.begun {
		t.Errorf("%d begins, ends %v", a.begun, count)
	}
}

func testAroundCut(t *testing.T) {
	r, a := watched(t, outlast.ConsumerConfig{Grace: time.Second})
	r.onOrder(func(ctx context.Context, _ outlast.Tx, _ outlast.Received[order]) error {
		<-ctx.Done()
		return ctx.Err()
	})
	stop := r.start()
	r.send(orders("a", 1, 1)...)
	synctest.Wait()
	stop()
	if got := a.results(); !slices.Equal(got, []outlast.HandledResult{outlast.HandledCut}) {
		t.Errorf("ends %v", got)
	}
}

// panicking is a hook with a bug.
type panicking struct{}

func (panicking) Around(context.Context, *outlast.Delivered) (context.Context, func(outlast.Handled)) {
	panic("a bug")
}

func (panicking) OnEnqueuing(context.Context, []*outlast.Message) func(error) { panic("a bug") }

func testAroundPanics(t *testing.T) {
	r, a := watched(t, outlast.ConsumerConfig{})
	r.conf.Hooks = append([]outlast.Hook{panicking{}}, r.conf.Hooks...)
	r.onOrder(r.record)
	defer r.start()()
	r.send(orders("a", 1, 1)...)
	synctest.Wait()
	r.want("a1")
	if len(a.ends) != 1 {
		t.Errorf("%d ends of the other hook", len(a.ends))
	}
	tx := r.store.Begin()
	defer tx.Rollback()
	outbox := outlast.NewOutbox(r.store, outlast.OutboxConfig{Hooks: []outlast.Hook{panicking{}}})
	if err := outbox.Publish(context.Background(), tx, orders("a", 2, 2)...); err != nil {
		t.Error(err)
	}
}
