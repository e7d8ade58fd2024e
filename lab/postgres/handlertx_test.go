package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// oneConn is a pool of one connection, so that one which is not given back is missed.
func oneConn(t *testing.T, refine func(*pgx.ConnConfig)) (*sql.DB, outlast.Store) {
	t.Helper()
	config, err := pgx.ParseConfig(servers.Database(t))
	must(t, err)
	refine(config)
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { must(t, db.Close()) })
	db.SetMaxOpenConns(1)
	store := postgres.Store(db)
	must(t, store.Migrations().Up(t.Context(), 0))
	must(t, exec(t.Context(), db, "CREATE TABLE charges (id text)"))
	return db, store
}

const charge = "INSERT INTO charges VALUES ($1)"

func charges(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM charges").Scan(&n))
	return n
}

// TestHandlingTakesThreeRoundTrips: BEGIN with the mark, the handler's own statement, COMMIT.
func TestHandlingTakesThreeRoundTrips(t *testing.T) {
	t.Parallel()
	count := &trips{}
	db, store := oneConn(t, func(c *pgx.ConnConfig) {
		c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return &countingConn{Conn: conn, trips: count}, err
		}
	})
	handle := func() {
		tx := begin(t, store)
		_, err := tx.Tx().ExecContext(t.Context(), charge, "a")
		must(t, err)
		must(t, tx.Commit(t.Context()))
	}
	handle() // learns the statements
	before := count.n.Load()
	for range 10 {
		handle()
	}
	if took := count.n.Load() - before; took != 30 {
		t.Errorf("handling 10 messages took %d round trips, want 30", took)
	}
	if n := charges(t, db); n != 11 {
		t.Errorf("%d charges, want 11", n)
	}
}

// TestAHandlersOpenRowsEndWithItsTransaction: rows that a handler forgot to close keep
// neither the transaction from ending nor its connection from the pool.
func TestAHandlersOpenRowsEndWithItsTransaction(t *testing.T) {
	t.Parallel()
	db, store := oneConn(t, func(*pgx.ConnConfig) {})
	forget := map[string]func(tx outlast.Tx){
		"rows": func(tx outlast.Tx) {
			rows, err := tx.QueryContext(t.Context(), "SELECT generate_series(1, 100000)")
			must(t, err)
			rows.Next()
		},
		"a row": func(tx outlast.Tx) { tx.QueryRowContext(t.Context(), "SELECT 1") },
	}
	for name, forget := range forget {
		for _, commit := range []bool{true, false} {
			tx := begin(t, store)
			_, err := tx.Tx().ExecContext(t.Context(), charge, name)
			must(t, err)
			forget(tx.Tx())
			if commit {
				must(t, tx.Commit(t.Context()))
			}
			tx.Rollback()
		}
	}
	if n := charges(t, db); n != 2 {
		t.Errorf("%d charges, want 2", n)
	}
}

// TestHandlersPrepareStatements: a handler may use statements of database/sql, its own and
// those of the pool; they belong to the transaction. The server warns once of a second BEGIN.
func TestHandlersPrepareStatements(t *testing.T) {
	t.Parallel()
	var warnings atomic.Int64
	db, store := oneConn(t, func(c *pgx.ConnConfig) {
		c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			if n.Code == "25001" {
				warnings.Add(1)
			}
		}
	})
	pooled, err := db.PrepareContext(t.Context(), charge)
	must(t, err)
	defer pooled.Close()
	for _, commit := range []bool{false, true, false, true} {
		tx := begin(t, store)
		_, err := tx.Tx().ExecContext(t.Context(), charge, "plain")
		must(t, err)
		_, err = tx.Tx().StmtContext(t.Context(), pooled).ExecContext(t.Context(), "pooled")
		must(t, err)
		own, err := tx.Tx().PrepareContext(t.Context(), charge)
		must(t, err)
		_, err = own.ExecContext(t.Context(), "own")
		must(t, err)
		if commit {
			must(t, tx.Commit(t.Context()))
		}
		tx.Rollback()
		if _, err := own.ExecContext(t.Context(), "late"); err == nil {
			t.Error("a statement outlived its transaction")
		}
	}
	if n := charges(t, db); n != 6 {
		t.Errorf("%d charges, want 6", n)
	}
	if n := warnings.Load(); n != 1 {
		t.Errorf("the server warned %d times, want once", n)
	}
}

// TestAStatementOfABrokenTransactionFails: also the first one that a handler prepares.
func TestAStatementOfABrokenTransactionFails(t *testing.T) {
	t.Parallel()
	db, store := oneConn(t, func(*pgx.ConnConfig) {})
	pooled, err := db.PrepareContext(t.Context(), charge)
	must(t, err)
	defer pooled.Close()
	for range 2 { // the second one begins as one of database/sql
		tx := begin(t, store)
		_, _ = tx.Tx().ExecContext(t.Context(), "INSERT INTO nowhere VALUES (1)")
		if _, err := tx.Tx().StmtContext(t.Context(), pooled).ExecContext(t.Context(), "a"); err == nil {
			t.Error("a statement of a broken transaction worked")
		}
		if tx.Commit(t.Context()) == nil {
			t.Error("a broken transaction was committed")
		}
	}
	if n := charges(t, db); n != 0 {
		t.Errorf("%d charges, want none", n)
	}
}

