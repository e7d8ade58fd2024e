package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/sqlite"
)

const (
	benchPrefix  = "outlast_bench_"
	benchCleanUp = 30 * time.Second
)

// benchPlace is where a benchmark works: a schema or a file of its own, and a group of
// its own at the broker.
type benchPlace struct {
	db   *database
	topo outlast.TopologyBroker
	name string                            // outlast_bench_x: the schema
	undo []func(ctx context.Context) error // of the database, the last first

	groups []outlast.GroupTopology         // whose queues may be at the broker
	drop   func(ctx context.Context) error // removes the schema; nil without one
}

// remover is what both network brokers' topologies have besides TopologyBroker.
type remover interface {
	Remove(ctx context.Context, g outlast.GroupTopology) error
}

func (p *program) newBenchPlace(ctx context.Context, b *broker) (_ *benchPlace, err error) {
	place := &benchPlace{topo: b.Topology(), name: benchPrefix + strings.ToLower(rand.Text()[:10])}
	defer func() {
		if err != nil {
			err = errors.Join(err, place.remove())
		}
	}()
	a, err := databaseServer.resolve(p.databaseURL, p.getenv)
	if err != nil {
		return nil, err
	}
	// A broker that cannot be reached should not be found out after the database was measured.
	if _, err := place.topo.Check(ctx, outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}}); err != nil {
		return nil, err
	}
	if a.scheme == "sqlite" {
		err = place.openFile(p, a)
	} else {
		err = place.openSchema(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	if err := place.db.Migrations().Up(ctx, 0); err != nil {
		return nil, err
	}
	for _, columns := range []string{
		"bare (id varchar(40) PRIMARY KEY, ordering_key varchar(40), body text NOT NULL)", // what a producer would INSERT into without Outlast
		"effect (id varchar(40) NOT NULL, body text NOT NULL)",                            // what the handlers write
	} {
		if _, err := place.db.sql.ExecContext(ctx, "CREATE TABLE "+place.table(columns)); err != nil {
			return nil, place.db.connectError(err)
		}
	}
	return place, nil
}

// table is a table's name, with its schema where there is one.
func (place *benchPlace) table(name string) string {
	if place.db.Engine() == "sqlite" {
		return name
	}
	return place.name + "." + name
}

// openFile works in a file beside the user's, on the same disk.
func (place *benchPlace) openFile(p *program, a address) error {
	if err := p.checkFile(a); err != nil {
		return err
	}
	file := a.path + "." + place.name
	place.undo = append(place.undo, func(context.Context) error {
		for _, end := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(file + end); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		return nil
	})
	db, err := sql.Open("sqlite", sqlite.DSN(file))
	if err != nil {
		return &outlast.Error{Op: "open " + a.safe, Code: outlast.CodeUnavailable, Err: err}
	}
	place.db = &database{Store: sqlite.Store(db), sql: db, at: a.safe}
	place.undo = append(place.undo, func(context.Context) error { return db.Close() })
	return nil
}

// openSchema makes a schema in the user's database.
func (place *benchPlace) openSchema(ctx context.Context, p *program) error {
	inSchema := *p
	inSchema.schema, inSchema.prefix = place.name, ""
	db, err := inSchema.openDatabase(ctx)
	if err != nil {
		return err
	}
	place.db = db
	place.undo = append(place.undo, func(context.Context) error { return db.sql.Close() })
	lock, err := db.sql.Conn(ctx)
	if err != nil {
		return db.connectError(err)
	}
	// The lock tells others that this run is alive. It ends with the session.
	place.undo = append(place.undo, func(context.Context) error { return lock.Close() })
	if _, err := lock.ExecContext(ctx, "SELECT pg_catalog.pg_advisory_lock($1)", benchLock(place.name)); err != nil {
		return db.connectError(err)
	}
	if err := place.removeLeftovers(ctx); err != nil {
		return err
	}
	if _, err := db.sql.ExecContext(ctx, "CREATE SCHEMA "+place.name); err != nil {
		return &outlast.Error{Op: "create schema " + place.name, Code: outlast.CodeDenied, Err: err,
			Hint: "bench needs the right CREATE on the database, or another database on the same server"}
	}
	place.drop = func(ctx context.Context) error {
		_, err := db.sql.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+place.name+" CASCADE")
		return err
	}
	return nil
}

func benchLock(name string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return int64(h.Sum64())
}

// removeLeftovers removes what runs have left that were killed: a schema whose lock
// nobody holds, and its queues.
func (place *benchPlace) removeLeftovers(ctx context.Context) error {
	rows, err := place.db.sql.QueryContext(ctx, `SELECT nspname::text FROM pg_catalog.pg_namespace
		WHERE nspname ~ '^outlast_bench_[a-z0-9]{10}$' AND pg_catalog.pg_has_role(nspowner, 'USAGE')`)
	if err != nil {
		return place.db.connectError(err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return place.db.connectError(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		return place.db.connectError(err)
	}
	for _, name := range names {
		if err := place.removeLeftover(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (place *benchPlace) removeLeftover(ctx context.Context, name string) error {
	conn, err := place.db.sql.Conn(ctx)
	if err != nil {
		return place.db.connectError(err)
	}
	defer conn.Close()
	free := false
	if err := conn.QueryRowContext(ctx, "SELECT pg_catalog.pg_try_advisory_lock($1)", benchLock(name)).Scan(&free); err != nil || !free {
		return err
	}
	defer func() {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_catalog.pg_advisory_unlock($1)", benchLock(name)) // ends with the session too
	}()
	if r, ok := place.topo.(remover); ok {
		for _, part := range benchParts {
			if err := r.Remove(ctx, benchGroup(name, part)); err != nil {
				return err
			}
		}
	}
	_, err = conn.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+name+" CASCADE")
	return err
}

// benchParts are the parts of a benchmark that have a queue.
var benchParts = []string{"ceiling", "relay", "latency"}

// benchType is the type of the messages of one part; nobody else is bound to it.
func benchType(name, part string) string {
	return "outlast.bench." + strings.TrimPrefix(name, benchPrefix) + "-" + part + ".v1"
}

func benchGroup(name, part string) outlast.GroupTopology {
	return outlast.GroupTopology{Group: "outlast-bench-" + strings.TrimPrefix(name, benchPrefix) + "-" + part, Partitions: 1,
		Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: benchType(name, part)}}}
}

// group makes the queue of one part.
func (place *benchPlace) group(ctx context.Context, part string) (outlast.GroupTopology, error) {
	g := benchGroup(place.name, part)
	place.groups = append(place.groups, g)
	return g, place.topo.Apply(ctx, outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}, Groups: []outlast.GroupTopology{g}})
}

// remove takes everything away again, whatever ended the run. A schema stays when its queues
// could not be removed: by it, the next run finds them.
func (place *benchPlace) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), benchCleanUp)
	defer cancel()
	var errs []error
	failed := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("remove what bench made (%s): %w", what, err))
		}
	}
	if r, ok := place.topo.(remover); ok {
		for _, g := range place.groups {
			failed("the queue of "+g.Group, r.Remove(ctx, g))
		}
	}
	switch {
	case place.drop == nil:
	case len(errs) > 0:
		errs = append(errs, fmt.Errorf("schema %s is left as well: the next run of bench removes both", place.name))
	default:
		failed("schema "+place.name, place.drop(ctx))
	}
	for i := len(place.undo) - 1; i >= 0; i-- {
		failed(place.name, place.undo[i](ctx))
	}
	return errors.Join(errs...)
}
