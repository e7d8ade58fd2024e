package storm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/lab/network"
	"github.com/outlastmq/outlast/lab/proxy"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/lab/storm/role"
	"github.com/outlastmq/outlast/outlasttest/history"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

// stage is the servers, the processes, and every way between them.
type stage struct {
	config   Config
	timeline *fault.Timeline
	postgres pair
	rabbit   *servers.RabbitCluster
	// bouncers are in front of each server of the pair; none where PgBouncer is missing.
	bouncers []*servers.Bouncer
	away     sync.Map // those that a fault has killed
	replayed sync.Map // group and id of dead letters that an operator has brought back
	// databases are the services' own, by name, reached directly.
	databases map[string]*sql.DB
	addresses map[string]string
	cast      map[string]*member
	names     []string // of the cast, in order

	// net is nil on loopback.
	net   *network.Net
	hosts map[string]*network.Host

	history *history.Recorder // nil: none
	ledBy   map[string]string // the nodes that led the queues at first, by queue

	mu    sync.Mutex
	links map[link][]*proxy.Proxy
	gaps  []gap
}

// link is the way from a process to a server.
type link struct{ process, server string }

func (l link) String() string { return l.process + " - " + l.server }

// databaseNames are those of the services.
var databaseNames = []string{"orders", "billing", "audit"}

