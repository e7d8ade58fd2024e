package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"maps"
	"net/url"
	"strings"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/sqlfile"
)

//go:embed sql/*.sql migrations/*.sql
var files embed.FS

// DefaultPrefix begins the names of Outlast's tables.
const DefaultPrefix = "outlast_"

// Option changes a store.
type Option func(*store)

// Prefix sets the beginning of the names of tables: 1 to 24 of a-z, 0-9 and '_',
// not starting with a digit. Default "outlast_". All programs on one database use the
// same.
func Prefix(p string) Option { return func(s *store) { s.prefix = p } }

// DSN returns the data source name for modernc.org/sqlite with the settings that
// Outlast requires and a busy timeout of 10 s. path is a file; it is created when
// it is not there.
func DSN(path string) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	u.RawQuery = "_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
	return u.String()
}

// Store returns the store on db, which stays the caller's to close. A bad option is
// reported by every method of the store, Check first.
func Store(db *sql.DB, opts ...Option) outlast.Store {
	s := &store{db: db, prefix: DefaultPrefix, gate: make(chan struct{}, 1)}
	for _, o := range opts {
		o(s)
	}
	s.err = s.load()
	return s
}

type store struct {
	db         *sql.DB
	prefix     string
	sql        sqlfile.Queries
	migrations []sqlfile.Migration
	err        error // of the construction
	// gate lets one writer of this process in at a time, in the order of arrival.
	// SQLite's own wait for the lock sleeps, and is not fair.
	gate chan struct{}
}

func (s *store) load() error {
	if s.db == nil {
		return invalid("open sqlite store", "db", "an open *sql.DB", "nil")
	}
	if err := sqlfile.CheckIdentifier(s.prefix); err != nil {
		return &outlast.Error{Op: "open sqlite store", Code: outlast.CodeInvalid, Err: err, Hint: "see sqlite.Prefix"}
	}
	names := sqlNames(s.prefix)
	var err error
	if s.sql, err = sqlfile.LoadQueries(files, "sql/*.sql", names); err != nil {
		return &outlast.Error{Op: "open sqlite store", Code: outlast.CodeInternal, Err: err}
	}
	if s.migrations, err = sqlfile.LoadMigrations(files, "migrations", names); err != nil {
		return &outlast.Error{Op: "open sqlite store", Code: outlast.CodeInternal, Err: err}
	}
	return nil
}

// sqlNames are the words that the SQL files share.
func sqlNames(prefix string) sqlfile.Names {
	const (
		// 'now' stands still during a statement, so that all its uses are one instant.
		now = "(CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000)"
		// 48 bits of milliseconds, the version, and random bits with the variant.
		uuid7 = "substr(printf('%012x', " + now + " / 1000), 1, 8) || '-' || substr(printf('%012x', " + now + " / 1000), 9) || '-7' || " +
			"substr(lower(hex(randomblob(2))), 2) || '-' || substr('89ab', 1 + (random() & 3), 1) || " +
			"substr(lower(hex(randomblob(2))), 2) || '-' || lower(hex(randomblob(6)))"
		control = "('*[' || char(1) || '-' || char(31) || char(127) || ']*')"
	)
	released := strings.Replace(columns, "due_at", "NULL", 1)
	released = strings.Replace(released, "enqueued_at", now, 1)
	return sqlfile.Names{
		"p": prefix, "now": now, "uuid7": uuid7, "control": control,
		"columns": columns, "columns_released": released,
		"read": readHead + ", " + bodyColumn + ", " + strings.ReplaceAll(readJudged, "NOW", now), "read_head": readHead + ", length(" + bodyColumn + ")", "body": bodyColumn,
	}
}

func (s *store) Engine() string { return "sqlite" }

// Slots is 1: SQLite has one writer at a time, so more relays could not do more.
func (s *store) Slots() int { return 1 }

func (s *store) Outbox() outlast.OutboxStore     { return outbox{s} }
func (s *store) Leases() outlast.LeaseStore      { return leases{s} }
func (s *store) Relay() outlast.RelayStore       { return relay{s} }
func (s *store) Inbox() outlast.InboxStore       { return inbox{s} }
func (s *store) Operator() outlast.OperatorStore { return operator{s} }
func (s *store) Journal() outlast.JournalStore   { return journal{s} }
func (s *store) Books() outlast.BookStore        { return books{s} }
func (s *store) Migrations() outlast.Migrator    { return migrator{s} }

