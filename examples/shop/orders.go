package shop

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop/contracts"
)

const ordersSchema = `
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY,
    customer TEXT NOT NULL,
    item     TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    cents    BIGINT NOT NULL,
    card     TEXT NOT NULL,
    state    TEXT NOT NULL
)`

type orders struct {
	journal
	db *sql.DB
}

func (o *orders) handlers() []outlast.Handler {
	return []outlast.Handler{
		outlast.Handle(contracts.PaymentTaken, o.paid),
		outlast.Handle(contracts.ShipmentSent, o.shipped),
	}
}

// place writes the order and the message about it in one transaction. The broker is
// not asked: it may be down.
func (o *orders) place(ctx context.Context, order contracts.Order) error {
	tx, err := o.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, `INSERT INTO orders (order_id, customer, item, quantity, cents, card, state)
		VALUES ($1, $2, $3, $4, $5, $6, 'placed')`,
		order.OrderID, order.Customer, order.Item, order.Quantity, order.Cents, order.Card)
	if err != nil {
		return err
	}
	if err := o.publish(ctx, tx, contracts.OrderPlaced.Message(order)); err != nil {
		return err
	}
	return tx.Commit()
}

func (o *orders) paid(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Payment]) error {
	_, err := tx.ExecContext(ctx, `UPDATE orders SET state = 'paid' WHERE order_id = $1 AND state = 'placed'`, m.Body.OrderID)
	return err
}

func (o *orders) shipped(ctx context.Context, tx outlast.Tx, m outlast.Received[contracts.Shipment]) error {
	_, err := tx.ExecContext(ctx, `UPDATE orders SET state = 'completed' WHERE order_id = $1`, m.Body.OrderID)
	if err != nil {
		return err
	}
	return o.publish(ctx, tx, contracts.OrderCompleted.Message(contracts.Completion{OrderID: m.Body.OrderID, Customer: m.Body.Customer}))
}

// routes is the HTTP API: POST /orders places an order, GET /orders/{id} shows it.
func (o *orders) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", o.servePlace)
	mux.HandleFunc("GET /orders/{id}", o.serveShow)
	return mux
}

// maxOrder is the size of the longest order in bytes.
const maxOrder = 64 << 10

func (o *orders) servePlace(w http.ResponseWriter, r *http.Request) {
	var order contracts.Order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&order); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "the order is no valid JSON"})
		return
	}
	if order.Customer == "" || order.Item == "" || order.Quantity < 1 || order.Cents < 0 {
		answer(w, http.StatusUnprocessableEntity, map[string]string{"error": "an order needs a customer, an item, a quantity and a price"})
		return
	}
	order.OrderID = outlast.NewID()
	switch err := o.place(r.Context(), order); {
	case err == nil:
		answer(w, http.StatusCreated, map[string]string{"order_id": order.OrderID})
	case outlast.CodeOf(err) == outlast.CodeInvalid:
		answer(w, http.StatusUnprocessableEntity, map[string]string{"error": err.Error()})
	default:
		answer(w, http.StatusServiceUnavailable, map[string]string{"error": "the order could not be written; it may be tried again"})
	}
}

func (o *orders) serveShow(w http.ResponseWriter, r *http.Request) {
	shown := struct {
		OrderID  string `json:"order_id"`
		Customer string `json:"customer"`
		State    string `json:"state"`
	}{OrderID: r.PathValue("id")}
	err := o.db.QueryRowContext(r.Context(), `SELECT customer, state FROM orders WHERE order_id = $1`, shown.OrderID).
		Scan(&shown.Customer, &shown.State)
	switch {
	case err == nil:
		answer(w, http.StatusOK, shown)
	case errors.Is(err, sql.ErrNoRows):
		answer(w, http.StatusNotFound, map[string]string{"error": fmt.Sprintf("there is no order %q", shown.OrderID)})
	default:
		answer(w, http.StatusServiceUnavailable, map[string]string{"error": "the order could not be read"})
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone: nobody to tell
}
