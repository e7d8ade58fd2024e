package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outlastmq/outlast"
)

// errStandby: a standby shows rows that the primary has deleted, and rows of transactions that the
// primary does not show yet. Behind a pooler a connection outlives its server, and the next one
// may be the old primary as a standby.
var errStandby = errors.New("the server is a standby or read only")

// ofStandby reports whether a connection must not be used again: the next one may find the primary.
func ofStandby(err error) bool {
	var pg *pgconn.PgError
	return errors.Is(err, errStandby) || errors.As(err, &pg) && pg.Code == "25006"
}

// definite marks an error from before any COMMIT was sent.
type definite struct{ error }

func (d definite) Unwrap() error { return d.error }

// fail makes an *outlast.Error of what pgx, database/sql or the network said.
// committing is true when the failed statement ended a transaction: then only the
// server's own word says that nothing happened.
func (s *store) fail(op string, err error, committing bool) error {
	var own *outlast.Error
	if errors.As(err, &own) {
		return own
	}
	var d definite
	if errors.As(err, &d) {
		committing, err = false, d.error
	}
	if committing && unknownOutcome(err) {
		return &outlast.Error{Op: op, Code: outlast.CodeUnknown, Err: err}
	}
	e := &outlast.Error{Op: op, Err: err}
	if errors.Is(err, errStandby) {
		e.Code, e.Hint = outlast.CodeUnavailable, "connect to the primary"
		return e
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		s.classify(e, pg)
		return e
	}
	e.Code = codeOf(err)
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		e.Hint = "a statement of the transaction failed and its error was ignored"
	}
	return e
}

// unknownOutcome reports whether a COMMIT that ended so may have happened.
func unknownOutcome(err error) bool {
	// pgx calls "conn closed" safe to retry, and says it as well when the connection broke
	// while it read the answer to a COMMIT that was sent.
	if errors.Is(err, pgx.ErrTxCommitRollback) || pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed) {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// 08007 and 40003 say so themselves. A session that ends has nothing to say about
		// its COMMIT: a backend told to end while the commit waits for its replica (57P01),
		// a crash (57P02), a pooler that has lost the server ("server conn crashed?", 08P01).
		// Only one that was ended for being idle had not begun to commit.
		ended := pg.Severity == "FATAL" || pg.Severity == "PANIC" || pg.Code == "57P01" || pg.Code == "57P02"
		return ended && pg.Code != "25P03" || strings.HasPrefix(pg.Code, "08") || pg.Code == "40003"
	}
	return !errors.Is(err, sql.ErrTxDone)
}

// codeOf is for errors that did not come from the server.
func codeOf(err error) outlast.Code {
	var (
		network net.Error
		connect *pgconn.ConnectError
	)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.As(err, &network), errors.As(err, &connect), pgconn.SafeToRetry(err):
		return outlast.CodeUnavailable
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return outlast.CodeInvalid
	case strings.Contains(err.Error(), "conn closed"), closed(err):
		return outlast.CodeUnavailable // neither library exports these two
	}
	return outlast.CodeInternal
}

// closed reports whether the pool was closed.
func closed(err error) bool {
	return err != nil && strings.Contains(err.Error(), "sql: database is closed")
}

// classify fills code, fields and hint from an SQLSTATE.
func (s *store) classify(e *outlast.Error, pg *pgconn.PgError) {
	class := pg.Code[:min(2, len(pg.Code))]
	switch {
	case pg.Code == "42P01" || pg.Code == "42703" || pg.Code == "42883" || pg.Code == "3F000":
		e.Code = outlast.CodeSchema // table, column, function or schema missing
		e.Hint = "outlast migrate up"
		if pg.Code == "42P01" || pg.Code == "3F000" {
			e.Hint += "; or name the schema that has the tables (--schema, postgres.Schema)"
		}
	case pg.Code == "42501":
		e.Code, e.Hint = outlast.CodeDenied, "grant the role what docs/security.md lists"
	case class == "28" || pg.Code == "3D000":
		e.Code, e.Hint = outlast.CodeDenied, "check the user, the password and the database in the address, and the server's pg_hba.conf"
	case class == "08" || class == "53" || class == "57" || class == "58",
		pg.Code == "25006" || pg.Code == "25P03" || pg.Code == "55P03",
		class == "40": // serialization failure, deadlock: run it again
		e.Code = outlast.CodeUnavailable
	case pg.Code == "23514":
		e.Code = outlast.CodeInvalid
		if field, ok := strings.CutPrefix(pg.ConstraintName, s.conf.prefix+"check_"); ok {
			e.Fields = []outlast.FieldError{{Field: field, Limit: "within the limits of " + s.conf.prefix + "outbox", Given: "a value beyond them"}}
		}
	case pg.Code == "23505":
		e.Code = outlast.CodeConflict
	case class == "22" || class == "23":
		e.Code = outlast.CodeInvalid
	default:
		e.Code = outlast.CodeInternal
	}
}
