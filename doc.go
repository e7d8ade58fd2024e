// Package outlast carries messages between services so that they survive failure.
//
// A service writes a message as a row of its own database, in the transaction of the
// change that the message tells of (the outbox). A relay delivers committed rows to
// the broker, and removes a row when the broker has confirmed and routed it. A
// consumer records the message in the receiving service's inbox in the same
// transaction as the handler's effects, then acknowledges it. What fails is tried
// again on a schedule kept in the database; what cannot succeed becomes a dead letter
// that a person can find, understand, replay or discard.
//
// # A contract, a producer, a consumer
//
// A [Contract] is all that services know of each other:
//
//	var Placed = outlast.Event[OrderPlaced]("order.placed", 1)
//
//	type OrderPlaced struct {
//		OrderID string `json:"order_id" outlast:"key"` // the ordering key
//		Cents   int64  `json:"cents"`
//	}
//
// The producer publishes in its own transaction, a *sql.Tx or anything like it
// ([LiveTx]). The broker is not asked; it may be down:
//
//	err := outbox.Publish(ctx, tx, Placed.Message(OrderPlaced{OrderID: "order-7", Cents: 1999}))
//
// The consumer handles it in a transaction that Outlast begins and commits:
//
//	func charge(ctx context.Context, tx outlast.Tx, m outlast.Received[OrderPlaced]) error {
//		_, err := tx.ExecContext(ctx, `INSERT INTO charges ...`, m.Body.OrderID, m.Body.Cents)
//		return err // nil commits; an error is retried; see DeadLetter, Snooze, Unavailable
//	}
//
//	billing, err := outlast.NewService(outlast.ServiceConfig{
//		Name:     "billing",
//		Store:    postgres.Store(db),
//		Broker:   rabbitmq.Broker("amqps://app@mq.example/shop"),
//		Handlers: []outlast.Handler{outlast.Handle(Placed, charge)},
//	})
//	...
//	return billing.Run(ctx) // relay, consumers, retries; returns when all have ended
//
// Constructors check everything, name every bad field in one [*Error], and start
// nothing. Run is the only verb for background work; when it returns, nothing that it
// started is alive.
//
// # Where a message waits
//
//   - pending: in the outbox, to be sent.
//   - held: it cannot be sent now; the reason is beside it ([HeldReason]).
//   - retry: at the receiver; its handler failed, or an earlier message of its key waits.
//   - dead: at the receiver; its attempts are spent, or the handler said [DeadLetter].
//
// [OperatorStore] looks at all of them and acts on them, as the program outlast does.
//
// # What is guaranteed
//
// No committed message is lost, none is sent for a transaction that did not commit,
// and each effect happens once per group. Messages of one key take effect in the
// order of their transactions. Outages heal without a person and cost no attempt. An
// outcome that is not known is never reported as success or failure: [CodeUnknown].
// docs/guarantees.md says where each promise ends and names the tests that prove it.
//
// # Stores and brokers
//
// Package postgres and package sqlite are stores; rabbitmq and nats are brokers;
// memory has both for tests, with faults on demand; the module embedded runs a broker
// in the process. Package outlasttest runs a handler without servers, and holds the
// suites that a store or a broker of your own must pass.
package outlast
