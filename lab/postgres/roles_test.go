package postgres_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/outlasttest"
	"github.com/outlastmq/outlast/postgres"
)

// logins are a database whose tables belong to the owner role, and a way to log in as
// any of the roles.
type logins struct {
	t       testing.TB
	admin   *sql.DB
	address string
	service string
	opts    []postgres.Option
}

// withRoles makes the tables and the roles as docs/security.md tells it: migrate, then
// the printed SQL.
func withRoles(t testing.TB, opts ...postgres.Option) *logins {
	t.Helper()
	l := &logins{t: t, address: servers.Database(t), opts: opts}
	l.service = "s" + strings.ReplaceAll(outlast.NewID(), "-", "")[16:]
	l.admin = openURL(t, l.address)
	must(t, postgres.Store(l.admin, opts...).Migrations().Up(t.Context(), 0))
	l.print(l.admin)
	t.Cleanup(l.drop)
	return l
}

var roleNames = []string{"owner", "app", "canceller", "relay", "consumer", "viewer", "operator"}

func (l *logins) drop() {
	ctx := context.Background()
	for _, name := range append(slices.Clone(roleNames), "login") {
		role := l.service + "_" + name
		_ = exec(ctx, l.admin, "DROP OWNED BY "+role+" CASCADE")
		_ = exec(ctx, l.admin, "DROP ROLE IF EXISTS "+role)
	}
	rows, err := l.admin.QueryContext(ctx, "SELECT rolname FROM pg_roles WHERE rolname LIKE $1", l.service+"%")
	must(l.t, err)
	defer rows.Close()
	if rows.Next() {
		l.t.Error("roles are left behind")
	}
}

func (l *logins) print(db *sql.DB) {
	l.t.Helper()
	var b bytes.Buffer
	must(l.t, postgres.PrintRoles(&b, l.service, l.opts...))
	must(l.t, exec(l.t.Context(), db, b.String()))
}

// as opens a pool whose sessions have the rights of the roles and no others.
func (l *logins) as(roles ...string) *sql.DB {
	l.t.Helper()
	login := l.service + "_login_" + strings.Join(roles, "_")
	if len(login) > 63 {
		l.t.Fatal("too long")
	}
	must(l.t, exec(l.t.Context(), l.admin, "CREATE ROLE "+login+" LOGIN"))
	for _, r := range roles {
		must(l.t, exec(l.t.Context(), l.admin, "GRANT "+l.service+"_"+r+" TO "+login))
	}
	if roles[0] == "owner" {
		must(l.t, exec(l.t.Context(), l.admin, "ALTER ROLE "+login+" SET role = '"+l.service+"_owner'"))
	}
	l.t.Cleanup(func() { _ = exec(context.Background(), l.admin, "DROP ROLE "+login) })
	u, err := url.Parse(l.address)
	must(l.t, err)
	u.User = url.User(login)
	return openURL(l.t, u.String(), postgres.MaxConns(10))
}

func (l *logins) store(db *sql.DB) outlast.Store {
	return postgres.Store(db, append(slices.Clone(l.opts), postgres.SettledMargin(time.Second))...)
}

// sharedOut is one store whose parts each work in another role.
type sharedOut struct {
	outlast.Store
	app, relay, consumer, operator, owner outlast.Store
	print                                 func()
}

func (s sharedOut) Outbox() outlast.OutboxStore     { return s.app.Outbox() }
func (s sharedOut) Relay() outlast.RelayStore       { return s.relay.Relay() }
func (s sharedOut) Leases() outlast.LeaseStore      { return s.relay.Leases() }
func (s sharedOut) Inbox() outlast.InboxStore       { return s.consumer.Inbox() }
func (s sharedOut) Operator() outlast.OperatorStore { return s.operator.Operator() }
func (s sharedOut) Journal() outlast.JournalStore   { return s.owner.Journal() }
func (s sharedOut) Books() outlast.BookStore        { return sharedBooks{s.relay.Books(), s.operator.Books()} }
func (s sharedOut) Migrations() outlast.Migrator {
	return printing{s.owner.Migrations(), s.print}
}

// sharedBooks are kept by the relay, and acted on by the operator.
type sharedBooks struct {
	outlast.BookStore
	operator outlast.BookStore
}

