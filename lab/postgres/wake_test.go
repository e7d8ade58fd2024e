package postgres_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	neturl "net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/postgres"
)

// gate is a store whose picks see nothing until a wake-up was heard: what a relay on it
// sends, it was woken for.
type gate struct {
	outlast.Store
	open    atomic.Bool // for picks
	barred  atomic.Bool // no Listen gets to the store
	listens atomic.Int32
}

func (g *gate) Relay() outlast.RelayStore { return gatedRelay{g.Store.Relay(), g} }

type gatedRelay struct {
	outlast.RelayStore
	g *gate
}

func (r gatedRelay) Reader() outlast.OutboxReader { return gatedReader{r.RelayStore.Reader(), r.g} }

func (r gatedRelay) Listen(ctx context.Context, heard func()) error {
	if r.g.barred.Load() {
		return &outlast.Error{Op: "listen", Code: outlast.CodeUnavailable}
	}
	first := true
	return r.RelayStore.(outlast.WakeListener).Listen(ctx, func() {
		if first { // it listens; nobody has woken it yet
			first = false
			r.g.listens.Add(1)
		} else {
			r.g.open.Store(true)
		}
		heard()
	})
}

type gatedReader struct {
	outlast.OutboxReader
	g *gate
}

func (r gatedReader) Pick(ctx context.Context, leases []outlast.Lease, maxRows, maxBytes int) ([]*outlast.Row, error) {
	if !r.g.open.Load() {
		return nil, nil
	}
	return r.OutboxReader.Pick(ctx, leases, maxRows, maxBytes)
}

// log is a buffer that many may write.
type log struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

var noted = outlast.Event[placed]("order.noted", 1, outlast.MayBeUnheard())

// listen runs a relay on store that would sweep once an hour, and has begun to listen.
func listen(t *testing.T, store outlast.Store) (*gate, *log) {
	t.Helper()
	g, l, broker := &gate{Store: store}, &log{}, memory.NewBroker()
	must(t, broker.Topology().Apply(t.Context(), outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}}))
	serve(t, outlast.ServiceConfig{Name: "orders", Store: g, Broker: broker,
		Relay: outlast.RelayConfig{Interval: time.Hour, WakeUps: true}, Logger: slog.New(slog.NewTextHandler(l, nil))})
	return g, l
}

func publishIn(t *testing.T, db *sql.DB, outbox *outlast.Outbox) {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	must(t, outbox.Publish(t.Context(), tx, noted.Message(placed{"a"})))
	must(t, tx.Commit())
}

func sent(t *testing.T, admin *sql.DB) func() bool {
	return func() bool { return number(t, admin, "SELECT count(*) FROM outlast_outbox") == 0 }
}

// listeners are the sessions that listen on a channel, in this database.
func listeners(t *testing.T, db *sql.DB, channel string) (pid, n int) {
	t.Helper()
	must(t, db.QueryRowContext(t.Context(), `SELECT coalesce(max(pid), 0), count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND query = 'LISTEN "' || $1::text || '"'`, channel).Scan(&pid, &n))
	return pid, n
}

// notification waits for the next one.
func notification(t *testing.T, c *pgx.Conn) *pgconn.Notification {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := c.WaitForNotification(ctx)
	must(t, err)
	return n
}

const channel = "public.outlast_wake"

// TestF06_AnotherProcessWakesARelay: with the rights of a writer and of a relay, and no more;
// a writer in any language, one in Go that only publishes, and one that wakes after its commit.
func TestF06_AnotherProcessWakesARelay(t *testing.T) {
	t.Parallel()
	l := withRoles(t)
	g, _ := listen(t, postgres.Store(l.as("relay")))
	eventually(t, "it listens", func() bool { return g.listens.Load() == 1 })
	app := l.as("app")
	outbox := outlast.NewOutbox(postgres.Store(app), outlast.OutboxConfig{WakeUps: true})
	for _, write := range []func(){ // each wakes once, so that none is woken by the one before
		func() {
			must(t, exec(t.Context(), app, "INSERT INTO outlast_outbox (type, body, may_be_unheard) VALUES ('order.noted.v1', '{}', true)"))
			must(t, exec(t.Context(), app, "SELECT pg_notify('"+channel+"', '')"))
		},
		func() { publishIn(t, app, outbox) },
		func() { publishIn(t, app, outlast.NewOutbox(postgres.Store(app))); outbox.Wake() },
	} {
		g.open.Store(false)
		write()
		eventually(t, "the relay was woken", sent(t, l.admin))
	}
}

