package rabbitmq_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
)

// TestF72_F73_NoRingsAndNoLimits: of all queues that a subscriber or a publisher declares
// none has a time to live, a dead-letter exchange or a bound on its length, and there is no
// queue or exchange but those of the groups: retries and dead letters are rows elsewhere.
func TestF72_F73_NoRingsAndNoLimits(t *testing.T) {
	t.Parallel()
	vhost := servers.NewVHost(t)
	b := broker(vhost.URL())
	ordered := group("billing", "order.placed.v1")
	ordered.Ordered, ordered.Partitions = true, 2
	again := ordered
	again.Generation = 2
	plain := group("mail", "order.placed.v1", "order.paid.v1")
	for _, g := range []outlast.GroupTopology{ordered, again, plain} {
		for i := range g.Partitions {
			sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Partition: i, Declare: true})
			sub.link(outlast.LinkUp)
		}
	}
	apply(t, b, plain)
	_, r := publisher(t, b)
	r.link(outlast.LinkUp)

	queues, err := vhost.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, q := range queues {
		names = append(names, q.Name)
		for name, value := range q.Arguments {
			switch name {
			case "x-queue-type", "x-delivery-limit", "x-single-active-consumer":
			default:
				t.Errorf("%s has %s = %v", q.Name, name, value)
			}
		}
		if q.Type != "quorum" || q.Arguments["x-delivery-limit"] != float64(outlast.DeliveryLimit) {
			t.Errorf("%s is %s with %v, want a quorum queue with our delivery limit", q.Name, q.Type, q.Arguments)
		}
	}
	slices.Sort(names)
	if want := []string{"billing.0", "billing.1", "billing.g2.0", "billing.g2.1", "mail.0"}; !slices.Equal(names, want) {
		t.Errorf("queues %v, want %v", names, want)
	}
	var exchanges []struct {
		Name      string
		Arguments any
	}
	if err := servers.SharedRabbitMQ(t).CtlJSON(t.Context(), &exchanges, "list_exchanges", "--vhost", vhost.Name(), "name", "arguments"); err != nil {
		t.Fatal(err)
	}
	for _, e := range exchanges {
		ours := e.Name == "" || strings.HasPrefix(e.Name, "amq.") || e.Name == outlast.EventExchange || e.Name == outlast.CommandExchange
		if !ours || strings.Contains(fmt.Sprint(e.Arguments), "alternate") {
			t.Errorf("exchange %q with %v", e.Name, e.Arguments)
		}
	}
}

// delayed is the exchange type of the delayed-message plugin. The plugin itself is not
// here: its name is given to the topic exchange of the broker.
const delayed = "x-delayed-message"

// TestF34_ADelayedMessageExchangeIsRefused: such an exchange returns every mandatory
// message, also those that it routes later. Whoever meets one says so: what applies and
// checks topology, and a subscriber, for our exchanges and for one that a contract names.
func TestF34_ADelayedMessageExchangeIsRefused(t *testing.T) {
	t.Parallel()
	vhost := servers.NewVHost(t)
	ctl(t, servers.SharedRabbitMQ(t), "eval", `rabbit_registry:register(exchange, <<"`+delayed+`">>, rabbit_exchange_type_topic).`)
	ch := admin(t, vhost.URL())
	for _, name := range []string{outlast.EventExchange, "theirs"} {
		if err := ch.ExchangeDeclare(name, delayed, true, false, false, false, amqp.Table{"x-delayed-type": "topic"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.ExchangeDeclare("fan", "fanout", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	b := broker(vhost.URL())
	for _, name := range []string{outlast.EventExchange, "theirs"} {
		g := outlast.GroupTopology{Group: "billing", Partitions: 1, Bindings: []outlast.Binding{{Exchange: name, Type: "order.placed.v1"}}}
		want := outlast.Topology{Exchanges: []outlast.Exchange{{Name: name}}, Groups: []outlast.GroupTopology{g}}
		says := []string{fmt.Sprintf("%q", name), delayed}
		err := b.Topology().Apply(t.Context(), want)
		if outlast.CodeOf(err) != outlast.CodeConflict {
			t.Errorf("apply: %v, want %q", err, outlast.CodeConflict)
		}
		wantAll(t, fmt.Sprint(err), append(says, "due time"))
		diffs, err := b.Topology().Check(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		wantAll(t, fmt.Sprint(diffs), says)
		sub, stop := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true})
		sub.until("the refusal", func() bool {
			return len(sub.links) > 0 && sub.links[0].State == outlast.LinkDown && strings.Contains(sub.links[0].Reason, delayed)
		})
		stop()
	}
	// Another type of somebody's own exchange is none of our business.
	if err := b.Topology().Apply(t.Context(), outlast.Topology{Exchanges: []outlast.Exchange{{Name: "fan"}}}); err != nil {
		t.Errorf("apply with a fanout exchange of the user's own: %v", err)
	}
}
