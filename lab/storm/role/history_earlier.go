//go:build earlier

package role

import (
	"context"
	"database/sql"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/postgres"
)

// recording does nothing: the earlier commit may have no history, or another one.
type recording struct{}

func (s Spec) record() (*recording, error) { return &recording{}, nil }

func (*recording) hooks() []outlast.Hook { return nil }

func (*recording) middleware() []outlast.Middleware { return nil }

func (*recording) close() error { return nil }

func (*recording) inTx(ctx context.Context, db *sql.DB, f func(context.Context, *sql.Tx) error) error {
	return inTx(ctx, db, f)
}

func plain() postgres.OpenOption { return postgres.AllowPlain() }

func withNumber(ctx context.Context, _ int64) context.Context { return ctx }

func prepareHistory(context.Context, *sql.DB) error { return nil }
