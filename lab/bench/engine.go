package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite" // the driver named "sqlite"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/nats"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
	"github.com/outlastmq/outlast/sqlite"
)

// withOwnPool opens PostgreSQL as most programs do, with pgx's default: statements are
// prepared on the server.
func withOwnPool(ctx context.Context, url string, conns int, f func(db *sql.DB, store outlast.Store) error) error {
	return withStore(ctx, url, conns, f, postgres.ExecMode(pgx.QueryExecModeCacheStatement))
}

// withStore opens the database at an address: a URL of PostgreSQL, or a file of SQLite.
func withStore(ctx context.Context, url string, conns int, f func(db *sql.DB, store outlast.Store) error, opts ...postgres.OpenOption) error {
	if strings.HasPrefix(url, "postgres:") {
		db, err := postgres.Open(ctx, url, append(opts, postgres.MaxConns(conns))...)
		if err != nil {
			return err
		}
		defer db.Close()
		return f(db, postgres.Store(db))
	}
	db, err := sql.Open("sqlite", sqlite.DSN(url))
	if err != nil {
		return err
	}
	defer db.Close()
	return f(db, sqlite.Store(db))
}

// brokerAt is the broker at an address.
func brokerAt(url string) outlast.Broker {
	if strings.HasPrefix(url, "nats:") {
		return nats.Broker(url)
	}
	return rabbitmq.Broker(url)
}

// number returns the one number that a query finds.
func number(ctx context.Context, url, query string) (n int, err error) {
	err = withStore(ctx, url, 1, func(db *sql.DB, _ outlast.Store) error { return db.QueryRowContext(ctx, query).Scan(&n) })
	return n, err
}

// execAll runs statements, each in a transaction of its own.
func execAll(ctx context.Context, url string, statements ...string) error {
	return withStore(ctx, url, 1, func(db *sql.DB, _ outlast.Store) error {
		for _, s := range statements {
			if _, err := db.ExecContext(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	})
}
