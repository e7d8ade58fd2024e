package memory_test

import (
	"context"
	"fmt"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// What a transaction writes into the outbox and into the store itself is there
// when it commits, and only then.
func ExampleStore_Begin() {
	ctx := context.Background()
	store := memory.NewStore()
	outbox := outlast.NewOutbox(store)

	tx := store.Begin()
	_ = tx.Put(ctx, "order-7", "placed")
	err := outbox.Publish(ctx, tx, outlast.Message{Envelope: outlast.Envelope{Type: "order.placed.v1"}, Body: []byte(`{}`)})
	fmt.Println("before the commit:", store.Value("order-7"), err)
	err = tx.Commit()
	fmt.Println("after the commit:", store.Value("order-7"), err)

	status, _ := store.Operator().Status(ctx)
	fmt.Println("pending:", status.Pending[0].Type, status.Pending[0].Count)
	// Output:
	// before the commit: <nil> <nil>
	// after the commit: placed <nil>
	// pending: order.placed.v1 1
}

// A broker that dies and comes back, for a test of what a service does meanwhile.
func ExampleBroker_Die() {
	broker := memory.NewBroker(memory.DropConfirm(0.1), memory.Seed(7))
	broker.Die()
	_, err := broker.Topology().Depth(context.Background(), "billing.0")
	fmt.Println(outlast.CodeOf(err))
	broker.Revive()
	_, err = broker.Topology().Depth(context.Background(), "billing.0")
	fmt.Println(outlast.CodeOf(err))
	// Output:
	// unavailable
	// not found
}
