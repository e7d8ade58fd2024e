package main

import (
	"context"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// The relays of this file are written as most teams write theirs: a table with sent_at,
// read in batches.

const handTable = `CREATE TABLE IF NOT EXISTS outbox (
	id bigserial PRIMARY KEY, message_id uuid NOT NULL, type text NOT NULL, ordering_key text, body text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(), sent_at timestamptz);
	CREATE INDEX IF NOT EXISTS outbox_unsent ON outbox (id) WHERE sent_at IS NULL`

func migrateByHand(ctx context.Context, url string) error {
	return withConn(ctx, url, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, handTable)
		return err
	})
}

func withConn(ctx context.Context, url string, f func(conn *pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

func seedByHand(ctx context.Context, conn *pgx.Conn, w workload) error {
	return copyRows(ctx, conn, "outbox", []string{"message_id", "type", "ordering_key", "body"}, w.rows,
		func(i int) []any {
			return []any{outlast.NewID(), messageType, orNull(keyOf(i, w.keys)), bodyOf(i, w.size)}
		})
}

type handRow struct {
	ID        int64
	MessageID string
	Key       *string
	Body      string
}

func (r *handRow) key() string {
	if r.Key == nil {
		return ""
	}
	return *r.Key
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func handRows(ctx context.Context, q querier, sql string) ([]handRow, error) {
	rows, err := q.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[handRow])
}

// relayStopAndWait sends one message after the other: publish, wait for the confirm,
// mark the row.
func relayStopAndWait(ctx context.Context, t *task, done func(int)) error {
	return withBoth(ctx, t, func(conn *pgx.Conn, ch *amqp.Channel) error {
		for ctx.Err() == nil {
			rows, err := handRows(ctx, conn, `SELECT id, message_id::text, ordering_key, body FROM outbox WHERE sent_at IS NULL ORDER BY id LIMIT 100`)
			if err != nil || len(rows) == 0 {
				return unlessEnded(ctx, err)
			}
			for _, r := range rows {
				if err := publishAndWait(ctx, ch, r.MessageID, r.key(), r.Body); err != nil {
					return unlessEnded(ctx, err)
				}
				if _, err := conn.Exec(ctx, `UPDATE outbox SET sent_at = now() WHERE id = $1`, r.ID); err != nil {
					return unlessEnded(ctx, err)
				}
				done(1)
			}
		}
		return nil
	})
}

const skipLockedWorkers = 8

// relaySkipLocked shares the rows out among eight workers: each locks a batch, publishes
// and marks row by row, and commits.
func relaySkipLocked(ctx context.Context, t *task, done func(int)) error {
	var group sync.WaitGroup
	errs := make([]error, skipLockedWorkers)
	for i := range skipLockedWorkers {
		group.Go(func() {
			errs[i] = withBoth(ctx, t, func(conn *pgx.Conn, ch *amqp.Channel) error {
				for ctx.Err() == nil {
					n, err := lockAndSend(ctx, conn, ch)
					if err != nil || n == 0 {
						return unlessEnded(ctx, err)
					}
					done(n)
				}
				return nil
			})
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func lockAndSend(ctx context.Context, conn *pgx.Conn, ch *amqp.Channel) (int, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // does nothing after the commit
	rows, err := handRows(ctx, tx, `SELECT id, message_id::text, ordering_key, body FROM outbox WHERE sent_at IS NULL
		ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED`)
	if err != nil {
		return 0, err
	}
	for _, r := range rows {
		if err := publishAndWait(ctx, ch, r.MessageID, r.key(), r.Body); err != nil {
			return 0, err
		}
		if _, err := tx.Exec(ctx, `UPDATE outbox SET sent_at = now() WHERE id = $1`, r.ID); err != nil {
			return 0, err
		}
	}
	return len(rows), tx.Commit(ctx)
}

// withBoth opens a connection to the database and a channel with confirms.
func withBoth(ctx context.Context, t *task, f func(conn *pgx.Conn, ch *amqp.Channel) error) error {
	return withConn(ctx, t.Database, func(conn *pgx.Conn) error {
		broker, err := amqp.Dial(t.Broker)
		if err != nil {
			return err
		}
		defer broker.Close()
		ch, err := confirmChannel(broker)
		if err != nil {
			return err
		}
		return f(conn, ch)
	})
}

// unlessEnded is err, or nil when the actor was told to end.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
