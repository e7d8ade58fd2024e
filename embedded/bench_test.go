package embedded

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/nats"
)

// BenchmarkPublish keeps 512 messages in flight until the stream has confirmed them.
func BenchmarkPublish(b *testing.B) {
	for name, opts := range map[string][]Option{"fsync": nil, "without_fsync": {WithoutSync()}} {
		b.Run(name, func(b *testing.B) {
			broker := benchBroker(b, opts, group("billing", false))
			publishAll(b, broker, b.N)
		})
	}
}

// BenchmarkConsume takes and acknowledges messages that are there already.
func BenchmarkConsume(b *testing.B) {
	for _, ordered := range []bool{false, true} {
		b.Run(fmt.Sprintf("ordered_%v", ordered), func(b *testing.B) {
			g := group("billing", ordered)
			broker := benchBroker(b, []Option{WithoutSync()}, g)
			publishAll(b, broker, b.N)
			b.ResetTimer()
			var got atomic.Int64
			done := make(chan struct{})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			s := broker.Subscriber(outlast.SubscriberConfig{Group: g, Prefetch: 64, Deliver: func(d *outlast.Delivery) {
				d.Ack()
				if got.Add(1) == int64(b.N) {
					close(done)
				}
			}})
			go func() { ended <- s.Run(ctx) }()
			<-done
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			cancel()
			<-ended
		})
	}
}

func benchBroker(b *testing.B, opts []Option, g outlast.GroupTopology) outlast.Broker {
	b.Helper()
	s, err := Start(b.TempDir(), opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	broker := nats.Broker(s.URL())
	if err := broker.Topology().Apply(b.Context(), outlast.Topology{Groups: []outlast.GroupTopology{g}}); err != nil {
		b.Fatal(err)
	}
	return broker
}

func publishAll(b *testing.B, broker outlast.Broker, n int) {
	b.Helper()
	const window = 512
	free := make(chan struct{}, window)
	for range window {
		free <- struct{}{}
	}
	up := make(chan struct{}, 1)
	var bad atomic.Int64
	p := broker.Publisher(outlast.PublisherConfig{
		Link: func(l outlast.Link) {
			if l.State == outlast.LinkUp {
				up <- struct{}{}
			}
		},
		Results: func(rs []outlast.Result) {
			for _, r := range rs {
				if r.Outcome != outlast.OutcomeConfirmed {
					bad.Add(1)
				}
				free <- struct{}{}
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	<-up
	ps := messages(0, n)
	for _, m := range ps {
		m.Message.Body = make([]byte, 256)
	}
	b.ResetTimer()
	for _, m := range ps {
		<-free
		p.Send(0, []*outlast.Publishing{m})
	}
	for range window {
		<-free
	}
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
	cancel()
	<-ended
	if bad.Load() > 0 {
		b.Fatalf("%d not confirmed", bad.Load())
	}
	b.StartTimer()
}
