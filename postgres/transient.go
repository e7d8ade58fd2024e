package postgres

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outlastmq/outlast"
)

var _ outlast.TransientErrors = inbox{}

// Transient reports whether an error of a handler is the database's own trouble: a
// deadlock, a serialization failure, a server that ends or is full, a connection that
// was lost. An error of an HTTP client is never one, even when its connection was lost;
// other clients of a handler say [outlast.Unavailable].
func (s inbox) Transient(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:min(2, len(pg.Code))] {
		case "40", "08", "53", "57":
			return pg.Code != "57014" // a statement's own time limit is the handler's business
		}
		return false
	}
	var web *url.Error
	if errors.As(err, &web) {
		return false
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		pgconn.SafeToRetry(err) || strings.Contains(err.Error(), "conn closed")
}
