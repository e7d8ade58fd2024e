package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/sqlite"
)

const blob = "INSERT INTO effect (v) VALUES (randomblob(400000))"

// withEffects returns a store whose handlers may write a table, on a pool of one
// connection less than the pages allow: PRAGMA max_page_count is per connection.
func withEffects(t *testing.T, pages int) (*sql.DB, outlast.Store) {
	t.Helper()
	_, _, path := fresh(t)
	dsn := sqlite.DSN(path)
	if pages > 0 {
		dsn += fmt.Sprintf("&_pragma=max_page_count(%d)", pages)
	}
	db := open(t, dsn)
	_, err := db.ExecContext(t.Context(), "CREATE TABLE effect (v BLOB, u INTEGER UNIQUE)")
	must(t, err)
	return db, sqlite.Store(db)
}

func effects(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM effect").Scan(&n))
	return n
}

func begin(t *testing.T, s outlast.Store, id string) outlast.InboxTx {
	t.Helper()
	tx, err := s.Inbox().Begin(t.Context(), "g", []outlast.Mark{{Source: "shop", ID: id, Hash: 1}})
	must(t, err)
	t.Cleanup(tx.Rollback)
	return tx
}

func wantNew(t *testing.T, s outlast.Store, id string) {
	t.Helper()
	tx := begin(t, s, id)
	if got := tx.States()[0]; got != outlast.SeenNew {
		t.Errorf("the message is %q after a failed transaction", got)
	}
	tx.Rollback()
}

// TestF65_SwallowedErrors runs handlers that ignore an error that ended their
// transaction: nothing of them may remain.
func TestF65_SwallowedErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		pages   int
		code    outlast.Code
		handler func(ctx context.Context, tx outlast.Tx)
	}{
		{"full disk", 150, outlast.CodeUnavailable, func(ctx context.Context, tx outlast.Tx) {
			_, _ = tx.ExecContext(ctx, blob)
			for range 5 {
				_, _ = tx.ExecContext(ctx, blob)
			}
			_, _ = tx.ExecContext(ctx, "INSERT INTO effect (v) VALUES ('after')")
		}},
		{"full disk, in a query", 150, outlast.CodeUnavailable, func(ctx context.Context, tx outlast.Tx) {
			for range 5 {
				var v int
				_ = tx.QueryRowContext(ctx, blob+" RETURNING rowid").Scan(&v)
			}
			_, _ = tx.ExecContext(ctx, "INSERT INTO effect (v) VALUES ('after')")
		}},
		{"rolled back by a conflict", 0, outlast.CodeInternal, func(ctx context.Context, tx outlast.Tx) {
			_, _ = tx.ExecContext(ctx, "INSERT INTO effect (u) VALUES (1)")
			_, _ = tx.ExecContext(ctx, "INSERT OR ROLLBACK INTO effect (u) VALUES (1)")
			_, _ = tx.ExecContext(ctx, "INSERT INTO effect (u) VALUES (2)")
			_ = tx.QueryRowContext(ctx, "INSERT INTO effect (u) VALUES (3) RETURNING u").Scan(new(int))
			if rows, err := tx.QueryContext(ctx, "INSERT INTO effect (u) VALUES (4) RETURNING u"); err == nil {
				_ = rows.Close()
			}
			if _, err := tx.PrepareContext(ctx, "INSERT INTO effect (u) VALUES (5)"); err == nil {
				panic("a statement was prepared in a transaction that is over")
			}
		}},
		{"rolled back unseen, by a prepared statement", 0, outlast.CodeInternal, func(ctx context.Context, tx outlast.Tx) {
			_, _ = tx.ExecContext(ctx, "INSERT INTO effect (u) VALUES (1)")
			stmt, err := tx.PrepareContext(ctx, "INSERT OR ROLLBACK INTO effect (u) VALUES (1)")
			if err == nil {
				_, _ = stmt.ExecContext(ctx)
			}
			_, _ = tx.ExecContext(ctx, "INSERT INTO effect (u) VALUES (2)")
		}},
		{"rolled back unseen, and nothing after it", 0, outlast.CodeInternal, func(ctx context.Context, tx outlast.Tx) {
			stmt, err := tx.PrepareContext(ctx, "INSERT INTO effect (u) VALUES (1), (2) RETURNING CASE u WHEN 2 THEN 1 END")
			_, _ = tx.ExecContext(ctx, "CREATE TEMP TRIGGER stop BEFORE INSERT ON effect WHEN NEW.u = 2 BEGIN SELECT RAISE(ROLLBACK, 'stop'); END")
			if err == nil {
				_, _ = stmt.ExecContext(ctx)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, s := withEffects(t, c.pages)
			tx := begin(t, s, "m1")
			c.handler(t.Context(), tx.Tx())
			err := tx.Commit(t.Context())
			if outlast.CodeOf(err) != c.code {
				t.Fatalf("Commit = %v", err)
			}
			if n := effects(t, db); n != 0 {
				t.Errorf("%d effects remain", n)
			}
			wantNew(t, s, "m1")
		})
	}
}

