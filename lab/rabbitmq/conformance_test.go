package rabbitmq_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/outlasttest"
	"github.com/outlastmq/outlast/rabbitmq"
)

// TestConformance runs the suite that every broker must pass. It has the management
// API, without which missing bindings do not show.
func TestConformance(t *testing.T) {
	c, api := managed(t)
	t.Run("suite", func(t *testing.T) {
		outlasttest.Broker(t, func(t *testing.T) outlasttest.BrokerUnderTest {
			vhost, err := c.NewVHost(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return underTest(vhost.URL() + "?management=" + url.QueryEscape(api))
		})
	})
}

// managed is a broker with its management API.
func managed(t *testing.T) (*servers.RabbitCluster, string) {
	t.Helper()
	port := freePort(t)
	c, err := servers.RabbitMQ(t.Context(), servers.RabbitConfig{Plugins: []string{"rabbitmq_management"},
		Config: fmt.Sprintf("management.tcp.port = %d\nmanagement.tcp.ip = 127.0.0.1", port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, fmt.Sprintf("http://127.0.0.1:%d", port)
}

// TestManagement: what AMQP cannot show.
func TestManagement(t *testing.T) {
	t.Parallel()
	c, api := managed(t)
	b := broker(c.URL(), rabbitmq.Management(api))
	g := group("billing", "order.placed.v1", "order.paid.v1")
	g.Partitions = 3
	apply(t, b, g)
	want := outlast.Topology{Groups: []outlast.GroupTopology{g}}
	if diffs, err := b.Topology().Check(t.Context(), want); err != nil || len(diffs) != 0 {
		t.Fatalf("after apply: %v, %v", diffs, err)
	}
	if err := admin(t, c.URL()).QueueUnbind("billing.1", "order.paid.v1.4", outlast.EventExchange, nil); err != nil {
		t.Fatal(err)
	}
	ctl(t, c, "set_policy", "small", "^billing", `{"delivery-limit":20}`, "--apply-to", "queues")
	var diffs []outlast.TopologyDifference
	var err error
	deadline := time.Now().Add(patience)
	for len(diffs) < 4 && err == nil && time.Now().Before(deadline) { // the API lags by some seconds
		diffs, err = b.Topology().Check(t.Context(), want)
	}
	if err != nil || len(diffs) != 4 {
		t.Fatalf("%d differences, want a binding and three policies: %v, %v", len(diffs), diffs, err)
	}
	text := fmt.Sprint(diffs)
	wantAll(t, text, []string{`queue "billing.1"`, "order.paid.v1", "want 21, have 20", `delivery-limit by policy "small"`})
	findings, err := b.Topology().Examine(t.Context())
	if err != nil || !slices.ContainsFunc(findings, func(f outlast.Finding) bool { return f.Level == outlast.FindingFail && f.Promise == "No loss" }) {
		t.Errorf("%v, %v", findings, err)
	}
	_, err = broker(c.URL(), rabbitmq.Management(strings.Replace(api, "//", "//guest:hunter2@", 1))).Topology().Check(t.Context(), want)
	if outlast.CodeOf(err) != outlast.CodeDenied || strings.Contains(fmt.Sprint(err), "hunter2") {
		t.Errorf("wrong password: %v", err)
	}
}

// TestConformanceOutage is the part of the suite that stops brokers, each test its own.
func TestConformanceOutage(t *testing.T) {
	outlasttest.Broker(t, func(t *testing.T) outlasttest.BrokerUnderTest {
		if !strings.Contains(t.Name(), "restart") && !strings.Contains(t.Name(), "Without_a_connection") && !strings.Contains(t.Name(), "outage") {
			t.Skip("needs no outage: TestConformance runs it")
		}
		c := cluster(t, "")
		u := underTest(c.URL())
		u.Stop = func(ctx context.Context) error {
			if err := c.Flush(ctx); err != nil {
				return err
			}
			return c.Kill()
		}
		u.Start = c.Start
		return u
	})
}

func underTest(url string) outlasttest.BrokerUnderTest {
	return outlasttest.BrokerUnderTest{
		Broker: broker(url),
		DeclareForeign: func(ctx context.Context, queue string) error {
			return onChannel(url, func(ch *amqp.Channel) error {
				_, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
				return err
			})
		},
		PublishForeign: func(ctx context.Context, queue string, headers []outlast.WireHeader, contentType string, body []byte) error {
			m := amqp.Publishing{Headers: amqp.Table{}, ContentType: contentType, Body: body}
			for _, h := range headers {
				switch h.Name {
				case "message-id":
					m.MessageId = h.Value
				case "correlation-id":
					m.CorrelationId = h.Value
				default:
					m.Headers[h.Name] = h.Value
				}
			}
			return onChannel(url, func(ch *amqp.Channel) error { return ch.Publish("", queue, true, false, m) })
		},
	}
}

func onChannel(url string, f func(*amqp.Channel) error) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return f(ch)
}
