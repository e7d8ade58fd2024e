package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/report"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// idlePart watches services that have nothing to do: a relay and a consumer each, with a
// schema of its own in one database.
func idlePart(ctx context.Context, s *stack, o *options) (_ []*report.Table, err error) {
	t := &report.Table{Name: "idle", Title: "What idle services cost a database and a broker, in all"}
	// Its own server: counting statements costs a little.
	server, err := servers.Postgres(ctx, servers.PostgresConfig{Settings: map[string]string{
		"shared_preload_libraries": "pg_stat_statements", "max_connections": "1000"}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	for _, n := range []int{1, 50} {
		name := fmt.Sprintf("outlast, %d idle services", n)
		if !o.wants(name) {
			continue
		}
		if err := s.idleRun(ctx, o, t, server, name, n); err != nil {
			return []*report.Table{t}, err
		}
	}
	return []*report.Table{t}, nil
}

func (s *stack) idleRun(ctx context.Context, o *options, t *report.Table, server *servers.PostgresServer, name string, n int) error {
	url, err := server.NewDatabase(ctx)
	if err != nil {
		return err
	}
	if err := execAll(ctx, url, "CREATE EXTENSION pg_stat_statements"); err != nil {
		return err
	}
	for i := range n {
		if err := migrateSchema(ctx, url, idleSchema(i)); err != nil {
			return err
		}
	}
	watch := o.period
	if watch == 0 {
		watch = 20 * time.Second
	}
	services, err := start(ctx, task{Actor: "idle", Database: url, Broker: s.vhost.URL(), Clients: n, Endless: true})
	if err != nil {
		return err
	}
	if err := s.untilConsumers(ctx, n); err != nil {
		return err
	}
	if err := sleep(ctx, 15*time.Second); err != nil { // until leases, topology and first looks are through
		return err
	}
	count := func() (statements, connections int, err error) {
		statements, err1 := number(ctx, url, "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())")
		connections, err2 := number(ctx, url, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		return statements, connections, errors.Join(err1, err2)
	}
	before, _, err := count()
	if err != nil {
		return err
	}
	own, rabbit, began := treeCPU(services.cmd.Process.Pid), treeCPU(s.rabbitPID), time.Now()
	if err := sleep(ctx, watch); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	own, rabbit = treeCPU(services.cmd.Process.Pid)-own, treeCPU(s.rabbitPID)-rabbit
	after, connections, err := count()
	if err != nil {
		return err
	}
	amqpConnections, err := s.brokerConnections(ctx)
	if err != nil {
		return err
	}
	if err := services.end(); err != nil {
		return err
	}
	r, err := services.wait()
	if err != nil {
		return err
	}
	t.Add(name, report.Value{Name: "statements/s", Value: float64(after-before) / took},
		report.Value{Name: "database connections", Value: float64(connections)},
		report.Value{Name: "broker connections", Value: float64(amqpConnections)},
		report.Value{Name: "CPU ms/s", Value: own / took * 1000}, report.Value{Name: "broker CPU ms/s", Value: rabbit / took * 1000},
		report.Value{Name: "peak RSS MiB", Value: r.Usage.RSS / (1 << 20)})
	for i := range n {
		if err := s.deleteQueue(idleGroup(i) + ".0"); err != nil {
			return err
		}
	}
	return server.DropDatabase(ctx, url)
}

func idleSchema(i int) string { return fmt.Sprintf("service_%d", i) }
func idleGroup(i int) string  { return fmt.Sprintf("idle-%d", i) }

func migrateSchema(ctx context.Context, url, schema string) error {
	db, err := postgres.Open(ctx, url, postgres.MaxConns(1))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+schema); err != nil {
		return err
	}
	return postgres.Store(db, postgres.Schema(schema)).Migrations().Up(ctx, 0)
}

// untilConsumers waits until n idle queues have a consumer.
func (s *stack) untilConsumers(ctx context.Context, n int) error {
	topology := brokerAt(s.vhost.URL()).Topology()
	for i := range n {
		for {
			depth, err := topology.Depth(ctx, idleGroup(i)+".0")
			if err == nil && depth.Consumers > 0 {
				break
			}
			if err := sleep(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// brokerConnections counts the broker's connections but our own.
func (s *stack) brokerConnections(ctx context.Context) (int, error) {
	out, err := s.rabbit.Ctl(ctx, "list_connections", "pid", "--no-table-headers")
	return strings.Count(out, "<") - 1, err
}

// sleep waits, or ends early with ctx.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// idleServices runs services, each with its own pool and its own connections, as if each
// had a process of its own.
func idleServices(ctx context.Context, t *task, _ func(int)) error {
	var all sync.WaitGroup
	errs := make([]error, t.Clients)
	for i := range t.Clients {
		all.Go(func() { errs[i] = idleService(ctx, t, i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func idleService(ctx context.Context, t *task, i int) error {
	return withStore(ctx, t.Database, 20, func(db *sql.DB, _ outlast.Store) error {
		service, err := outlast.NewService(outlast.ServiceConfig{Name: idleGroup(i), Store: postgres.Store(db, postgres.Schema(idleSchema(i))),
			Broker: brokerAt(t.Broker), Logger: warnings, Handlers: []outlast.Handler{outlast.Handle(rawMade, handlerOf("insert"))}})
		if err != nil {
			return err
		}
		return service.Run(ctx)
	})
}