// TestHarmlessErrors shows that a handler may deal with an error that ends nothing.
func TestHarmlessErrors(t *testing.T) {
	t.Parallel()
	db, s := withEffects(t, 0)
	tx := begin(t, s, "m1")
	for range 2 { // the second one breaks the constraint
		_, _ = tx.Tx().ExecContext(t.Context(), "INSERT INTO effect (u) VALUES (1)")
	}
	for _, end := range []string{"COMMIT", " -- why\n rollback", "/* x */ END", "BEGIN", "ROLLBACK TRANSACTION"} {
		if _, err := tx.Tx().ExecContext(t.Context(), end); outlast.CodeOf(err) != outlast.CodeInvalid {
			t.Errorf("%s = %v", end, err)
		}
	}
	for _, ok := range []string{"SAVEPOINT mine", "ROLLBACK TO mine", "RELEASE mine"} {
		_, err := tx.Tx().ExecContext(t.Context(), ok)
		must(t, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tx.Tx().ExecContext(ended, "INSERT INTO effect (u) VALUES (9)"); err == nil {
		t.Error("a statement ran under an ended context")
	}
	must(t, tx.Commit(t.Context()))
	if n := effects(t, db); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
	again := begin(t, s, "m1")
	if got := again.States()[0]; got != outlast.SeenHandled {
		t.Errorf("the message is %q", got)
	}
}

// slow writes for as long as it is let.
const slow = `INSERT INTO effect (v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT i FROM n`

// TestInterruptedHandler ends a handler in the middle of a write, which rolls the
// whole transaction back: the retry can record the attempt all the same.
func TestInterruptedHandler(t *testing.T) {
	t.Parallel()
	db, s := withEffects(t, 0)
	wait := begin(t, s, "m1")
	m := &outlast.Message{Envelope: outlast.Envelope{ID: "m1", Source: "shop", Type: "a.v1"}, Body: []byte("{}")}
	must(t, wait.Wait(t.Context(), &outlast.Waiting{Message: m, Reason: "failed", Attempts: 1}))
	must(t, wait.Commit(t.Context()))

	r, _, err := s.Inbox().BeginRetry(t.Context(), "g", []string{"a.v1"})
	must(t, err)
	defer r.Rollback()
	_, err = r.Tx().ExecContext(t.Context(), "INSERT INTO effect (u) VALUES (1)")
	must(t, err)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Tx().ExecContext(short, slow); err == nil {
		t.Fatal("the slow statement ended by itself")
	}
	must(t, r.Undo(t.Context()))
	_, err = r.Tx().ExecContext(t.Context(), "INSERT INTO effect (u) VALUES (2)")
	must(t, err)
	must(t, r.Undo(t.Context()))
	must(t, r.Wait(t.Context(), &outlast.Waiting{Message: m, Reason: "failed", Attempts: 2}))
	must(t, r.Commit(t.Context()))

	again, _, err := s.Inbox().BeginRetry(t.Context(), "g", []string{"a.v1"})
	must(t, err)
	defer again.Rollback()
	if got := again.Waiting().Attempts; got != 2 {
		t.Errorf("%d attempts are recorded", got)
	}
	if n := effects(t, db); n != 0 {
		t.Errorf("%d effects remain", n)
	}
}

// TestReadersDoNotWait picks while a handler holds the write lock.
func TestReadersDoNotWait(t *testing.T) {
	t.Parallel()
	_, s := withEffects(t, 0)
	leases := lease(t, s)
	tx := begin(t, s, "m1")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.Relay().Reader().Pick(ctx, leases, 10, 10); err != nil {
		t.Error(err)
	}
	if _, err := s.Operator().Status(ctx); err != nil {
		t.Error(err)
	}
	must(t, tx.Commit(t.Context()))
}

// TestWritersEndWithTheirContext waits for a handler that does not end.
func TestWritersEndWithTheirContext(t *testing.T) {
	t.Parallel()
	db, s := withEffects(t, 0)
	begin(t, s, "m1")
	other := sqlite.Store(db) // its gate is open: SQLite itself makes it wait
	for name, st := range map[string]outlast.Store{"same store": s, "another": other} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := st.Inbox().Leave(ctx, "g", "i")
		cancel()
		if outlast.CodeOf(err) != outlast.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}
