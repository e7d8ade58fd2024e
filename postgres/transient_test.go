package postgres

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestTransientIsTheDatabasesOwnTrouble(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&pgconn.PgError{Code: "40P01"}, true},
		{&pgconn.PgError{Code: "40001"}, true},
		{fmt.Errorf("charge: %w", &pgconn.PgError{Code: "57P01"}), true},
		{&pgconn.PgError{Code: "53100"}, true},
		{&pgconn.PgError{Code: "57014"}, false},
		{&pgconn.PgError{Code: "23505"}, false},
		{io.ErrUnexpectedEOF, true},
		{syscall.ECONNRESET, true},
		{&url.Error{Op: "Get", URL: "http://card", Err: syscall.ECONNRESET}, false},
		{errors.New("card expired"), false},
	} {
		if got := (inbox{}).Transient(c.err); got != c.want {
			t.Errorf("Transient(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}
