package shop

import (
	"context"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop/contracts"
)

const shippingSchema = `
CREATE TABLE IF NOT EXISTS shipments (
    order_id TEXT PRIMARY KEY,
    paid     INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0
)`

type shipping struct{ journal }

func (s *shipping) handlers() []outlast.Handler {
	return []outlast.Handler{
		outlast.Handle(contracts.PaymentTaken, s.paid),
		outlast.Handle(contracts.StockReserved, s.reserved),
	}
}

// Payment and reservation come from two services, in any order: whichever is second
// sends the goods.
func (s *shipping) paid(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Payment]) error {
	const note = `INSERT INTO shipments (order_id, paid) VALUES ($1, 1)
		ON CONFLICT (order_id) DO UPDATE SET paid = shipments.paid + 1 RETURNING paid = 1 AND reserved = 1`
	return s.ship(ctx, tx, note, m.Body.OrderID, m.Body.Customer)
}

func (s *shipping) reserved(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Reservation]) error {
	const note = `INSERT INTO shipments (order_id, reserved) VALUES ($1, 1)
		ON CONFLICT (order_id) DO UPDATE SET reserved = shipments.reserved + 1 RETURNING paid = 1 AND reserved = 1`
	return s.ship(ctx, tx, note, m.Body.OrderID, m.Body.Customer)
}

func (s *shipping) ship(ctx context.Context, tx outlast.Tx, note, orderID, customer string) error {
	var complete bool
	if err := tx.QueryRowContext(ctx, note, orderID).Scan(&complete); err != nil || !complete {
		return err
	}
	return s.publish(ctx, tx, contracts.ShipmentSent.Message(contracts.Shipment{OrderID: orderID, Customer: customer}))
}
