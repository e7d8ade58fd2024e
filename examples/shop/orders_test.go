package shop

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
)

// serveOrders returns the API of orders, with no relay and no broker.
func serveOrders(t *testing.T) (*httptest.Server, *Database) {
	t.Helper()
	db := openShop(t)["orders"]
	p, err := newPart("orders", db.DB, false)
	if err != nil {
		t.Fatal(err)
	}
	p.book.outbox = outlast.NewOutbox(db.Store)
	server := httptest.NewServer(p.api)
	t.Cleanup(server.Close)
	return server, db
}

func post(t *testing.T, server *httptest.Server, body string) (int, string) {
	t.Helper()
	answer, err := http.Post(server.URL+"/orders", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func (d *Database) count(t *testing.T, query string) int {
	t.Helper()
	var n int
	if err := d.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOrders_writes_the_order_and_its_message_together(t *testing.T) {
	t.Parallel()
	server, db := serveOrders(t)
	for range 2 {
		if status, text := post(t, server, `{"customer":"ada","item":"lamp","quantity":1,"cents":1999,"card":"good"}`); status != http.StatusCreated {
			t.Fatalf("status %d: %s", status, text)
		}
	}
	for _, query := range []string{
		`SELECT count(*) FROM orders WHERE state = 'placed'`,
		`SELECT count(*) FROM outlast_outbox WHERE type = 'order.placed.v1' AND ordering_key = 'ada'`,
		`SELECT count(*) FROM journal_sent WHERE position IN (1, 2)`,
	} {
		if n := db.count(t, query); n != 2 {
			t.Errorf("%s: %d, want 2", query, n)
		}
	}
}

func TestOrders_refuses_what_is_no_order_and_writes_nothing(t *testing.T) {
	t.Parallel()
	server, db := serveOrders(t)
	long := `{"customer":"` + strings.Repeat("a", 300) + `","item":"lamp","quantity":1}`
	for body, want := range map[string]int{
		`no json`: http.StatusBadRequest,
		`{"customer":"ada","item":"lamp","quantity":0}`:                 http.StatusUnprocessableEntity,
		`{"customer":"","item":"lamp","quantity":1}`:                    http.StatusUnprocessableEntity,
		`{"item":"` + strings.Repeat("x", maxOrder) + `"}`:              http.StatusBadRequest,
		`{"customer":"ada\u0000","item":"lamp","quantity":1,"cents":1}`: http.StatusUnprocessableEntity,
		long: http.StatusUnprocessableEntity, // longer than an ordering key may be
	} {
		if status, text := post(t, server, body); status != want {
			t.Errorf("%.60s: status %d, want %d: %s", body, status, want, text)
		}
	}
	if n := db.count(t, `SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM outlast_outbox) + (SELECT count(*) FROM journal_sent)`); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}
