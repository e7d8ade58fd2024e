package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/outlastmq/outlast"
)

const hintMigrate = "create or update Outlast's tables with: outlast migrate up"

// Primary result codes of SQLite.
const (
	codeError      = 1
	codePerm       = 3
	codeBusy       = 5
	codeLocked     = 6
	codeNoMem      = 7
	codeReadonly   = 8
	codeInterrupt  = 9
	codeIOErr      = 10
	codeCorrupt    = 11
	codeFull       = 13
	codeCantOpen   = 14
	codeProtocol   = 15
	codeSchema     = 17
	codeConstraint = 19
	codeAuth       = 23
	codeNotADB     = 26
)

// texts recognise an error of a driver that has no method Code, by SQLite's own
// words, which have not changed for many years.
var texts = []struct {
	text string
	code int
}{
	{"database is locked", codeBusy},
	{"database table is locked", codeLocked},
	{"database schema is locked", codeLocked},
	{"database or disk is full", codeFull},
	{"disk I/O error", codeIOErr},
	{"attempt to write a readonly database", codeReadonly},
	{"unable to open database file", codeCantOpen},
	{"out of memory", codeNoMem},
	{"interrupted", codeInterrupt},
	{"constraint failed", codeConstraint},
	{"database disk image is malformed", codeCorrupt},
	{"file is not a database", codeNotADB},
	{"locking protocol", codeProtocol},
	{"not authorized", codeAuth},
	{"access permission denied", codePerm},
	{"no such table", codeError},
	{"no such column", codeError},
}

// primary returns the primary result code of an error, or 0 when it is not
// SQLite's. modernc.org/sqlite tells it by a method, other drivers only in words.
func primary(err error) int {
	if err == nil {
		return 0
	}
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return coded.Code() & 0xff
	}
	for _, t := range texts {
		if strings.Contains(err.Error(), t.text) {
			return t.code
		}
	}
	return 0
}

// endsTransaction reports whether SQLite may have rolled the transaction back when
// it returned such an error.
func endsTransaction(err error) bool {
	switch primary(err) {
	case codeBusy, codeNoMem, codeInterrupt, codeIOErr, codeFull, codeCorrupt:
		return true
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrTxDone) || errors.Is(err, sql.ErrConnDone)
}

// mapped turns any error of a statement into Outlast's.
func mapped(op string, err error) error {
	var known *outlast.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, sql.ErrTxDone):
		return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err}
	}
	e := &outlast.Error{Op: op, Code: outlast.CodeInternal, Err: err}
	switch primary(err) {
	case codeBusy, codeLocked:
		e.Code, e.Hint = outlast.CodeUnavailable, "another writer holds the database: keep write transactions short"
	case codeInterrupt, codeNoMem, codeProtocol, codeSchema:
		e.Code = outlast.CodeUnavailable
	case codeFull:
		e.Code, e.Hint = outlast.CodeUnavailable, "the disk, or the size allowed by max_page_count, is full: make room"
	case codeIOErr:
		e.Code, e.Hint = outlast.CodeUnavailable, "look into the system's log for the state of the disk"
	case codeReadonly:
		e.Code, e.Hint = outlast.CodeUnavailable, "make the database file and its folder writable for this user"
	case codeCantOpen:
		e.Code, e.Hint = outlast.CodeUnavailable, "the folder must exist, and this user must have permission to read and write it, the database file and the files beside it"
	case codeNotADB:
		e.Hint = "check the path: this file is something else; if it was a database, restore it from a backup"
	case codeCorrupt:
		e.Hint = "restore the database from a backup"
	case codePerm, codeAuth:
		e.Code = outlast.CodeDenied
	case codeConstraint:
		constraint(e)
	default:
		if text := err.Error(); strings.Contains(text, "no such table") || strings.Contains(text, "no such column") ||
			strings.Contains(text, "has no column named") {
			e.Code, e.Hint = outlast.CodeSchema, hintMigrate
		}
	}
	return e
}

// constraint names the field of a CHECK that failed: the constraints are named
// check_ and the column.
func constraint(e *outlast.Error) {
	_, name, ok := strings.Cut(e.Err.Error(), "CHECK constraint failed: check_")
	if !ok {
		e.Code = outlast.CodeConflict
		if strings.Contains(e.Err.Error(), "NOT NULL") {
			e.Code = outlast.CodeInvalid
		}
		return
	}
	name, _, _ = strings.Cut(name, " ")
	e.Code = outlast.CodeInvalid
	e.Fields = []outlast.FieldError{{Field: name, Limit: "within the limit of the table", Given: "refused"}}
}

func invalid(op, field, limit, given string) error {
	return &outlast.Error{Op: op, Code: outlast.CodeInvalid, Fields: []outlast.FieldError{{Field: field, Limit: limit, Given: given}}}
}

// errTaken says that a waiting message changed while its transaction was gone.
var errTaken = errors.New("another process has taken the message")

func notFound(op string) error { return &outlast.Error{Op: op, Code: outlast.CodeNotFound} }

// commitError judges an error of COMMIT. Only what SQLite says before it writes is
// a definite failure; after that, the commit may be in the log although an error
// was returned, and may come back with the next recovery.
func commitError(op string, err error) error {
	switch {
	case errors.Is(err, sql.ErrTxDone), strings.Contains(err.Error(), "no transaction is active"):
		return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err, Hint: "the transaction was rolled back before its commit"}
	}
	switch primary(err) {
	case codeBusy, codeLocked, codeConstraint:
		return mapped(op, err)
	}
	return &outlast.Error{Op: op, Code: outlast.CodeUnknown, Err: fmt.Errorf("commit: %w", err)}
}
