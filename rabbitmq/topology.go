package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// topology uses a short connection of its own for every call.
type topology struct{ b *broker }

var _ outlast.TopologyBroker = (*topology)(nil)

// with connects, runs f, and closes. The end of ctx ends the connection.
func (t *topology) with(ctx context.Context, f func(*session) error) error {
	s, err := t.b.dial(ctx, "topology", t.b.logger)
	if err != nil {
		return err
	}
	defer s.close()
	stop := context.AfterFunc(ctx, func() { s.wire.abort(context.Cause(ctx)) })
	defer stop()
	return f(s)
}

// Check compares exchanges and queues with what the broker has. AMQP cannot list
// bindings nor policies, so that they are compared only with [Management]; each
// subscription asserts its own bindings in any case.
// Arguments are compared by declaring what exists again with ours, which changes
// nothing and needs the configure right. Of several differing arguments of one
// queue the broker names one.
func (t *topology) Check(ctx context.Context, want outlast.Topology) ([]outlast.TopologyDifference, error) {
	var all []outlast.TopologyDifference
	err := t.with(ctx, func(s *session) error {
		for _, e := range want.Exchanges {
			if err := s.compare(&all, exchangeObject(e.Name)); err != nil {
				return err
			}
		}
		for _, g := range want.Groups {
			for i := range max(1, g.Partitions) {
				before := len(all)
				if err := s.compare(&all, queueObject(g, i)); err != nil {
					return err
				}
				if t.b.management == nil || len(all) > before && all[before].Have == nothing {
					continue
				}
				more, err := t.b.management.queueDifferences(ctx, g, i)
				all = append(all, more...)
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	return all, err
}

// object is something that can be looked for and declared.
type object struct {
	name    string // `queue "billing.0"`
	kind    string
	passive func(*amqp.Channel) error
	active  func(*amqp.Channel) error
}

func exchangeObject(name string) object {
	return object{
		name: fmt.Sprintf("exchange %q", name), kind: "durable topic exchange",
		passive: func(ch *amqp.Channel) error {
			return ch.ExchangeDeclarePassive(name, "topic", true, false, false, false, nil)
		},
		active: func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare(name, "topic", true, false, false, false, nil)
		},
	}
}

func queueObject(g outlast.GroupTopology, partition int) object {
	name := g.Queue(partition)
	return object{
		name: fmt.Sprintf("queue %q", name), kind: "quorum queue",
		passive: func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
			return err
		},
		active: func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(name, true, false, false, false, queueArguments(g))
			return err
		},
	}
}

const nothing = "nothing"

// compare never creates: what is missing is found out first.
func (s *session) compare(all *[]outlast.TopologyDifference, o object) error {
	op := "check " + o.name
	err := s.aside(op, o.passive)
	if replyCode(err) == replyNotFound {
		*all = append(*all, outlast.TopologyDifference{Object: o.name, Want: o.kind, Have: nothing, Hint: "outlast topology apply"})
		return nil
	}
	if err != nil {
		return errorOf(op, err)
	}
	err = s.aside(op, o.active)
	if d, ok := conflictOf(err); ok {
		*all = append(*all, d)
		return nil
	}
	return errorOf(op, err)
}

// applyTries is how often Apply begins anew, after pauses of one, two and four seconds.
const applyTries = 4

// Apply declares exchanges, queues and bindings. It goes on after a failure and
// returns all of them. A quorum queue that the broker could not start in its time is an
// internal error (541), which ends the connection; that is tried again, four times in
// all.
func (t *topology) Apply(ctx context.Context, want outlast.Topology) error {
	for try := 1; ; try++ {
		err := t.with(ctx, func(s *session) error { return s.apply(want) })
		if replyCode(err) != replyInternalError || try == applyTries {
			return err
		}
		pause := time.Second << (try - 1)
		t.b.logger.WarnContext(ctx, "the broker could not apply the topology; trying again", "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func (s *session) apply(want outlast.Topology) error {
	var errs []error
	for _, e := range want.Exchanges {
		errs = append(errs, s.ensureExchange(e.Name))
	}
	for _, g := range want.Groups {
		for i := range max(1, g.Partitions) {
			errs = append(errs, s.assertQueue(g, i))
		}
	}
	return joined("apply the topology", errs)
}

// joined keeps the code of the first error.
func joined(op string, errs []error) error {
	var real []error
	for _, err := range errs {
		if err != nil {
			real = append(real, err)
		}
	}
	switch len(real) {
	case 0:
		return nil
	case 1:
		return real[0]
	}
	return &outlast.Error{Op: op, Code: outlast.CodeOf(real[0]), Err: errors.Join(real...)}
}

// Depth returns the messages that are ready; those with consumers are not counted.
func (t *topology) Depth(ctx context.Context, queue string) (outlast.QueueDepth, error) {
	depth := outlast.QueueDepth{Queue: queue}
	op := fmt.Sprintf("look at queue %q", queue)
	err := t.with(ctx, func(s *session) error {
		return errorOf(op, s.aside(op, func(ch *amqp.Channel) error {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			depth.Messages, depth.Consumers = q.Messages, q.Consumers
			return err
		}))
	})
	return depth, err
}

// peekIdle is how long Peek waits for a message that the queue has said to hold: other
// consumers may have taken it.
const peekIdle = time.Second

// Peek consumes messages and gives them back by closing the channel. It is not without
// a trace: they are marked as redelivered, and while it looks, the queue's consumers
// get what is behind them. A quorum queue puts them back to its front, in order; that
// holds for one consumer, and not for messages that were got one by one.
//
// An ordered queue (single active consumer) gives its messages to its consumer alone,
// so that Peek returns CodeRefused while it has one. Without one, a consumer that
// starts while Peek looks waits for its end.
func (t *topology) Peek(ctx context.Context, queue string, n int) ([]*outlast.Delivery, error) {
	var found []*outlast.Delivery
	op := fmt.Sprintf("peek into queue %q", queue)
	err := t.with(ctx, func(s *session) error {
		return errorOf(op, s.aside(op, func(ch *amqp.Channel) error {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			want := min(n, q.Messages)
			if err != nil || want <= 0 {
				return err
			}
			if found, err = peek(ctx, ch, queue, want); err != nil {
				return err
			}
			if len(found) == 0 && q.Consumers > 0 {
				return &outlast.Error{Op: op, Code: outlast.CodeRefused,
					Err:  fmt.Errorf("its %d consumers get its %d messages", q.Consumers, q.Messages),
					Hint: "an ordered queue shows its messages to its active consumer alone: stop the group to look into it"}
			}
			return nil
		}))
	})
	return found, err
}

func peek(ctx context.Context, ch *amqp.Channel, queue string, n int) ([]*outlast.Delivery, error) {
	if err := ch.Qos(min(n, 65535), 0, false); err != nil {
		return nil, err
	}
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	var found []*outlast.Delivery
	idle := time.NewTimer(peekIdle)
	defer idle.Stop()
	for len(found) < min(n, 65535) {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return found, errClosed
			}
			m, problem := decode(&d, nil)
			delivery := outlast.NewDelivery(m, queue, d.Redelivered, nil)
			delivery.Problem, delivery.Exchange, delivery.RoutingKey = problem, d.Exchange, d.RoutingKey
			found = append(found, delivery)
			idle.Reset(peekIdle)
		case <-idle.C:
			return found, nil
		case <-ctx.Done():
			return found, ended("peek", ctx)
		}
	}
	return found, nil
}
