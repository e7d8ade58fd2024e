package chain

import (
	"context"
	"database/sql"
	"encoding/json"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

type placed struct {
	OrderID string `json:"order_id" outlast:"key"`
	Card    string `json:"card"`
}

// What must not be in any log: a body, and the password of the accounts.
const plantedBody, plantedPassword = "4111-1111-planted", "hunter2-planted"

var (
	orderPlaced = outlast.Event[placed]("order.placed", 1)
	invoiceSent = outlast.Event[placed]("invoice.sent", 1)
)

// tenant is one service with a database role and a broker account of its own, with the
// rights that the program printed for them.
type tenant struct {
	name   string
	db     *sql.DB
	broker string
	log    *output // everything that the service logs
}

// newTenant makes database and accounts the way docs/security.md says.
func newTenant(t *testing.T, vhost *servers.VHost, name string, roles []string, permissions ...string) *tenant {
	t.Helper()
	w := newWorld(t, servers.Database(t), vhost.URL())
	service := name + "_" + strings.ToLower(outlast.NewID()[28:])
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	admin := func(text string) {
		t.Helper()
		_, err := w.db.ExecContext(t.Context(), text)
		must(err)
	}
	admin("DELETE FROM outlast_meta") // newWorld made it the outbox of orders
	admin(w.run("migrate", "print", "--roles", "--service", service))
	login := service + "_login"
	admin("CREATE ROLE " + login + " LOGIN")
	for _, r := range roles {
		admin("GRANT " + service + "_" + r + " TO " + login)
	}
	admin("CREATE TABLE done (id text PRIMARY KEY); GRANT INSERT, SELECT ON done TO " + login)
	t.Cleanup(func() {
		for _, r := range []string{"login", "owner", "app", "canceller", "relay", "consumer", "viewer", "operator"} {
			_, _ = w.db.ExecContext(context.Background(), "DROP OWNED BY "+service+"_"+r+" CASCADE")
			_, err := w.db.ExecContext(context.Background(), "DROP ROLE "+service+"_"+r)
			if err != nil {
				t.Error(err)
			}
		}
	})
	address, err := url.Parse(w.database)
	must(err)
	address.User = url.User(login)
	db, err := postgres.Open(t.Context(), address.String())
	must(err)
	t.Cleanup(func() { _ = db.Close() })

	var p rabbitmq.Permissions
	must(json.Unmarshal([]byte(w.run(append([]string{"topology", "permissions", "--json", "--service", name, "--user", service, "--vhost", vhost.Name()}, permissions...)...)), &p))
	rabbit := servers.SharedRabbitMQ(t)
	ctl := func(args ...string) {
		t.Helper()
		_, err := rabbit.Ctl(t.Context(), args...)
		must(err)
	}
	ctl("add_user", service, plantedPassword)
	for _, x := range p.Permissions {
		ctl("set_permissions", "--vhost", x.VHost, x.User, x.Configure, x.Write, x.Read)
	}
	for _, x := range p.Topics {
		ctl("set_topic_permissions", "--vhost", x.VHost, x.User, x.Exchange, x.Write, x.Read)
	}
	b, err := url.Parse(vhost.URL())
	must(err)
	b.User = url.UserPassword(service, plantedPassword)
	return &tenant{name: name, db: db, broker: b.String(), log: &output{}}
}

// run runs the service until the test ends.
func (n *tenant) run(t *testing.T, handlers ...outlast.Handler) *outlast.Service {
	t.Helper()
	log := slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := outlast.NewService(outlast.ServiceConfig{Name: n.name, Store: postgres.Store(n.db),
		Broker: rabbitmq.Broker(n.broker, rabbitmq.Logger(log)), Handlers: handlers, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (n *tenant) publish(t *testing.T, s *outlast.Service, m outlast.Message) {
	t.Helper()
	tx, err := n.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := s.Outbox().Publish(t.Context(), tx, m); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// until waits for a number that a query gives.
func until(t *testing.T, db *sql.DB, query string, want int) {
	t.Helper()
	got := -1
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := db.QueryRowContext(t.Context(), query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got == want {
			return
		}
	}
	t.Fatalf("%s: %d, want %d", query, got, want)
}

// TestS16_S24_S28_S29_TheChainRunsWithLeastRights: two services, each with a database role and an
// account that may do its own work and nothing else; and what is not its work is refused.
func TestS16_S24_S28_S29_TheChainRunsWithLeastRights(t *testing.T) {
	t.Parallel()
	vhost := servers.NewVHost(t)
	err := rabbitmq.Broker(vhost.URL()).Topology().Apply(t.Context(), outlast.Topology{
		Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}, {Name: outlast.CommandExchange}},
		Groups:    []outlast.GroupTopology{{Group: "invoices", Partitions: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "invoice.sent.v1"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	orders := newTenant(t, vhost, "orders", []string{"app", "relay"}, "--publishes", "order.placed.v1")
	billing := newTenant(t, vhost, "billing", []string{"consumer", "relay"}, "--group", "billing", "--handles", "order.placed.v1", "--ordered", "--publishes", "invoice.sent.v1")

	invoices := outlast.NewOutbox(postgres.Store(billing.db), outlast.OutboxConfig{})
	handle := func(ctx context.Context, tx outlast.Tx, m outlast.Received[placed]) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO done (id) VALUES ($1)", m.Body.OrderID); err != nil {
			return err
		}
		if m.Body.OrderID == "poison" {
			return outlast.DeadLetter(sql.ErrNoRows)
		}
		return invoices.Publish(ctx, tx, invoiceSent.Message(m.Body))
	}
	billing.run(t, outlast.Handle(orderPlaced, handle))
	s := orders.run(t)
	for _, id := range []string{"a", "b", "poison", "c"} {
		orders.publish(t, s, orderPlaced.Message(placed{OrderID: id, Card: plantedBody}))
	}
	until(t, billing.db, "SELECT count(*) FROM done", 3)
	until(t, billing.db, "SELECT count(*) FROM outlast_dead", 1)

	// The invoices are billing's to send, not orders'.
	queue := func() int {
		depth, err := rabbitmq.Broker(vhost.URL()).Topology().Depth(t.Context(), "invoices.0")
		if err != nil {
			t.Fatal(err)
		}
		return depth.Messages
	}
	for deadline := time.Now().Add(time.Minute); queue() < 3 && time.Now().Before(deadline); {
	}
	orders.publish(t, s, invoiceSent.Message(placed{OrderID: "forged", Card: plantedBody}))
	orders.publish(t, s, orderPlaced.Message(placed{OrderID: "d"}))
	until(t, billing.db, "SELECT count(*) FROM done", 4)
	until(t, orders.db, "SELECT count(*) FROM outlast_held WHERE type = 'invoice.sent.v1' AND error LIKE '%ACCESS_REFUSED%'", 1)
	for deadline := time.Now().Add(time.Minute); queue() < 4 && time.Now().Before(deadline); {
	}
	if n := queue(); n != 4 {
		t.Errorf("%d invoices, want billing's 4 and not the forged one", n)
	}
	for _, n := range []*tenant{orders, billing} {
		n.mustNotReachOthers(t)
		if log := n.log.String(); log == "" || strings.Contains(log, plantedBody) || strings.Contains(log, plantedPassword) {
			t.Errorf("%s logged: %s", n.name, log)
		}
	}
}

// mustNotReachOthers: neither by the default exchange, as an address for replies would
// (S16), nor by reading, binding or removing what is not its own.
func (n *tenant) mustNotReachOthers(t *testing.T) {
	t.Helper()
	for what, do := range map[string]func(ch *amqp.Channel) error{
		"publish by the default exchange": func(ch *amqp.Channel) error {
			if err := ch.Confirm(false); err != nil {
				return err
			}
			c, err := ch.PublishWithDeferredConfirm("", "invoices.0", false, false, amqp.Publishing{Body: []byte("x")})
			if err == nil && !c.Wait() {
				err = amqp.ErrClosed
			}
			return err
		},
		"get": func(ch *amqp.Channel) error { _, _, err := ch.Get("invoices.0", true); return err },
		"bind to a type of others": func(ch *amqp.Channel) error {
			return ch.QueueBind(n.name+".0", "card.charged.v1.*", outlast.EventExchange, false, nil)
		},
		"bind to everything": func(ch *amqp.Channel) error {
			return ch.QueueBind(n.name+".0", "#", outlast.EventExchange, false, nil)
		},
		"remove an exchange": func(ch *amqp.Channel) error { return ch.ExchangeDelete(outlast.EventExchange, false, false) },
		"remove a queue":     func(ch *amqp.Channel) error { _, err := ch.QueueDelete("invoices.0", false, false, false); return err },
		"declare a queue": func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("mine", true, false, false, false, nil)
			return err
		},
	} {
		conn, err := amqp.Dial(n.broker)
		if err != nil {
			t.Fatal(err)
		}
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if err := do(ch); err == nil {
			t.Errorf("%s may %s", n.name, what)
		}
		_ = conn.Close()
	}
}
