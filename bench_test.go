package outlast_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// The benchmarks of the hot paths; `make bench-micro` compares them with the kept ones.

type benchBody struct {
	OrderID string `json:"order_id" outlast:"key"`
	Cents   int64  `json:"cents"`
	Note    string `json:"note"`
}

var benchPlaced = outlast.Event[benchBody]("order.placed", 1)

func benchMessage(n int) outlast.Message {
	return benchPlaced.Message(benchBody{OrderID: fmt.Sprintf("order-%d", n%1000), Cents: int64(n), Note: strings.Repeat("x", 200)})
}

// benchSent is a message as the relay publishes it.
func benchSent() *outlast.Message {
	m := benchMessage(7)
	m.ID, m.Source, m.CorrelationID = outlast.NewID(), "orders", outlast.NewID()
	m.EnqueuedAt = time.Now()
	m.SettledBefore = m.EnqueuedAt.Add(-time.Minute)
	return &m
}

func BenchmarkMessage(b *testing.B) {
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if m := benchMessage(n); len(m.Body) < 200 {
			b.Fatal("the body is missing")
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	m := benchSent()
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Validate(0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeHeaders(b *testing.B) {
	m := benchSent()
	b.ReportAllocs()
	for b.Loop() {
		if len(outlast.EncodeHeaders(m)) < 5 {
			b.Fatal("headers are missing")
		}
	}
}

func BenchmarkDecodeHeaders(b *testing.B) {
	headers := outlast.EncodeHeaders(benchSent())
	b.ReportAllocs()
	for b.Loop() {
		var m outlast.Message
		if err := outlast.DecodeHeaders(&m, headers); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBucket(b *testing.B) {
	id := outlast.NewID()
	for b.Loop() {
		if outlast.Bucket("order-1234", id) < 0 || outlast.Bucket("", id) < 0 {
			b.Fatal("a bucket below 0")
		}
	}
}

// BenchmarkRelayLoop relays rows from a store in memory to a broker in memory: the
// relay's own work, with little beside it. One operation is one message.
func BenchmarkRelayLoop(b *testing.B) {
	for _, keys := range []int{0, 1000, 10} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			const chunk = 5000
			for left := b.N; left > 0; left -= chunk {
				b.StopTimer()
				relayChunk(b, min(left, chunk), keys)
			}
		})
	}
}

// benchHook tells of settled rows, and when the relay holds slots.
type benchHook struct {
	settled chan int
	leased  chan struct{}
}

func (h *benchHook) OnSettled(s *outlast.Settlement, _ []outlast.Lease) { h.settled <- len(s.Sent) }

func (h *benchHook) OnLeases(_, _ string, held, _ int) {
	if held > 0 {
		select {
		case h.leased <- struct{}{}:
		default:
		}
	}
}

// relayChunk relays n messages; only that is timed.
func relayChunk(b *testing.B, n, keys int) {
	store, broker := memory.NewStore(), memory.NewBroker()
	broker.DeclareQueue("bench")
	if err := broker.Bind("bench", outlast.EventExchange, benchPlaced.Type()+".*"); err != nil {
		b.Fatal(err)
	}
	outbox := outlast.NewOutbox(store)
	msgs := make([]outlast.Message, n)
	for i := range msgs {
		msgs[i] = benchMessage(i)
		if msgs[i].Envelope.Key = ""; keys > 0 {
			msgs[i].Envelope.Key = fmt.Sprintf("order-%d", i%keys)
		}
	}
	tx := store.Begin()
	if err := outbox.Publish(b.Context(), tx, msgs...); err != nil {
		b.Fatal(err)
	}
	hook := &benchHook{settled: make(chan int, n), leased: make(chan struct{}, 1)}
	relay, err := outlast.NewRelay(outlast.RelayConfig{Source: "orders", Store: store, Broker: broker, Hooks: []outlast.Hook{hook}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	<-hook.leased
	b.StartTimer()
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	relay.Wake()
	for done := 0; done < n; {
		done += <-hook.settled
	}
	b.StopTimer()
	stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPublish writes a message into the transaction of its caller, which is then
// rolled back so that the store stays as small as it was.
func BenchmarkPublish(b *testing.B) {
	store := memory.NewStore()
	outbox := outlast.NewOutbox(store)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		tx := store.Begin()
		if err := outbox.Publish(b.Context(), tx, benchMessage(n)); err != nil {
			b.Fatal(err)
		}
		if err := tx.Rollback(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConsumerLoop handles deliveries of a broker in memory with a store in memory:
// the consumer's own work from the delivery to its acknowledgement, with little beside
// it. One operation is one message.
func BenchmarkConsumerLoop(b *testing.B) {
	for _, ordered := range []bool{false, true} {
		b.Run(fmt.Sprintf("ordered=%v", ordered), func(b *testing.B) {
			b.ReportAllocs()
			const chunk = 5000
			for left := b.N; left > 0; left -= chunk {
				b.StopTimer()
				consumeChunk(b, min(left, chunk), ordered)
			}
		})
	}
}

// handledHook tells how each try ended.
type handledHook chan outlast.HandledResult

func (h handledHook) OnHandled(x outlast.Handled) { h <- x.Result }

// consumeChunk handles n messages; only that is timed: the handlers wait until all are in
// the queues.
func consumeChunk(b *testing.B, n int, ordered bool) {
	broker, ended, begin := memory.NewBroker(), make(chan error, 1), make(chan struct{})
	handled := make(handledHook, n)
	conf := outlast.ConsumerConfig{Group: "billing", Store: memory.NewStore(), Broker: broker, Hooks: []outlast.Hook{handled}, Unordered: !ordered,
		Handlers: []outlast.Handler{outlast.Handle(benchPlaced, func(context.Context, outlast.Tx, outlast.Received[benchBody]) error {
			<-begin
			return nil
		})}}
	consumer, err := outlast.NewConsumer(conf)
	if err != nil {
		b.Fatal(err)
	}
	if err := broker.Topology().Apply(b.Context(), outlast.Topology{Groups: []outlast.GroupTopology{consumer.Topology()}}); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	go func() { ended <- consumer.Run(ctx) }()
	for i := range n {
		m := benchMessage(i)
		m.ID, m.Source = outlast.NewID(), "orders"
		if !broker.PublishForeign(outlast.EventExchange, m.Address(), outlast.EncodeHeaders(&m), m.ContentType, m.Body) {
			b.Fatal("no queue takes the message")
		}
	}
	b.StartTimer()
	close(begin)
	for range n {
		if r := <-handled; r != outlast.HandledOK {
			b.Fatalf("a message ended as %s", r)
		}
	}
	b.StopTimer()
	stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}
