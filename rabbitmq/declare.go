package rabbitmq

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// queueArguments make a quorum queue as Outlast needs it.
func queueArguments(g outlast.GroupTopology) amqp.Table {
	args := amqp.Table{
		amqp.QueueTypeArg:  amqp.QueueTypeQuorum,
		"x-delivery-limit": int64(outlast.DeliveryLimit),
	}
	if g.Ordered {
		args["x-single-active-consumer"] = true
	}
	return args
}

// assertQueue declares one partition's queue with its exchanges and bindings, each
// on a channel that nothing else uses: a refusal closes it.
func (s *session) assertQueue(g outlast.GroupTopology, partition int) error {
	name := g.Queue(partition)
	seen := map[string]bool{}
	for _, b := range g.Bindings {
		if seen[b.Exchange] {
			continue
		}
		seen[b.Exchange] = true
		if err := s.ensureExchange(b.Exchange); err != nil {
			return err
		}
	}
	op := fmt.Sprintf("declare queue %q", name)
	err := s.aside(op, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, queueArguments(g))
		return err
	})
	if err != nil {
		return declareError(op, err)
	}
	op = fmt.Sprintf("bind queue %q", name)
	return declareError(op, s.aside(op, func(ch *amqp.Channel) error { return bind(ch, g, partition) }))
}

// bind binds a queue to everything that its group handles. Only the last request asks
// for an answer: the broker handles them in order and closes the channel at the first
// that it refuses.
func bind(ch *amqp.Channel, g outlast.GroupTopology, partition int) error {
	type place struct{ exchange, key string }
	var places []place
	for _, b := range g.Bindings {
		for _, key := range g.RoutingKeys(b, partition) {
			places = append(places, place{b.Exchange, key})
		}
	}
	for i, p := range places {
		noWait := i < len(places)-1
		if err := ch.QueueBind(g.Queue(partition), p.key, p.exchange, noWait, nil); err != nil {
			return err
		}
	}
	return nil
}
