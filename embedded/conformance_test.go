package embedded

import (
	"context"
	"testing"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/nats"
	"github.com/outlastmq/outlast/outlasttest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	outlasttest.Broker(t, func(t *testing.T) outlasttest.BrokerUnderTest {
		u := &underTest{dir: t.TempDir()}
		if err := u.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = u.s.Close() })
		return outlasttest.BrokerUnderTest{
			Broker: nats.Broker(u.s.URL()), Stop: u.stop, Start: u.start,
			DeclareForeign: u.declareForeign, PublishForeign: u.publishForeign,
			NoSingleActive: true, // the group's own lease sees to it
		}
	})
}

type underTest struct {
	dir string
	s   *Server
}

func (u *underTest) start(context.Context) (err error) {
	u.s, err = Start(u.dir)
	return err
}

func (u *underTest) stop(context.Context) error { return u.s.Close() }

func (u *underTest) with(do func(jetstream.JetStream) error) error {
	nc, err := client.Connect(u.s.URL())
	if err != nil {
		return err
	}
	defer nc.Close()
	j, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	return do(j)
}

func (u *underTest) declareForeign(ctx context.Context, queue string) error {
	return u.with(func(j jetstream.JetStream) error {
		name := nats.DurableName(queue)
		if _, err := j.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{queue}}); err != nil {
			return err
		}
		_, err := j.CreateConsumer(ctx, name, jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckExplicitPolicy})
		return err
	})
}

func (u *underTest) publishForeign(ctx context.Context, queue string, headers []outlast.WireHeader, contentType string, body []byte) error {
	return u.with(func(j jetstream.JetStream) error {
		h := client.Header{"Content-Type": {contentType}}
		for _, x := range headers {
			h[x.Name] = []string{x.Value}
		}
		_, err := j.PublishMsg(ctx, &client.Msg{Subject: queue, Header: h, Data: body})
		return err
	})
}
