package memory_test

import (
	"context"
	"testing"

	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/outlasttest"
)

func openStore(*testing.T) outlasttest.StoreUnderTest {
	s := memory.NewStore()
	return outlasttest.StoreUnderTest{
		Store:             s,
		Begin:             func(context.Context) (outlasttest.ProducerTx, error) { return s.Begin(), nil },
		ConcurrentWriters: true,
	}
}

func TestStore(t *testing.T) { outlasttest.Store(t, openStore) }