// TestF06_WakeUpsAreOfOneOutbox: each schema and each prefix has a channel of its own, with
// the name that docs/tables.md gives to other languages.
func TestF06_WakeUpsAreOfOneOutbox(t *testing.T) {
	t.Parallel()
	ctx, address := t.Context(), servers.Database(t)
	db := openURL(t, address)
	raw, err := pgx.Connect(ctx, address)
	must(t, err)
	defer raw.Close(ctx)
	outboxes := []struct {
		channel string
		opts    []postgres.Option
	}{
		{channel, nil},
		{"shop.outlast_wake", []postgres.Option{postgres.Schema("shop")}},
		{"shop.box_wake", []postgres.Option{postgres.Schema("shop"), postgres.Prefix("box_")}},
		{strings.Repeat("s", 24) + "." + strings.Repeat("p", 24) + "wake", // the longest
			[]postgres.Option{postgres.Schema(strings.Repeat("s", 24)), postgres.Prefix(strings.Repeat("p", 24))}},
	}
	for _, o := range outboxes {
		_, err := raw.Exec(ctx, `LISTEN "`+o.channel+`"`)
		must(t, err)
	}
	_, err = raw.Exec(ctx, "SELECT 1") // no more counted by listeners
	must(t, err)
	for _, o := range outboxes {
		store := postgres.Store(db, o.opts...)
		must(t, store.Outbox().(outlast.WakeNotifier).Notify(ctx))
		n := notification(t, raw)
		if n.Channel != o.channel {
			t.Errorf("notified %q, want %q", n.Channel, o.channel)
		}
		listening, stop := context.WithCancel(ctx)
		heard, ended := make(chan struct{}, 1), make(chan error, 1)
		go func() {
			ended <- store.Relay().(outlast.WakeListener).Listen(listening, func() { heard <- struct{}{} })
		}()
		<-heard
		if _, n := listeners(t, db, o.channel); n != 1 {
			t.Errorf("%d sessions listen on %s", n, o.channel)
		}
		stop()
		<-ended
		eventually(t, "the session has ended", func() bool { _, n := listeners(t, db, o.channel); return n == 0 })
	}
}

// statements remembers what is run in a producer's transaction.
type statements struct {
	*sql.Tx
	all []string
}

func (s *statements) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	s.all = append(s.all, query)
	return s.Tx.ExecContext(ctx, query, args...)
}

// TestF06_NoProducerNotifies: the wake-up is another session's, while the producer's
// transaction is open, and comes when that is rolled back too: no commit waits for it.
func TestF06_NoProducerNotifies(t *testing.T) {
	t.Parallel()
	ctx, address := t.Context(), servers.Database(t)
	db := openURL(t, address)
	store := postgres.Store(db)
	must(t, store.Migrations().Up(ctx, 0))
	raw, err := pgx.Connect(ctx, address)
	must(t, err)
	defer raw.Close(ctx)
	_, err = raw.Exec(ctx, `LISTEN "`+channel+`"`)
	must(t, err)
	outbox := outlast.NewOutbox(store, outlast.OutboxConfig{WakeUps: true})
	begun, err := db.BeginTx(ctx, nil)
	must(t, err)
	tx := &statements{Tx: begun}
	var own uint32
	must(t, tx.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&own))
	for i := range 5 {
		must(t, outbox.Publish(ctx, tx, noted.Message(placed{fmt.Sprint(i)}), noted.Message(placed{"later"}, outlast.After(time.Hour))))
		n := notification(t, raw)
		if n.PID == own {
			t.Error("the producer's session notified")
		}
	}
	must(t, tx.Rollback())
	if len(tx.all) == 0 {
		t.Error("saw no statement: the test cannot fail")
	}
	for _, s := range tx.all {
		if regexp.MustCompile(`(?i)notify`).MatchString(s) {
			t.Errorf("in the producer's transaction: %s", s)
		}
	}
}

