package shop

import (
	"context"
	"fmt"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop/contracts"
)

const notificationsSchema = `
CREATE TABLE IF NOT EXISTS notices (
    customer TEXT NOT NULL,
    text     TEXT NOT NULL
)`

type notifications struct{ journal }

func (n *notifications) handlers() []outlast.Handler {
	return []outlast.Handler{
		outlast.Handle(contracts.OrderPlaced, func(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Order]) error {
			return tell(ctx, tx, m.Body.Customer, fmt.Sprintf("We have your order %s.", m.Body.OrderID))
		}),
		outlast.Handle(contracts.PaymentTaken, func(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Payment]) error {
			return tell(ctx, tx, m.Body.Customer, fmt.Sprintf("Thank you for paying order %s.", m.Body.OrderID))
		}),
		outlast.Handle(contracts.OrderCompleted, func(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Completion]) error {
			return tell(ctx, tx, m.Body.Customer, fmt.Sprintf("Your order %s is on its way.", m.Body.OrderID))
		}),
	}
}

// tell stands for a letter that is printed from the table.
func tell(ctx context.Context, tx outlast.Tx, customer, text string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO notices (customer, text) VALUES ($1, $2)`, customer, text)
	return err
}
