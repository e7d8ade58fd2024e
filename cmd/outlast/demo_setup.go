package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop"
	"golang.org/x/sync/errgroup"
)

// setUp makes the databases and starts every process.
func (d *demo) setUp(ctx context.Context, servers demoServers) error {
	database, broker := servers.database, servers.broker
	if database == "" {
		database = "sqlite:" + d.dir
	}
	d.ownBroker = broker == ""
	switch {
	case d.ownBroker:
		broker = "embedded:" + filepath.Join(d.dir, "broker")
	case !d.f.noFaults:
		var err error
		if d.cut, broker, err = newCutter(broker); err != nil {
			return err
		}
	}
	if err := d.openDatabases(ctx, database); err != nil {
		return err
	}
	d.broker = broker
	var err error
	if d.fleet, err = newFleet(d.dir, []string{demoDatabaseEnv + "=" + database, demoBrokerEnv + "=" + broker}); err != nil {
		return err
	}
	if !d.ownBroker {
		if err := d.checkQueues(ctx, broker); err != nil {
			return err
		}
	}
	return d.startAll(ctx)
}

// startAll starts every process.
func (d *demo) startAll(ctx context.Context) error {
	if d.ownBroker {
		if _, err := d.fleet.start(ctx, roleBroker); err != nil {
			return err
		}
	}
	return d.startServices(ctx)
}

func (d *demo) startServices(ctx context.Context) error {
	var group errgroup.Group
	for _, service := range shop.Services {
		group.Go(func() error {
			api, err := d.fleet.start(ctx, service)
			if service == "orders" {
				d.api = api
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err := d.fleet.start(ctx, roleRelay)
	return err
}

// openDatabases makes each service's database anew and keeps it open to look into.
func (d *demo) openDatabases(ctx context.Context, address string) error {
	for _, service := range shop.Services {
		db, err := shop.Open(ctx, address, service)
		if err != nil {
			return err
		}
		d.databases = append(d.databases, db)
		if strings.HasPrefix(address, "postgres") {
			if err := db.DropSchema(ctx); err != nil {
				return err
			}
		}
		if err := db.Prepare(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkQueues refuses a broker whose queues of these names are in use, or hold what
// an earlier demo left: the report would count it as never committed.
func (d *demo) checkQueues(ctx context.Context, address string) error {
	broker, err := demoBrokerAt(address, nil)
	if err != nil {
		return err
	}
	topology, err := d.topology(broker)
	if err != nil {
		return err
	}
	for _, g := range topology.Groups {
		queue := g.Queue(0)
		depth, err := broker.Topology().Depth(ctx, queue)
		switch {
		case outlast.CodeOf(err) == outlast.CodeNotFound:
		case err != nil:
			return err
		case depth.Messages > 0 || depth.Consumers > 0:
			return &outlast.Error{Op: "demo", Code: outlast.CodeConflict,
				Err:  fmt.Errorf("the queue %q exists with %s and %s", queue, plural(depth.Messages, "message"), plural(depth.Consumers, "consumer")),
				Hint: "give the demo a virtual host of its own"}
		}
	}
	return nil
}

// topology is what the broker must have for the whole shop.
func (d *demo) topology(broker outlast.Broker) (all outlast.Topology, err error) {
	for _, db := range d.databases {
		t, err := shop.Topology(shop.Config{Service: db.Service, Database: db, Broker: broker})
		if err != nil {
			return all, err
		}
		all.Groups = append(all.Groups, t.Groups...)
		for _, x := range t.Exchanges {
			if !slices.Contains(all.Exchanges, x) {
				all.Exchanges = append(all.Exchanges, x)
			}
		}
	}
	return all, nil
}

// clearUp ends every process and removes temporary data, unless something went wrong
// and the data is evidence.
func (d *demo) clearUp(err error, evidence bool) error {
	if d.fleet != nil {
		if stopErr := d.fleet.stopAll(); stopErr != nil && err == nil {
			err = &outlast.Error{Op: "demo", Code: outlast.CodeUnavailable, Err: stopErr}
		}
	}
	if d.cut != nil {
		d.cut.close()
	}
	for _, db := range d.databases {
		_ = db.Close()
	}
	switch {
	case d.f.dir != "":
		d.view.say("Data and logs are kept in %s.", d.dir)
	case evidence:
		d.view.say("Data and logs are left in %s to find out why.", d.dir)
	default:
		_ = os.RemoveAll(d.dir) // a temporary directory: the system clears it up one day
	}
	return err
}
