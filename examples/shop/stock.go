package shop

import (
	"context"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop/contracts"
)

const stockSchema = `
CREATE TABLE IF NOT EXISTS stock (
    item     TEXT PRIMARY KEY,
    reserved BIGINT NOT NULL
)`

type stock struct{ journal }

func (s *stock) handlers() []outlast.Handler {
	return []outlast.Handler{outlast.Handle(contracts.OrderPlaced, s.reserve)}
}

// reserve sets the goods aside. Taking effect twice would reserve twice: nothing in
// this code guards against it, the inbox does.
func (s *stock) reserve(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Order]) error {
	order := m.Body
	_, err := tx.ExecContext(ctx, `INSERT INTO stock (item, reserved) VALUES ($1, $2)
		ON CONFLICT (item) DO UPDATE SET reserved = stock.reserved + excluded.reserved`, order.Item, order.Quantity)
	if err != nil {
		return err
	}
	return s.publish(ctx, tx, contracts.StockReserved.Message(contracts.Reservation{
		OrderID: order.OrderID, Customer: order.Customer, Item: order.Item, Quantity: order.Quantity,
	}))
}
