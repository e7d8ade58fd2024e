package history

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/outlastmq/outlast"
)

// Ledger is a table with a row for each transaction that has committed. It is the
// judge of every COMMIT of which nobody knows whether it happened. It has no
// unique constraint besides its own number, so that an effect that came twice shows.
type Ledger struct {
	// Engine is "postgres" or "sqlite".
	Engine string
	// Name of the database; each has another one.
	Name string
}

// name is empty for no ledger.
func (l *Ledger) name() string {
	if l == nil {
		return ""
	}
	return l.Name
}

const ledgerTable = "outlast_ledger"

// Create makes the table when it is missing.
func (l *Ledger) Create(ctx context.Context, db *sql.DB) error {
	var ddl string
	switch l.Engine {
	case "postgres":
		ddl = `CREATE TABLE IF NOT EXISTS ` + ledgerTable + ` (
			seq bigserial PRIMARY KEY, tx text NOT NULL, grp text NOT NULL, id text NOT NULL,
			at bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)`
	case "sqlite":
		ddl = `CREATE TABLE IF NOT EXISTS ` + ledgerTable + ` (
			seq INTEGER PRIMARY KEY AUTOINCREMENT, tx TEXT NOT NULL, grp TEXT NOT NULL, id TEXT NOT NULL,
			at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)))`
	default:
		return fmt.Errorf("create ledger: engine %q: must be postgres or sqlite", l.Engine)
	}
	_, err := db.ExecContext(ctx, ddl)
	return err
}

func (l *Ledger) write(ctx context.Context, tx outlast.LiveTx, id, group, message string) error {
	values := `($1, $2, $3)`
	if l.Engine == "sqlite" {
		values = `(?, ?, ?)`
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO `+ledgerTable+` (tx, grp, id) VALUES `+values, id, group, message)
	return err
}

// Read records every row of the ledger, in the order of their numbers. Call it when
// all transactions have ended: after Quiesce.
func (l *Ledger) Read(ctx context.Context, db *sql.DB, r *Recorder) error {
	rows, err := db.QueryContext(ctx, `SELECT seq, tx, grp, id, at FROM `+ledgerTable+` ORDER BY seq`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var events []Event
	for rows.Next() {
		e := Event{E: LedgerRow, Name: l.Name}
		if err := rows.Scan(&e.Seq, &e.Tx, &e.G, &e.M, &e.At); err != nil {
			return err
		}
		if events = append(events, e); len(events) == 1000 {
			r.Record(events...)
			events = events[:0]
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	r.Record(append(events, Event{E: LedgerRow, Name: l.Name, O: OK})...)
	return r.Err()
}

// Left records every message that still waits somewhere in a database: pending, held,
// for a retry, or as a dead letter. Call it after Quiesce.
func (r *Recorder) Left(ctx context.Context, store outlast.Store, name string) error {
	op := store.Operator()
	lists := []func(context.Context, outlast.Filter) ([]outlast.Item, error){op.Outbox().List, op.Retries().List, op.Dead().List}
	for _, list := range lists {
		for f := (outlast.Filter{Limit: 1000}); ; {
			items, err := list(ctx, f)
			if err != nil {
				return err
			}
			for _, it := range items {
				r.Record(Event{E: Left, Name: it.Where, M: it.Envelope.ID, G: it.Group, Why: it.Reason, N: it.Attempts,
					Type: it.Envelope.Type, Source: it.Envelope.Source, At: micros(it.FirstAt), Last: micros(it.LastAt), Error: it.Error})
				f.After = it.Seq
			}
			if len(items) < f.Limit {
				break
			}
		}
	}
	r.Record(Event{E: Left, Name: name})
	return r.Err()
}