// Statements returns the named statements, so that a test can prepare each, and a
// person can look at its plan. Those that end in WHERE are completed by conditions.
func (s *store) Statements() map[string]string { return maps.Clone(s.sql) }

// Check returns nil when the tables are of this build's version, the database can be
// written, and the settings that carry promises are set (see the package's text):
// otherwise a CodeInvalid that names every wrong setting.
func (s *store) Check(ctx context.Context) error {
	const op = "check sqlite store"
	if s.err != nil {
		return s.err
	}
	if err := s.checkVersion(ctx, op); err != nil {
		return err
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return mapped(op, err)
	}
	journal, synchronous, timeout, err := pragmas(ctx, conn)
	if closeErr := conn.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return mapped(op, err)
	}
	var bad []outlast.FieldError
	if journal != "wal" {
		bad = append(bad, outlast.FieldError{Field: "journal_mode", Limit: "WAL, on a file", Given: fmt.Sprintf("%q", journal)})
	}
	if synchronous < 2 {
		bad = append(bad, outlast.FieldError{Field: "synchronous", Limit: "FULL (2) or EXTRA (3)", Given: fmt.Sprint(synchronous)})
	}
	if timeout < 1000 {
		bad = append(bad, outlast.FieldError{Field: "busy_timeout", Limit: "at least 1000 ms", Given: fmt.Sprint(timeout)})
	}
	immediate, err := s.beginsImmediate(ctx)
	if err != nil {
		return mapped(op, err)
	}
	if !immediate {
		bad = append(bad, outlast.FieldError{Field: "_txlock", Limit: "immediate", Given: `"deferred"`})
	}
	if len(bad) > 0 {
		return &outlast.Error{Op: op, Code: outlast.CodeInvalid, Fields: bad,
			Hint: "open the database with sqlite.DSN(path), or put _txlock=immediate, WAL, FULL and a busy timeout into the DSN"}
	}
	return nil
}

// needed is the oldest version of the tables that this build can work on. What newer
// ones add is left out while it is not there.
const needed = 1

func (s *store) checkVersion(ctx context.Context, op string) error {
	have, err := s.version(ctx, s.db)
	if err != nil {
		return mapped(op, err)
	}
	want := len(s.migrations)
	switch {
	case have < needed:
		return &outlast.Error{Op: op, Code: outlast.CodeSchema, Err: fmt.Errorf("tables have version %d, this build needs %d", have, want), Hint: hintMigrate}
	case have > want:
		// Tables that have only been added to serve older builds too. A migration that
		// takes something away puts the oldest build's version into meta first.
		var needs int
		if err := s.db.QueryRowContext(ctx, s.sql.Get("needs")).Scan(&needs); err != nil || needs <= want {
			return mapped(op, err)
		}
		return &outlast.Error{Op: op, Code: outlast.CodeSchema, Err: fmt.Errorf("tables have version %d, this build knows %d", have, want), Hint: "deploy a newer build"}
	}
	return nil
}

func pragmas(ctx context.Context, conn *sql.Conn) (journal string, synchronous, timeout int, err error) {
	if err = conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return
	}
	if err = conn.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return
	}
	err = conn.QueryRowContext(ctx, "PRAGMA busy_timeout").Scan(&timeout)
	return
}

// beginsImmediate reports whether BEGIN takes the write lock, without a second
// connection that others could disturb: a checkpoint is refused as locked only in
// a transaction that has begun to read or write. Then it writes nothing, which a
// read-only database refuses.
func (s *store) beginsImmediate(ctx context.Context) (bool, error) {
	w, err := s.begin(ctx, "check sqlite store")
	if err != nil {
		return false, err
	}
	defer w.rollback()
	var busy, logged, moved int
	err = w.tx.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &logged, &moved)
	locked := primary(err) == codeLocked
	if err != nil && !locked {
		return false, err
	}
	return locked, w.exec(ctx, s.sql.Get("write_nothing"))
}
