package nats

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
)

func TestNamesDoNotCollide(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, queue := range []string{"a.0", "a_0.0", "a.g2.0", "a_g2.0", "a_.g2.0", "a._g2.0", "a-g2.0", "a.0.0"} {
		name := DurableName(queue)
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q are both %q", queue, other, name)
		}
		if !nameToken(name) {
			t.Errorf("%q is no name for NATS", name)
		}
		seen[name] = queue
	}
	if got := DurableName("billing.0"); got != "billing_0" {
		t.Errorf("got %q", got)
	}
	for exchange, want := range map[string]string{outlast.EventExchange: "OUTLAST_EVENTS", outlast.CommandExchange: "OUTLAST_COMMANDS", "legacy.in_box": "legacy_in=box"} {
		if got := StreamName(exchange); got != want {
			t.Errorf("%q: %q, want %q", exchange, got, want)
		}
	}
}

func TestCovers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		filter, subject string
		want            bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.c", false}, {"a.*", "a.b", true}, {"a.*", "a.b.c", false}, {"a.*", "a", false},
		{"a.>", "a.b.c", true}, {"a.>", "a", false}, {">", "a", true}, {"a.*", "a.*", true}, {"a.*", "a.>", false},
		{"a.>", "a.*", true}, {"a.b", "a.*", false}, {"*.b", "a.b", true}, {"a.b.c", "a.b", false},
		{">.", ">", false}, {">.a", "a.a", false},
	} {
		if got := covers(c.filter, c.subject); got != c.want {
			t.Errorf("covers(%q, %q) = %v", c.filter, c.subject, got)
		}
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	have := []string{"e.t.3", "e.u.*"}
	if got := mergeFilters(have, []string{"e.t.*", "e.u.7", "e.u.*"}); !slices.Equal(got, []string{"e.t.*", "e.u.*"}) {
		t.Errorf("merged: %v", got)
	}
	if got := missingFilters(have, []string{"e.t.3", "e.u.9", "e.v.1"}); !slices.Equal(got, []string{"e.v.1"}) {
		t.Errorf("missing: %v", got)
	}
	g := outlast.GroupTopology{Group: "g", Partitions: 3, Bindings: []outlast.Binding{{Exchange: "e", Type: "t"}, {Exchange: "e", Type: "t"}, {Exchange: "f", Type: "u"}}}
	total := 0
	for p := range 3 {
		total += len(filtersOf(g, p)["e"])
	}
	if total != outlast.Buckets {
		t.Errorf("%d buckets over all partitions", total)
	}
}

func TestBadSubjects(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "a..b", ".a", "a.", "a b", "a.*", ">", "a\x00b", "a\nPUB x 0"} {
		if checkRoutingKey(key) == nil {
			t.Errorf("%q accepted", key)
		}
	}
	for _, exchange := range []string{"", "$JS.API", "a..b", "a b", "a.>"} {
		if checkExchange(exchange) == nil {
			t.Errorf("%q accepted", exchange)
		}
	}
	if err := checkRoutingKey("order.placed.v1.37"); err != nil {
		t.Error(err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1": "nats://127.0.0.1:4222", "nats://u:p@localhost:1": "nats://localhost:1", "tls://a, tls://b:1": "tls://a:4222,tls://b:1",
		"nats://[::1]:4222": "nats://[::1]:4222",
	} {
		b := Broker(address).(*broker)
		if b.err != nil || b.Address() != want {
			t.Errorf("%q: %q, %v", address, b.Address(), b.err)
		}
	}
	b := Broker("nats://example.org", AckWait(1), Refresh(1), Replicas(9)).(*broker)
	e, ok := b.err.(*outlast.Error)
	if !ok || e.Code != outlast.CodeInvalid || len(e.Fields) != 4 {
		t.Errorf("not every bad setting is named: %v", b.err)
	}
	for _, address := range []string{"nats://u:7654321/x@localhost", "nats://u:7654321,x@localhost", "nats://u:7654321#x@localhost", "nats://u:7654321:/", "nats://u:7654321,x@s://localhost"} {
		b := Broker(address).(*broker)
		if b.err == nil || strings.Contains(b.Address()+b.err.Error(), "7654321") {
			t.Errorf("a part of a password is shown: %s, %v", b.Address(), b.err)
		}
	}
}

// TestS25_PlainIsForThisMachine: what is not verified by TLS is refused, or asked for.
func TestS25_PlainIsForThisMachine(t *testing.T) {
	t.Parallel()
	for _, b := range []*broker{
		Broker("nats://example.org", AllowPlain()).(*broker),
		Broker("nats://example.org?allow_plain=true").(*broker),
		Broker("tls://example.org?cacertfile=/ca.pem&certfile=/c.pem&keyfile=/k.pem").(*broker),
		Broker("nats://example.org", TLS(&tls.Config{})).(*broker),
		Broker("nats://LOCALHOST").(*broker),
	} {
		if b.err != nil {
			t.Errorf("%s: %v", b.address, b.err)
		}
	}
	for address, opts := range map[string][]Option{
		"nats://u:hunter2@example.org":             nil,
		"nats://example.org?allow_plain=maybe":     nil,
		"nats://hunter2@example.org,tls://a":       nil,
		"tls://example.org?verify=no&hunter2":      nil,
		"tls://example.org?certfile=/c.pem":        nil,
		"nats://127.0.0.1?cacertfile=/ca.pem":      nil,
		"nats://localhost.example.org":             nil,
		"nats://127.0.0.1.example.org":             nil,
		"tls://example.org":                        {TLS(&tls.Config{InsecureSkipVerify: true})},
		"tls://u:hunter2@example.org?insecure=yes": {AllowPlain()},
	} {
		err := Broker(address, opts...).(*broker).err
		if outlast.CodeOf(err) != outlast.CodeInvalid || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
