package storm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast/lab/storm/role"
)

// electionLimit is how long a quorum queue may be without a leader when all nodes are up and
// reach each other.
const electionLimit = time.Minute

// leaderTime is how long all queues must have a leader until they count as led.
const leaderTime = 10 * time.Second

// leadersOf prints the quorum queues with the nodes of their leaders, or none where the members
// do not know one. Nothing else says so: declare and depth ask one member, and are answered.
const leadersOf = `[{element(4, amqqueue:get_name(Q)), case ra:members(amqqueue:get_pid(Q), 5000) of {ok, _, {_, N}} -> atom_to_list(N); _ -> "none" end}
	|| Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue].`

var leaderOf = regexp.MustCompile(`<<"([^"]*)">>,\s*"([^"]*)"`)

// leaders returns the node that leads each quorum queue; empty where none does.
func (s *stage) leaders(ctx context.Context) (map[string]string, error) {
	output, err := s.rabbit.Node(0).Ctl(ctx, "eval", leadersOf)
	if err != nil {
		return nil, err
	}
	nodes := map[string]string{}
	for _, m := range leaderOf.FindAllStringSubmatch(output, -1) {
		nodes[m[1]] = strings.TrimPrefix(m[2], "none")
	}
	return nodes, nil
}

// noteLeaders remembers who leads the queues before anything goes wrong.
func (s *stage) noteLeaders(ctx context.Context) (err error) {
	s.ledBy, err = s.leaders(ctx)
	return err
}

// sawLeaders tells the history of the queues that have another leader since. Those that
// the run itself has deleted are other queues, and do not count.
func (s *stage) sawLeaders(now map[string]string) {
	if s.history == nil {
		return
	}
	for _, group := range s.groups() {
		if slices.ContainsFunc(s.gapsSoFar(), func(g gap) bool { return g.Group == group && g.Destroyed }) {
			continue
		}
		g := groupTopology(group)
		for p := range g.Partitions {
			was, is := s.ledBy[g.Queue(p)], now[g.Queue(p)]
			if was != "" && is != "" && was != is {
				s.history.Saw("leader change")
			}
		}
	}
}

// replaceLeaderless deletes queues that have no leader for good, as an operator would, so that
// their consumers declare them anew. RabbitMQ 3.10 leaves a queue so that was declared while a
// node was frozen (seed 8), or away with an old copy of it (seed 5): nothing is confirmed to it
// any more, and what it held is lost.
func (s *stage) replaceLeaderless(ctx context.Context) error {
	led, leaderless, err := awaitLeaders(ctx, s.leaders)
	if err != nil {
		return err
	}
	if len(leaderless) == 0 {
		s.sawLeaders(led)
		return nil
	}
	var failed []error
	for _, name := range leaderless {
		failed = append(failed, s.replace(ctx, name))
	}
	return errors.Join(failed...)
}

// awaitLeaders waits until every queue has had a leader for leaderTime, and returns who leads
// them; or after electionLimit those that have none. A leader may end as soon as it leads, and
// the next one as well, until nobody is elected any more.
func awaitLeaders(ctx context.Context, look func(context.Context) (map[string]string, error)) (led map[string]string, leaderless []string, err error) {
	end := time.Now().Add(electionLimit)
	var since time.Time // every look since has found all of them
	for {
		led, err = look(ctx)
		leaderless = nil
		for queue, node := range led {
			if node == "" {
				leaderless = append(leaderless, queue)
			}
		}
		switch whole := err == nil && len(leaderless) == 0; {
		case !whole && time.Now().After(end):
			return led, leaderless, err
		case !whole:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= leaderTime:
			return led, nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
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
