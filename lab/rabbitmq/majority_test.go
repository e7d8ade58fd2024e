package rabbitmq_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/memory"
)

type placed struct {
	OrderID string `json:"order_id" outlast:"key"`
}

var orderPlaced = outlast.Event[placed]("order.placed", 1)

// TestF47_AMajorityIsGoneForGood: the broker's only node, and so the majority of every
// queue, comes back without its data. Rows wait meanwhile; exchanges, queue and bindings are
// declared again by those who need them, and everything is delivered.
func TestF47_AMajorityIsGoneForGood(t *testing.T) {
	t.Parallel()
	c := cluster(t, "")
	store := memory.NewStore()
	effects := make(chan string, 100)
	s, err := outlast.NewService(outlast.ServiceConfig{Name: "billing", Store: store, Broker: broker(c.URL()),
		Handlers: []outlast.Handler{outlast.Handle(orderPlaced, func(_ context.Context, tx outlast.Tx, m outlast.Received[placed]) error {
			tx.(*memory.Tx).Do(func() { effects <- m.Body.OrderID })
			return nil
		})}})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s.Run)
	publish := func(id string) {
		t.Helper()
		tx := store.Begin()
		if err := s.Outbox().Publish(t.Context(), tx, orderPlaced.Message(placed{id})); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	handled := func(what string, n int) {
		t.Helper()
		limit := time.After(patience)
		for len(seen) < n {
			select {
			case id := <-effects:
				seen[id]++
			case <-limit:
				t.Fatalf("%s: %d of %d are handled", what, len(seen), n)
			}
		}
	}
	publish("before")
	handled("before", 1)
	node := c.Node(0)
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		publish(fmt.Sprint("meanwhile-", i))
	}
	if err := node.Wipe(); err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	handled("after", 21)
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s took effect %d times", id, n)
		}
	}
	var queues []servers.Queue
	err = c.CtlJSON(t.Context(), &queues, "list_queues", "name", "type")
	if err != nil || len(queues) != 1 || queues[0].Name != "billing.0" || queues[0].Type != "quorum" {
		t.Errorf("queues: %+v, %v", queues, err)
	}
}
