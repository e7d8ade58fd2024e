package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
)

type otherDriver struct{}

func (otherDriver) Connect(context.Context) (driver.Conn, error) { return nil, errors.New("no server") }
func (otherDriver) Driver() driver.Driver                        { return nil }

func TestBadStoreIsReportedByEveryCall(t *testing.T) {
	t.Parallel()
	pgxDB := sql.OpenDB(stdlib.GetConnector(*mustConfig(t)))
	defer pgxDB.Close()
	other := sql.OpenDB(otherDriver{})
	defer other.Close()
	for name, store := range map[string]outlast.Store{
		"other driver": Store(other),
		"nil":          Store(nil),
		"schema":       Store(pgxDB, Schema(`x"; DROP TABLE y; --`)),
		"prefix":       Store(pgxDB, Prefix("")),
	} {
		_, picked := store.Relay().Reader().Pick(t.Context(), []outlast.Lease{{}}, 1, 1)
		_, begun := store.Inbox().Begin(t.Context(), "g", nil)
		for _, err := range []error{
			store.Check(t.Context()), picked, begun,
			store.Outbox().Insert(t.Context(), nil, nil),
			store.Migrations().Up(t.Context(), 0),
		} {
			if outlast.CodeOf(err) != outlast.CodeInvalid {
				t.Errorf("%s: %v, want it to be invalid", name, err)
			}
		}
	}
}

func mustConfig(t *testing.T) *pgx.ConnConfig {
	t.Helper()
	return mustParse(t, "postgres://nobody@127.0.0.1:1/none")
}

func mustParse(t *testing.T, address string) *pgx.ConnConfig {
	t.Helper()
	c, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestErrorCodes(t *testing.T) {
	t.Parallel()
	s := &store{conf: settings{schema: "public", prefix: "outlast_"}}
	for state, want := range map[string]outlast.Code{
		"42P01": outlast.CodeSchema, "42501": outlast.CodeDenied, "28P01": outlast.CodeDenied,
		"57P01": outlast.CodeUnavailable, "53300": outlast.CodeUnavailable, "25006": outlast.CodeUnavailable,
		"40001": outlast.CodeUnavailable, "40P01": outlast.CodeUnavailable, "23514": outlast.CodeInvalid,
		"23505": outlast.CodeConflict, "XX000": outlast.CodeInternal,
	} {
		err := s.fail("x", &pgconn.PgError{Code: state, ConstraintName: "outlast_check_subject"}, false)
		if outlast.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", state, outlast.CodeOf(err), want)
		}
		if state == "23514" && !strings.Contains(err.Error(), "subject") {
			t.Errorf("%v does not name the field", err)
		}
	}
	for _, c := range []struct {
		err  error
		want outlast.Code
	}{
		{errors.New("write: broken pipe"), outlast.CodeUnknown},
		{context.DeadlineExceeded, outlast.CodeUnknown},
		{&pgconn.PgError{Code: "57P01"}, outlast.CodeUnknown},
		{&pgconn.PgError{Code: "23503"}, outlast.CodeInvalid},
		{&pgconn.PgError{Code: "40001"}, outlast.CodeUnavailable},
		{definite{context.DeadlineExceeded}, outlast.CodeUnavailable},
	} {
		if got := outlast.CodeOf(s.fail("commit", c.err, true)); got != c.want {
			t.Errorf("a COMMIT that ended with %v: %s, want %s", c.err, got, c.want)
		}
	}
}

func TestS23_OpenNeverShowsTheAddress(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://app:s3cret@127.0.0.1:1/db?sslmode=disable&connect_timeout=1", "postgres://app:s3cret@[bad/db", "postgres://app:s3cret@h/db?sslmode=nonsense",
		"user=app password=s3cret port=none", "postgres://app:s3cret@db.example/db", "postgres://app:s3cret@db.example/db?allow_plain=s3cret",
	} {
		_, err := Open(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Open: %v", err)
		}
	}
}

// TestS27_OtherMachinesAreVerified: anything below verify-full is refused beyond this
// machine, wherever it hides in the address.
func TestS27_OtherMachinesAreVerified(t *testing.T) {
	t.Parallel()
	for address, refused := range map[string]bool{
		"postgres://app@db.example/orders":                                                  true,
		"postgres://app@db.example/orders?sslmode=disable":                                  true,
		"postgres://app@db.example/orders?sslmode=allow":                                    true,
		"postgres://app@db.example/orders?sslmode=prefer":                                   true,
		"postgres://app@db.example/orders?sslmode=require":                                  true,
		"postgres://app@db.example/orders?sslmode=verify-ca":                                true,
		"postgres://app@127.0.0.1,db.example/orders?sslmode=prefer":                         true,
		"postgres://app@127.0.0.1.db.example/orders":                                        true,
		"postgres://app@10.0.0.7/orders":                                                    true,
		"host=db.example user=app sslmode=require":                                          true,
		"postgres:///orders?host=db.example":                                                true,
		"postgres://app@db.example/orders?sslmode=verify-full":                              false,
		"postgres://app@a.example,b.example/orders?sslmode=verify-full":                     false,
		"postgres://app@localhost/orders":                                                   false,
		"postgres://app@[::1]/orders?sslmode=disable":                                       false,
		"postgres:///orders?host=/run/postgresql":                                           false,
		"postgres://app@db.example/orders?sslmode=require&allow_plain=true":                 false,
		"postgres://app@db.example/orders?allow_plain=1":                                    false,
		"postgres://app@db.example/orders?allow_plain=false&sslmode=disable":                true,
		"postgres://app@db.example/orders?sslmode=verify-full&application_name=allow_plain": false,
	} {
		s := openSettings{logger: slog.New(slog.DiscardHandler)}
		rest, err := s.takeAllowPlain(address)
		if err != nil {
			t.Fatal(err)
		}
		c, err := pgx.ParseConfig(rest)
		if err != nil {
			t.Fatal(err)
		}
		err = s.checkEncryption(c)
		if refused != (outlast.CodeOf(err) == outlast.CodeInvalid) || refused && !strings.Contains(err.Error(), "sslmode") {
			t.Errorf("%s: %v, want refused %v", address, err, refused)
		}
		if c.RuntimeParams["allow_plain"] != "" {
			t.Errorf("%s: our parameter would be sent to the server", address)
		}
	}
	var log strings.Builder
	s := openSettings{allowPlain: true, logger: slog.New(slog.NewTextHandler(&log, nil))}
	if err := s.checkEncryption(mustParse(t, "postgres://app:s3cret@db.example/orders")); err != nil ||
		!strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "db.example") || strings.Contains(log.String(), "s3cret") {
		t.Errorf("with AllowPlain: %v, logged %q", err, log.String())
	}
}
