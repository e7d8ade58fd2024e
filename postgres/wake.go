package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
)

var (
	_ outlast.WakeNotifier = outbox{}
	_ outlast.WakeListener = relay{}
)

// channel is where wake-ups of an outbox are notified: "public.outlast_wake". Outboxes of
// other schemas or prefixes have their own.
func (c settings) channel() string { return c.schema + "." + c.prefix + "wake" }

// Notify tells those who listen. No pooler is in its way. That the pool was closed is no
// error: the program ends, and nobody needs to be told that its last wake-up was not sent.
func (s outbox) Notify(ctx context.Context) error {
	err := s.conn(ctx, "wake relays", false, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, s.sql.Get("wake_notify"))
		return err
	})
	if closed(err) {
		return nil
	}
	return err
}

const (
	// listenCheck is the time between two looks whether a silent connection lives. It keeps
	// what ends idle connections from ending this one, too.
	listenCheck = 20 * time.Second
	// listenPatience is how long a connection, or an answer on it, is waited for.
	listenPatience = 30 * time.Second
)

// Listen holds a connection beside the pool, so that a small pool loses nothing.
func (s relay) Listen(ctx context.Context, heard func()) error {
	const op = "listen for wake-ups"
	c, err := s.dial(ctx, op)
	if err != nil {
		return s.fail(op, err, false)
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(ending)
	}()
	for first := true; ; first = false {
		if err := s.listenOn(ctx, c); err != nil {
			return s.fail(op, err, false)
		}
		if first {
			heard() // what was committed before
		}
		for waiting := true; waiting; {
			if waiting, err = waitForWake(ctx, c); err != nil {
				return s.fail(op, err, false)
			} else if waiting {
				heard()
			}
		}
	}
}

// listenOn listens; on a connection that does, it shows that the server still answers.
func (s relay) listenOn(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, listenPatience)
	defer cancel()
	_, err := c.Exec(ctx, s.sql.Get("wake_listen"), pgx.QueryExecModeSimpleProtocol)
	return err
}

// waitForWake reports false when nothing came for a while.
func waitForWake(ctx context.Context, c *pgx.Conn) (bool, error) {
	waiting, cancel := context.WithTimeout(ctx, listenCheck)
	defer cancel()
	_, err := c.WaitForNotification(waiting)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil && !c.IsClosed() {
		return false, nil
	}
	return err == nil, err
}

// connectorKey is where a connection of [Open] carries how another one is made: with the
// certificates of now, and all else that the pool's have.
const connectorKey = "outlast.connector"

// dial makes a connection beside the pool, as the pool makes its own. Those of a pool that
// is not of [Open] tell only how they were made themselves.
func (s *store) dial(ctx context.Context, op string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, listenPatience)
	defer cancel()
	var connector driver.Connector
	err := s.conn(ctx, op, false, func(c *pgx.Conn) error {
		var ok bool
		if connector, ok = c.PgConn().CustomData()[connectorKey].(driver.Connector); !ok {
			conf := c.Config()
			conf.OnNotification = nil // of the pool's
			connector = stdlib.GetConnector(*conf)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	made, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c := made.(*stdlib.Conn).Conn()
	if err := direct(ctx, c); err != nil {
		_ = c.Close(ctx)
		return nil, err
	}
	return c, nil
}

// direct returns an error when a pooler is in between: it would take LISTEN as if it had
// done it, and leave a session of the server listening for nobody.
func direct(ctx context.Context, c *pgx.Conn) error {
	same, err := ownSession(ctx, c)
	if err == nil && !same {
		err = &outlast.Error{Op: "listen for wake-ups", Code: outlast.CodeInvalid, Err: errors.New("there is a pooler before the server"),
			Hint: "give this relay an address of the server itself"}
	}
	return err
}