// TestF06_ALostListenerComesBack: its session is ended by the server. The sweeps go on; it
// comes back, wakes again, and says so once, without a secret.
func TestF06_ALostListenerComesBack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	address, err := neturl.Parse(servers.Database(t))
	must(t, err)
	address.User = neturl.UserPassword(address.User.Username(), "very-secret")
	db := openURL(t, address.String())
	store := postgres.Store(db)
	must(t, store.Migrations().Up(ctx, 0))
	g, l := listen(t, store)
	eventually(t, "it listens", func() bool { return g.listens.Load() == 1 })
	first, n := listeners(t, db, channel)
	if n != 1 {
		t.Fatalf("%d sessions listen", n)
	}
	g.barred.Store(true)
	must(t, exec(ctx, db, fmt.Sprintf("SELECT pg_terminate_backend(%d)", first)))
	eventually(t, "the loss is noticed", func() bool { return strings.Contains(l.String(), "not heard now") })
	if _, n := listeners(t, db, channel); n != 0 {
		t.Fatalf("%d sessions listen", n)
	}
	silent := outlast.NewOutbox(store)
	g.open.Store(true)
	publishIn(t, db, silent)
	eventually(t, "a sweep has found it", sent(t, db))

	g.open.Store(false)
	g.barred.Store(false)
	eventually(t, "it listens again", func() bool { return g.listens.Load() == 2 })
	if again, n := listeners(t, db, channel); n != 1 || again == first {
		t.Errorf("%d sessions listen, as %d after %d", n, again, first)
	}
	publishIn(t, db, outlast.NewOutbox(store, outlast.OutboxConfig{WakeUps: true}))
	eventually(t, "the relay was woken", sent(t, db))
	if text := l.String(); strings.Count(text, "not heard now") != 1 || strings.Contains(text, "very-secret") {
		t.Errorf("the log:\n%s", text)
	}
}

// TestF06_AListenerTakesNothingFromThePool: one of a single connection is enough, and one
// that Open did not make.
func TestF06_AListenerTakesNothingFromThePool(t *testing.T) {
	t.Parallel()
	address := servers.Database(t)
	for _, db := range []*sql.DB{openURL(t, address, postgres.MaxConns(1)), plainPool(t, address)} {
		store := postgres.Store(db)
		must(t, store.Migrations().Up(t.Context(), 0))
		g, _ := listen(t, store)
		eventually(t, "it listens", func() bool { return g.listens.Load() == 1 })
		publishIn(t, db, outlast.NewOutbox(store, outlast.OutboxConfig{WakeUps: true}))
		eventually(t, "the relay was woken", sent(t, db))
	}
}

// TestALastWakeUpIsNoError: a program that ends closes its pool before the wake-up of its last
// commit was sent.
func TestALastWakeUpIsNoError(t *testing.T) {
	t.Parallel()
	db, err := postgres.Open(t.Context(), servers.Database(t))
	must(t, err)
	must(t, db.Close())
	must(t, postgres.Store(db).Outbox().(outlast.WakeNotifier).Notify(t.Context()))
}

// plainPool is database/sql's own, of one connection.
func plainPool(t *testing.T, address string) *sql.DB {
	db, err := sql.Open("pgx", address)
	must(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

// TestF19_WakeUpsAndAPooler: PgBouncer in transaction mode takes LISTEN and gives nothing. A
// relay behind it says so once and sweeps; producers behind it wake a relay that is not.
func TestF19_WakeUpsAndAPooler(t *testing.T) {
	t.Parallel()
	direct, pooler := pooled(t)
	behind := openURL(t, pooler.URL())

	t.Run("a relay behind it", func(t *testing.T) {
		g, l := listen(t, postgres.Store(behind))
		g.open.Store(true)
		const refused = "no wake-ups of other processes can be heard here"
		eventually(t, "it is said", func() bool { return strings.Contains(l.String(), refused) })
		publishIn(t, behind, outlast.NewOutbox(postgres.Store(behind)))
		eventually(t, "a sweep has found it", sent(t, direct))
		if text := l.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "pooler") {
			t.Errorf("the log:\n%s", text)
		}
		if _, n := listeners(t, direct, channel); n != 0 {
			t.Errorf("%d of the pooler's sessions listen for nobody", n)
		}
	})
	t.Run("a producer behind it", func(t *testing.T) {
		g, _ := listen(t, postgres.Store(direct))
		eventually(t, "it listens", func() bool { return g.listens.Load() == 1 })
		publishIn(t, behind, outlast.NewOutbox(postgres.Store(behind), outlast.OutboxConfig{WakeUps: true}))
		eventually(t, "the relay was woken", sent(t, direct))
	})
}
