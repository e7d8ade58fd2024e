// Package contracts is what the services of the shop promise to each other: the
// types of messages, and nothing else. A service imports this package and no other
// service.
package contracts

import "github.com/outlastmq/outlast"

// The ordering key of every message is the customer: what happens to one customer
// is seen by everybody in the order in which it happened.
var (
	// OrderPlaced comes from orders: a customer wants something.
	OrderPlaced = outlast.Event[Order]("order.placed", 1)
	// OrderCompleted comes from orders: the goods are on their way.
	OrderCompleted = outlast.Event[Completion]("order.completed", 1)
	// PaymentTaken comes from payments: the order is paid.
	PaymentTaken = outlast.Event[Payment]("payment.taken", 1)
	// StockReserved comes from stock: the goods are set aside.
	StockReserved = outlast.Event[Reservation]("stock.reserved", 1)
	// ShipmentSent comes from shipping: paid, reserved, and handed to the carrier.
	ShipmentSent = outlast.Event[Shipment]("shipment.sent", 1)
)

// Order is what a customer wants and how it is paid. The console masks the card and the
// customer.
type Order struct {
	OrderID  string `json:"order_id" outlast:"show"`
	Customer string `json:"customer" outlast:"key"`
	Item     string `json:"item" outlast:"show"`
	Quantity int    `json:"quantity" outlast:"show"`
	Cents    int64  `json:"cents" outlast:"show"`
	Card     string `json:"card"`
}

// Completion says that an order needs no more work.
type Completion struct {
	OrderID  string `json:"order_id"`
	Customer string `json:"customer" outlast:"key"`
}

// Payment is money taken for an order.
type Payment struct {
	OrderID  string `json:"order_id"`
	Customer string `json:"customer" outlast:"key"`
	Cents    int64  `json:"cents"`
}

// Reservation is goods set aside for an order.
type Reservation struct {
	OrderID  string `json:"order_id"`
	Customer string `json:"customer" outlast:"key"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

// Shipment is goods on their way.
type Shipment struct {
	OrderID  string `json:"order_id"`
	Customer string `json:"customer" outlast:"key"`
}
