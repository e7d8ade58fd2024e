package postgres_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
// connection is given one, and the first time that it is given several, it learns the
// statement by one more.
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
	for at, n := range []int{1, 2, 100, 1000} {
		if took := publish(n); at < 2 && took != 2 || at >= 2 && took != 1 {
			t.Errorf("publishing %d messages for the first time took %d round trips", n, took)
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

// otherDriver gives parameters to the server as a driver does that knows the types of
// database/sql alone, and without the types that the server expects.
type otherDriver struct{ *sql.Tx }

func (o otherDriver) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	plain := []any{pgx.QueryExecModeExec}
	for _, arg := range args {
		value, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return nil, err
		}
		plain = append(plain, value)
	}
	return o.Tx.ExecContext(ctx, query, plain...)
}

// TestPublishWritesTheSameRows: one message for each call, all in one, or by another
// driver: what is in the tables is the same.
func TestPublishWritesTheSameRows(t *testing.T) {
	t.Parallel()
	db := openURL(t, servers.Database(t))
	at := time.Date(2031, 2, 3, 4, 5, 6, 789_012_345, time.FixedZone("", 3600))
	envelope := outlast.Envelope{Type: "order.placed.v1", Kind: outlast.KindCommand, Key: `k "1",\`, Subject: "NULL", ContentType: "application/json; charset=utf-8",
		DataSchema: "s", CorrelationID: "c{}", CausationID: "z", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "a=b",
		Time: at, ExpiresAt: at.Add(time.Hour)}
	msgs := []outlast.Message{
		{Envelope: outlast.Envelope{Type: "order.placed.v1"}},
		{Envelope: outlast.Envelope{Type: "order.placed.v1"}, Body: []byte(`{"text":"\\ \"ä\" {,} NULL"}`), MayBeUnheard: true, Exchange: "x", RoutingKey: "r.k"},
		{Envelope: outlast.Envelope{Type: "order.placed.v1", ContentType: "application/octet-stream", Headers: outlast.Headers{"a": `"\b`, "c": ""}}, Body: []byte{0, 1, '"', '\\', 255}},
		{Envelope: outlast.Envelope{Type: "order.placed.v1", ContentType: "text/plain"}, Body: []byte{}},
		{Envelope: envelope, Body: []byte("{}")},
		{Envelope: envelope, Body: []byte("{}"), Due: at.Add(time.Minute)},
		{Envelope: outlast.Envelope{Type: "order.placed.v1", Key: "late"}, Body: []byte("{}"), Due: at.AddDate(-20, 0, 0)},
	}
	for i := range msgs {
		msgs[i].ID = outlast.NewID()
	}
	begin := func() *sql.Tx {
		tx, err := db.BeginTx(t.Context(), nil)
		must(t, err)
		return tx
	}
	written := map[string]string{}
	for prefix, publish := range map[string]func(o *outlast.Outbox, tx *sql.Tx){
		"one_": func(o *outlast.Outbox, tx *sql.Tx) {
			for _, m := range msgs {
				must(t, o.Publish(t.Context(), tx, m))
			}
		},
		"all_": func(o *outlast.Outbox, tx *sql.Tx) { must(t, o.Publish(t.Context(), tx, msgs...)) },
		"other_": func(o *outlast.Outbox, tx *sql.Tx) {
			must(t, o.Publish(t.Context(), otherDriver{tx}, msgs[0]))
			must(t, o.Publish(t.Context(), otherDriver{tx}, msgs[1:]...))
		},
	} {
		store := postgres.Store(db, postgres.Prefix(prefix))
		must(t, store.Migrations().Up(t.Context(), 0))
		tx := begin()
		publish(outlast.NewOutbox(store), tx)
		must(t, tx.Commit())
		var rows string
		must(t, db.QueryRowContext(t.Context(), `SELECT string_agg((to_jsonb(r) - '{tx,seq,enqueued_at,held_at}'::text[])::text, E'\n' ORDER BY r.id)
			FROM (SELECT *, NULL AS reason, NULL AS next_at FROM `+prefix+`outbox UNION ALL
				SELECT `+"tx, seq, id, slot, type, kind, body, body_bytes, ordering_key, subject, content_type, data_schema, correlation_id, causation_id, trace_parent, trace_state, headers, exchange, routing_key, may_be_unheard, occurred_at, due_at, expires_at, enqueued_at, reason, next_at::text"+` FROM `+prefix+`held) r`).Scan(&rows))
		written[prefix] = rows
	}
	if n := strings.Count(written["one_"], "\n"); n != len(msgs)-1 || !strings.Contains(written["one_"], `"reason": "due"`) {
		t.Errorf("%d rows and a break: %s", n, written["one_"])
	}
	for prefix, rows := range written {
		if rows != written["one_"] {
			t.Errorf("%s wrote\n%s\nand one by one\n%s", prefix, rows, written["one_"])
		}
	}
}
