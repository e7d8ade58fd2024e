package history_test

import (
	"bufio"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/outlasttest/history"
)

type order struct {
	ID string `json:"id" outlast:"key"`
}

var placed = outlast.Event[order]("order.placed", 1)

// readAll reads a file as it is, without the package's own reader.
func readAll(t *testing.T, path string) (events []history.Event) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e history.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		events = append(events, e)
	}
	return events
}

func TestRecorder_tells_the_life_of_a_message(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "orders.jsonl")
	rec, err := history.NewRecorder(path, "orders")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	acked := make(chan struct{})
	store := memory.NewStore()
	service, err := outlast.NewService(outlast.ServiceConfig{
		Name: "orders", Store: store, Broker: memory.NewBroker(),
		Hooks:      []outlast.Hook{rec, onAcked(func() { close(acked) })},
		Middleware: []outlast.Middleware{rec.Middleware(nil)},
		Handlers: []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error {
			return nil
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	tx := store.Begin()
	id := outlast.NewID()
	if err := service.Outbox().Publish(history.WithKeySeq(ctx, 7), tx, placed.Message(order{"order-7"}, outlast.ID(id))); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	<-acked
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	var told []history.Kind
	for _, e := range readAll(t, path) {
		if e.M == id && e.E != history.Mark && e.E != history.Return && e.E != history.Hold { // those run beside
			told = append(told, e.E)
		}
		if e.E == history.Enqueue && (e.KeySeq != 7 || e.Key != "order-7" || e.Hash == "") {
			t.Errorf("enqueue: %+v", e)
		}
	}
	want := []history.Kind{history.Enqueue, history.Claim, history.Publish, history.Deliver, history.Begin, history.Start, history.Tried, history.Effect, history.Settle}
	last := -1
	for _, k := range want {
		at := slices.Index(told, k)
		if at < 0 {
			t.Fatalf("%s is not told: %v", k, told)
		}
		if k != history.Start && k != history.Begin && at < last {
			t.Errorf("%s is told too early: %v", k, told)
		}
		last = max(last, at)
	}
}

type onAcked func()

func (f onAcked) OnAcked(string, *outlast.Delivery, bool) { f() }

func TestRecorder_ends_a_torn_line_before_it_goes_on(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "torn.jsonl")
	if err := os.WriteFile(path, []byte(`{"t":1,"e":"open","v":1}`+"\n"+`{"t":2,"e":"cla`), 0o600); err != nil {
		t.Fatal(err)
	}
	rec, err := history.NewRecorder(path, "again")
	if err != nil {
		t.Fatal(err)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(data)), "\n"); len(lines) != 4 || lines[1] != `{"t":2,"e":"cla` {
		t.Errorf("lines: %q", lines)
	}
}

func TestRecorder_drops_what_comes_after_its_end(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "closed.jsonl")
	rec, err := history.NewRecorder(path, "closed")
	if err != nil {
		t.Fatal(err)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	rec.Saw("leader change")
	if got := len(readAll(t, path)); got != 2 {
		t.Errorf("%d events; want open and close", got)
	}
	if err := rec.Err(); err != nil {
		t.Error(err)
	}
}

// commits is a database that knows nothing but transactions; it is asked at each COMMIT.
type commits func() error

func (c commits) Connect(context.Context) (driver.Conn, error) { return c, nil }
func (c commits) Driver() driver.Driver                        { return nil }
func (c commits) Begin() (driver.Tx, error)                    { return c, nil }
func (c commits) Commit() error                                { return c() }
func (commits) Rollback() error                                { return nil }
func (commits) Close() error                                   { return nil }
func (commits) Prepare(string) (driver.Stmt, error)            { return nothing{}, nil }

// nothing is every statement.
type nothing struct{}

func (nothing) Close() error                               { return nil }
func (nothing) NumInput() int                              { return -1 }
func (nothing) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }
func (nothing) Query([]driver.Value) (driver.Rows, error)  { return nil, errors.New("no rows") }

// What a transaction wrote can be seen by nobody before COMMIT is sent, and that is told.
func TestRecorder_tells_when_a_commit_is_asked_for(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "orders.jsonl")
	rec, err := history.NewRecorder(path, "orders")
	if err != nil {
		t.Fatal(err)
	}
	lastOf := func() history.Event { events := readAll(t, path); return events[len(events)-1] }
	var at history.Event
	db := sql.OpenDB(commits(func() error { at = lastOf(); return nil }))
	defer db.Close()
	_, tx, err := rec.Begin(t.Context(), db, &history.Ledger{Engine: "sqlite", Name: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	begun := readAll(t, path)[1]
	if begun.E != history.Begin || at.E != history.Committing || at.Tx != begun.Tx {
		t.Errorf("begun %+v, told at the COMMIT: %+v", begun, at)
	}
	if e := lastOf(); e.E != history.Commit || e.O != history.OK || e.Tx != begun.Tx {
		t.Errorf("told of the end: %+v", e)
	}
	for name, c := range map[string]struct {
		publish bool
		err     error
		want    history.Kind
	}{
		"a handler that published": {true, nil, history.Committing},
		"one that did not":         {false, nil, history.Begin},
		"one that failed":          {true, errors.New("no"), history.Enqueue},
	} {
		handle := rec.Middleware(nil)(func(ctx context.Context, _ outlast.Tx, _ *outlast.Delivered) error {
			if c.publish {
				m := placed.Message(order{"order-8"})
				rec.OnEnqueued(ctx, []*outlast.Message{&m})
			}
			return c.err
		})
		if err := handle(t.Context(), nil, &outlast.Delivered{Group: "billing", Message: &outlast.Message{}}); !errors.Is(err, c.err) {
			t.Fatal(err)
		}
		if e := lastOf(); e.E != c.want || e.Tx == "" {
			t.Errorf("%s: told at last: %+v, want %s", name, e, c.want)
		}
	}
}
