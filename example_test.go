package outlast_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// InvoiceIssued is what the shop tells about an invoice.
type InvoiceIssued struct {
	Number   string `json:"number"`
	Customer string `json:"customer" outlast:"key"`
	Cents    int64  `json:"cents"`
}

// SendMail asks for a mail. It is a command: one group does it.
type SendMail struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

var (
	Issued = outlast.Event[InvoiceIssued]("invoice.issued", 1)
	Mail   = outlast.Command[SendMail]("mail.send", 1, outlast.Within(time.Minute))
)

// A contract names a type of message and its body. The field tagged "key" orders
// messages that belong together.
func ExampleEvent() {
	m := Issued.Message(InvoiceIssued{Number: "2026-17", Customer: "ada", Cents: 1999})
	fmt.Println(m.Type, m.Kind)
	fmt.Println("key:", m.Envelope.Key)
	fmt.Println("goes to:", m.Route())
	fmt.Println(string(m.Body))
	// Output:
	// invoice.issued.v1 event
	// key: ada
	// goes to: outlast.events/invoice.issued.v1
	// {"number":"2026-17","customer":"ada","cents":1999}
}

// Publish writes into the caller's transaction. Without the commit there is nothing.
func ExampleOutbox_Publish() {
	ctx := context.Background()
	store := memory.NewStore()
	outbox := outlast.NewOutbox(store)

	for _, commit := range []bool{false, true} {
		tx := store.Begin() // a *sql.Tx with a real database
		err := outbox.Publish(ctx, tx, Issued.Message(InvoiceIssued{Number: "2026-17", Customer: "ada", Cents: 1999}))
		if commit && err == nil {
			err = tx.Commit()
		} else {
			err = errors.Join(err, tx.Rollback())
		}
		waiting, _ := store.Operator().Outbox().List(ctx, outlast.Filter{})
		fmt.Printf("committed %v: %d waits, error %v\n", commit, len(waiting), err)
	}
	// Output:
	// committed false: 0 waits, error <nil>
	// committed true: 1 waits, error <nil>
}

// What breaks a limit is refused before anything is written, with every bad field.
func ExampleOutbox_Publish_invalid() {
	store := memory.NewStore()
	m := outlast.Message{Envelope: outlast.Envelope{Type: "order placed", ID: "7"}, Body: []byte(`{}`)}
	err := outlast.NewOutbox(store).Publish(context.Background(), store.Begin(), m)

	var e *outlast.Error
	if errors.As(err, &e) {
		for _, f := range e.Fields {
			fmt.Println(f.Field, f.Given)
		}
	}
	fmt.Println(outlast.CodeOf(err), outlast.Retryable(err))
	// Output:
	// id "7"
	// type "order placed"
	// invalid false
}

// A message may wait for its time, and be called back until then.
func ExampleOutbox_Withdraw() {
	ctx := context.Background()
	store := memory.NewStore()
	outbox := outlast.NewOutbox(store)
	id := outlast.NewID()

	tx := store.Begin()
	_ = outbox.Publish(ctx, tx, Mail.Message(SendMail{To: "ada", Text: "please pay"}, outlast.ID(id), outlast.After(72*time.Hour)))
	_ = tx.Commit()

	tx = store.Begin() // three days are not over, and she has paid
	withdrawn, err := outbox.Withdraw(ctx, tx, id)
	fmt.Println(withdrawn, err, tx.Commit())
	// Output: true <nil> <nil>
}

// Two services: shop tells of invoices, and books enters each one once.
func ExampleService() {
	broker := memory.NewBroker()
	shopStore, booksStore := memory.NewStore(), memory.NewStore()
	entered := make(chan string, 1)

	// In Run's place a program has one service; both are here to show the whole path.
	shop, err := outlast.NewService(outlast.ServiceConfig{Name: "shop", Store: shopStore, Broker: broker})
	if err != nil {
		fmt.Println(err)
		return
	}
	books, err := outlast.NewService(outlast.ServiceConfig{
		Name: "books", Store: booksStore, Broker: broker,
		Handlers: []outlast.Handler{outlast.Handle(Issued, enter(entered))},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = shop.Run(ctx) })
	running.Go(func() { _ = books.Run(ctx) })

	tx := shopStore.Begin()
	_ = shop.Outbox().Publish(ctx, tx, Issued.Message(InvoiceIssued{Number: "2026-17", Customer: "ada", Cents: 1999}))
	_ = tx.Commit()
	fmt.Println("entered", <-entered)

	stop() // Ctrl-C: both finish what they have begun
	running.Wait()
	// Output: entered 2026-17
}

// enter writes an invoice into the books, in the transaction that also marks the
// message as handled. With a database it would be an INSERT.
func enter(entered chan<- string) func(context.Context, outlast.Tx, outlast.Received[InvoiceIssued]) error {
	return func(ctx context.Context, tx outlast.Tx, m outlast.Received[InvoiceIssued]) error {
		if m.Body.Cents == 0 {
			return outlast.DeadLetter(errors.New("an invoice over nothing")) // no retry can help
		}
		mtx := tx.(*memory.Tx)
		mtx.Do(func() { entered <- m.Body.Number })
		return mtx.Put(ctx, m.Body.Number, m.Body.Cents)
	}
}

