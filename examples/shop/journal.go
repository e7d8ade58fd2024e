package shop

import (
	"context"

	"github.com/outlastmq/outlast"
)

// The journal tells what happened, independently of Outlast's own tables. Nothing in
// it is unique, so that what took effect twice stands there twice.
//
//	journal_sent    what was committed to be sent; position counts a key's messages
//	journal_effect  what took effect, in order of seq
const journalSchema = `
CREATE TABLE IF NOT EXISTS journal_key (
    ordering_key TEXT PRIMARY KEY,
    position     BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS journal_sent (
    seq          {{serial}},
    id           TEXT NOT NULL,
    type         TEXT NOT NULL,
    ordering_key TEXT NOT NULL,
    position     BIGINT NOT NULL,
    at           BIGINT NOT NULL DEFAULT {{now}}
);
CREATE TABLE IF NOT EXISTS journal_effect (
    seq     {{serial}},
    id      TEXT NOT NULL,
    source  TEXT NOT NULL,
    type    TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    at      BIGINT NOT NULL DEFAULT {{now}}
)`

// journal publishes a service's messages and writes each down.
type journal struct{ outbox *outlast.Outbox }

// publish writes the message and its line of the journal in tx. The key's row stays
// locked until tx ends, so that transactions of one key follow each other and the
// positions are the order of their commits.
func (j *journal) publish(ctx context.Context, tx outlast.Tx, m outlast.Message) error {
	m.ID = outlast.NewID()
	key := m.Envelope.Key
	var position int64
	err := tx.QueryRowContext(ctx, `INSERT INTO journal_key (ordering_key, position) VALUES ($1, 1)
		ON CONFLICT (ordering_key) DO UPDATE SET position = journal_key.position + 1 RETURNING position`, key).Scan(&position)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO journal_sent (id, type, ordering_key, position) VALUES ($1, $2, $3, $4)`,
		m.ID, m.Type, key, position)
	if err != nil {
		return err
	}
	return j.outbox.Publish(ctx, tx, m)
}

// noteEffect is middleware that writes down what took effect, in the transaction of
// the effect.
func noteEffect(next outlast.HandlerFunc) outlast.HandlerFunc {
	return func(ctx context.Context, tx outlast.Tx, d *outlast.Delivered) error {
		if err := next(ctx, tx, d); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO journal_effect (id, source, type, attempt) VALUES ($1, $2, $3, $4)`,
			d.Message.ID, d.Message.Source, d.Message.Type, d.Attempt)
		return err
	}
}
