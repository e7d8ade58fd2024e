package postgres

import (
	"context"
	"database/sql/driver"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// poolerWatch notices a pooler between us and the server. Behind one that lends a server
// connection for a transaction, a prepared statement is missing in the next transaction,
// so that nothing may be prepared. A pooler makes up the process id that it greets with;
// the server's own is another.
type poolerWatch struct {
	idle bool // the mode was chosen, or prepares nothing
	seen atomic.Bool
}

// before is called for each new connection.
func (w *poolerWatch) before(c *pgx.ConnConfig) {
	if w.seen.Load() {
		c.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
}

// after ends the first connection that goes through a pooler: database/sql makes another
// one at once, which prepares nothing.
func (w *poolerWatch) after(ctx context.Context, c *pgx.Conn) error {
	if w.idle || w.seen.Load() {
		return nil
	}
	own, err := ownSession(ctx, c)
	if own {
		return nil
	}
	_ = c.Close(ctx)
	if err != nil {
		return err
	}
	w.seen.Store(true)
	return driver.ErrBadConn
}

// ownSession reports whether the connection is a session of the server, and not a pooler's.
func ownSession(ctx context.Context, c *pgx.Conn) (bool, error) {
	var pid uint32
	err := c.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid)
	return err == nil && pid == c.PgConn().PID(), err
}
