package postgres

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
)

// OpenOption refines [Open].
type OpenOption func(*openSettings)

type openSettings struct {
	mode     pgx.QueryExecMode
	modeSet  bool
	maxConns int
	name     string
}

// ExecMode chooses how statements are sent. The default, pgx.QueryExecModeCacheDescribe,
// prepares nothing that outlives a statement, so it works behind every pooler. With a
// direct connection, or PgBouncer 1.21 and newer, pgx.QueryExecModeCacheStatement
// saves the server some planning.
func ExecMode(mode pgx.QueryExecMode) OpenOption {
	return func(s *openSettings) { s.mode, s.modeSet = mode, true }
}

// MaxConns is the greatest number of connections. Default 20: a consumer's 16
// workers and what the relay needs.
func MaxConns(n int) OpenOption { return func(s *openSettings) { s.maxConns = n } }

// ApplicationName is what pg_stat_activity shows. Default "outlast", or that of the URL.
func ApplicationName(name string) OpenOption { return func(s *openSettings) { s.name = name } }

// Open returns a pool for url, a URL or a keyword string of libpq, after one
// connection has succeeded. Idle connections notice a dead peer within half a minute.
// With several hosts in the URL, only one that accepts writes is used. Errors never
// show the URL.
func Open(ctx context.Context, url string, opts ...OpenOption) (*sql.DB, error) {
	conf := openSettings{mode: pgx.QueryExecModeCacheDescribe, maxConns: 20, name: "outlast"}
	for _, o := range opts {
		o(&conf)
	}
	if conf.maxConns < 1 {
		return nil, &outlast.Error{Op: "open postgres", Code: outlast.CodeInvalid,
			Fields: []outlast.FieldError{{Field: "MaxConns", Limit: "at least 1", Given: "less"}}}
	}
	c, err := pgx.ParseConfig(url)
	if err != nil {
		// The parser's error may repeat parts of the URL, and so its password.
		return nil, &outlast.Error{Op: "open postgres", Code: outlast.CodeInvalid,
			Err: errors.New("the address cannot be parsed"), Hint: "write postgres://user:password@host:5432/database?sslmode=verify-full"}
	}
	if conf.modeSet || c.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		c.DefaultQueryExecMode = conf.mode
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = conf.name
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	c.DialFunc = dialer.DialContext
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if len(c.Fallbacks) > 0 && c.ValidateConnect == nil {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	db := stdlib.OpenDB(*c)
	db.SetMaxOpenConns(conf.maxConns)
	db.SetMaxIdleConns(conf.maxConns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, (&store{}).fail("open postgres", err, false)
	}
	return db, nil
}
