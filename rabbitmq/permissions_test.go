package rabbitmq

import (
	"regexp"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
)

// TestS28_PermissionsMatchTheWholeName: a name that only begins or ends like one of
// ours is another name.
func TestS28_PermissionsMatchTheWholeName(t *testing.T) {
	t.Parallel()
	p := Account{User: "billing", VHost: "/", Publishes: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "invoice.sent.v1"}},
		Groups: []outlast.GroupTopology{{Group: "billing", Bindings: []outlast.Binding{{Exchange: outlast.CommandExchange, Type: "card.charge.v1"}}}}}.Permissions()
	one := p.Permissions[0]
	if len(p.Topics) != 2 || p.Topics[0].Exchange != outlast.CommandExchange {
		t.Fatalf("%+v", p.Topics)
	}
	commands, events := p.Topics[0], p.Topics[1]
	for pattern, names := range map[string][2][]string{
		one.Configure:  {{"billing.0", "billing.63", "billing.g2.0"}, {"", "billing", "billing.", "billing.x", "xbilling.0", "billing.0x", "billingx0", "outlast.events"}},
		one.Write:      {{"billing.0", "outlast.events"}, {"", "outlast.commands", "outlastxevents", "amq.default", "other.0"}},
		one.Read:       {{"billing.0", "outlast.commands"}, {"", "outlast.events", "other.0"}},
		events.Write:   {{"invoice.sent.v1.0", "invoice.sent.v1.63"}, {"", "invoice.sent.v10.1", "invoice.sent.v1", "order.placed.v1.1", "x.invoice.sent.v1.1", "invoice.sent.v1.*"}},
		events.Read:    {nil, {"invoice.sent.v1.0", "#", "*"}},
		commands.Read:  {{"card.charge.v1.*", "card.charge.v1.7"}, {"#", "card.#", "*.charge.v1.*", "card.charge.v1.#"}},
		commands.Write: {nil, {"card.charge.v1.0"}},
	} {
		r := regexp.MustCompile(pattern)
		for _, name := range names[0] {
			if !r.MatchString(name) {
				t.Errorf("%s does not match %q", pattern, name)
			}
		}
		for _, name := range names[1] {
			if r.MatchString(name) != (name == "" && pattern == nothingAtAll) {
				t.Errorf("%s matches %q", pattern, name)
			}
		}
	}
	var b strings.Builder
	odd := Account{User: "it's", VHost: "a b;c", Publishes: []outlast.Binding{{Exchange: "x", Type: "a.v1"}}}
	if err := odd.Permissions().WriteCommands(&b); err != nil || !strings.Contains(b.String(), `--vhost 'a b;c' 'it'\''s'`) {
		t.Errorf("%v, %s", err, b.String())
	}
}

// TestS19_UserIDIsThatOfTheConnection: none where the address does not name the user, or
// once the broker said that it knows it by another name.
func TestS19_UserIDIsThatOfTheConnection(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"amqps://orders:pw@mq.example":                                             "orders",
		"amqps://orders:pw@mq.example?user_id=false":                               "",
		"amqps://orders@mq.example?auth_mechanism=external&certfile=/c&keyfile=/k": "",
	} {
		b := newBroker(address, nil)
		if b.invalid != nil {
			t.Fatal(b.invalid)
		}
		s := &session{b: b, address: b.addresses[0]}
		if got := s.user(); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
		l := newLane(s, func([]outlast.Result) {})
		l.closedByBroker(1, replyPrecondition, "PRECONDITION_FAILED - inequivalent arg")
		if s.user() != want {
			t.Error("any failed precondition turns the user-id off")
		}
		l.closedByBroker(1, replyPrecondition, "PRECONDITION_FAILED - user_id property set to 'orders' but authenticated user was 'o'")
		if got := s.user(); got != "" {
			t.Errorf("%s: still %q after the broker refused it", address, got)
		}
	}
	if got := (&session{b: newBroker("amqps://a:b@c", []Option{WithoutUserID()}), address: address{user: "a", userID: true}}).user(); got != "" {
		t.Errorf("%q although it was turned off", got)
	}
}