func (b sharedBooks) SignOff(ctx context.Context, minutes []time.Time, by outlast.Action) (int, error) {
	return b.operator.SignOff(ctx, minutes, by)
}

func (b sharedBooks) Reopen(ctx context.Context, since, until time.Time, by outlast.Action) (int, error) {
	return b.operator.Reopen(ctx, since, until, by)
}

func (b sharedBooks) Resend(ctx context.Context, ids []string, by outlast.Action) (outlast.Resent, error) {
	return b.operator.Resend(ctx, ids, by)
}

// printing gives the roles their rights after every migration.
type printing struct {
	outlast.Migrator
	print func()
}

func (p printing) Up(ctx context.Context, to int) error {
	err := p.Migrator.Up(ctx, to)
	if err == nil && (to == 0 || to == p.Latest()) {
		p.print()
	}
	return err
}

// TestS29_StoreAsItsRoles is the suite in the way that Open sends statements, with each
// part of the store in the role for its work: every role may do all of it.
func TestS29_StoreAsItsRoles(t *testing.T) {
	t.Parallel()
	outlasttest.Store(t, func(t *testing.T) outlasttest.StoreUnderTest {
		l := withRoles(t, postgres.Schema("shop"), postgres.Prefix("box_"))
		app, owner := l.as("app", "canceller"), l.as("owner")
		s := sharedOut{app: l.store(app), relay: l.store(l.as("relay")), consumer: l.store(l.as("consumer")),
			operator: l.store(l.as("operator")), owner: l.store(owner), print: func() { l.print(owner) }}
		s.Store = s.relay
		return outlasttest.StoreUnderTest{
			Store: s, ConcurrentWriters: true,
			Begin: func(ctx context.Context) (outlasttest.ProducerTx, error) { return app.BeginTx(ctx, nil) },
		}
	})
}

// TestS29_RolesAreRefusedTheWorkOfOthers goes through what each role must not do.
func TestS29_RolesAreRefusedTheWorkOfOthers(t *testing.T) {
	t.Parallel()
	l := withRoles(t)
	for role, c := range map[string]struct {
		may    []string // of Store.May
		denied []string
	}{
		"app": {[]string{"app"}, []string{
			"SELECT type FROM outlast_outbox", "DELETE FROM outlast_outbox", "UPDATE outlast_outbox SET body = ''",
			"INSERT INTO outlast_outbox (type, body, seq) VALUES ('a.v1', '', 1)",
			"INSERT INTO outlast_outbox (type, body, enqueued_at) VALUES ('a.v1', '', now())",
			"SELECT id FROM outlast_held", "DELETE FROM outlast_held", "SELECT grp FROM outlast_inbox", "DELETE FROM outlast_dead",
			"SELECT setval('outlast_seq', 1)", "SELECT last_value FROM outlast_seq", "INSERT INTO outlast_meta VALUES ('source', 'x')",
			"CREATE TABLE public.mine (x int)", "DROP TABLE outlast_meta",
		}},
		"canceller": {[]string{"canceller"}, []string{
			"SELECT body FROM outlast_held", "UPDATE outlast_held SET reason = 'due'", "DELETE FROM outlast_outbox",
		}},
		"relay": {[]string{"canceller", "relay"}, []string{
			"INSERT INTO outlast_inbox (grp, source, id, hash, enqueued_at) VALUES ('g', 's', 'i', 1, now())", "SELECT id FROM outlast_inbox",
			"UPDATE outlast_outbox SET body = ''", "UPDATE outlast_held SET body = ''", "SELECT body FROM outlast_dead",
			"SELECT envelope FROM outlast_retry", "DELETE FROM outlast_retry", "DELETE FROM outlast_dead", "INSERT INTO outlast_group (grp, paused, who) VALUES ('g', true, 'x')",
			"UPDATE outlast_meta SET value = 'other'", "INSERT INTO outlast_outbox (type, body, seq) VALUES ('a.v1', '', 1)", "DROP TABLE outlast_outbox",
		}},
		"consumer": {[]string{"app", "consumer"}, []string{
			"SELECT body FROM outlast_outbox", "DELETE FROM outlast_outbox", "SELECT body FROM outlast_held", "DELETE FROM outlast_held",
			"UPDATE outlast_inbox SET grp = 'x'", "UPDATE outlast_dead SET body = ''", "DELETE FROM outlast_dead",
			"INSERT INTO outlast_group (grp, paused, who) VALUES ('g', true, 'x')", "INSERT INTO outlast_meta VALUES ('source', 'x')",
		}},
		"viewer": {[]string{"viewer"}, []string{
			"DELETE FROM outlast_outbox", "INSERT INTO outlast_outbox (type, body) VALUES ('a.v1', '')", "UPDATE outlast_held SET reason = 'backoff'",
			"DELETE FROM outlast_dead", "INSERT INTO outlast_group (grp, paused, who) VALUES ('g', true, 'x')", "INSERT INTO outlast_action (who, what, target, count) VALUES ('', '', '', 1)",
		}},
		"operator": {[]string{"canceller", "viewer", "operator"}, []string{
			"UPDATE outlast_outbox SET body = ''", "UPDATE outlast_held SET body = ''",
			"UPDATE outlast_action SET who = 'nobody'", "DELETE FROM outlast_action", "DELETE FROM outlast_inbox", "DROP TABLE outlast_dead",
		}},
	} {
		db := l.as(role)
		may, err := postgres.Store(db).(interface {
			May(context.Context) ([]string, error)
		}).May(t.Context())
		if err != nil || !slices.Equal(may, c.may) {
			t.Errorf("%s may do the work of %q, want %q: %v", role, may, c.may, err)
		}
		for _, sql := range c.denied {
			var pg *pgconn.PgError
			if err := exec(t.Context(), db, sql); !errors.As(err, &pg) || pg.Code != "42501" {
				t.Errorf("%s: %s: %v, want it refused", role, sql, err)
			}
		}
	}
	err := l.store(l.as("consumer", "app")).Relay().Identify(t.Context(), "orders")
	if outlast.CodeOf(err) != outlast.CodeDenied {
		t.Errorf("a consumer that relays: %v", err)
	}
}

