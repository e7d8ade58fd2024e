package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/planted"
	"github.com/outlastmq/outlast/internal/sqlfile"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

//go:embed migrations/*.sql
var migrationFiles embed.FS

const slots = 256

// Option refines a store.
type Option func(*settings)

type settings struct {
	schema, prefix string
	margin         time.Duration
}

// Schema is where the tables are. Lower-case letters, digits and '_', at most 24
// bytes; default "public". It must exist, except that [outlast.Migrator] creates it.
func Schema(name string) Option { return func(s *settings) { s.schema = name } }

// Prefix begins the name of every table. Lower-case letters, digits and '_', at
// most 24 bytes; default "outlast_".
func Prefix(prefix string) Option { return func(s *settings) { s.prefix = prefix } }

// SettledMargin is taken off what SettledBefore finds, so that a clock of the database
// that is set back by less does no harm. Range 0 to a day; default one minute. The
// inboxes of receivers remember messages for that much longer.
func SettledMargin(d time.Duration) Option { return func(s *settings) { s.margin = d } }

// Store returns the store on db, which must come from pgx's database/sql driver,
// as [Open]'s do. It talks to nothing. A bad option or a db of another driver is
// reported by Check and by every other call.
func Store(db *sql.DB, opts ...Option) outlast.Store {
	conf := settings{schema: "public", prefix: "outlast_", margin: time.Minute}
	for _, o := range opts {
		o(&conf)
	}
	s := &store{db: db, conf: conf}
	s.err = s.prepare()
	return s
}

// store implements [outlast.Store]. The roles are thin types around it, because
// several of them have methods of the same name.
type store struct {
	db         *sql.DB
	conf       settings
	sql        sqlfile.Queries
	migrations []sqlfile.Migration
	err        error       // of the construction
	prepares   atomic.Bool // a handler has prepared statements

	facts   facts
	settled settledClock
	journal tracking
}

func (s *store) prepare() error {
	var fields []outlast.FieldError
	for _, f := range [][2]string{{"schema", s.conf.schema}, {"prefix", s.conf.prefix}} {
		if err := sqlfile.CheckIdentifier(f[1]); err != nil {
			fields = append(fields, identifierError(f[0], f[1]))
		}
	}
	if s.conf.margin < 0 || s.conf.margin > 24*time.Hour {
		fields = append(fields, outlast.FieldError{Field: "settled margin", Limit: "0 to 24h", Given: s.conf.margin.String()})
	}
	switch {
	case s.db == nil:
		fields = append(fields, outlast.FieldError{Field: "db", Limit: "a *sql.DB of pgx", Given: "nil"})
	default:
		if _, ok := s.db.Driver().(*stdlib.Driver); !ok {
			fields = append(fields, outlast.FieldError{Field: "db", Limit: "a *sql.DB of pgx's stdlib driver", Given: fmt.Sprintf("one of %T", s.db.Driver())})
		}
	}
	if fields != nil {
		return &outlast.Error{Op: "postgres store", Code: outlast.CodeInvalid, Fields: fields, Hint: "open it with postgres.Open"}
	}
	names := s.conf.names()
	var err error
	if s.sql, err = sqlfile.LoadQueries(sqlFiles, "sql/*.sql", names); err == nil {
		planted.SQL(s.sql)
		s.migrations, err = sqlfile.LoadMigrations(migrationFiles, "migrations", names)
	}
	if err != nil {
		return &outlast.Error{Op: "postgres store", Code: outlast.CodeInternal, Err: err}
	}
	return nil
}

// names are what stands for {{t}}, {{p}} and the rest in SQL files.
func (c settings) names() sqlfile.Names {
	t := pgx.Identifier{c.schema}.Sanitize() + "." + c.prefix
	n := sqlfile.Names{"t": t, "p": c.prefix, "wake": c.channel()}
	for name, columns := range columnLists() {
		n[name] = columns
	}
	return n
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80]
	}
	return s
}

func (s *store) Engine() string { return "postgres" }
func (s *store) Slots() int     { return slots }

func (s *store) Outbox() outlast.OutboxStore     { return outbox{s} }
func (s *store) Leases() outlast.LeaseStore      { return leases{s} }
func (s *store) Relay() outlast.RelayStore       { return relay{s} }
func (s *store) Inbox() outlast.InboxStore       { return inbox{s} }
func (s *store) Operator() outlast.OperatorStore { return operator{s} }
func (s *store) Journal() outlast.JournalStore   { return journal{s} }
func (s *store) Books() outlast.BookStore        { return books{s} }
func (s *store) Migrations() outlast.Migrator    { return migrator{s} }

