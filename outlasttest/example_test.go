package outlasttest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest"
)

// OrderPlaced and OrderCharged are bodies of two contracts.
type (
	OrderPlaced struct {
		OrderID string `json:"order_id" outlast:"key"`
		Total   int64  `json:"total_cents"`
	}
	OrderCharged struct {
		OrderID string `json:"order_id" outlast:"key"`
		Cents   int64  `json:"cents"`
	}
)

var (
	Placed  = outlast.Event[OrderPlaced]("order.placed", 1)
	Charged = outlast.Event[OrderCharged]("order.charged", 1)
)

// A handler publishes into the outbox that it was given.
func charge(outbox *outlast.Outbox) outlast.Handler {
	return outlast.Handle(Placed, func(ctx context.Context, tx outlast.Tx, m outlast.Received[OrderPlaced]) error {
		return outbox.Publish(ctx, tx, Charged.Message(OrderCharged{OrderID: m.Body.OrderID, Cents: m.Body.Total}))
	})
}

// Run a handler without servers and look at what it published.
func ExampleHandle() {
	var t testing.TB = exampleT{} // in a test, its own t

	outbox := outlasttest.NewOutbox()
	result := outlasttest.Handle(t, charge(outbox.Outbox()), outlasttest.NoDB(),
		Placed.Message(OrderPlaced{OrderID: "order-7", Total: 4200}),
		outlasttest.PublishesTo(outbox))

	fmt.Println("error:", result.Err)
	for _, c := range outlasttest.Published(result, Charged) {
		fmt.Println("charged:", c.OrderID, c.Cents)
	}
	// Output:
	// error: <nil>
	// charged: order-7 4200
}

// exampleT stands for a test's t.
type exampleT struct{ testing.TB }

func (exampleT) Helper()                   {}
func (exampleT) Context() context.Context  { return context.Background() }
func (exampleT) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
