package embedded

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/outlastmq/outlast"
)

func TestTopology(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	b, ctx := brokerAt(s), testContext(t)
	top := b.Topology()
	g := group("billing", false)
	wanted := outlast.Topology{Groups: []outlast.GroupTopology{g}}

	found, err := top.Check(ctx, wanted)
	if err != nil || len(found) != 2 {
		t.Fatalf("nothing there: %v, %v", found, err)
	}
	if _, err := top.Depth(ctx, "billing.0"); outlast.CodeOf(err) != outlast.CodeNotFound {
		t.Fatalf("depth of nothing: %v", err)
	}
	for range 2 {
		if err := top.Apply(ctx, wanted); err != nil {
			t.Fatal(err)
		}
	}
	if found, err = top.Check(ctx, wanted); err != nil || len(found) != 0 {
		t.Fatalf("applied: %v, %v", found, err)
	}

	// Every service declares both exchanges. The stream of commands is missed when somebody
	// handles some.
	both := []outlast.Exchange{{Name: outlast.EventExchange}, {Name: outlast.CommandExchange}}
	if found, err = top.Check(ctx, outlast.Topology{Exchanges: both, Groups: wanted.Groups}); err != nil || len(found) != 0 {
		t.Fatalf("without a command: %v, %v", found, err)
	}
	commanded := group("stock", false)
	commanded.Bindings = []outlast.Binding{{Exchange: outlast.CommandExchange, Type: "order.place.v1"}}
	if found, err = top.Check(ctx, outlast.Topology{Exchanges: both, Groups: []outlast.GroupTopology{commanded}}); err != nil || len(found) != 2 {
		t.Fatalf("with one: %v, %v", found, err)
	}

	// A further type is added to the filter; the ones that are there stay.
	more := g
	more.Bindings = []outlast.Binding{{Exchange: outlast.EventExchange, Type: "order.paid.v1"}}
	if err := top.Apply(ctx, outlast.Topology{Groups: []outlast.GroupTopology{more}}); err != nil {
		t.Fatal(err)
	}
	found, err = top.Check(ctx, wanted)
	if err != nil || len(found) != 1 || found[0].Property != "filter_subjects" || !strings.Contains(found[0].Have, "order.paid.v1") {
		t.Fatalf("a binding more than wanted: %v, %v", found, err)
	}

	publisher(t, b).confirm(messages(1, 10)...)
	depth(t, b, 10, 0)
	in := subscribe(t, b, g, 4, false)
	in.numbersAfter(4)
	depth(t, b, 6, 1)
	peek(t, b, count(5, 6))
	in.stop()
	depth(t, b, 10, 0)
	peek(t, b, count(1, 10))
	peek(t, b, count(1, 10))
	if seen, err := top.Peek(ctx, "billing.0", 3); err != nil || len(seen) != 3 {
		t.Fatalf("peek 3: %d, %v", len(seen), err)
	}

	findings, err := top.Examine(ctx)
	if err != nil || slices.ContainsFunc(findings, func(f outlast.Finding) bool { return f.Level == outlast.FindingFail }) {
		t.Fatalf("examine: %v, %v", findings, err)
	}
}

// depth waits for the numbers: the server counts in the background.
func depth(t *testing.T, b outlast.Broker, messages, consumers int) {
	t.Helper()
	for ctx := testContext(t); ; {
		d, err := b.Topology().Depth(ctx, "billing.0")
		if err == nil && d.Messages == messages && d.Consumers == consumers {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("depth %+v, %v; want %d messages, %d consumers", d, err, messages, consumers)
		}
	}
}

func peek(t *testing.T, b outlast.Broker, want []string) {
	t.Helper()
	seen, err := b.Topology().Peek(testContext(t), "billing.0", 100)
	if err != nil || !slices.Equal(numbers(seen), want) {
		t.Fatalf("peek %v, %v; want %v", numbers(seen), err, want)
	}
}

func TestTopologyConflict(t *testing.T) {
	t.Parallel()
	wanted := outlast.Topology{Groups: []outlast.GroupTopology{group("billing", false)}}
	for property, change := range map[string]func(*jetstream.StreamConfig, *jetstream.ConsumerConfig){
		"max_age":            func(s *jetstream.StreamConfig, _ *jetstream.ConsumerConfig) { s.MaxAge = 3600e9 },
		"discard":            func(s *jetstream.StreamConfig, _ *jetstream.ConsumerConfig) { s.Discard = jetstream.DiscardOld },
		"retention":          func(s *jetstream.StreamConfig, _ *jetstream.ConsumerConfig) { s.Retention = jetstream.LimitsPolicy },
		"max_deliver":        func(_ *jetstream.StreamConfig, c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 },
		"inactive_threshold": func(_ *jetstream.StreamConfig, c *jetstream.ConsumerConfig) { c.InactiveThreshold = 3600e9 },
	} {
		t.Run(property, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			b, ctx, j := brokerAt(s), testContext(t), js(t, s)
			sc := jetstream.StreamConfig{Name: "OUTLAST_EVENTS", Subjects: []string{"outlast.events.>"}, Retention: jetstream.InterestPolicy, Discard: jetstream.DiscardNew}
			cc := jetstream.ConsumerConfig{Durable: "billing_0", AckPolicy: jetstream.AckExplicitPolicy, FilterSubjects: []string{"outlast.events.order.placed.v1.*"},
				MaxDeliver: -1, Metadata: map[string]string{"outlast-queue": "billing.0"}}
			change(&sc, &cc)
			if _, err := j.CreateStream(ctx, sc); err != nil {
				t.Fatal(err)
			}
			if _, err := j.CreateConsumer(ctx, sc.Name, cc); err != nil {
				t.Fatal(err)
			}
			err := b.Topology().Apply(ctx, wanted)
			if outlast.CodeOf(err) != outlast.CodeConflict || !strings.Contains(fmt.Sprint(err), property+": want ") {
				t.Errorf("apply: %v", err)
			}
			found, err := b.Topology().Check(ctx, wanted)
			if err != nil || len(found) != 1 || found[0].Property != property {
				t.Errorf("check: %v, %v", found, err)
			}
		})
	}
}
