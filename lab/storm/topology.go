package storm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/lab/storm/role"
	"github.com/outlastmq/outlast/rabbitmq"
)

// gap is a time in which the broker was deprived of something by our hand, so that a group
// may miss messages that others got: a confirm says that a message was routed to one queue,
// not to all. What a group alone hears is held instead, and may not be missed.
type gap struct {
	Group string   `json:"group"`
	Types []string `json:"types"`
	// To is the last number in the ledger of what was written before the gap's end; 0 while
	// it is open. No clock is asked: those of the servers may jump.
	To   int64  `json:"to"`
	What string `json:"what"`
	// Unbound: the group was never bound before To, and is promised nothing of then.
	Unbound bool `json:"unbound,omitempty"`
	// Destroyed: what was in a queue went with it.
	Destroyed bool `json:"destroyed,omitempty"`
}

// explains reports whether a message with that number may be missing.
func (g gap) explains(group, typ string, seq int64) bool {
	return g.Group == group && slices.Contains(g.Types, typ) && (g.To == 0 || seq <= g.To)
}

func (s *stage) gapsSoFar() []gap {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.gaps)
}

func (s *stage) openGaps(gaps ...gap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range gaps {
		s.gaps = append(s.gaps, g)
		for _, typ := range g.Types {
			switch {
			case s.history == nil:
			case g.Destroyed:
				s.history.Destroyed(g.Group, typ)
			default:
				s.history.Unbound(g.Group, typ)
			}
		}
	}
}

// closeGaps ends the gaps of a fault when all is there again.
func (s *stage) closeGaps(ctx context.Context, what string) error {
	last := map[string]int64{}
	for _, group := range s.groups() {
		n, err := s.count(ctx, source[group], `SELECT last_value FROM ledger_sent_seq_seq`)
		if err != nil {
			return err
		}
		last[group] = max(int64(n), 1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.gaps {
		if g := &s.gaps[i]; g.What == what && g.To == 0 {
			g.To = last[g.Group]
			if s.history != nil {
				s.history.Bound(g.Group, slices.DeleteFunc(slices.Clone(g.Types), func(typ string) bool { return s.open(g.Group, typ) })...)
			}
		}
	}
	return nil
}

// open reports whether another gap still deprives a group of a type.
func (s *stage) open(group, typ string) bool {
	return slices.ContainsFunc(s.gaps, func(g gap) bool { return g.Group == group && g.To == 0 && slices.Contains(g.Types, typ) })
}

// shared are the types that more than one group hears.
func shared(types []string) []string {
	return slices.DeleteFunc(slices.Clone(types), func(typ string) bool {
		n := 0
		for _, heard := range role.Hears {
			if slices.Contains(heard, typ) {
				n++
			}
		}
		return n < 2
	})
}

// faulty are the groups whose queues and bindings are deleted.
var faulty = []string{"audit", "billing", "orders"}

func (s *stage) topologyKinds() []fault.Kind {
	return []fault.Kind{
		{Name: "delete a queue", Weight: 1, Shortest: time.Second, Longest: 2 * time.Second, Draw: func(r *rand.Rand) fault.Fault {
			group := oneOf(r, faulty)
			queue := groupTopology(group).Queue(r.IntN(role.Partitions))
			what := "delete queue " + queue
			return fault.Fault{Name: what, Hits: []string{"topology"},
				On: func(ctx context.Context) error {
					s.openGaps(gap{Group: group, Types: role.Hears[group], What: what, Destroyed: true})
					return s.onChannel(ctx, func(ch *amqp.Channel) error {
						_, err := ch.QueueDelete(queue, false, false, false)
						return err
					})
				},
				// Nobody helps: the consumers find out and declare it anew.
				Off: s.insisting(s.untilWhole(what, group))}
		}},
		{Name: "delete bindings", Weight: 1, Shortest: 2 * time.Second, Longest: 8 * time.Second, Draw: func(r *rand.Rand) fault.Fault {
			group := oneOf(r, faulty)
			typ := oneOf(r, role.Hears[group])
			what := fmt.Sprintf("delete bindings of %s to %s", group, typ)
			return fault.Fault{Name: what, Hits: []string{"topology"},
				On: func(ctx context.Context) error {
					s.openGaps(gap{Group: group, Types: shared([]string{typ}), What: what})
					return s.onChannel(ctx, func(ch *amqp.Channel) error { return unbind(ch, groupTopology(group), typ) })
				},
				Off: s.insisting(s.repaired(what))}
		}},
		{Name: "delete the exchange", Weight: 1, Shortest: 2 * time.Second, Longest: 8 * time.Second, Draw: func(*rand.Rand) fault.Fault {
			const what = "delete exchange " + outlast.EventExchange
			return fault.Fault{Name: what, Hits: []string{"topology"},
				On: func(ctx context.Context) error {
					for _, group := range s.groups() {
						s.openGaps(gap{Group: group, Types: shared(role.Hears[group]), What: what})
					}
					return s.onChannel(ctx, func(ch *amqp.Channel) error { return ch.ExchangeDelete(outlast.EventExchange, false, false) })
				},
				Off: s.insisting(s.repaired(what))}
		}},
	}
}

// repaired declares what is missing, as an operator would.
func (s *stage) repaired(what string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := s.applyTopology(ctx); err != nil {
			return err
		}
		return s.untilWhole(what, s.bound()...)(ctx)
	}
}

// untilWhole waits until all is there that some groups need, and every node says so: one that
// was cut off while it was made routes without it until it has rejoined the others.
func (s *stage) untilWhole(what string, groups ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		var t outlast.Topology
		for _, group := range groups {
			t.Groups = append(t.Groups, groupTopology(group))
		}
		for _, node := range s.rabbit.URLs() {
			differences, err := rabbitmq.Broker(node, rabbitmq.AllowPlain(), rabbitmq.Logger(slog.New(slog.DiscardHandler))).Topology().Check(ctx, t)
			if err != nil {
				return err
			}
			if len(differences) > 0 {
				return errors.New(differences[0].String())
			}
		}
		for _, node := range s.rabbit.Nodes() {
			if err := bindingsOf(ctx, node, t.Groups); err != nil {
				return err
			}
		}
		return s.closeGaps(ctx, what)
	}
}

