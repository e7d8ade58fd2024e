package rig

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Channel returns a channel of the bare AMQP library: a foreign client.
func Channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// Depth is how many messages a queue holds.
func Depth(t *testing.T, ch *amqp.Channel, queue string) int {
	t.Helper()
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}

// Drain takes messages off a queue until n different ones have come, and what else
// comes within a moment. It returns how often each id came.
func Drain(t *testing.T, ch *amqp.Channel, queue string, n int) map[string]int {
	t.Helper()
	deliveries, err := ch.ConsumeWithContext(t.Context(), queue, "drain", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	limit := time.After(Patience)
	var quiet <-chan time.Time
	if n == 0 {
		quiet = time.After(time.Second)
	}
	for {
		select {
		case d := <-deliveries:
			seen[d.MessageId]++
			if len(seen) >= n && quiet == nil {
				quiet = time.After(time.Second)
			}
		case <-quiet:
			return seen
		case <-limit:
			t.Fatalf("%d different messages came, want %d", len(seen), n)
		}
	}
}
