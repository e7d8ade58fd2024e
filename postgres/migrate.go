package postgres

import (
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/sqlfile"
)

type migrator struct{ *store }

func (s migrator) Latest() int { return len(s.migrations) }

func (s migrator) Version(ctx context.Context) (version int, err error) {
	err = s.conn(ctx, "read the version of the tables", false, func(c *pgx.Conn) error {
		version, err = s.version(ctx, c)
		return err
	})
	return version, err
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (s migrator) version(ctx context.Context, q querier) (version int, err error) {
	var there bool
	if err := q.QueryRow(ctx, s.sql.Get("version_there"), s.conf.names()["t"]+"migrations").Scan(&there); err != nil || !there {
		return 0, err
	}
	return version, q.QueryRow(ctx, s.sql.Get("version")).Scan(&version)
}

func (s migrator) Up(ctx context.Context, to int) error {
	if to == 0 {
		to = s.Latest()
	}
	return s.migrate(ctx, to, false)
}

func (s migrator) Down(ctx context.Context, to int) error { return s.migrate(ctx, to, true) }

// migrate goes one step at a time, each in its own transaction, which also holds the
// lock: another migrator may do some of the steps.
func (s migrator) migrate(ctx context.Context, to int, down bool) error {
	if s.err != nil {
		return s.err
	}
	if to < 0 || to > s.Latest() {
		return &outlast.Error{Op: "migrate", Code: outlast.CodeInvalid,
			Fields: []outlast.FieldError{{Field: "version", Limit: fmt.Sprintf("0 to %d", s.Latest()), Given: fmt.Sprint(to)}}}
	}
	for done := false; !done; {
		err := s.tx(ctx, "migrate", func(tx pgx.Tx) (err error) {
			done, err = s.step(ctx, tx, to, down)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s migrator) step(ctx context.Context, tx pgx.Tx, to int, down bool) (done bool, err error) {
	if _, err := tx.Exec(ctx, s.sql.Get("migrate_serialise"), s.conf.names()["t"]); err != nil {
		return false, err
	}
	var schemaThere bool
	if err := tx.QueryRow(ctx, s.sql.Get("schema_there"), s.conf.schema).Scan(&schemaThere); err != nil {
		return false, err
	}
	if !schemaThere && !down {
		if _, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{s.conf.schema}.Sanitize()); err != nil {
			return false, err
		}
	}
	from, err := s.version(ctx, tx)
	if err != nil {
		return false, err
	}
	if from == to || down && from < to || !down && from > to && from <= s.Latest() {
		return true, nil
	}
	if from > s.Latest() {
		return false, s.wrongVersion(from)
	}
	steps, err := sqlfile.Plan(s.migrations, from, to)
	if err != nil {
		return false, err
	}
	step := steps[0]
	for _, stmt := range step.Statements() {
		if _, err := tx.Exec(ctx, stmt); err != nil {
			return false, fmt.Errorf("%s: %w", step.File, err)
		}
	}
	for _, stmt := range s.record(step) {
		if _, err := tx.Exec(ctx, stmt); err != nil {
			return false, fmt.Errorf("%s: %w", step.File, err)
		}
	}
	return false, nil
}

// record returns the statements that note a step.
func (s migrator) record(step sqlfile.Step) []string {
	table := s.conf.names()["t"] + "migrations"
	switch {
	case step.Back && step.After == 0:
		return []string{"DROP TABLE " + table}
	case step.Back:
		return []string{fmt.Sprintf("DELETE FROM %s WHERE version = %d", table, step.Version)}
	}
	return []string{
		"CREATE TABLE IF NOT EXISTS " + table + " (version integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())",
		fmt.Sprintf("INSERT INTO %s (version) VALUES (%d)", table, step.Version),
	}
}

func (s migrator) Print(w io.Writer, from, to int) error {
	if s.err != nil {
		return s.err
	}
	if to == 0 {
		to = s.Latest()
	}
	steps, err := sqlfile.Plan(s.migrations, from, to)
	if err != nil {
		return &outlast.Error{Op: "print migrations", Code: outlast.CodeInvalid, Err: err}
	}
	for _, step := range steps {
		if err := sqlfile.Print(w, []sqlfile.Step{step}); err != nil {
			return err
		}
		for _, stmt := range s.record(step) {
			if _, err := fmt.Fprintf(w, "%s;\n\n", stmt); err != nil {
				return err
			}
		}
	}
	return nil
}

// needed is the oldest version of the tables that this build can work on. What newer
// ones add is left out while it is not there.
const needed = 1

// readable asks tables that are newer than this build whether they can do without a
// newer one. They say so as long as they have only been added to: a migration that
// takes something away puts the oldest build's version into meta first.
func (s migrator) readable(ctx context.Context, c *pgx.Conn, have int) error {
	var needs int
	if err := c.QueryRow(ctx, s.sql.Get("needs")).Scan(&needs); err != nil {
		return err
	}
	if needs > s.Latest() {
		return s.wrongVersion(have)
	}
	return nil
}

func (s migrator) wrongVersion(version int) error {
	e := &outlast.Error{Op: "check postgres", Code: outlast.CodeSchema,
		Err: fmt.Errorf("the tables are of version %d, this build needs version %d", version, s.Latest())}
	if version < s.Latest() {
		e.Hint = "outlast migrate up"
	} else {
		e.Hint = "use a newer build"
	}
	return e
}

// Check also refuses a standby: what it shows may be of a past that never was.
func (s *store) Check(ctx context.Context) error {
	m := migrator{s}
	return s.conn(ctx, "check postgres", false, func(c *pgx.Conn) error {
		var standby, readOnly bool
		var version int
		var encoding string
		if err := c.QueryRow(ctx, s.sql.Get("check_server")).Scan(&standby, &readOnly, &version, &encoding); err != nil {
			return err
		}
		switch {
		case version < 130000:
			return &outlast.Error{Op: "check postgres", Code: outlast.CodeSchema, Err: fmt.Errorf("the server is PostgreSQL %d, Outlast needs 13 or newer", version/10000)}
		case encoding != "UTF8":
			return &outlast.Error{Op: "check postgres", Code: outlast.CodeSchema, Err: fmt.Errorf("the encoding of the database is %q, it must be UTF8", encoding)}
		case standby || readOnly:
			return errStandby
		}
		have, err := m.version(ctx, c)
		if err != nil {
			return err
		}
		if have < needed {
			return m.wrongVersion(have)
		}
		if have > m.Latest() {
			if err := m.readable(ctx, c, have); err != nil {
				return err
			}
		}
		may, missing, err := s.rights(ctx, c)
		if err == nil && len(may) == 0 {
			err = deniedRights("check postgres", missing["relay"])
		}
		return err
	})
}