// raise starts the servers, makes the tables, and describes the processes.
func raise(ctx context.Context, c Config, t *fault.Timeline) (_ *stage, err error) {
	s := &stage{config: c, timeline: t, databases: map[string]*sql.DB{}, addresses: map[string]string{},
		cast: map[string]*member{}, hosts: map[string]*network.Host{}, links: map[link][]*proxy.Proxy{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.openHistory(); err != nil {
		return nil, err
	}
	if err := s.lay(); err != nil {
		return nil, err
	}
	if s.postgres.servers[0], err = servers.Postgres(ctx, s.postgresConfig(0)); err != nil {
		return nil, err
	}
	rabbit := servers.RabbitConfig{Nodes: c.Nodes, NetTick: netTick, Config: "cluster_partition_handling = pause_minority"}
	if c.Namespaces {
		for i := range c.Nodes {
			rabbit.Hosts = append(rabbit.Hosts, s.host(nodeName(i)))
		}
	}
	if s.rabbit, err = servers.RabbitMQ(ctx, rabbit); err != nil {
		return nil, err
	}
	for _, name := range databaseNames {
		if s.addresses[name], err = s.postgres.servers[0].NewDatabase(ctx); err != nil {
			return nil, err
		}
	}
	if s.postgres.servers[1], err = s.postgres.servers[0].Standby(ctx, s.postgresConfig(1)); err != nil {
		return nil, err
	}
	if err := s.postgres.follow(ctx); err != nil {
		return nil, err
	}
	if err := s.raiseBouncers(ctx); err != nil {
		return nil, err
	}
	for _, name := range databaseNames {
		if err := s.prepare(ctx, name); err != nil {
			return nil, err
		}
	}
	for _, spec := range s.specs() {
		if err := s.addMember(spec); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// lay makes the network, with a host for each server and each process.
func (s *stage) lay() (err error) {
	if !s.config.Namespaces {
		return nil
	}
	if s.net, err = network.New(); err != nil {
		return err
	}
	names := []string{postgresName(0), postgresName(1), bouncerName(0), bouncerName(1)}
	for i := range s.config.Nodes {
		names = append(names, nodeName(i))
	}
	for _, spec := range s.specs() {
		names = append(names, spec.Name)
	}
	for _, name := range names {
		if s.hosts[name], err = s.net.Host(name); err != nil {
			return err
		}
	}
	return nil
}

// host is where a server or a process runs; the zero value is loopback.
func (s *stage) host(name string) servers.Host {
	h := s.hosts[name]
	if h == nil {
		return servers.Host{}
	}
	return servers.Host{IP: h.IP(), Enter: h.Enter}
}

func (s *stage) postgresConfig(i int) servers.PostgresConfig {
	return servers.PostgresConfig{NoSync: true, Host: s.host(postgresName(i)), OwnClock: servers.LacksClock() == "", OwnDisk: s.net != nil}
}

func postgresName(i int) string { return fmt.Sprintf("postgres%d", i+1) }

// prepare makes one service's database.
func (s *stage) prepare(ctx context.Context, name string) error {
	s.addresses[name] = servers.JoinURLs(s.addresses[name], s.postgres.servers[0], s.postgres.servers[1])
	db, err := postgres.Open(ctx, s.addresses[name], postgres.AllowPlain(), postgres.MaxConns(4), postgres.ApplicationName("lab"), postgres.Logger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	s.databases[name] = db
	return role.Prepare(ctx, db)
}

// specs are the processes: two of everything that may be shared.
func (s *stage) specs() []role.Spec {
	var specs []role.Spec
	add := func(n int, service string, spec role.Spec) {
		for i := range n {
			each := spec
			each.Name, each.Service = fmt.Sprintf("%s-%d", spec.Role, i+1), service
			each.Trouble, each.ConsumerBatch = s.config.Trouble, s.config.Batch
			specs = append(specs, each)
		}
	}
	producer := role.Spec{Role: "producer", Rate: s.config.Rate / 2, Batch: 8}
	if s.config.Messages > 0 {
		producer.Last = (s.config.Messages + 1) / 2
	}
	add(2, "orders", producer)
	add(2, "orders", role.Spec{Role: "relay"})
	add(2, "billing", role.Spec{Role: "billing"})
	add(2, "audit", role.Spec{Role: "audit"})
	add(1, "orders", role.Spec{Role: "orders"})
	if s.hasLate() {
		add(1, "audit", role.Spec{Role: "late"})
	}
	return specs
}

// groupTopology is what a group needs of the broker.
func groupTopology(group string) outlast.GroupTopology {
	g := outlast.GroupTopology{Group: group, Partitions: role.Partitions, Generation: 1, Ordered: true}
	for _, typ := range role.Hears[group] {
		g.Bindings = append(g.Bindings, outlast.Binding{Exchange: outlast.EventExchange, Type: typ})
	}
	return g
}

// groups are the names of all groups in order.
func (s *stage) groups() []string {
	if s.hasLate() {
		return []string{"audit", "billing", "late", "orders"}
	}
	return []string{"audit", "billing", "orders"}
}

// database is the one of a group's service.
func (s *stage) database(group string) string {
	if group == late {
		return "audit"
	}
	return group
}

// applyTopology is what an operator would do: everything is declared that is missing.
func (s *stage) applyTopology(ctx context.Context) error {
	t := outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}, {Name: outlast.CommandExchange}}}
	for _, group := range s.bound() {
		t.Groups = append(t.Groups, groupTopology(group))
	}
	return s.broker().Topology().Apply(ctx, t)
}

// broker reaches all nodes directly.
func (s *stage) broker() outlast.Broker {
	return rabbitmq.Broker(strings.Join(s.rabbit.URLs(), ","), rabbitmq.AllowPlain(), rabbitmq.Logger(slog.New(slog.DiscardHandler)))
}

// through makes proxies from a process to every server and returns the addresses by which
// the process reaches them.
func (s *stage) through(process, database string) (databaseURL, brokerURLs string, err error) {
	// Both servers of the pair are behind one link: the network does not know which is which.
	for i, server := range s.postgres.servers {
		host := servers.HostOf(server.URL())
		if pooled[process] && len(s.bouncers) > 0 {
			behind := servers.HostOf(s.bouncers[i].URL())
			database = strings.Replace(database, host, behind, 1)
			host = behind
		}
		near, err := s.via(link{process, "postgres"}, host)
		if err != nil {
			return "", "", err
		}
		database = strings.Replace(database, host, near, 1)
	}
	var nodes []string
	for i, node := range s.rabbit.URLs() {
		u, err := url.Parse(node)
		if err != nil {
			return "", "", err
		}
		if u.Host, err = s.via(link{process, nodeName(i)}, u.Host); err != nil {
			return "", "", err
		}
		nodes = append(nodes, u.String())
	}
	return database, strings.Join(nodes, ","), nil
}

// pooled are the processes whose database is behind PgBouncer.
var pooled = map[string]bool{"producer-1": true, "relay-1": true, "audit-1": true, "billing-2": true}

func bouncerName(i int) string { return fmt.Sprintf("pgbouncer%d", i+1) }

func (s *stage) raiseBouncers(ctx context.Context) error {
	if servers.LacksBouncer() != "" {
		return nil
	}
	for i, server := range s.postgres.servers {
		b, err := servers.PgBouncer(ctx, server, s.host(bouncerName(i)))
		if err != nil {
			return err
		}
		s.bouncers = append(s.bouncers, b)
	}
	return nil
}

func nodeName(i int) string { return fmt.Sprintf("rabbit%d", i+1) }

func (s *stage) via(l link, target string) (string, error) {
	if s.direct(l.process) {
		return target, nil
	}
	ip := "127.0.0.1"
	if s.net != nil {
		ip = s.net.Hub()
	}
	p, err := proxy.NewOn(ip, target)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[l] = append(s.links[l], p)
	return p.Address(), nil
}

// direct reports whether a process speaks to the servers without a proxy: the second one of
// each role, where the network itself can be broken.
func (s *stage) direct(process string) bool {
	return s.net != nil && strings.HasSuffix(process, "-2")
}

// restoreLinks ends every fault of the network.
func (s *stage) restoreLinks() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, proxies := range s.links {
		for _, p := range proxies {
			errs = append(errs, p.Restore())
		}
	}
	if s.net != nil {
		errs = append(errs, s.net.Heal())
	}
	return errors.Join(errs...)
}

// keepLogs copies what the servers have logged, before their folders are removed.
func (s *stage) keepLogs() error {
	var logs []string
	if s.rabbit != nil {
		for _, node := range s.rabbit.Nodes() {
			logs = append(logs, node.Logs()...)
		}
	}
	for _, server := range s.postgres.servers {
		if server != nil {
			logs = append(logs, server.Logs()...)
		}
	}
	for i, log := range logs {
		data, err := os.ReadFile(log)
		if err != nil {
			continue // a server that was never started has none
		}
		if err := os.WriteFile(filepath.Join(s.config.Folder, fmt.Sprintf("server-%d-%s", i+1, filepath.Base(log))), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// close ends everything, the processes first.
func (s *stage) close() error {
	errs := []error{s.keepLogs()}
	for _, m := range s.cast {
		errs = append(errs, m.kill())
	}
	for _, proxies := range s.links {
		for _, p := range proxies {
			errs = append(errs, p.Close())
		}
	}
	for _, db := range s.databases {
		errs = append(errs, db.Close())
	}
	for _, b := range s.bouncers {
		errs = append(errs, b.Close())
	}
	if s.rabbit != nil {
		errs = append(errs, s.rabbit.Close())
	}
	errs = append(errs, s.postgres.close())
	if s.net != nil {
		errs = append(errs, s.net.Close())
	}
	return errors.Join(errs...)
}
