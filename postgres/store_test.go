package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
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
	c, err := pgx.ParseConfig("postgres://nobody@127.0.0.1:1/none")
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

func TestOpenNeverShowsTheAddress(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://app:s3cret@127.0.0.1:1/db?sslmode=disable&connect_timeout=1", "postgres://app:s3cret@[bad/db", "postgres://app:s3cret@h/db?sslmode=nonsense",
		"user=app password=s3cret port=none",
	} {
		_, err := Open(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Open: %v", err)
		}
	}
}
