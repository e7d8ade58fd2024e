package outlasttest

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// Outbox records what is published into it. It knows no transactions: what was
// published in one that rolls back is recorded too. It is safe for concurrent use.
type Outbox struct {
	mu   sync.Mutex
	msgs []*outlast.Message
	o    *outlast.Outbox
}

// NewOutbox returns an empty outbox.
func NewOutbox(conf ...outlast.OutboxConfig) *Outbox {
	rec := &Outbox{}
	rec.o = outlast.NewOutbox(recordingStore{rec: rec}, conf...)
	return rec
}

// Outbox is what the code under test publishes into. It checks and completes
// messages as the real one does, and takes any transaction.
func (o *Outbox) Outbox() *outlast.Outbox { return o.o }

// Published returns all messages recorded so far and not withdrawn.
func (o *Outbox) Published() []*outlast.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.msgs)
}

// recordingStore is a store whose only role is the outbox; nobody but that outbox
// ever holds it, so the other roles are never asked for.
type recordingStore struct{ rec *Outbox }

func (s recordingStore) Engine() string                  { return "recording" }
func (s recordingStore) Slots() int                      { return 1 }
func (s recordingStore) Check(context.Context) error     { return nil }
func (s recordingStore) Outbox() outlast.OutboxStore     { return recorder(s) }
func (s recordingStore) Leases() outlast.LeaseStore      { return nil }
func (s recordingStore) Relay() outlast.RelayStore       { return nil }
func (s recordingStore) Inbox() outlast.InboxStore       { return nil }
func (s recordingStore) Operator() outlast.OperatorStore { return nil }
func (s recordingStore) Journal() outlast.JournalStore   { return nil }
func (s recordingStore) Books() outlast.BookStore        { return nil }
func (s recordingStore) Migrations() outlast.Migrator    { return nil }

type recorder struct{ rec *Outbox }

func (r recorder) Insert(_ context.Context, _ outlast.LiveTx, msgs []*outlast.Message) error {
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	for _, m := range msgs {
		c := *m
		r.rec.msgs = append(r.rec.msgs, &c)
	}
	return nil
}

// Withdraw removes a message that was published with a delay or a time to come.
func (r recorder) Withdraw(_ context.Context, _ outlast.LiveTx, id string) (bool, error) {
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	n := len(r.rec.msgs)
	r.rec.msgs = slices.DeleteFunc(r.rec.msgs, func(m *outlast.Message) bool {
		return m.ID == id && (m.Delay > 0 || m.Due.After(time.Now()))
	})
	return len(r.rec.msgs) < n, nil
}

// NoDB returns a transaction without a database, for handlers that only publish:
// every statement of SQL fails with an error that says so.
func NoDB() outlast.Tx { return noDB{} }

type noDB struct{}

var errNoDB = errors.New("this test runs the handler without a database (outlasttest.NoDB): give Handle a transaction of a real one")

func (noDB) ExecContext(context.Context, string, ...any) (sql.Result, error) { return nil, errNoDB }
func (noDB) QueryContext(context.Context, string, ...any) (*sql.Rows, error) { return nil, errNoDB }
func (noDB) PrepareContext(context.Context, string) (*sql.Stmt, error)       { return nil, errNoDB }
func (noDB) StmtContext(_ context.Context, stmt *sql.Stmt) *sql.Stmt         { return stmt }

func (noDB) QueryRowContext(ctx context.Context, query string, _ ...any) *sql.Row {
	// Only package sql can make a row that carries an error: from a context that has ended.
	return new(sql.DB).QueryRowContext(endedContext{ctx}, query)
}

type endedContext struct{ context.Context }

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (endedContext) Done() <-chan struct{} { return closed }
func (endedContext) Err() error            { return errNoDB }
