package memory_test

import (
	"context"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/outlasttest"
)

func openBroker(*testing.T) outlasttest.BrokerUnderTest {
	b := memory.NewBroker()
	return outlasttest.BrokerUnderTest{
		Broker:         b,
		Stop:           func(context.Context) error { b.Die(); return nil },
		Start:          func(context.Context) error { b.Revive(); return nil },
		DeclareForeign: func(_ context.Context, queue string) error { b.DeclareQueue(queue); return nil },
		PublishForeign: func(_ context.Context, queue string, headers []outlast.WireHeader, contentType string, body []byte) error {
			b.PublishForeign("", queue, headers, contentType, body)
			return nil
		},
	}
}

func TestBroker(t *testing.T) { outlasttest.Broker(t, openBroker) }
