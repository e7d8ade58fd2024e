package journey_test

import (
	"testing"
	"time"

	"github.com/outlastmq/outlast/lab/servers"
)

// BenchmarkRelay relays b.N keyed messages into a queue, with and without the sent log,
// so that what tracking costs can be read: run it with -count, and compare by benchstat.
func BenchmarkRelay(b *testing.B) {
	for _, c := range []struct {
		name  string
		track bool
	}{{"untracked", false}, {"tracked", true}} {
		b.Run(c.name, func(b *testing.B) {
			broker := servers.NewVHost(b).URL()
			ch := channel(b, broker)
			must(b, ch.ExchangeDeclare("outlast.events", "topic", true, false, false, false, nil))
			_, err := ch.QueueDeclare("sink.0", true, false, false, false, map[string]any{"x-queue-type": "quorum"})
			must(b, err)
			must(b, ch.QueueBind("sink.0", "order.placed.v1.*", "outlast.events", false, nil))
			s := open(b, "orders")
			s.exec(b, `INSERT INTO outlast_outbox (type, ordering_key, body)
				SELECT 'order.placed.v1', 'k' || g % 1000, repeat('x', 256) FROM generate_series(1, $1) g`, b.N)
			was := usage(b)
			b.ResetTimer()
			stop := relay(b, s, broker, c.track)
			for s.number(b, "SELECT count(*) FROM (SELECT FROM outlast_outbox LIMIT 1) x") > 0 {
				time.Sleep(5 * time.Millisecond)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			stop()
			usage(b).since(was).report(b)
		})
	}
}
