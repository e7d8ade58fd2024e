package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
)

// openConsole serves the console on the databases and the broker of the demo, when a flag asks for it,
// and returns what ends it.
func (d *demo) openConsole(ctx context.Context) (end func() error, err error) {
	if d.f.console == "" {
		return func() error { return nil }, nil
	}
	audit, err := console.OpenAudit(filepath.Join(d.dir, "audit.jsonl"))
	if err != nil {
		return nil, err
	}
	c := console.Config{Loopback: true, Audit: audit}
	for _, db := range d.databases {
		c.Places = append(c.Places, journey.Place{Name: "shop: " + db.Service, Store: db.Store})
	}
	if c.Broker, err = demoBrokerAt(d.broker, nil); err == nil {
		c.Declared, err = d.topology(c.Broker)
	}
	if err != nil {
		return nil, errors.Join(err, audit.Close())
	}
	o, err := openConsole(&consoleFlags{listen: d.f.console}, c)
	if err != nil {
		return nil, errors.Join(err, audit.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- o.serve(ctx) }()
	d.console = o.address()
	d.view.say("The console is at %s while the demo runs.", d.console)
	if !d.f.stay {
		d.view.say("With --stay it stays, and the dead letters can be replayed in it.")
	}
	return func() error {
		cancel()
		return errors.Join(<-served, audit.Close())
	}, nil
}
