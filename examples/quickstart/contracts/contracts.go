// Package contracts is what the services know of each other.
package contracts

import "github.com/outlastmq/outlast"

// OrderPlaced tells that a customer wants something.
var OrderPlaced = outlast.Event[Order]("order.placed", 1)

// Order is the body of OrderPlaced. Orders of one customer take effect in the order
// in which they were placed.
type Order struct {
	OrderID  string `json:"order_id" outlast:"find"`
	Customer string `json:"customer" outlast:"key"`
	Cents    int64  `json:"cents"`
}
