package embedded

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/outlastmq/outlast"
)

// cut closes connections by their name, from the server's side.
func cut(t *testing.T, s *Server, name string) {
	t.Helper()
	list, err := s.ns.Connz(&server.ConnzOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range list.Conns {
		if c.Name != name {
			continue
		}
		n++
		if err := s.ns.DisconnectClientByID(c.Cid); err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 {
		t.Fatalf("no connection %q", name)
	}
}

// silentHolder returns a function that takes a message by hand and returns when the
// server has given it out again: one wait of the server has then gone by.
func silentHolder(t *testing.T, s *Server, b outlast.Broker, p *running) func() {
	t.Helper()
	g := group("silent", false)
	g.Bindings[0].Type = "silent.v1"
	apply(t, b, g)
	return func() {
		m := messages(1, 1)[0]
		m.RoutingKey = "silent.v1.0"
		p.confirm(m)
		c, err := js(t, s).Consumer(testContext(t), "OUTLAST_EVENTS", "silent_0")
		if err != nil {
			t.Fatal(err)
		}
		next(t, c)
		again := next(t, c)
		if meta, err := again.Metadata(); err != nil || meta.NumDelivered != 2 {
			t.Fatalf("delivered %d times, %v", meta.NumDelivered, err)
		}
		if err := again.DoubleAck(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func next(t *testing.T, c jetstream.Consumer) jetstream.Msg {
	t.Helper()
	m, err := c.Next(jetstream.FetchMaxWait(deadline))
	if err != nil {
		t.Fatal(err)
	}
	return m
}
