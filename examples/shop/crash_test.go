package shop

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/embedded"
	"github.com/outlastmq/outlast/examples/shop/contracts"
	"github.com/outlastmq/outlast/nats"
	"github.com/outlastmq/outlast/outlasttest"
)

func TestMain(m *testing.M) {
	os.Exit(outlasttest.CrashMain(m, map[string]outlasttest.CrashProgram{"stock": runStock, "careless": runCareless}))
}

// runStock is the service of stock in a process of its own, which the test kills.
func runStock(ctx context.Context, hooks []outlast.Hook) error {
	db, err := Open(ctx, "sqlite:"+os.Getenv("SHOP_DIR"), "stock")
	if err != nil {
		return err
	}
	defer db.Close()
	return Run(ctx, Config{Service: "stock", Database: db, Broker: nats.Broker(os.Getenv("SHOP_BROKER")), Hooks: hooks})
}

// runCareless is the same, and tells somebody outside, before the transaction has
// committed, of each order that it handles.
func runCareless(ctx context.Context, hooks []outlast.Hook) error {
	return runStock(ctx, append([]outlast.Hook{letter(os.Getenv("SHOP_LETTERS"))}, hooks...))
}

// letter is the file that letters are added to.
type letter string

func (l letter) OnTrying(string, *outlast.Message, int) {}

func (l letter) OnTried(_ string, m *outlast.Message, _ int, _ outlast.TryEnd, _ error) {
	if f, err := os.OpenFile(string(l), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		fmt.Fprintln(f, m.ID)
		f.Close()
	}
}

const crashOrders = 12

// TestF57_StockSurvivesCrashes kills the service of stock at every step of a message's way,
// in and out, between the COMMIT and the acknowledgement as well. Each order must be
// reserved once all the same, and the parcel that follows from it sent once. A step that it
// never comes to is an error.
func TestF57_StockSurvivesCrashes(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills a process eleven times, and waits for its leases each time")
	}
	outlasttest.Crash(t, outlasttest.CrashConfig{Program: "stock", Steps: outlasttest.CrashSteps, Prepare: prepareStock})
}

// TestAnEffectOutsideTheTransactionHappensTwice shows that the kills are real: what the
// database does not undo is done again.
func TestAnEffectOutsideTheTransactionHappensTwice(t *testing.T) {
	outlasttest.Crash(t, outlasttest.CrashConfig{
		Program: "careless", Steps: []outlasttest.CrashStep{outlasttest.CrashTried},
		Prepare: func(t *testing.T) outlasttest.CrashRun {
			letters := filepath.Join(t.TempDir(), "letters")
			run := prepareStock(t)
			run.Env = append(run.Env, "SHOP_LETTERS="+letters)
			check := run.Check
			run.Check = func(t testing.TB) {
				check(t)
				text, err := os.ReadFile(letters)
				if n := strings.Count(string(text), "\n"); err != nil || n <= crashOrders {
					t.Errorf("%d letters for %d orders, %v: want more, as one was written before the kill", n, crashOrders, err)
				}
			}
			return run
		},
	})
}

// prepareStock makes a shop of which only stock will be killed: orders and shipping run
// in the test's own process.
func prepareStock(t *testing.T) outlasttest.CrashRun {
	dir, databases := openShopIn(t)
	broker, err := embedded.Start(filepath.Join(t.TempDir(), "broker"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	around, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(around, Config{Service: "shipping", Database: databases["shipping"], Broker: nats.Broker(broker.URL())})
	}()
	go func() {
		ended <- RunRelay(around, Config{Service: "orders", Database: databases["orders"], Broker: nats.Broker(broker.URL())})
	}()
	t.Cleanup(func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return outlasttest.CrashRun{
		Env:   []string{"SHOP_DIR=" + dir, "SHOP_BROKER=" + broker.URL()},
		Begin: func(ctx context.Context) error { return placeOrders(ctx, databases["orders"]) },
		Done: func(ctx context.Context) (bool, error) {
			arrived, err := count(ctx, databases["shipping"], `SELECT count(*) FROM shipments WHERE reserved > 0`)
			if err != nil || arrived < crashOrders {
				return false, err
			}
			// What was confirmed right before the kill is still in the outbox, until the
			// next life has the lease of the last one.
			left, err := count(ctx, databases["stock"], `SELECT count(*) FROM outlast_outbox`)
			return left == 0, err
		},
		Check: func(t testing.TB) {
			for what, query := range map[string]string{
				"orders reserved":   `SELECT count(DISTINCT order_id) FROM reservations`,
				"reservations":      `SELECT count(*) FROM reservations`,
				"messages of stock": `SELECT count(*) FROM journal_sent`,
			} {
				if n, err := count(context.Background(), databases["stock"], query); err != nil || n != crashOrders {
					t.Errorf("%s: %d, %v; want %d", what, n, err, crashOrders)
				}
			}
			if n, err := count(context.Background(), databases["shipping"], `SELECT count(*) FROM shipments WHERE reserved <> 1`); err != nil || n != 0 {
				t.Errorf("%d orders reached shipping more than once: %v", n, err)
			}
		},
	}
}

func placeOrders(ctx context.Context, db *Database) error {
	o := &orders{journal: journal{outbox: outlast.NewOutbox(db.Store)}, db: db.DB}
	for i := range crashOrders {
		order := contracts.Order{OrderID: outlast.NewID(), Customer: fmt.Sprintf("customer-%d", i%3), Item: "a lamp", Quantity: 1, Cents: 100, Card: "fine"}
		if err := o.place(ctx, order); err != nil {
			return err
		}
	}
	return nil
}

func count(ctx context.Context, db *Database, query string) (n int, err error) {
	return n, db.QueryRowContext(ctx, query).Scan(&n)
}
