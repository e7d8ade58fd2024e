package postgres

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
)

// OpenOption refines [Open].
type OpenOption func(*openSettings)

type openSettings struct {
	mode       pgx.QueryExecMode
	modeSet    bool
	maxConns   int
	name       string
	allowPlain bool
	lazy       bool
	logger     *slog.Logger
}

// ExecMode chooses how statements are sent. By default they are prepared once for each
// connection (pgx.QueryExecModeCacheStatement), which saves the server most of its
// planning; behind a pooler, which is noticed at every connect, nothing outlives its
// statement (pgx.QueryExecModeCacheDescribe). PgBouncer 1.21 and newer knows prepared
// statements: there the first one may be chosen too.
func ExecMode(mode pgx.QueryExecMode) OpenOption {
	return func(s *openSettings) { s.mode, s.modeSet = mode, true }
}

// MaxConns is the greatest number of connections. Default 20: a consumer's 16
// workers and what the relay needs.
func MaxConns(n int) OpenOption { return func(s *openSettings) { s.maxConns = n } }

// ApplicationName is what pg_stat_activity shows. Default "outlast", or that of the URL.
func ApplicationName(name string) OpenOption { return func(s *openSettings) { s.name = name } }

// AllowPlain permits other machines that are not verified by TLS: no encryption, or an
// sslmode below verify-full. Passwords and messages can then be read, or the server be
// another one. A warning is logged. "allow_plain=true" in a URL is the same.
func AllowPlain() OpenOption { return func(s *openSettings) { s.allowPlain = true } }

// Logger gets what a person should know of the connections. Default: slog.Default().
func Logger(l *slog.Logger) OpenOption { return func(s *openSettings) { s.logger = l } }

// Lazy leaves the first connection to the first statement: a server that is down is not an
// error of Open, and is connected to when it is there.
func Lazy() OpenOption { return func(s *openSettings) { s.lazy = true } }

// silenceLimit is how long data may stay unacknowledged by the server's host.
const silenceLimit = 30 * time.Second

// Open returns a pool for address, a URL or a keyword string of libpq, after one
// connection has succeeded, unless [Lazy] is given. Connections notice a dead peer within half a minute: idle ones
// everywhere, and on Linux also those that wait for an answer
// (TestF81_A_statement_to_a_vanished_server_ends).
// With several hosts in the URL, only one that accepts writes is used, and a connection whose server
// has become read only is not used again (TestF08_APoolLeavesAStandby). Errors never show the URL.
//
// Beyond this machine the server must be verified: sslmode=verify-full, unless
// [AllowPlain] is given. The files of sslrootcert, sslcert and sslkey are read for every
// new connection, so that rotated ones are used without a restart: within an hour, the
// lifetime of a connection.
func Open(ctx context.Context, address string, opts ...OpenOption) (*sql.DB, error) {
	conf := openSettings{mode: pgx.QueryExecModeCacheStatement, maxConns: 20, name: "outlast", logger: slog.Default()}
	for _, o := range opts {
		o(&conf)
	}
	if conf.maxConns < 1 {
		return nil, invalidOpen("MaxConns", "at least 1", "less")
	}
	address, err := conf.takeAllowPlain(address)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig(address)
	if err != nil {
		// The parser's error may repeat parts of the URL, and so its password.
		return nil, &outlast.Error{Op: "open postgres", Code: outlast.CodeInvalid,
			Err: errors.New("the address cannot be parsed"), Hint: "write postgres://user:password@host:5432/database?sslmode=verify-full"}
	}
	if err := conf.checkEncryption(c); err != nil {
		return nil, err
	}
	conf.complete(c)
	watch := &poolerWatch{idle: conf.modeSet || c.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement}
	before := stdlib.OptionBeforeConnect(func(ctx context.Context, c *pgx.ConnConfig) error {
		watch.before(c)
		return reloadTLS(ctx, address, c)
	})
	var connector driver.Connector
	after := stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		c.PgConn().CustomData()[connectorKey] = connector
		return watch.after(ctx, c)
	})
	connector = stdlib.GetConnector(*c, before, after)
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(conf.maxConns)
	db.SetMaxIdleConns(conf.maxConns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour)
	if conf.lazy {
		return db, nil
	}
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, (&store{}).fail("open postgres", err, false)
	}
	return db, nil
}

