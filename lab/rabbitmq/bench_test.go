package rabbitmq_test

import (
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
)

const window = 1024

// BenchmarkPublish publishes to a quorum queue with 1,024 messages in flight: by the
// adapter, and by a bare loop over amqp091-go with the same headers.
func BenchmarkPublish(b *testing.B) {
	b.Run("outlast", func(b *testing.B) {
		broker := broker(servers.NewVHost(b).URL())
		apply(b, broker, group("bench", "bench.v1"))
		slots := make(chan struct{}, window)
		up := make(chan struct{}, 16)
		p := broker.Publisher(outlast.PublisherConfig{Logger: quiet,
			Results: func(rs []outlast.Result) {
				for _, r := range rs {
					if r.Outcome != outlast.OutcomeConfirmed {
						b.Error(r.Outcome, r.Err)
					}
					<-slots
				}
			},
			Link: func(l outlast.Link) {
				if l.State == outlast.LinkUp {
					up <- struct{}{}
				}
			}})
		start(b, p.Run)
		<-up
		b.ReportAllocs()
		began := time.Now()
		for b.Loop() {
			slots <- struct{}{}
			p.Send(0, []*outlast.Publishing{message("bench.v1")})
		}
		for range window {
			slots <- struct{}{}
		}
		b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "msg/s")
	})
	b.Run("amqp091", func(b *testing.B) {
		vhost := servers.NewVHost(b)
		apply(b, broker(vhost.URL()), group("bench", "bench.v1"))
		ch := admin(b, vhost.URL())
		if err := ch.Confirm(false); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		began := time.Now()
		var group sync.WaitGroup
		pending := make(chan *amqp.DeferredConfirmation, window)
		group.Go(func() {
			for dc := range pending {
				if !dc.Wait() {
					b.Error("nacked")
				}
			}
		})
		for b.Loop() {
			m := message("bench.v1")
			headers := amqp.Table{}
			for _, h := range outlast.EncodeHeaders(m.Message) {
				headers[h.Name] = h.Value
			}
			dc, err := ch.PublishWithDeferredConfirm(m.Exchange, m.RoutingKey, true, false, amqp.Publishing{
				Headers: headers, ContentType: "application/json", DeliveryMode: amqp.Persistent,
				MessageId: m.Message.ID, Timestamp: m.Message.EnqueuedAt, Type: m.Message.Type, AppId: "lab", Body: m.Message.Body})
			if err != nil {
				b.Fatal(err)
			}
			pending <- dc
		}
		close(pending)
		group.Wait()
		b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "msg/s")
	})
}
