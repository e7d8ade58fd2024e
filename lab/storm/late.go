package storm

import (
	"context"
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
	return s.onChannel(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(groupTopology(late).Queue(0), true, false, false, false, nil)
		return err
	})
}

// repairLate is a step that deletes the wrong queue after a third of the time.
func (s *stage) repairLate() []fault.Step {
	if !s.hasLate() {
		return nil
	}
	deleted := false
	return []fault.Step{{For: s.config.Length / 3, Fault: fault.Fault{Name: wrong, Hits: []string{wrong}, On: nothing, Off: func(ctx context.Context) error {
		if !deleted {
			err := s.onChannel(ctx, func(ch *amqp.Channel) error {
				_, err := ch.QueueDelete(groupTopology(late).Queue(0), false, false, false)
				return err
			})
			if err != nil {
				return err
			}
			deleted = true
		}
		return s.untilWhole(wrong, late)(ctx)
	}}}}
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