func invalidOpen(field, limit, given string) error {
	return &outlast.Error{Op: "open postgres", Code: outlast.CodeInvalid, Fields: []outlast.FieldError{{Field: field, Limit: limit, Given: given}}}
}

// complete sets what the address leaves open.
func (s *openSettings) complete(c *pgx.ConnConfig) {
	if s.modeSet || c.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		c.DefaultQueryExecMode = s.mode
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = s.name
	}
	dialer := &net.Dialer{Control: boundSilence, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	c.DialFunc = dialer.DialContext
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	closes := c.OnPgError
	c.OnPgError = func(conn *pgconn.PgConn, e *pgconn.PgError) bool {
		return !ofStandby(e) && (closes == nil || closes(conn, e))
	}
	if len(c.Fallbacks) > 0 && c.ValidateConnect == nil {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
}

// takeAllowPlain takes our own parameter out of a URL: the server would be sent it.
func (s *openSettings) takeAllowPlain(address string) (string, error) {
	const name = "allow_plain"
	before, query, ok := strings.Cut(address, "?")
	if !ok || !strings.Contains(before, "://") || !strings.Contains(query, name) {
		return address, nil
	}
	var rest []string
	for pair := range strings.SplitSeq(query, "&") {
		if key, value, _ := strings.Cut(pair, "="); key != name {
			rest = append(rest, pair)
		} else if allow, err := strconv.ParseBool(value); err != nil {
			return "", invalidOpen(name, "true or false", "another word")
		} else if allow {
			s.allowPlain = true
		}
	}
	return before + "?" + strings.Join(rest, "&"), nil
}

// checkEncryption refuses servers on other machines that would not be verified.
func (s *openSettings) checkEncryption(c *pgx.ConnConfig) error {
	var hosts []string
	look := func(host string, config *tls.Config) {
		verified := config != nil && !config.InsecureSkipVerify
		if !verified && !onThisMachine(host) && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	look(c.Host, c.TLSConfig)
	for _, f := range c.Fallbacks { // further hosts, and what "prefer" and "allow" fall back to
		look(f.Host, f.TLSConfig)
	}
	switch {
	case hosts == nil:
		return nil
	case s.allowPlain:
		s.logger.Warn("the connection to postgres is not verified by TLS: passwords and messages may be read on the way", "hosts", hosts)
		return nil
	}
	err := invalidOpen("sslmode", "verify-full beyond this machine, unless AllowPlain() or allow_plain=true is given",
		"less for "+strconv.Quote(strings.Join(hosts, ",")))
	err.(*outlast.Error).Hint = "add sslmode=verify-full, and sslrootcert=FILE for an authority of your own"
	return err
}

// onThisMachine also takes the folder of a Unix socket.
func onThisMachine(host string) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// reloadTLS reads the certificate files of an address again. In the middle of a rotation
// they may not fit together: it tries for a second before it gives up.
func reloadTLS(ctx context.Context, address string, c *pgx.ConnConfig) error {
	if c.TLSConfig == nil && !slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.TLSConfig != nil }) {
		return nil
	}
	for tries := 0; ; tries++ {
		fresh, err := pgx.ParseConfig(address)
		if err == nil && len(fresh.Fallbacks) == len(c.Fallbacks) {
			c.TLSConfig, c.Fallbacks = fresh.TLSConfig, fresh.Fallbacks
			return nil
		}
		if tries == 20 {
			// Not the parser's error: it may repeat parts of the address.
			return &outlast.Error{Op: "connect to postgres", Code: outlast.CodeUnavailable,
				Err: errors.New("the files of sslrootcert, sslcert and sslkey cannot be read, or do not fit together")}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
