// Package sqlite_test proves the SQLite store on the real driver.
package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest"
	"github.com/outlastmq/outlast/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fresh returns a store with its tables on a file of its own.
func fresh(t testing.TB, opts ...sqlite.Option) (*sql.DB, outlast.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a b?%#.db") // a name that a URL must escape
	db := open(t, sqlite.DSN(path))
	s := sqlite.Store(db, opts...)
	must(t, s.Migrations().Up(t.Context(), 0))
	return db, s, path
}

func TestStore(t *testing.T) {
	t.Parallel()
	outlasttest.Store(t, func(t *testing.T) outlasttest.StoreUnderTest {
		db, s, _ := fresh(t)
		return outlasttest.StoreUnderTest{Store: s, Begin: func(ctx context.Context) (outlasttest.ProducerTx, error) {
			return db.BeginTx(ctx, nil)
		}}
	})
}

func TestEveryStatementPrepares(t *testing.T) {
	t.Parallel()
	db, s, _ := fresh(t, sqlite.Prefix("other_"))
	all := s.(interface{ Statements() map[string]string }).Statements()
	if len(all) < 50 {
		t.Fatalf("only %d statements", len(all))
	}
	for name, query := range all {
		if strings.HasSuffix(query, "WHERE") {
			query += " 1"
		}
		stmt, err := db.PrepareContext(t.Context(), query)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		must(t, stmt.Close())
		if strings.Contains(query, "outlast_") {
			t.Errorf("%s ignores the prefix", name)
		}
	}
}

// TestPlansUseIndexes guards the statements that run on a full table.
func TestPlansUseIndexes(t *testing.T) {
	t.Parallel()
	db, s, _ := fresh(t)
	all := s.(interface{ Statements() map[string]string }).Statements()
	for _, name := range []string{
		"pick", "pick_one", "rescan", "sent", "sent_held", "hold", "hold_again", "release", "held_due", "held_next", "held_of_key",
		"held_of_route", "held_keys", "settled_before", "withdraw", "mark", "known", "key_waits", "state", "retry_next", "purgeable", "purge",
		"status_pending", "status_held", "status_retry", "status_dead", "replay", "replay_state",
	} {
		query := strings.NewReplacer("?", "1").Replace(all[name])
		for i := range 9 { // numbered parameters have lost their mark
			query = strings.ReplaceAll(query, fmt.Sprintf("1%d", i), "1")
		}
		rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for rows.Next() {
			var a, b, c int
			var detail string
			must(t, rows.Scan(&a, &b, &c, &detail))
			if strings.HasPrefix(detail, "SCAN ") && !strings.Contains(detail, "INDEX") && !strings.Contains(detail, "json_each") &&
				!strings.Contains(detail, "CONSTANT ROW") && !strings.Contains(detail, "subquery") {
				t.Errorf("%s: %s", name, detail)
			}
		}
		must(t, rows.Err())
	}
}

func TestCheckNamesEverySetting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct{ name, query, want string }{
		{"all is well", "_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(EXTRA)", ""},
		{"no txlock", "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)", "_txlock"},
		{"rollback journal", "_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=synchronous(FULL)", "journal_mode"},
		{"synchronous normal", "_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)", "synchronous"},
		{"no patience", "_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)", "busy_timeout"},
		{"nothing set", "_pragma=synchronous(OFF)", "journal_mode synchronous busy_timeout _txlock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := open(t, "file:"+filepath.Join(dir, strings.ReplaceAll(c.name, " ", "_"))+"?"+c.query)
			s := sqlite.Store(db)
			must(t, s.Migrations().Up(t.Context(), 0))
			err := s.Check(t.Context())
			if c.want == "" {
				must(t, err)
				return
			}
			var e *outlast.Error
			if outlast.CodeOf(err) != outlast.CodeInvalid {
				t.Fatalf("Check = %v", err)
			}
			e = err.(*outlast.Error)
			var got []string
			for _, f := range e.Fields {
				got = append(got, f.Field)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("Check names %v, want %v", got, c.want)
			}
		})
	}
}

func TestCheckWithoutTables(t *testing.T) {
	t.Parallel()
	db := open(t, sqlite.DSN(filepath.Join(t.TempDir(), "empty.db")))
	s := sqlite.Store(db)
	if err := s.Check(t.Context()); outlast.CodeOf(err) != outlast.CodeSchema {
		t.Errorf("Check = %v", err)
	}
	if _, err := s.Inbox().Paused(t.Context(), "g"); outlast.CodeOf(err) != outlast.CodeSchema {
		t.Errorf("Paused = %v", err)
	}
	if _, err := s.Relay().SettledBefore(t.Context()); outlast.CodeOf(err) != outlast.CodeSchema {
		t.Errorf("SettledBefore = %v", err)
	}
	bad := sqlite.Store(db, sqlite.Prefix("x; DROP TABLE y"))
	if err := bad.Check(t.Context()); outlast.CodeOf(err) != outlast.CodeInvalid {
		t.Errorf("Check of a bad prefix = %v", err)
	}
}

func TestCheckOfAReadOnlyFile(t *testing.T) {
	t.Parallel()
	_, _, path := fresh(t)
	dsn := sqlite.DSN(path) + "&mode=ro"
	err := sqlite.Store(open(t, dsn)).Check(t.Context())
	if outlast.CodeOf(err) != outlast.CodeUnavailable {
		t.Errorf("Check = %v", err)
	}
}