// TestAnEndedTransactionDoesNothing: a handler's goroutine that goes on after its return
// cannot write outside of the transaction.
func TestAnEndedTransactionDoesNothing(t *testing.T) {
	t.Parallel()
	db, store := oneConn(t, func(*pgx.ConnConfig) {})
	for _, end := range []func(outlast.InboxTx){
		func(tx outlast.InboxTx) { must(t, tx.Commit(t.Context())) },
		outlast.InboxTx.Rollback,
	} {
		tx := begin(t, store)
		late := tx.Tx()
		end(tx)
		_, err := late.ExecContext(t.Context(), charge, "late")
		rows, queryErr := late.QueryContext(t.Context(), charge+" RETURNING id", "late")
		_, prepareErr := late.PrepareContext(t.Context(), charge)
		for _, err := range []error{err, queryErr, prepareErr} {
			if !errors.Is(err, sql.ErrTxDone) {
				t.Errorf("%v, want %v", err, sql.ErrTxDone)
			}
		}
		if rows != nil {
			t.Error("rows of an ended transaction", rows.Close())
		}
		if late.QueryRowContext(t.Context(), charge+" RETURNING id", "late").Scan(new(string)) == nil {
			t.Error("a row of an ended transaction")
		}
	}
	if n := charges(t, db); n != 0 {
		t.Errorf("%d charges, want none", n)
	}
}

// TestAMarkThatFailsLeavesNoTransaction: BEGIN has succeeded then, and what came with it
// has not.
func TestAMarkThatFailsLeavesNoTransaction(t *testing.T) {
	t.Parallel()
	db, store := oneConn(t, func(*pgx.ConnConfig) {})
	pid := func() (pid int) {
		must(t, db.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
		return pid
	}
	before := pid()
	bad := outlast.Mark{Source: "orders", ID: "\x00"}
	for _, marks := range [][]outlast.Mark{{bad}, {{Source: "orders", ID: "1"}, bad}} {
		for range 2 {
			if _, err := store.Inbox().Begin(t.Context(), "billing", marks); outlast.CodeOf(err) != outlast.CodeInvalid {
				t.Errorf("%d marks: %v", len(marks), err)
			}
		}
	}
	if after := pid(); after != before { // the pool throws one away that is in a transaction
		t.Error("the connection did not come back in order")
	}
}

// TestAConnectionLostBetweenBeginAndTheMark: nothing is marked, and the next try works.
func TestAConnectionLostBetweenBeginAndTheMark(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	ctx := t.Context()
	mark := []outlast.Mark{{Source: "orders", ID: outlast.NewID()}}
	first, err := store.Inbox().Begin(ctx, "billing", mark)
	must(t, err)
	second := make(chan error, 1)
	go func() {
		_, err := store.Inbox().Begin(ctx, "billing", mark)
		second <- err
	}()
	// The second one has begun, and its mark waits for the first one.
	waits := "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
	for ended := false; !ended; {
		if err := db.QueryRowContext(ctx, waits).Scan(&ended); err != nil && !errors.Is(err, sql.ErrNoRows) {
			t.Fatal(err)
		}
	}
	if err := <-second; outlast.CodeOf(err) != outlast.CodeUnavailable {
		t.Errorf("%v, want %v", err, outlast.CodeUnavailable)
	}
	first.Rollback()
	third, err := store.Inbox().Begin(ctx, "billing", mark)
	must(t, err)
	if third.States()[0] != outlast.SeenNew {
		t.Errorf("the message is %s, want new", third.States()[0])
	}
	must(t, third.Commit(ctx))
}

// TestHandlersStatementsArePlannedAsBefore: the store forbids sequential scans for what it looks up
// in a handler's transaction. The handler's own statements find what its service has set.
func TestHandlersStatementsArePlannedAsBefore(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"on", "off"} {
		db, store := oneConn(t, func(c *pgx.ConnConfig) { c.RuntimeParams["enable_seqscan"] = set })
		ctx := t.Context()
		finds := func(when string, tx outlast.Tx) {
			t.Helper()
			found := ""
			must(t, tx.QueryRowContext(ctx, "SHOW enable_seqscan").Scan(&found))
			if found != set {
				t.Errorf("%s: a handler finds enable_seqscan %s, want %s", when, found, set)
			}
		}
		begin := func(when string, marks ...outlast.Mark) outlast.InboxTx {
			t.Helper()
			tx, err := store.Inbox().Begin(ctx, "billing", marks)
			must(t, err)
			finds(when, tx.Tx())
			return tx
		}
		plain, keyed := outlast.Mark{Source: "orders", ID: outlast.NewID()}, outlast.Mark{Source: "orders", ID: outlast.NewID(), Key: "k"}
		must(t, begin("a message without a key", plain).Commit(ctx))
		must(t, begin("one that was handled", plain).Commit(ctx))
		must(t, begin("several", keyed, outlast.Mark{Source: "orders", ID: outlast.NewID(), Key: "k"}).Commit(ctx))
		m := &outlast.Message{Envelope: outlast.Envelope{Source: "orders", ID: outlast.NewID(), Type: "order.placed.v1", Key: "k"}, Body: []byte("{}")}
		tx := begin("a message with a key", outlast.Mark{Source: "orders", ID: m.ID, Key: "k"})
		must(t, tx.Wait(ctx, &outlast.Waiting{Group: "billing", Message: m, Reason: "failed", Attempts: 1}))
		finds("after one that waits", tx.Tx())
		must(t, tx.Commit(ctx))
		retry, _, err := store.Inbox().BeginRetry(ctx, "billing", []string{"order.placed.v1"})
		must(t, err)
		finds("a retry", retry.Tx())
		must(t, retry.Undo(ctx))
		finds("a retry that was undone", retry.Tx())
		must(t, retry.Done(ctx))
		must(t, retry.Commit(ctx))
		now := ""
		must(t, db.QueryRowContext(ctx, "SHOW enable_seqscan").Scan(&now))
		if now != set {
			t.Errorf("the connection is left with enable_seqscan %s, want %s", now, set)
		}
	}
}
