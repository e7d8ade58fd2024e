package rabbitmq

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// Remove deletes the queues of a group with everything that is in them. It is for tools
// that made the group themselves: no part of Outlast removes a queue that may be in use.
// A queue that is not there is no error.
func (t *topology) Remove(ctx context.Context, g outlast.GroupTopology) error {
	return t.with(ctx, func(s *session) error {
		var errs []error
		for i := range max(1, g.Partitions) {
			op := fmt.Sprintf("delete queue %q", g.Queue(i))
			errs = append(errs, errorOf(op, s.aside(op, func(ch *amqp.Channel) error {
				_, err := ch.QueueDelete(g.Queue(i), false, false, false)
				return err
			})))
		}
		return joined("remove the group "+g.Group, errs)
	})
}
