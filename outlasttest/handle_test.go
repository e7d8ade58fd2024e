package outlasttest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/outlasttest"
)

type placed struct {
	OrderID string `json:"order_id" outlast:"key"`
	Total   int64  `json:"total_cents"`
}

type charged struct {
	OrderID string `json:"order_id" outlast:"key"`
	Cents   int64  `json:"cents"`
}

var (
	orderPlaced   = outlast.Event[placed]("order.placed", 1)
	orderCharged  = outlast.Event[charged]("order.charged", 1)
	errNoMoney    = errors.New("no money")
	chargeHandler = func(o *outlast.Outbox) outlast.Handler {
		return outlast.Handle(orderPlaced, func(ctx context.Context, tx outlast.Tx, m outlast.Received[placed]) error {
			if m.Body.Total > 1000 {
				return outlast.DeadLetter(errNoMoney)
			}
			return o.Publish(ctx, tx, orderCharged.Message(charged{m.Body.OrderID, m.Body.Total}))
		})
	}
)

func TestHandle(t *testing.T) {
	t.Run("tells what was published, in the flow of the message", func(t *testing.T) {
		out := outlasttest.NewOutbox()
		msg := orderPlaced.Message(placed{"7", 900}, outlast.Header("tenant", "zürich"))
		for i := range 2 {
			r := outlasttest.Handle(t, chargeHandler(out.Outbox()), outlasttest.NoDB(), msg, outlasttest.PublishesTo(out))
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			got := outlasttest.Published(r, orderCharged)
			if len(got) != 1 || got[0] != (charged{"7", 900}) {
				t.Fatalf("run %d published %v", i, got)
			}
			if m := r.Published()[0]; m.CausationID != r.Message.ID || m.CorrelationID != r.Message.CorrelationID {
				t.Fatalf("caused by %q in flow %q, want %q and %q", m.CausationID, m.CorrelationID, r.Message.ID, r.Message.CorrelationID)
			}
			if other := outlasttest.Published(r, orderPlaced); len(other) != 0 {
				t.Fatalf("published of another contract: %v", other)
			}
			if r.Message.Headers["tenant"] != "zürich" || r.Message.Source != "test" || r.Message.Envelope.Key != "7" {
				t.Fatalf("the handler got %+v", r.Message.Envelope)
			}
		}
	})
	t.Run("hands the verdict back", func(t *testing.T) {
		out := outlasttest.NewOutbox()
		r := outlasttest.Handle(t, chargeHandler(out.Outbox()), outlasttest.NoDB(), orderPlaced.Message(placed{"7", 5000}),
			outlasttest.PublishesTo(out))
		if !errors.Is(r.Err, errNoMoney) || len(r.Published()) != 0 {
			t.Fatalf("%v", r)
		}
	})
	t.Run("passes the attempt and the group", func(t *testing.T) {
		var got outlast.Received[placed]
		h := outlast.Handle(orderPlaced, func(_ context.Context, _ outlast.Tx, m outlast.Received[placed]) error {
			got = m
			return nil
		})
		outlasttest.Handle(t, h, outlasttest.NoDB(), orderPlaced.Message(placed{"7", 1}), outlasttest.Attempt(3), outlasttest.FromSource("shop"))
		if got.Attempt != 3 || got.Source != "shop" || got.EnqueuedAt.IsZero() {
			t.Fatalf("got %+v", got)
		}
	})
	t.Run("takes a transaction of the memory store", func(t *testing.T) {
		s := memory.NewStore()
		h := outlast.Handle(orderPlaced, func(ctx context.Context, tx outlast.Tx, m outlast.Received[placed]) error {
			return tx.(*memory.Tx).Put(ctx, m.Body.OrderID, m.Body.Total)
		})
		tx := s.Begin()
		if r := outlasttest.Handle(t, h, tx, orderPlaced.Message(placed{"7", 900})); r.Err != nil {
			t.Fatal(r.Err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if s.Value("7") != int64(900) {
			t.Fatalf("stored %v", s.Value("7"))
		}
	})
}

// failing is a testing.TB that notes a failure and stops its goroutine.
type failing struct {
	testing.TB
	failed string
}

func (f *failing) Helper()                  {}
func (f *failing) Context() context.Context { return context.Background() }
func (f *failing) Fatalf(format string, args ...any) {
	f.failed = format
	panic(f)
}

func TestHandleFails(t *testing.T) {
	h := chargeHandler(outlasttest.NewOutbox().Outbox())
	for name, m := range map[string]outlast.Message{
		"the message is of type":          orderCharged.Message(charged{"7", 1}),
		"the message cannot be published": orderPlaced.Message(placed{"7", 1}, outlast.Header("x-bad", "1")),
	} {
		f := &failing{TB: t}
		func() {
			defer func() { _ = recover() }()
			outlasttest.Handle(f, h, outlasttest.NoDB(), m)
		}()
		if !strings.HasPrefix(f.failed, name) {
			t.Errorf("failed with %q, want %q", f.failed, name)
		}
	}
}

func TestNoDB(t *testing.T) {
	tx, ctx := outlasttest.NoDB(), t.Context()
	_, exec := tx.ExecContext(ctx, "DELETE FROM orders")
	_, query := tx.QueryContext(ctx, "SELECT 1")
	_, prepare := tx.PrepareContext(ctx, "SELECT 1")
	scan := tx.QueryRowContext(ctx, "SELECT 1").Scan(new(int))
	for name, err := range map[string]error{"exec": exec, "query": query, "prepare": prepare, "scan": scan} {
		if err == nil || !strings.Contains(err.Error(), "NoDB") {
			t.Errorf("%s gave %v", name, err)
		}
	}
}

func TestOutbox(t *testing.T) {
	out := outlasttest.NewOutbox()
	ctx, tx := t.Context(), outlasttest.NoDB()
	id := outlast.NewID()
	err := out.Outbox().Publish(ctx, tx, orderPlaced.Message(placed{"1", 1}), orderPlaced.Message(placed{"2", 2}, outlast.ID(id), outlast.After(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(out.Published()); n != 2 {
		t.Fatalf("%d messages", n)
	}
	if err := out.Outbox().Publish(ctx, tx, outlast.Message{}); outlast.CodeOf(err) != outlast.CodeInvalid {
		t.Fatalf("a message without a type: %v", err)
	}
	did, err := out.Outbox().Withdraw(ctx, tx, id)
	if err != nil || !did || len(out.Published()) != 1 {
		t.Fatalf("withdrawn %t, %v, %d left", did, err, len(out.Published()))
	}
	if did, _ := out.Outbox().Withdraw(ctx, tx, out.Published()[0].ID); did {
		t.Fatal("withdrew what is not due later")
	}
}
