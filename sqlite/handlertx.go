package sqlite

import (
	"context"
	"database/sql"
	"strings"

	"github.com/outlastmq/outlast"
)

// handlerTx is the transaction that a handler gets.
type handlerTx struct{ w *writeTx }

var _ outlast.Tx = handlerTx{}

// admit returns why a statement must not run.
func (t handlerTx) admit(query string) error {
	if word := controls(query); word != "" {
		return &outlast.Error{Op: t.w.op, Code: outlast.CodeInvalid,
			Fields: []outlast.FieldError{{Field: "statement", Limit: "one that leaves the transaction open", Given: word}},
			Hint:   "return nil to commit, an error to roll back"}
	}
	return t.w.alive()
}

// controls returns the word by which a statement would begin or end the transaction.
func controls(query string) string {
	rest := query
	for {
		rest = strings.TrimLeft(rest, " \t\r\n;")
		switch {
		case strings.HasPrefix(rest, "--"):
			_, rest, _ = strings.Cut(rest, "\n")
		case strings.HasPrefix(rest, "/*"):
			_, rest, _ = strings.Cut(rest, "*/")
		default:
			words := strings.FieldsFunc(strings.ToUpper(rest[:min(len(rest), 64)]), func(r rune) bool {
				return r < 'A' || r > 'Z'
			})
			return controlWord(words)
		}
	}
}

func controlWord(words []string) string {
	if len(words) == 0 {
		return ""
	}
	switch words[0] {
	case "BEGIN", "COMMIT", "END":
		return words[0]
	case "ROLLBACK":
		if len(words) > 1 && (words[1] == "TO" || len(words) > 2 && words[1] == "TRANSACTION" && words[2] == "TO") {
			return "" // to a savepoint
		}
		return words[0]
	}
	return ""
}

func (t handlerTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := t.admit(query); err != nil {
		return nil, err
	}
	res, err := t.w.tx.ExecContext(ctx, query, args...)
	t.w.saw(err)
	return res, err
}

func (t handlerTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := t.admit(query); err != nil {
		return nil, err
	}
	rows, err := t.w.tx.QueryContext(ctx, query, args...)
	t.w.saw(err)
	t.w.unsure = true // reading the rows may fail unseen
	return rows, err
}

func (t handlerTx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if err := t.admit(query); err != nil {
		return refusedRow(ctx, err)
	}
	row := t.w.tx.QueryRowContext(ctx, query, args...)
	t.w.saw(row.Err())
	t.w.unsure = true
	return row
}

func (t handlerTx) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	if err := t.admit(query); err != nil {
		return nil, err
	}
	stmt, err := t.w.tx.PrepareContext(ctx, query)
	t.w.saw(err)
	t.w.unsure, t.w.stmts = true, true
	return stmt, err
}

// StmtContext cannot refuse; but a transaction known to be over has ended for
// database/sql too, which then refuses the statement.
func (t handlerTx) StmtContext(ctx context.Context, stmt *sql.Stmt) *sql.Stmt {
	_ = t.w.alive()
	t.w.unsure, t.w.stmts = true, true
	return t.w.tx.StmtContext(ctx, stmt)
}

// refusedRow returns a row whose Scan returns err. Only database/sql can make a
// row with an error, and it takes it from a context that has ended.
func refusedRow(ctx context.Context, err error) *sql.Row {
	return new(sql.DB).QueryRowContext(refusal{ctx, err}, "")
}

type refusal struct {
	context.Context
	err error
}

func (r refusal) Done() <-chan struct{} { return closed }
func (r refusal) Err() error            { return r.err }

var closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
