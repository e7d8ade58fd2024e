package main

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

// contender is one way from rows in a database to messages in a queue.
type contender struct {
	name string // also of its actor
	// share of the usual number of rows, so that a run takes a few seconds.
	share float64
	// bare contenders have no database.
	bare bool
	// prepare makes the tables.
	prepare func(ctx context.Context, url string) error
	// seed fills them.
	seed func(ctx context.Context, conn *pgx.Conn, w workload) error
	// left counts the rows that are still to be sent.
	left string
	// clear empties the tables.
	clear string
}

// workload is what messages of a run look like.
type workload struct {
	rows, size, keys int
}

func contenders() []contender {
	return []contender{
		{name: "broker", share: 1, bare: true},
		{name: "adapter", share: 1, bare: true},
		outlastContender("outlast"),
		outlastContender("untracked"), // without the sent log
		{name: "river", share: 0.25, prepare: migrateRiver, seed: seedRiver,
			left:  `SELECT count(*) FROM river_job WHERE state <> 'completed'`,
			clear: `TRUNCATE river_job`},
		{name: "stopwait", share: 0.04, prepare: migrateByHand, seed: seedByHand,
			left: `SELECT count(*) FROM outbox WHERE sent_at IS NULL`, clear: `TRUNCATE outbox`},
		{name: "skiplocked", share: 0.1, prepare: migrateByHand, seed: seedByHand,
			left: `SELECT count(*) FROM outbox WHERE sent_at IS NULL`, clear: `TRUNCATE outbox`},
	}
}

func outlastContender(name string) contender {
	return contender{name: name, share: 1, prepare: migrateOutlast, seed: seedOutlast,
		left:  `SELECT (SELECT count(*) FROM outlast_outbox) + (SELECT count(*) FROM outlast_held)`,
		clear: `TRUNCATE outlast_outbox, outlast_held`}
}

func contenderNamed(name string) contender {
	for _, c := range contenders() {
		if c.name == name {
			return c
		}
	}
	panic("no contender " + name)
}

// actors are all that this program can do in a process of its own.
func actors() map[string]actor {
	return map[string]actor{
		"broker":     publishAMQP,
		"adapter":    publishAdapter,
		"outlast":    relayOutlast(true),
		"untracked":  relayOutlast(false),
		"river":      relayRiver,
		"stopwait":   relayStopAndWait,
		"skiplocked": relaySkipLocked,
		"insert":     insertBare,
		"plain":      insertPlain,
		"publish":    publishOutbox,
		"consume":    consumeOutlast,
		"byhand":     consumeByHand,
		"load":       produceAtRate,
		"idle":       idleServices,
	}
}

// copyRows copies rows into a table.
func copyRows(ctx context.Context, conn *pgx.Conn, table string, columns []string, n int, row func(i int) []any) error {
	copied, err := conn.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromSlice(n, func(i int) ([]any, error) { return row(i), nil }))
	if err == nil && int(copied) != n {
		err = fmt.Errorf("%d rows were copied, want %d", copied, n)
	}
	return err
}

func migrateOutlast(ctx context.Context, url string) error {
	return withStore(ctx, url, 2, func(_ *sql.DB, store outlast.Store) error { return store.Migrations().Up(ctx, 0) })
}

func seedOutlast(ctx context.Context, conn *pgx.Conn, w workload) error {
	return copyRows(ctx, conn, "outlast_outbox", []string{"type", "ordering_key", "body"}, w.rows,
		func(i int) []any { return []any{messageType, orNull(keyOf(i, w.keys)), bodyOf(i, w.size)} })
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