// bindingsOf returns an error when a node does not have all bindings of some groups. AMQP
// cannot list bindings, so that the node is asked by its own program.
func bindingsOf(ctx context.Context, node *servers.RabbitNode, groups []outlast.GroupTopology) error {
	var list []struct {
		Exchange string `json:"source_name"`
		Queue    string `json:"destination_name"`
		Key      string `json:"routing_key"`
	}
	output, err := node.Ctl(ctx, "--formatter", "json", "list_bindings", "source_name", "destination_name", "routing_key")
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(output), &list); err != nil {
		return fmt.Errorf("bindings of %s: %w", node.Name(), err)
	}
	has := map[[3]string]bool{}
	for _, b := range list {
		has[[3]string{b.Exchange, b.Queue, b.Key}] = true
	}
	for _, g := range groups {
		for partition := range g.Partitions {
			for _, b := range g.Bindings {
				for _, key := range g.RoutingKeys(b, partition) {
					if !has[[3]string{b.Exchange, g.Queue(partition), key}] {
						return fmt.Errorf("%s lacks the binding of %s to %s %s", node.Name(), g.Queue(partition), b.Exchange, key)
					}
				}
			}
		}
	}
	return nil
}

func unbind(ch *amqp.Channel, g outlast.GroupTopology, typ string) error {
	for partition := range g.Partitions {
		for _, b := range g.Bindings {
			if b.Type != typ {
				continue
			}
			for _, key := range g.RoutingKeys(b, partition) {
				if err := ch.QueueUnbind(g.Queue(partition), key, b.Exchange, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// onChannel does something as a foreign client of a node that answers, and waits a while for
// one.
func (s *stage) onChannel(ctx context.Context, f func(*amqp.Channel) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var last error
		for _, address := range s.rabbit.URLs() {
			if last = onChannelOf(ctx, address, f); last == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func onChannelOf(ctx context.Context, address string, f func(*amqp.Channel) error) error {
	// A frozen node says nothing: the call ends with its connection.
	conn, err := amqp.DialConfig(address, amqp.Config{Dial: amqp.DefaultDial(5 * time.Second)})
	if err != nil {
		return err
	}
	defer conn.CloseDeadline(time.Now().Add(5 * time.Second))
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseDeadline(time.Now()) })
	defer stop()
	timer := time.AfterFunc(20*time.Second, func() { _ = conn.CloseDeadline(time.Now()) })
	defer timer.Stop()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return f(ch)
}