// facts are truths about the database, whoever found them out.
type facts struct {
	mu   sync.Mutex
	ring checkpoints
	// maxSeq is the highest seq that anybody of this process has seen.
	maxSeq int64
}

func (f *facts) saw(seq int64) {
	f.mu.Lock()
	f.maxSeq = max(f.maxSeq, seq)
	f.mu.Unlock()
}

func (f *facts) seen() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.maxSeq
}

// learn adds that every seq drawn by a transaction with an xid of at least xid is
// above seq.
func (f *facts) learn(xid uint64, seq int64) {
	f.mu.Lock()
	f.ring.add(checkpoint{xid: xid, seq: seq})
	f.mu.Unlock()
}

// forget drops all, when the database was set back (a failover that lost commits).
func (f *facts) forget() {
	f.mu.Lock()
	f.ring, f.maxSeq = checkpoints{}, 0
	f.mu.Unlock()
}

func (f *facts) below(xid uint64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ring.below(xid)
}

// conn runs fn on one connection of the pool, as pgx's own. Errors of fn and of
// the pool become *outlast.Error; commits says that fn ends a transaction, so that a
// lost connection leaves its outcome unknown.
func (s *store) conn(ctx context.Context, op string, commits bool, fn func(c *pgx.Conn) error) error {
	if s.err != nil {
		return s.err
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return s.fail(op, err, false)
	}
	defer conn.Close()
	var failed error
	_ = conn.Raw(func(dc any) error {
		c := dc.(*stdlib.Conn).Conn()
		failed = fn(c)
		if c.IsClosed() || c.PgConn().TxStatus() != 'I' || ofStandby(failed) {
			return driver.ErrBadConn // never back to the pool
		}
		return nil
	})
	if failed != nil {
		return s.fail(op, failed, commits)
	}
	return nil
}

// primary returns an error unless the connection leads to the primary: nothing that a relay
// decides on may be read from a standby.
func (s *store) primary(ctx context.Context, c *pgx.Conn) error {
	var standby bool
	if err := c.QueryRow(ctx, s.sql.Get("standby")).Scan(&standby); err != nil {
		return err
	}
	if standby {
		return errStandby
	}
	return nil
}

// byIndex queues a statement that finds its rows by an index whatever the server believes of
// the tables. It keeps the plans of prepared statements, and one that was made while a table
// was empty would read all of it for each row that is looked up, until the table is analysed:
// a burst after a quiet time. Its result is the second of two.
func (s *store) byIndex(b *pgx.Batch, name string, args ...any) {
	b.Queue(s.sql.Get("by_index"))
	b.Queue(s.sql.Get(name), args...)
}

// query runs a statement queued by byIndex in a transaction of its own.
func (s *store) query(ctx context.Context, c *pgx.Conn, name string, args ...any) (pgx.Rows, error) {
	batch := &pgx.Batch{}
	s.byIndex(batch, name, args...)
	return rowsOf(c.SendBatch(ctx, batch))
}

// anew returns the arguments of a statement that the server plans for the tables as they are
// now: one statement instead of byIndex's two, but planning takes longer than a look into a
// table.
func anew(c *pgx.Conn, args ...any) []any {
	if c.Config().DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		return args // it does so anyway
	}
	return append([]any{pgx.QueryExecModeCacheDescribe}, args...)
}

// rowsOf returns the rows of the second statement.
func rowsOf(results pgx.BatchResults) (pgx.Rows, error) {
	_, err := results.Exec()
	if err != nil {
		_ = results.Close() // the same error
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		_ = results.Close()
		return nil, err
	}
	return batchRows{rows, results}, nil
}

// batchRows are the last rows that are read of a batch.
type batchRows struct {
	pgx.Rows
	results pgx.BatchResults
}

func (r batchRows) Close() {
	r.Rows.Close()
	_ = r.results.Close() // what the rows have not told concerns nothing that was read
}

// tx runs fn in a READ COMMITTED transaction.
func (s *store) tx(ctx context.Context, op string, fn func(tx pgx.Tx) error) error {
	return s.conn(ctx, op, true, func(c *pgx.Conn) error {
		tx, err := c.Begin(ctx)
		if err != nil {
			return definite{err}
		}
		if err := fn(tx); err != nil {
			_ = tx.Rollback(ctx)
			return definite{err}
		}
		return tx.Commit(ctx)
	})
}

// Statements returns the named statements by name, so that a test can prepare each
// on a real server.
func (s *store) Statements() map[string]string { return s.sql }
