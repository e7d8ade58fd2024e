package storm

import (
	"context"
	"errors"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/lab/storm/role"
)

// late is a group that finds a queue of its name with other arguments, which it must not
// touch; when a person has deleted that, it must begin by itself.
const (
	late  = "late"
	wrong = "wrong queue for late"
)

// hasLate: only a storm of everything has the group, and no soak.
func (s *stage) hasLate() bool {
	return len(s.config.Only) == 0 && s.config.Messages == 0 && s.config.Length > 10*time.Second
}

// spoil declares the wrong queue, before anybody else declares anything.
func (s *stage) spoil(ctx context.Context) error {
	if !s.hasLate() {
		return nil
	}
	s.openGaps(gap{Group: late, Types: role.Hears[late], What: wrong, Unbound: true})
	return s.onChannel(ctx, declareWrong)
}

// repairLate is a step that deletes the wrong queue after a third of the time.
func (s *stage) repairLate() []fault.Step {
	if !s.hasLate() {
		return nil
	}
	return []fault.Step{{For: s.config.Length / 3, Fault: fault.Fault{Name: wrong, Hits: []string{wrong}, On: nothing, Off: s.insisting(func(ctx context.Context) error {
		if err := s.onChannel(ctx, deleteWrong); err != nil {
			return err
		}
		return s.untilWhole(wrong, late)(ctx)
	})}}}
}

func declareWrong(ch *amqp.Channel) error {
	_, err := ch.QueueDeclare(groupTopology(late).Queue(0), true, false, false, false, nil)
	return err
}

// deleteWrong leaves the right queue alone. A node that was away while the wrong one was deleted
// may bring it back, so that this is done until all is right.
func deleteWrong(ch *amqp.Channel) error {
	var refused *amqp.Error
	switch err := declareWrong(ch); {
	case errors.As(err, &refused) && refused.Code == amqp.PreconditionFailed:
		return nil // it is the right one
	case err != nil:
		return err
	}
	_, err := ch.QueueDelete(groupTopology(late).Queue(0), false, false, false)
	return err
}

// bound are the groups whose queues may be declared by an operator now.
func (s *stage) bound() []string {
	return slices.DeleteFunc(s.groups(), func(group string) bool {
		return group == late && slices.ContainsFunc(s.gapsSoFar(), func(g gap) bool { return g.Unbound && g.To == 0 })
	})
}

// first is the number of the first message that a group was promised.
func (s *stage) first(group string) int64 {
	for _, g := range s.gapsSoFar() {
		if g.Unbound && g.Group == group {
			if g.To == 0 {
				return 1 << 62
			}
			return g.To + 1
		}
	}
	return 0
}
