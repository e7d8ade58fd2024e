package badinput

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
)

const secret = "correct-horse-battery"

// list runs a list command and decodes what it prints.
func list(t *testing.T, w *rig.World, args ...string) (items []outlast.Item) {
	t.Helper()
	code, out, errs := w.Try(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &items); code != 0 || err != nil {
		t.Fatalf("outlast %q: exit code %d, %v\n%s%s", args, code, err, out, errs)
	}
	return items
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	w := rig.Bare(t, servers.SharedPostgres(t).URL(), servers.SharedRabbitMQ(t).URL())
	for name, c := range map[string]struct {
		database, broker    string
		command             []string
		field, limit, given string
	}{
		"database of an unknown scheme": {"mysql://app:" + secret + "@db/orders", w.Broker, []string{"status"}, "OUTLAST_DATABASE_URL", "postgres, postgresql, sqlite", "mysql://..."},
		"broker of an unknown scheme":   {w.Database, "kafka://app:" + secret + "@mq", []string{"relay", "--source", "orders"}, "OUTLAST_BROKER_URL", "amqp, amqps, nats, tls, embedded", "kafka://..."},
		"broker as the database":        {"amqp://app:" + secret + "@mq", w.Broker, []string{"status"}, "OUTLAST_DATABASE_URL", "postgres", "amqp://..."},
		"no scheme":                     {"app:" + secret + "@db/orders", w.Broker, []string{"publish", "--type", "a.v1", "--body", "1"}, "OUTLAST_DATABASE_URL", "postgres", "without a known scheme"},
		"unescaped password":            {w.Database, "amqp://app:" + secret + "/%@mq", []string{"topology", "apply", "--group", "g", "--handles", "a.v1"}, "OUTLAST_BROKER_URL", "amqps://", "percent-encoded"},
		"unknown parameter":             {w.Database, "amqp://app:" + secret + "@127.0.0.1/?fast=1", []string{"relay", "--source", "orders"}, "fast", "heartbeat", "another name"},
		"no database":                   {"", w.Broker, []string{"status"}, "--database", "a URL like", "not given"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := *w.With(c.database, c.broker, secret)
			at.T = t
			p := at.Fails(2, c.command...)
			if p.Code != outlast.CodeInvalid || len(p.Fields) != 1 {
				t.Fatalf("%+v, want one bad field", p)
			}
			f := p.Fields[0]
			if name == "unknown parameter" { // the adapter names the whole address
				contains(t, p.Text, c.limit, c.given)
				return
			}
			contains(t, f.Field, c.field)
			contains(t, f.Limit, c.limit)
			contains(t, f.Given, c.given)
		})
	}
}

