package sqlite

import (
	"context"
	"fmt"
	"io"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/sqlfile"
)

type migrator struct{ s *store }

func (m migrator) Latest() int { return len(m.s.migrations) }

func (m migrator) Version(ctx context.Context) (int, error) {
	v, err := m.s.version(ctx, m.s.db)
	return v, mapped("read schema version", err)
}

func (s *store) version(ctx context.Context, db runner) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	var n int
	if err := db.QueryRowContext(ctx, s.sql.Get("has_version")).Scan(&n); err != nil || n == 0 {
		return 0, err
	}
	err := db.QueryRowContext(ctx, s.sql.Get("version")).Scan(&n)
	return n, err
}

func (m migrator) Up(ctx context.Context, to int) error {
	if to == 0 {
		to = m.Latest()
	}
	return m.migrate(ctx, to, true)
}

func (m migrator) Down(ctx context.Context, to int) error { return m.migrate(ctx, to, false) }

// migrate takes one step a transaction, and reads the version anew in each: the
// write lock serialises it against other migrators.
func (m migrator) migrate(ctx context.Context, to int, up bool) error {
	op := fmt.Sprintf("migrate to version %d", to)
	for {
		w, err := m.s.begin(ctx, op)
		if err != nil {
			return err
		}
		more, err := m.step(ctx, w, to, up)
		w.rollback()
		if err != nil || !more {
			return mapped(op, err)
		}
	}
}

func (m migrator) step(ctx context.Context, w *writeTx, to int, up bool) (more bool, err error) {
	have, err := m.s.version(ctx, w.tx)
	if err != nil {
		return false, err
	}
	steps, err := sqlfile.Plan(m.s.migrations, have, to)
	if err != nil {
		return false, &outlast.Error{Op: w.op, Code: outlast.CodeSchema, Err: err, Hint: "use the build that made these tables"}
	}
	if len(steps) == 0 || steps[0].Back == up {
		return false, nil
	}
	for _, stmt := range steps[0].Statements() {
		if err := w.exec(ctx, stmt); err != nil {
			return false, fmt.Errorf("%s: %w", steps[0].File, err)
		}
	}
	return len(steps) > 1, w.commit(ctx)
}

func (m migrator) Print(w io.Writer, from, to int) error {
	if m.s.err != nil {
		return m.s.err
	}
	if to == 0 {
		to = m.Latest()
	}
	steps, err := sqlfile.Plan(m.s.migrations, from, max(from, to))
	if err != nil {
		return &outlast.Error{Op: "print migrations", Code: outlast.CodeInvalid, Err: err}
	}
	return sqlfile.Print(w, steps)
}
