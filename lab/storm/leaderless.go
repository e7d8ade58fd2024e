package storm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast/lab/storm/role"
)

// electionLimit is how long a quorum queue may be without a leader when all nodes are up and
// reach each other.
const electionLimit = time.Minute

// leaderless prints the names of the quorum queues whose members do not know a leader. Nothing
// else says so: declare and depth ask one member, and are answered.
const leaderless = `[element(4, amqqueue:get_name(Q)) || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue,
	case ra:members(amqqueue:get_pid(Q), 5000) of {ok, _, _} -> false; _ -> true end].`

var binary = regexp.MustCompile(`<<"([^"]*)">>`)

// replaceLeaderless deletes queues that have no leader for good, as an operator would, so that
// their consumers declare them anew. RabbitMQ 3.10 leaves a queue so that was declared while a
// node was frozen (seed 8): nothing is confirmed to it any more, and what it held is lost.
func (s *stage) replaceLeaderless(ctx context.Context) error {
	for end := time.Now().Add(electionLimit); ; {
		var names []string
		output, err := s.rabbit.Node(0).Ctl(ctx, "eval", leaderless)
		for _, m := range binary.FindAllStringSubmatch(output, -1) {
			names = append(names, m[1])
		}
		switch {
		case err == nil && len(names) == 0:
			return nil
		case time.Now().After(end) && err != nil:
			return err
		case time.Now().After(end):
			var failed []error
			for _, name := range names {
				failed = append(failed, s.replace(ctx, name))
			}
			return errors.Join(failed...)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// replace deletes a queue and waits until it is back.
func (s *stage) replace(ctx context.Context, queue string) error {
	group := slices.IndexFunc(s.groups(), func(group string) bool {
		g := groupTopology(group)
		for p := range g.Partitions {
			if g.Queue(p) == queue {
				return true
			}
		}
		return false
	})
	if group < 0 {
		return fmt.Errorf("queue %s has no leader, and no group", queue)
	}
	name := s.groups()[group]
	what := "replace queue " + queue + " that has no leader"
	s.timeline.Mark(what)
	s.openGaps(gap{Group: name, Types: role.Hears[name], What: what, Destroyed: true})
	err := s.onChannel(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	})
	if err != nil {
		return err
	}
	for {
		if err = s.untilWhole(what, name)(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Second)
	}
}
