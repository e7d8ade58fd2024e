package postgres_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// trips counts round trips: reads that wait for an answer to something written since
// the last one.
type trips struct{ n atomic.Int64 }

type countingConn struct {
	net.Conn
	trips *trips
	asked atomic.Bool
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.asked.Store(true)
	return c.Conn.Write(p)
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.asked.Swap(false) {
		c.trips.n.Add(1)
	}
	return n, err
}

// TestPublishCostsOneRoundTrip: what Publish adds to the caller's transaction is one
// round trip, whether it is given one message or many. The first time that a
// connection sees a number of messages, it learns that statement by one more.
func TestPublishCostsOneRoundTrip(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(servers.Database(t))
	must(t, err)
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe // as postgres.Open
	count := &trips{}
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return &countingConn{Conn: conn, trips: count}, err
	}
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { must(t, db.Close()) })
	db.SetMaxOpenConns(1)
	store := postgres.Store(db)
	must(t, store.Migrations().Up(t.Context(), 0))
	outbox := outlast.NewOutbox(store)
	publish := func(n int) int64 {
		t.Helper()
		tx, err := db.BeginTx(t.Context(), nil)
		must(t, err)
		msgs := make([]outlast.Message, n)
		for i := range msgs {
			msgs[i] = orderPlaced.Message(placed{"order-7"})
		}
		before := count.n.Load()
		must(t, outbox.Publish(t.Context(), tx, msgs...))
		took := count.n.Load() - before
		must(t, tx.Commit())
		return took
	}
	for _, n := range []int{1, 2, 100, 1000} {
		if took := publish(n); took > 2 {
			t.Errorf("publishing %d messages for the first time took %d round trips, want 2 at most", n, took)
		}
		if took := publish(n); took != 1 {
			t.Errorf("publishing %d messages took %d round trips, want 1", n, took)
		}
	}
	var rows int
	must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM outlast_outbox").Scan(&rows))
	if rows != 2206 {
		t.Errorf("%d rows are in the outbox, want 2206", rows)
	}
}
