package servers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/outlastmq/outlast/lab/servers"
)

func startPostgresWithClock(t *testing.T) *servers.PostgresServer {
	t.Helper()
	if why := servers.LacksClock(); why != "" {
		t.Fatal(why)
	}
	return startPostgres(t, servers.PostgresConfig{NoSync: true, OwnClock: true})
}

func connect(ctx context.Context, t *testing.T, server *servers.PostgresServer) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// TestOwnClock: every session sees at once that the clock was set, an open one as well.
func TestOwnClock(t *testing.T) {
	t.Parallel()
	server := startPostgresWithClock(t)
	sessions := []*pgx.Conn{connect(t.Context(), t, server), connect(t.Context(), t, server)}
	for _, difference := range []time.Duration{0, time.Hour, -time.Hour} {
		if err := server.SetClock(difference); err != nil {
			t.Fatal(err)
		}
		for _, conn := range sessions {
			var now time.Time
			if err := conn.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&now); err != nil {
				t.Fatal(err)
			}
			if off := time.Until(now) - difference; off.Abs() > time.Minute {
				t.Fatalf("the clock is off by %s, want %s", time.Until(now), difference)
			}
		}
	}
}

// TestOwnClock_in_signal_handlers: PostgreSQL asks for the time in the handler of a timeout,
// wherever the session just was. No session crashes of it.
func TestOwnClock_in_signal_handlers(t *testing.T) {
	t.Parallel()
	server := startPostgresWithClock(t)
	var sessions errgroup.Group
	for range 4 {
		conn := connect(t.Context(), t, server)
		sessions.Go(func() error {
			if _, err := conn.Exec(t.Context(), "SET statement_timeout = '2ms'"); err != nil {
				return err
			}
			for range 200 {
				_, err := conn.Exec(t.Context(), "SELECT count(clock_timestamp()), sum(length(repeat('x', i))) FROM generate_series(1, 10000) i")
				if refused := (*pgconn.PgError)(nil); err != nil && (!errors.As(err, &refused) || refused.Code != "57014") { // a timeout
					return err
				}
			}
			return nil
		})
	}
	if err := sessions.Wait(); err != nil {
		t.Fatal(err)
	}
}
