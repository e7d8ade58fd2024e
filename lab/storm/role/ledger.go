package role

import (
	"context"
	"database/sql"
	"fmt"
	"os"

	"github.com/outlastmq/outlast"
)

// Tables is the ledger of a service. Nothing in ledger_effect is unique, so that a doubled
// effect shows. The row of a key is locked by whoever writes about it, so that the
// transactions of one key follow each other, and n counts them.
const Tables = `
	CREATE TABLE IF NOT EXISTS ledger_key (key text PRIMARY KEY, n bigint NOT NULL);
	CREATE TABLE IF NOT EXISTS ledger_producer (name text PRIMARY KEY, n bigint NOT NULL);
	CREATE TABLE IF NOT EXISTS ledger_sent (seq bigserial, id text PRIMARY KEY, type text NOT NULL, key text NOT NULL, n bigint NOT NULL,
		poison boolean NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE TABLE IF NOT EXISTS ledger_effect (seq bigserial PRIMARY KEY, grp text NOT NULL, source text NOT NULL, id text NOT NULL, type text NOT NULL,
		key text NOT NULL, n bigint NOT NULL, attempt int NOT NULL, process text NOT NULL, pid int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE TABLE IF NOT EXISTS ledger_cured (id text PRIMARY KEY);`

// Note is the body of every message.
type Note struct {
	ID     string `json:"id"`
	Key    string `json:"key" outlast:"key"`
	N      int64  `json:"n"`
	Poison bool   `json:"poison,omitempty"`
}

// Loose is the body of a message without an ordering key.
type Loose struct {
	ID     string `json:"id"`
	Poison bool   `json:"poison,omitempty"`
}

// The contracts of a storm.
var (
	Placed  = outlast.Event[Note]("order.placed", 1)
	Changed = outlast.Event[Note]("order.changed", 1)
	Noted   = outlast.Event[Loose]("order.noted", 1)
	Billed  = outlast.Event[Note]("order.billed", 1)
)

// Hears are the types of each group.
var Hears = map[string][]string{
	"billing": {Placed.Type(), Changed.Type(), Noted.Type()},
	"audit":   {Placed.Type(), Changed.Type()},
	"orders":  {Billed.Type()},
	"late":    {Placed.Type()},
}

// next locks the key until the transaction ends and returns its next number.
func next(ctx context.Context, tx outlast.Tx, key string) (n int64, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO ledger_key (key, n) VALUES ($1, 1)
		ON CONFLICT (key) DO UPDATE SET n = ledger_key.n + 1 RETURNING n`, key).Scan(&n)
	return n, err
}

func noteSent(ctx context.Context, tx outlast.Tx, id, typ, key string, n int64, poison bool) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO ledger_sent (id, type, key, n, poison) VALUES ($1, $2, $3, $4, $5)`, id, typ, key, n, poison)
	return err
}

func (s Spec) noteEffect(ctx context.Context, tx outlast.Tx, e outlast.Envelope, key string, n int64, attempt int) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO ledger_effect (grp, source, id, type, key, n, attempt, process, pid) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		s.Role, e.Source, e.ID, e.Type, key, n, attempt, s.Name, os.Getpid())
	return err
}

// ill reports whether a poison message has to fail: nobody has put right what it fails of.
func ill(ctx context.Context, tx outlast.Tx, id string) (bool, error) {
	var cured bool
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM ledger_cured WHERE id = $1)`, id).Scan(&cured)
	return !cured, err
}

// publishNote writes one keyed message and its line of the ledger.
func publishNote(ctx context.Context, tx outlast.Tx, outbox *outlast.Outbox, c outlast.Contract[Note], key string, poison bool) error {
	n, err := next(ctx, tx, key)
	if err != nil {
		return fmt.Errorf("number %s: %w", key, err)
	}
	note := Note{ID: outlast.NewID(), Key: key, N: n, Poison: poison}
	if err := noteSent(ctx, tx, note.ID, c.Type(), key, n, poison); err != nil {
		return err
	}
	return outbox.Publish(withNumber(ctx, n), tx, c.Message(note, outlast.ID(note.ID)))
}

func publishLoose(ctx context.Context, tx outlast.Tx, outbox *outlast.Outbox, poison bool) error {
	note := Loose{ID: outlast.NewID(), Poison: poison}
	if err := noteSent(ctx, tx, note.ID, Noted.Type(), "", 0, poison); err != nil {
		return err
	}
	return outbox.Publish(ctx, tx, Noted.Message(note, outlast.ID(note.ID)))
}

// inTx commits what f did, unless f failed.
func inTx(ctx context.Context, db *sql.DB, f func(context.Context, *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := f(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}
