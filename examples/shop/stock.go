package shop

import (
	"context"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop/contracts"
)

const stockSchema = `
CREATE TABLE IF NOT EXISTS reservations (
    order_id TEXT NOT NULL,
    item     TEXT NOT NULL,
    quantity BIGINT NOT NULL
)`

type stock struct{ journal }

func (s *stock) handlers() []outlast.Handler {
	return []outlast.Handler{outlast.Handle(contracts.OrderPlaced, s.reserve)}
}

// reserve sets the goods aside. Taking effect twice would reserve twice: nothing in
// this code guards against it, the inbox does. It writes a row of its own instead of
// changing a sum for each item: transactions of many customers would wait for each
// other there, and those of several messages would deadlock.
func (s *stock) reserve(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Order]) error {
	order := m.Body
	_, err := tx.ExecContext(ctx, `INSERT INTO reservations (order_id, item, quantity) VALUES ($1, $2, $3)`,
		order.OrderID, order.Item, order.Quantity)
	if err != nil {
		return err
	}
	return s.publish(ctx, tx, contracts.StockReserved.Message(contracts.Reservation{
		OrderID: order.OrderID, Customer: order.Customer, Item: order.Item, Quantity: order.Quantity,
	}))
}
