package fakebroker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/fakebroker"
	"github.com/outlastmq/outlast/memory"
)

// TestF49_ConnectingIsNeverGivenUp: publisher and subscriber meet a server that ends every
// connection after its first byte, hundreds of times, and work when it stops doing so.
func TestF49_ConnectingIsNeverGivenUp(t *testing.T) {
	t.Parallel()
	const refusals = 600
	server := fakebroker.New(t, fakebroker.Script{
		CutAfter: func(connection int) int { return max(0, min(1, refusals-connection+1)) },
		Consumed: func(ch *fakebroker.Channel, _, consumer string) { ch.Deliver(consumer, 1, false, plain("at-last")) },
	})
	b := broker(server.URL())
	s := send(t, b)
	defer s.stop()
	deliveries, _, _ := receive(t, b)
	s.link(outlast.LinkUp)
	s.delivers()
	if d := next(t, "a delivery", deliveries); d.Message.ID != "at-last" {
		t.Errorf("delivered %+v", d.Message)
	}
	if n := server.Accepted(); n <= refusals {
		t.Errorf("%d connections, want more than the %d that were refused", n, refusals)
	}
}

type order struct {
	ID string `json:"id"`
}

var placed = outlast.Event[order]("order.placed", 1)

// TestF63_NothingIsGivenBackToTheBroker: whatever becomes of a message, and also when the
// consumer ends with it in hand, the broker gets an acknowledgement or nothing: never a
// nack, a reject or a recover. What is tried again waits in the database.
func TestF63_NothingIsGivenBackToTheBroker(t *testing.T) {
	t.Parallel()
	ids := []string{"fails", "panics", "snoozes", "down", "dead", "no-order", "hangs"}
	var mu sync.Mutex
	methods := map[string]int{}
	acked, settled := make(chan uint64, 100), map[uint64]bool{}
	server := fakebroker.New(t, fakebroker.Script{
		Instead: func(_ *fakebroker.Channel, class, method uint16) bool {
			mu.Lock()
			defer mu.Unlock()
			if class == 60 {
				methods[fmt.Sprint(method)]++
			}
			return false
		},
		Consumed: func(ch *fakebroker.Channel, _, consumer string) {
			for i, id := range ids {
				body := fmt.Appendf(nil, `{"id":%q}`, id)
				if id == "no-order" {
					body = []byte(`{"id":`)
				}
				field := func(name, value string) []byte { return fakebroker.Field(name, 'S', fakebroker.LongText(value)) }
				ch.Deliver(consumer, uint64(i+1), false, fakebroker.Publish{Exchange: outlast.EventExchange, Key: "order.placed.v1.7", Body: body,
					Header: fakebroker.Properties(uint64(len(body)), id, field("ce-id", id), field("ce-type", "order.placed.v1"), field("ce-source", "orders"))})
			}
		},
		Acked: func(_ *fakebroker.Channel, tag uint64, multiple bool) {
			for earlier := uint64(1); earlier < tag; earlier++ {
				if multiple && !settled[earlier] {
					settled[earlier] = true
					acked <- earlier
				}
			}
			settled[tag] = true
			acked <- tag
		},
	})
	store, hanging := memory.NewStore(), make(chan struct{})
	consumer, err := outlast.NewConsumer(outlast.ConsumerConfig{
		Group: "billing", Store: store, Broker: broker(server.URL()), Unordered: true, Grace: outlast.NoGrace,
		Retry: outlast.RetryPolicy{First: time.Hour, Longest: time.Hour},
		Handlers: []outlast.Handler{outlast.Handle(placed, func(ctx context.Context, _ outlast.Tx, m outlast.Received[order]) error {
			switch m.Body.ID {
			case "panics":
				panic("boom")
			case "snoozes":
				return outlast.Snooze(time.Hour)
			case "down":
				return outlast.Unavailable(errors.New("no route to host"))
			case "dead":
				return outlast.DeadLetter(errors.New("card expired"))
			case "hangs":
				close(hanging)
				<-ctx.Done()
				return ctx.Err()
			}
			return errors.New("not yet")
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	var tags []uint64
	for range len(ids) - 1 {
		tags = append(tags, next(t, "an acknowledgement", acked))
	}
	next(t, "the one that hangs", hanging)
	cancel()
	if err := next(t, "the end", ended); err != nil {
		t.Error(err)
	}
	slices.Sort(tags)
	if want := []uint64{1, 2, 3, 4, 5, 6}; !slices.Equal(tags, want) || len(acked) > 0 {
		t.Errorf("acknowledged %v and %d more, want %v", tags, len(acked), want)
	}
	waiting, err := store.Operator().Retries().List(t.Context(), outlast.Filter{})
	if err != nil || len(waiting) != 4 {
		t.Errorf("%d wait in the database (%v), want 4: %+v", len(waiting), err, waiting)
	}
	dead, err := store.Operator().Dead().List(t.Context(), outlast.Filter{})
	if err != nil || len(dead) != 2 {
		t.Errorf("%d dead letters (%v), want 2: %+v", len(dead), err, dead)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, never := range []string{"90", "100", "110", "120"} { // reject, two of recover, nack
		if n := methods[never]; n > 0 {
			t.Errorf("method 60.%s was sent %d times", never, n)
		}
	}
	if n := methods["80"]; n < 1 || n > 6 || methods["20"] != 1 {
		t.Errorf("methods of class 60: %v", methods)
	}
}