// A handler that publishes gets its outbox when it is made, before the service: what
// it publishes is committed with its effects, and wakes the relay after the commit.
func ExampleNewOutbox() {
	store := memory.NewStore()
	outbox, mailed := outlast.NewOutbox(store), make(chan string, 1)
	books, err := outlast.NewService(outlast.ServiceConfig{
		Name: "books", Store: store, Broker: memory.NewBroker(),
		Handlers: []outlast.Handler{
			outlast.Handle(Issued, remind(outbox)),
			outlast.Handle(Mail, func(_ context.Context, _ outlast.Tx, m outlast.Received[SendMail]) error {
				mailed <- m.Body.To + ": " + m.Body.Text
				return nil
			}),
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = books.Run(ctx) })

	tx := store.Begin()
	_ = books.Outbox().Publish(ctx, tx, Issued.Message(InvoiceIssued{Number: "2026-17", Customer: "ada", Cents: 1999}))
	_ = tx.Commit()
	fmt.Println(<-mailed)

	stop()
	running.Wait()
	// Output: ada: please pay 2026-17
}

// remind asks for a mail about an invoice.
func remind(outbox *outlast.Outbox) func(context.Context, outlast.Tx, outlast.Received[InvoiceIssued]) error {
	return func(ctx context.Context, tx outlast.Tx, m outlast.Received[InvoiceIssued]) error {
		return outbox.Publish(ctx, tx, Mail.Message(SendMail{To: m.Body.Customer, Text: "please pay " + m.Body.Number}))
	}
}

// buried tells of dead letters, as a hook for an alert would.
type buried chan string

func (b buried) OnHandled(h outlast.Handled) {
	if h.Result == outlast.HandledDead {
		b <- h.Message.ID
	}
}

// A dead letter waits in the receiver's database until a person acts.
func ExampleDeadLetter() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	store, dead := memory.NewStore(), make(buried, 1)
	books, err := outlast.NewService(outlast.ServiceConfig{
		Name: "books", Store: store, Broker: memory.NewBroker(),
		Handlers: []outlast.Handler{outlast.Handle(Issued, enter(nil))},
		Hooks:    []outlast.Hook{dead},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	var running sync.WaitGroup
	running.Go(func() { _ = books.Run(ctx) })

	tx := store.Begin()
	_ = books.Outbox().Publish(ctx, tx, Issued.Message(InvoiceIssued{Number: "2026-18", Customer: "ada"}))
	_ = tx.Commit()
	id := <-dead

	letters := store.Operator().Dead() // what the program outlast uses
	list, _ := letters.List(ctx, outlast.Filter{Group: "books"})
	fmt.Println(list[0].Envelope.Type, list[0].Reason, list[0].Error)
	n, err := letters.Discard(ctx, outlast.Filter{IDs: []string{id}}, outlast.Action{Who: "ada", Reason: "a test"})
	fmt.Println("discarded", n, err)

	stop()
	running.Wait()
	// Output:
	// invoice.issued.v1 verdict an invoice over nothing
	// discarded 1 <nil>
}

// A bad set of settings is refused as a whole.
func ExampleNewService_invalid() {
	_, err := outlast.NewService(outlast.ServiceConfig{
		Name:     "Books",
		Store:    memory.NewStore(),
		Broker:   memory.NewBroker(),
		Consumer: outlast.ConsumerConfig{Workers: 5000, DedupWindow: time.Minute},
		Handlers: []outlast.Handler{outlast.Handle(Issued, enter(nil))},
	})
	var e *outlast.Error
	if errors.As(err, &e) {
		for _, f := range e.Fields {
			fmt.Println(f)
		}
	}
	// Output:
	// ServiceConfig.Name "Books": must be 1 to 63 lower-case letters, digits and '-', starting with a letter
	// group "Books": ConsumerConfig.Group "Books": must be 1 to 63 lower-case letters, digits and '-', starting with a letter
	// group "Books": ConsumerConfig.Workers 5000: must be 1..1024
	// group "Books": ConsumerConfig.DedupWindow 1m0s: must be at least the retry horizon of 57m3s, or a late duplicate would take effect again
}

// Middleware sees every message of a group before its body is decoded.
func ExampleMiddleware() {
	logged := func(next outlast.HandlerFunc) outlast.HandlerFunc {
		return func(ctx context.Context, tx outlast.Tx, d *outlast.Delivered) error {
			err := next(ctx, tx, d)
			fmt.Println(d.Message.Type, "attempt", d.Attempt, "error:", err)
			return err
		}
	}
	h := logged(func(context.Context, outlast.Tx, *outlast.Delivered) error { return outlast.Snooze(time.Hour) })
	_ = h(context.Background(), nil, &outlast.Delivered{Message: &outlast.Message{Envelope: outlast.Envelope{Type: "mail.send.v1"}}, Attempt: 1})
	// Output: mail.send.v1 attempt 1 error: snoozed for 1h0m0s
}
