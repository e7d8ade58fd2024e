package embedded

import (
	"context"
	"fmt"
	"strings"
	"testing"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/nats"
)

func TestPublisher(t *testing.T) {
	t.Parallel()
	t.Run("unroutable_until_bound", func(t *testing.T) {
		t.Parallel()
		b := brokerAt(startServer(t))
		apply(t, b)
		p := publisher(t, b)
		want(t, p.outcomes(messages(1, 1)...)[0], outlast.OutcomeUnroutable, false)
		in := subscribe(t, b, group("billing", false), 10, true)
		p.confirm(messages(2, 1)...)
		if got := in.numbersAfter(1); got[0] != "2" {
			t.Fatalf("got %v", got)
		}
	})
	t.Run("unroutable_again_when_the_last_durable_is_deleted", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		b := brokerAt(s, nats.Refresh(250e6))
		apply(t, b, group("billing", false))
		p := publisher(t, b)
		p.confirm(messages(1, 1)...)
		if err := js(t, s).DeleteConsumer(testContext(t), "OUTLAST_EVENTS", "billing_0"); err != nil {
			t.Fatal(err)
		}
		for ctx := testContext(t); ; { // the news takes its way; what was confirmed before it had come is the documented gap
			if ctx.Err() != nil {
				t.Fatal("messages that nobody wants are confirmed for ever")
			}
			if x := p.outcomes(messages(2, 1)...)[0]; x.Outcome != outlast.OutcomeConfirmed {
				want(t, x, outlast.OutcomeUnroutable, false)
				break
			}
		}
	})
	t.Run("an_ephemeral_reader_is_nobody", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		b := brokerAt(s)
		apply(t, b)
		if _, err := js(t, s).CreateConsumer(testContext(t), "OUTLAST_EVENTS", jetstream.ConsumerConfig{}); err != nil {
			t.Fatal(err)
		}
		want(t, publisher(t, b).outcomes(messages(1, 1)...)[0], outlast.OutcomeUnroutable, false)
	})
	t.Run("route_fault_without_a_stream", func(t *testing.T) {
		t.Parallel()
		p := publisher(t, brokerAt(startServer(t)))
		want(t, p.outcomes(messages(1, 1)...)[0], outlast.OutcomeLaneError, true)
		m := messages(1, 1)[0]
		m.Exchange = ""
		want(t, p.outcomes(m)[0], outlast.OutcomeLaneError, true)
	})
	t.Run("nacked_by_a_full_stream", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		b := brokerAt(s)
		apply(t, b, group("billing", false))
		j := js(t, s)
		stream, err := j.Stream(testContext(t), "OUTLAST_EVENTS")
		if err != nil {
			t.Fatal(err)
		}
		cfg := stream.CachedInfo().Config
		cfg.MaxMsgs = 2
		if _, err := j.UpdateStream(testContext(t), cfg); err != nil {
			t.Fatal(err)
		}
		p := publisher(t, b)
		p.confirm(messages(1, 2)...)
		want(t, p.outcomes(messages(3, 1)...)[0], outlast.OutcomeNacked, false)
		if got := subscribe(t, b, group("billing", false), 10, true).numbersAfter(2); got[0] != "1" {
			t.Fatalf("the full stream dropped its oldest: %v", got)
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		b := brokerAt(startServer(t))
		apply(t, b, group("billing", false))
		p := publisher(t, b)
		ps := messages(1, 5)
		ps[0].Message.Body = make([]byte, maxPayload+1)
		ps[1].RoutingKey = "order.*"
		ps[2].RoutingKey = "order placed"
		ps[3].Message.Headers = outlast.Headers{"Nats-Rollup": "sub"}
		for _, x := range p.outcomes(ps...)[:4] {
			want(t, x, outlast.OutcomeRefused, false)
		}
		p.confirm(messages(6, 1)...)
	})
	t.Run("not_sent_without_a_connection", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		b := brokerAt(s)
		apply(t, b, group("billing", false))
		p := publisher(t, b)
		_ = s.Close()
		p.until("down", func() bool { return p.link.State == outlast.LinkDown })
		want(t, p.outcomes(messages(1, 1)...)[0], outlast.OutcomeNotSent, false)
	})
	t.Run("a_message_arrives_as_it_was", func(t *testing.T) {
		t.Parallel()
		b := brokerAt(startServer(t))
		apply(t, b, group("billing", false))
		p := publisher(t, b)
		m := messages(1, 1)[0]
		m.Message.ContentType = "application/json"
		m.Message.Body = []byte{0, 1, 2, 255}
		m.Message.Headers = outlast.Headers{"a": " two spaces ", "A": "100%", "empty": "", "unicode": "zażółć\u00a0"}
		p.confirm(m)
		in := subscribe(t, b, group("billing", false), 10, true)
		in.numbersAfter(1)
		got := in.got[0]
		if got.Problem != nil || got.Queue != "billing.0" || got.Redelivered {
			t.Fatalf("%v, queue %q, redelivered %v", got.Problem, got.Queue, got.Redelivered)
		}
		for name, v := range m.Message.Headers {
			if got.Message.Headers[name] != v {
				t.Errorf("header %q: %q, want %q", name, got.Message.Headers[name], v)
			}
		}
		if len(got.Message.Headers) != len(m.Message.Headers) || string(got.Message.Body) != string(m.Message.Body) ||
			got.Message.ContentType != "application/json" || got.Message.ID != m.Message.ID {
			t.Errorf("got %+v", got.Message)
		}
	})
}

func want(t *testing.T, x outlast.Result, o outlast.Outcome, routeFault bool) {
	t.Helper()
	if x.Outcome != o || x.RouteFault != routeFault {
		t.Fatalf("%s: %v (route fault %v, %v), want %v", x.P.RoutingKey, x.Outcome, x.RouteFault, x.Err, o)
	}
	if (x.Err == nil) != (o == outlast.OutcomeConfirmed) {
		t.Fatalf("%v with error %v", o, x.Err)
	}
}

// js looks at the server by another road than the adapter's.
func js(t *testing.T, s *Server) jetstream.JetStream {
	t.Helper()
	nc, err := client.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	j, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestS23_ErrorsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	const secret = "hunter-two%21"
	for _, address := range []string{
		"nats://user:" + secret + "@127.0.0.1:1", "nats://" + secret + "@127.0.0.1:1", "nats://user:" + secret + "@example.org",
		"nats://user:" + secret + "@[broken", "http://user:" + secret + "@localhost", "nats://user:%zz" + secret + "@h", "user:" + secret + "@127.0.0.1:1",
	} {
		b := nats.Broker(address)
		_, err := b.Topology().Examine(testContext(t))
		if err == nil {
			t.Fatalf("%s: no error", address)
		}
		for _, text := range []string{err.Error(), b.Address(), fmt.Sprintf("%+v", err)} {
			if strings.Contains(text, "hunter") {
				t.Errorf("%s", text)
			}
		}
	}
	if err := nats.Broker("nats://example.org").Publisher(outlast.PublisherConfig{}).Run(context.Background()); outlast.CodeOf(err) != outlast.CodeInvalid {
		t.Errorf("plain connection beyond loopback: %v", err)
	}
}

func TestWrongTokenIsDenied(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	_, err := nats.Broker("nats://wrong@" + s.ns.Addr().String()).Topology().Examine(testContext(t))
	if outlast.CodeOf(err) != outlast.CodeDenied {
		t.Fatalf("got %v", err)
	}
}
