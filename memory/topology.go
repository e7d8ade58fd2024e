package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outlastmq/outlast"
)

var errDown = errors.New("the broker is down")

type topology struct{ b *Broker }

// enter locks the broker, or says why it cannot be asked.
func (t topology) enter(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return unavailable(op, err)
	}
	t.b.mu.Lock()
	if t.b.down {
		t.b.mu.Unlock()
		return unavailable(op, errDown)
	}
	return nil
}

// wanted returns the bindings that a partition's queue must have.
func wanted(g outlast.GroupTopology, partition int) map[binding]bool {
	set := map[binding]bool{}
	for _, bind := range g.Bindings {
		for _, key := range g.RoutingKeys(bind, partition) {
			set[binding{bind.Exchange, key}] = true
		}
	}
	return set
}

// declare asserts one partition's queue; it is called with mu held.
func (b *Broker) declare(g outlast.GroupTopology, partition int) error {
	name := g.Queue(partition)
	q := b.queues[name]
	if q != nil && q.ordered != g.Ordered {
		return &outlast.Error{
			Op: fmt.Sprintf("declare queue %q", name), Code: outlast.CodeConflict,
			Err:  fmt.Errorf("single active consumer: want %t, have %t", g.Ordered, q.ordered),
			Hint: "give the group a new generation",
		}
	}
	if q == nil {
		q = newQueue(name, g.Ordered)
		b.queues[name] = q
		b.wakeAll()
	}
	for bind := range wanted(g, partition) {
		b.exchanges[bind.exchange] = true
		q.bindings[bind] = true
	}
	return nil
}

func (t topology) Apply(ctx context.Context, want outlast.Topology) error {
	if err := t.enter(ctx, "apply topology"); err != nil {
		return err
	}
	defer t.b.mu.Unlock()
	for _, e := range want.Exchanges {
		t.b.exchanges[e.Name] = true
	}
	for _, g := range want.Groups {
		for p := range max(g.Partitions, 1) {
			if err := t.b.declare(g, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t topology) Check(ctx context.Context, want outlast.Topology) ([]outlast.TopologyDifference, error) {
	if err := t.enter(ctx, "check topology"); err != nil {
		return nil, err
	}
	defer t.b.mu.Unlock()
	var diffs []outlast.TopologyDifference
	for _, e := range want.Exchanges {
		if !t.b.exchanges[e.Name] {
			diffs = append(diffs, outlast.TopologyDifference{Object: fmt.Sprintf("exchange %q", e.Name), Want: "a topic exchange", Have: "none"})
		}
	}
	for _, g := range want.Groups {
		for p := range max(g.Partitions, 1) {
			diffs = append(diffs, t.b.checkQueue(g, p)...)
		}
	}
	return diffs, nil
}

func (b *Broker) checkQueue(g outlast.GroupTopology, partition int) []outlast.TopologyDifference {
	object := fmt.Sprintf("queue %q", g.Queue(partition))
	q := b.queues[g.Queue(partition)]
	if q == nil {
		return []outlast.TopologyDifference{{Object: object, Want: "a queue", Have: "none"}}
	}
	var diffs []outlast.TopologyDifference
	if q.ordered != g.Ordered {
		diffs = append(diffs, outlast.TopologyDifference{Object: object, Property: "single active consumer",
			Want: fmt.Sprint(g.Ordered), Have: fmt.Sprint(q.ordered), Hint: "give the group a new generation"})
	}
	want := wanted(g, partition)
	sides := []struct {
		from, in   map[binding]bool
		want, have string
	}{{want, q.bindings, "bound", "not bound"}, {q.bindings, want, "not bound", "bound"}}
	for _, side := range sides {
		for _, bind := range slices.SortedFunc(maps.Keys(side.from), compareBindings) {
			if !side.in[bind] {
				diffs = append(diffs, outlast.TopologyDifference{Object: object,
					Property: fmt.Sprintf("binding %s on %s", bind.key, bind.exchange), Want: side.want, Have: side.have})
			}
		}
	}
	return diffs
}

func compareBindings(a, b binding) int {
	return strings.Compare(a.exchange+"/"+a.key, b.exchange+"/"+b.key)
}

func (t topology) Depth(ctx context.Context, name string) (outlast.QueueDepth, error) {
	depth := outlast.QueueDepth{Queue: name}
	if err := t.enter(ctx, "read depth"); err != nil {
		return depth, err
	}
	defer t.b.mu.Unlock()
	q, err := t.b.queue("read depth of queue", name)
	if err != nil {
		return depth, err
	}
	depth.Messages, depth.Consumers = len(q.ready), len(q.consumers)
	return depth, nil
}

func (t topology) Peek(ctx context.Context, name string, n int) ([]*outlast.Delivery, error) {
	if err := t.enter(ctx, "peek"); err != nil {
		return nil, err
	}
	defer t.b.mu.Unlock()
	q, err := t.b.queue("peek into queue", name)
	if err != nil {
		return nil, err
	}
	var ds []*outlast.Delivery
	for _, st := range q.ready[:min(max(n, 0), len(q.ready))] {
		m, problem := decode(st, nil)
		d := outlast.NewDelivery(m, name, st.redelivered, nil)
		d.Problem, d.Exchange, d.RoutingKey = problem, st.exchange, st.key
		ds = append(ds, d)
	}
	return ds, nil
}

func (t topology) Examine(ctx context.Context) ([]outlast.Finding, error) {
	if err := t.enter(ctx, "examine broker"); err != nil {
		return nil, err
	}
	defer t.b.mu.Unlock()
	findings := []outlast.Finding{{Subject: "broker", Level: outlast.FindingWarn,
		Text: "it lives in this process: what it holds is gone when the process ends", Hint: "for tests only", Promise: "No loss"}}
	if t.b.block != "" {
		findings = append(findings, outlast.Finding{Subject: "broker", Level: outlast.FindingFail, Text: "blocked: " + t.b.block})
	}
	return findings, nil
}
