package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/outlasttest/check"
	"github.com/outlastmq/outlast/outlasttest/history"
)

type order struct {
	Key string `json:"key" outlast:"key"`
	N   int    `json:"n"`
}

var placed = outlast.Event[order]("order.placed", 1)

const recordedMessages = 12

// record runs a service in memory, in which every fourth message fails once, and
// returns its history.
func record(t *testing.T) []history.Event {
	t.Helper()
	path := filepath.Join(t.TempDir(), "recorded.jsonl")
	rec, err := history.NewRecorder(path, "orders")
	if err != nil {
		t.Fatal(err)
	}
	store := memory.NewStore()
	var handled atomic.Int32
	subscribed, published, all := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var failed sync.Map
	service, err := outlast.NewService(outlast.ServiceConfig{
		Name: "orders", Store: store, Broker: memory.NewBroker(),
		Hooks: []outlast.Hook{rec, handledHook(func(h outlast.Handled) {
			if h.Result == outlast.HandledOK && handled.Add(1) == recordedMessages {
				close(all)
			}
		}), subscribedHook(sync.OnceFunc(func() { close(subscribed) }))},
		Consumer: outlast.ConsumerConfig{Retry: outlast.RetryPolicy{First: time.Millisecond}},
		Handlers: []outlast.Handler{outlast.Handle(placed, func(_ context.Context, _ outlast.Tx, m outlast.Received[order]) error {
			// An effect that changes places with one of a message that is not even enqueued
			// yet is no matter of order.
			<-published
			if m.Body.N%4 == 0 {
				if _, again := failed.LoadOrStore(m.ID, true); !again {
					return errors.New("not the first time")
				}
			}
			return nil
		})},
		Middleware: []outlast.Middleware{rec.Middleware(nil)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	// A relay that publishes before the queue is there is refused, and the order of a
	// message whose first publish nobody could hear is not judged.
	<-subscribed
	for n := 1; n <= recordedMessages; n++ {
		tx := store.Begin()
		key := fmt.Sprint("key-", n%2)
		if err := service.Outbox().Publish(history.WithKeySeq(ctx, int64(n)), tx, placed.Message(order{key, n})); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	close(published)
	<-all
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	rec.Quiesce(true)
	if err := rec.Left(t.Context(), store, "orders"); err != nil {
		t.Fatal(err)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var events []history.Event
	for line := range strings.Lines(string(data)) {
		var e history.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

type handledHook func(outlast.Handled)

func (f handledHook) OnHandled(h outlast.Handled) { f(h) }

type subscribedHook func()

func (f subscribedHook) OnSubscribed(outlast.GroupTopology, string, bool) { f() }

// judge checks events as one file. Times stay with their places, whatever moved.
func judge(t *testing.T, times, events []history.Event) *check.Report {
	t.Helper()
	var data []byte
	for i, e := range events {
		if e.T = times[min(i, len(times)-1)].T; i >= len(times) {
			e.T++
		}
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		data = append(append(data, line...), '\n')
	}
	path := filepath.Join(t.TempDir(), "history.jsonl")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := check.Files(t.Context(), check.Options{}, path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Whatever single event of a recorded history is lost, doubled or moved, the right
// invariant says so.
func TestF85_EveryLostDoubledOrMovedEventIsSeen(t *testing.T) {
	t.Parallel()
	good := record(t)
	for _, v := range judge(t, good, good).Verdicts {
		if v.State == check.Violated {
			t.Fatalf("%s is violated in the history as it was recorded: %s", v.ID, v.Examples[0].Text)
		}
	}
	later := func(from int, match func(history.Event) bool) int {
		for i := from + 1; i < len(good); i++ {
			if match(good[i]) {
				return i
			}
		}
		return -1
	}
	drop := func(i int) []history.Event { return slices.Delete(slices.Clone(good), i, i+1) }
	double := func(i int) []history.Event { return slices.Insert(slices.Clone(good), i+1, good[i]) }
	swap := func(i, j int) []history.Event {
		s := slices.Clone(good)
		s[i], s[j] = s[j], s[i]
		return s
	}
	// unparked leaves out what was settled when it began to wait, which may be written
	// down after its second try.
	unparked := func(make func(i int) []history.Event) func(i int) []history.Event {
		return func(i int) []history.Event {
			if slices.ContainsFunc(good[:i], func(e history.Event) bool { return e.E == history.Park && e.M == good[i].M }) {
				return nil
			}
			return make(i)
		}
	}
	mutations := []struct {
		name  string
		kind  history.Kind
		wants string
		make  func(i int) []history.Event // nil: not here
	}{
		{"drop", history.Enqueue, "I2", drop},
		{"drop", history.Confirm, "I7", drop},
		{"drop", history.Deliver, "I8", drop},
		{"drop", history.Effect, "I1", drop},
		{"drop", history.Effect, "I6", unparked(drop)},
		{"drop", history.Tried, "I12", func(i int) []history.Event {
			if good[i].O != "failed" {
				return nil
			}
			return drop(i)
		}},
		{"double", history.Effect, "I4", double},
		{"double", history.Settle, "I8", double},
		{"double", history.Confirm, "I11", double},
		{"claim again after", history.Mark, "I10", func(i int) []history.Event {
			at := slices.IndexFunc(good, func(e history.Event) bool { return e.E == history.Claim && e.M == good[i].M })
			return slices.Insert(slices.Clone(good), i+1, good[at])
		}},
		{"start again after", history.Effect, "I10", func(i int) []history.Event {
			at := slices.IndexFunc(good, func(e history.Event) bool { return e.E == history.Start && e.M == good[i].M })
			return slices.Insert(slices.Clone(good), i+1, good[at])
		}},
		{"swap with its settle", history.Effect, "I6", unparked(func(i int) []history.Event {
			return swap(i, later(i, func(e history.Event) bool { return e.E == history.Settle && e.M == good[i].M }))
		})},
		{"swap with its mark", history.Confirm, "I7", func(i int) []history.Event {
			return swap(i, later(i, func(e history.Event) bool { return e.E == history.Mark && e.M == good[i].M }))
		}},
		{"swap with the next of its key", history.Effect, "I5", func(i int) []history.Event {
			key := keyOf(good, good[i].M)
			j := later(i, func(e history.Event) bool { return e.E == history.Effect && keyOf(good, e.M) == key })
			if j < 0 {
				return nil
			}
			return swap(i, j)
		}},
		{"change the content of", history.Deliver, "I3", func(i int) []history.Event {
			s := slices.Clone(good)
			s[i].Hash = "0"
			return s
		}},
	}
	for _, m := range mutations {
		t.Run(fmt.Sprint(m.name, " ", m.kind, " is ", m.wants), func(t *testing.T) {
			t.Parallel()
			tried := 0
			for i, e := range good {
				if e.E != m.kind {
					continue
				}
				mutant := m.make(i)
				if mutant == nil {
					continue
				}
				tried++
				if v := judge(t, good, mutant).Verdict(m.wants); v.State != check.Violated {
					t.Errorf("event %d of %s: %s: %s", i, e.M, v.State, v.Note)
				}
			}
			if tried < 2 {
				t.Errorf("%d mutants", tried)
			}
		})
	}
}

func keyOf(events []history.Event, m string) string {
	for _, e := range events {
		if e.E == history.Enqueue && e.M == m {
			return e.Key
		}
	}
	return ""
}