// passwords starts a PostgreSQL server that asks the role "app" for its password.
func passwords(t *testing.T) *rig.World {
	t.Helper()
	server, err := servers.Postgres(t.Context(), servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	conn, err := pgx.Connect(t.Context(), server.URL())
	must(t, err)
	defer conn.Close(t.Context())
	var hba string
	must(t, conn.QueryRow(t.Context(), "SHOW hba_file").Scan(&hba))
	for _, sql := range []string{
		"COPY (VALUES ('host all outlast 127.0.0.1/32 trust'), ('host all all 127.0.0.1/32 scram-sha-256')) TO '" + hba + "'",
		"SELECT pg_reload_conf()",
		"CREATE ROLE app LOGIN PASSWORD '" + secret + "'",
	} {
		_, err := conn.Exec(t.Context(), sql)
		must(t, err)
	}
	database, err := server.NewDatabase(t.Context())
	must(t, err)
	return rig.New(t, database, servers.NewVHost(t).URL())
}

func TestPostgresRefusesTheLoginOrTheRole(t *testing.T) {
	t.Parallel()
	w := passwords(t)
	w.Fill(1, 1)
	commands := map[string][]string{
		"relay":   {"relay", "--source", "orders"},
		"publish": {"publish", "--type", "order.placed.v1", "--body", "{}"},
		"status":  {"status"},
		"list":    {"outbox", "list"},
	}
	for name, args := range commands {
		wrong := w.With(as(t, w.Database, "app", "wrong-"+secret), w.Broker, secret)
		p := wrong.Fails(1, args...)
		if p.Code != outlast.CodeDenied || !strings.Contains(p.Hint, "password") || !strings.Contains(p.Text, "app") {
			t.Errorf("%s with a wrong password: %+v", name, p)
		}
		poor := w.With(as(t, w.Database, "app", secret), w.Broker, secret)
		p = poor.Fails(1, args...)
		if p.Code != outlast.CodeDenied || !strings.Contains(p.Hint, "grant") || !strings.Contains(p.Text, "outlast_") && !strings.Contains(p.Text, "outbox") {
			t.Errorf("%s without rights: %+v", name, p)
		}
	}
	if waiting := w.Waiting(); waiting != 1 {
		t.Errorf("%d messages wait, want the one of before", waiting)
	}
	w.Exec("GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app")
	w.With(as(t, w.Database, "app", secret), w.Broker, secret).Run("publish", "--type", "order.placed.v1", "--body", "{}")
}

func TestTheBrokerRefusesTheLogin(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	w.Bind("reader")
	wrong := w.With(w.Database, as(t, w.Broker, "guest", secret), secret)
	p := wrong.Fails(1, "topology", "apply", "--group", "other", "--handles", "order.placed.v1")
	if p.Code != outlast.CodeDenied || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	w.Fill(10, 10)
	relay := wrong.Relay("--report-interval", "1s")
	w.Eventually("the relay tells that the login is refused", func() bool {
		return strings.Contains(relay.Log(), "ACCESS_REFUSED") || strings.Contains(relay.Log(), "username or password")
	})
	relay.End()
	if waiting := w.Waiting(); waiting != 10 {
		t.Errorf("%d messages wait, want 10", waiting)
	}
	w.Relay()
	w.Eventually("they are sent with the right password", func() bool { return w.Waiting() == 0 })
	rig.Drain(t, rig.Channel(t, w.Broker), "reader.0", 10)
}

func TestTheBrokerRefusesTheRights(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	w.Bind("reader")
	vhost := w.Broker[strings.LastIndexByte(w.Broker, '/')+1:]
	rabbit := servers.SharedRabbitMQ(t)
	user := "poor-" + vhost
	ctl := func(args ...string) {
		t.Helper()
		_, err := rabbit.Ctl(t.Context(), args...)
		must(t, err)
	}
	ctl("add_user", user, secret)
	ctl("set_permissions", "--vhost", vhost, user, "^$", "^$", "^$")
	poor := w.With(w.Database, as(t, w.Broker, user, secret), secret)
	p := poor.Fails(1, "topology", "apply", "--group", "other", "--handles", "order.placed.v1")
	if p.Code != outlast.CodeDenied || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	w.Fill(10, 10)
	poor.Relay()
	w.Eventually("all are held, with the broker's reason", func() bool {
		return w.Number("SELECT count(*) FROM outlast_held WHERE reason = 'route' AND error LIKE '%ACCESS_REFUSED%'") == 10
	})
	contains(t, w.Run("outbox", "list", "--why", "route"), "ACCESS_REFUSED", "order.placed.v1")
	ctl("set_permissions", "--vhost", vhost, user, "^$", ".*", ".*")
	w.Eventually("they are sent by themselves when the right is there", func() bool { return w.Waiting() == 0 })
	rig.Drain(t, rig.Channel(t, w.Broker), "reader.0", 10)
}

func TestTablesOfAnotherVersion(t *testing.T) {
	t.Parallel()
	commands := map[string][]string{
		"relay":  {"relay", "--source", "orders"},
		"doctor": {"doctor"},
		"status": {"status"},
		"write":  {"publish", "--type", "order.placed.v1", "--body", "{}"},
	}
	for name, c := range map[string]struct {
		prepare  func(w *rig.World)
		commands []string
		text     []string
		hint     string
	}{
		"missing": {func(*rig.World) {}, []string{"relay", "status", "write"}, nil, "migrate up"},
		"older":   {func(w *rig.World) { w.Run("migrate", "up"); w.Exec("DELETE FROM outlast_migrations") }, []string{"relay"}, []string{"version 0", "needs version"}, "migrate up"},
		"newer": {func(w *rig.World) {
			w.Run("migrate", "up")
			w.Exec("INSERT INTO outlast_migrations (version) VALUES (9999)")
			w.Exec("INSERT INTO outlast_meta (key, value) VALUES ('needs', '9999')")
		}, []string{"relay"}, []string{"version 9999", "needs version"}, "newer build"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := rig.Bare(t, servers.Database(t), servers.NewVHost(t).URL())
			c.prepare(w)
			for _, command := range c.commands {
				p := w.Fails(1, commands[command]...)
				if p.Code != outlast.CodeSchema || !strings.Contains(p.Hint, c.hint) {
					t.Errorf("%s: %+v", command, p)
				}
				contains(t, p.Text, c.text...)
			}
			if code, out, errs := w.Try(commands["doctor"]...); code != 1 || !strings.Contains(out+errs, c.hint) {
				t.Errorf("doctor: exit code %d:\n%s%s", code, out, errs)
			}
			if name == "newer" {
				if p := w.Fails(1, "migrate", "up"); p.Code != outlast.CodeSchema || !strings.Contains(p.Hint, c.hint) {
					t.Errorf("migrate up: %+v", p)
				}
			}
		})
	}
}