// TestS29_TheOwnerMigratesAndPrintsAgain: after the first time no superuser is needed.
func TestS29_TheOwnerMigratesAndPrintsAgain(t *testing.T) {
	t.Parallel()
	l := withRoles(t)
	must(t, exec(t.Context(), l.admin, "GRANT DELETE ON outlast_outbox TO "+l.service+"_app"))
	owner := l.as("owner")
	l.print(owner)
	if err := exec(t.Context(), l.as("app"), "DELETE FROM outlast_outbox"); err == nil {
		t.Error("a right that is not among the printed ones is still there")
	}
	must(t, l.store(owner).Migrations().Down(t.Context(), 0))
	must(t, l.store(owner).Migrations().Up(t.Context(), 0))
	l.print(owner)
	must(t, l.store(l.as("relay")).Check(t.Context()))
}

// TestS29_EveryTableHasRights: a table that a migration adds needs rights for its roles.
func TestS29_EveryTableHasRights(t *testing.T) {
	t.Parallel()
	l := withRoles(t)
	rows, err := l.admin.QueryContext(t.Context(), `
		SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
			AND NOT c.relispartition AND pg_get_userbyid(c.relowner) <> $1`, l.service+"_owner")
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		must(t, rows.Scan(&name))
		t.Errorf("%s: no role has rights on it: add it to postgres/roles.go", name)
	}
	must(t, rows.Err())
}

// TestS01_S29_RolesTakeOnlyPlainNames: what is printed is run by a superuser.
func TestS01_S29_RolesTakeOnlyPlainNames(t *testing.T) {
	t.Parallel()
	for _, service := range []string{"", "Orders", "a-b", "x; DROP TABLE y", `x"`, "x'", strings.Repeat("x", 25), "1x", "x\n"} {
		var b bytes.Buffer
		if err := postgres.PrintRoles(&b, service); outlast.CodeOf(err) != outlast.CodeInvalid || b.Len() > 0 {
			t.Errorf("%q: %v, %d bytes printed", service, err, b.Len())
		}
	}
	if err := postgres.PrintRoles(&bytes.Buffer{}, "orders", postgres.Schema("a.b"), postgres.Prefix("'")); err == nil ||
		!strings.Contains(err.Error(), "schema") || !strings.Contains(err.Error(), "prefix") {
		t.Errorf("%v, want both fields named", err)
	}
}
