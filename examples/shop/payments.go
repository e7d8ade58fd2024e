package shop

import (
	"context"
	"errors"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop/contracts"
)

// Cards that make trouble, to see what becomes of it. Any other card is fine.
const (
	CardExpired    = "expired"    // refused for good: a dead letter at once
	CardUnreadable = "unreadable" // fails at every try: a dead letter after the last
	CardBusy       = "busy"       // fails at the first try, then is charged
)

var (
	errCardExpired    = errors.New("the card has expired")
	errCardUnreadable = errors.New("the bank cannot read the card")
	errBankBusy       = errors.New("the bank is busy")
)

const paymentsSchema = `
CREATE TABLE IF NOT EXISTS payments (
    order_id TEXT NOT NULL,
    customer TEXT NOT NULL,
    cents    BIGINT NOT NULL
)`

type payments struct {
	journal
	anyCard bool
}

func (p *payments) handlers() []outlast.Handler {
	return []outlast.Handler{outlast.Handle(contracts.OrderPlaced, p.charge)}
}

// charge takes the money. The payment and the message about it are in tx, and Outlast
// commits it: both happen once, or neither.
func (p *payments) charge(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Order]) error {
	order := m.Body
	switch {
	case p.anyCard:
	case order.Card == CardExpired:
		return outlast.DeadLetter(errCardExpired) // a verdict: no retry can help
	case order.Card == CardUnreadable:
		return errCardUnreadable // anything else is retried by policy
	case order.Card == CardBusy && m.Attempt == 1:
		return errBankBusy
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO payments (order_id, customer, cents) VALUES ($1, $2, $3)`,
		order.OrderID, order.Customer, order.Cents)
	if err != nil {
		return err
	}
	return p.publish(ctx, tx, contracts.PaymentTaken.Message(contracts.Payment{
		OrderID: order.OrderID, Customer: order.Customer, Cents: order.Cents,
	}))
}
