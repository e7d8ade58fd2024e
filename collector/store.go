package collector

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/sqlfile"
)

//go:embed sql/*.sql migrations/*.sql
var files embed.FS

// Engine is the kind of the collector's own database.
type Engine string

const (
	Postgres Engine = "postgres"
	SQLite   Engine = "sqlite"
)

const prefix = "outlast_collector_"

// Store is the collector's own database. It is safe for concurrent use, also by several
// processes: what is written twice is the same.
type Store struct {
	db         *sql.DB
	table      string // what begins the names of tables, with the schema
	sql        sqlfile.Queries
	migrations []sqlfile.Migration
}

// Open returns the store on db, which stays the caller's to close. schema, PostgreSQL
// only, is where its tables are: 1 to 24 of a-z, 0-9 and '_', not starting with a digit;
// empty: "public". It talks to nobody: [Store.Migrate] makes the tables.
func Open(db *sql.DB, engine Engine, schema string) (*Store, error) {
	bad := func(err error) error {
		return &outlast.Error{Op: "open the collector's database", Code: outlast.CodeInvalid, Err: err}
	}
	s := &Store{db: db, table: prefix}
	switch {
	case db == nil:
		return nil, bad(errors.New("it needs a database"))
	case engine != Postgres && engine != SQLite:
		return nil, bad(fmt.Errorf("engine %q: must be postgres or sqlite", engine))
	case engine == SQLite && schema != "":
		return nil, bad(errors.New("SQLite has no schemas"))
	case engine == Postgres && schema == "":
		schema = "public"
	}
	if engine == Postgres {
		if err := sqlfile.CheckIdentifier(schema); err != nil {
			return nil, bad(err)
		}
		s.table = schema + "." + prefix
	}
	names := sqlfile.Names{"t": s.table, "p": prefix}
	var err error
	if s.sql, err = sqlfile.LoadQueries(files, "sql/collector.sql", names); err != nil {
		return nil, bad(err)
	}
	own, err := sqlfile.LoadQueries(files, "sql/"+string(engine)+".sql", names)
	if err != nil {
		return nil, bad(err)
	}
	for name, text := range own {
		s.sql[name] = text
	}
	if s.migrations, err = sqlfile.LoadMigrations(files, "migrations", names); err != nil {
		return nil, bad(err)
	}
	return s, nil
}

// fail names what was tried. A database that does not answer is CodeUnavailable.
func fail(op string, err error) error {
	var own *outlast.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return err
	}
	return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err}
}

// tx runs f in one transaction.
func (s *Store) tx(ctx context.Context, op string, f func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fail(op, err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if err := f(tx); err != nil {
		return fail(op, err)
	}
	return fail(op, tx.Commit())
}

// errWiped ends a round that began before a wipe.
var errWiped = errors.New("everything was wiped meanwhile")

// write runs f in one transaction, unless everything was wiped since wiped was read.
func (s *Store) write(ctx context.Context, op string, wiped int64, f func(w *writer)) error {
	return s.tx(ctx, op, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, s.sql.Get("wiped"), 0, wiped)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, errWiped)
		}
		w := writer{ctx: ctx, s: s, tx: tx}
		f(&w)
		return w.err
	})
}

type asker interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (s *Store) version(ctx context.Context, db asker) (version int, err error) {
	var there int
	if err := db.QueryRowContext(ctx, s.sql.Get("there"), s.table+"migrations").Scan(&there); err != nil || there == 0 {
		return 0, err
	}
	return version, db.QueryRowContext(ctx, s.sql.Get("version")).Scan(&version)
}

// Migrate makes the tables, or changes older ones. Tables that are newer than this
// build are an error of CodeSchema.
func (s *Store) Migrate(ctx context.Context) error {
	const op = "make the collector's tables"
	return s.tx(ctx, op, func(tx *sql.Tx) error {
		var one int
		if err := tx.QueryRowContext(ctx, s.sql.Get("lock")).Scan(&one); err != nil {
			return err
		}
		have, err := s.version(ctx, tx)
		if err != nil {
			return err
		}
		steps, err := sqlfile.Plan(s.migrations, have, len(s.migrations))
		if err != nil {
			return s.schema(op, have)
		}
		for _, step := range steps {
			for _, text := range step.Statements() {
				if _, err := tx.ExecContext(ctx, text); err != nil {
					return fmt.Errorf("%s: %w", step.File, err)
				}
			}
		}
		return nil
	})
}

// Check returns nil when the tables are there, CodeSchema when they are not those of
// this build.
func (s *Store) Check(ctx context.Context) error {
	const op = "look at the collector's tables"
	have, err := s.version(ctx, s.db)
	if err == nil && have != len(s.migrations) {
		return s.schema(op, have)
	}
	return fail(op, err)
}

func (s *Store) schema(op string, have int) error {
	hint := "outlast collector makes and changes them when it starts"
	if have > len(s.migrations) {
		hint = "use the newer build; or give this one a database of its own, which it fills anew"
	}
	return &outlast.Error{Op: op, Code: outlast.CodeSchema, Err: fmt.Errorf("the collector's tables have version %d, this build knows %d", have, len(s.migrations)), Hint: hint}
}

// Wipe forgets everything. What was kept comes back by the next rounds.
func (s *Store) Wipe(ctx context.Context) error {
	return s.tx(ctx, "wipe the collector's database", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, s.sql.Get("wiped"), 1, -1); err != nil {
			return err
		}
		for _, table := range []string{"key", "fact", "message", "cursor", "place"} {
			if _, err := tx.ExecContext(ctx, s.sql.Get("wipe_"+table)); err != nil {
				return err
			}
		}
		return nil
	})
}

// mostListed bounds the parameters of one statement.
const mostListed = 500

// listed completes a statement with parameters for some values.
func (s *Store) listed(name string, values []string) (text string, args []any) {
	marks := make([]string, len(values))
	for i, v := range values {
		marks[i] = fmt.Sprintf("$%d", i+1)
		args = append(args, v)
	}
	return fmt.Sprintf(s.sql.Get(name), strings.Join(marks, ", ")), args
}

// each calls one for each row.
func each(ctx context.Context, db asker, text string, args []any, one func(scan func(...any) error) error) error {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := one(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

var userOf = regexp.MustCompile(`^([a-z]+://)[^/@]*@`)

// key is the name of a place without its user: two programs may ask the same database
// as different users.
func key(place string) string { return userOf.ReplaceAllString(place, "$1") }
