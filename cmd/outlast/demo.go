package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/spf13/cobra"
)

// demoFlags are the settings of a demo.
type demoFlags struct {
	rate     int
	lasts    time.Duration
	outage   time.Duration
	dir      string
	noFaults bool
	console  string
	stay     bool
}

const (
	demoLasts    = 40 * time.Second
	demoOutage   = 10 * time.Second
	demoAround   = 30 * time.Second // placing orders around an outage, unless --for says
	demoLeast    = 5 * time.Second  // placing orders besides an outage
	demoLongest  = 24 * time.Hour
	demoMostRate = 10_000
)

func (p *program) demoCommand() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run an online shop, kill parts of it under load, and count what was lost",
		Long: `Demo runs an online shop of five services (orders, payments, stock, shipping,
notifications), each its own process with its own database, the relay of orders and
the broker as processes of their own. It places orders by the HTTP API at a steady
rate and, while they come in, takes the broker away, kills a consumer and the relay
with SIGKILL, and sends poison orders that no service can handle.

The report at the end is computed from the services' tables: each service writes down
what it committed to send and what took effect, in the transactions that did it.
  committed   messages of committed transactions; for a group, those that it hears
  handled     took effect, counted once for every group that must handle them
  retried     needed more than one try
  dead        dead letters: as many as poison orders
  lost        committed, and neither handled nor dead
  doubled     took effect more than once
  out of order   took effect after a later message of the same customer
The longest backlog is of all outboxes together, for a group of what it had yet to
handle. The recovery is the time from the end of the outage until everything that
was committed before had left the outboxes, for a group until it was handled.

Nothing but this program is needed: SQLite and an embedded broker are in it. With
--database and --broker it uses real servers: PostgreSQL with one schema for each
service (shop_orders, ...; those of an earlier demo are replaced), RabbitMQ in a
virtual host of its own. The outage is then a cut in a proxy of the demo's own, which
amqp:// alone can have.

Exit code 1: something was lost, doubled or out of order, or the demo could not run.`,
		Example: `  outlast demo
  outlast demo --stay
  outlast demo --rate 100 --outage 60s --dir /tmp/shop
  outlast demo --database postgres://app@127.0.0.1/shop --broker amqp://guest:guest@127.0.0.1/demo --json`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.demo(cmd, &f) },
	}
	fl := cmd.Flags()
	fl.IntVar(&f.rate, "rate", 50, "orders a second, 1 to 10000")
	fl.DurationVar(&f.lasts, "for", demoLasts, "how long orders are placed; with a longer --outage, that and 30s by default")
	fl.DurationVar(&f.outage, "outage", demoOutage, "how long the broker is down, 1s to 24h")
	fl.StringVar(&f.dir, "dir", "", "keep all data in this directory, which must be new or empty (default a temporary one)")
	fl.StringVar(&f.console, "console", "", "serve the web console at this address of this machine while the demo runs, such as 127.0.0.1:8440")
	fl.BoolVar(&f.stay, "stay", false, "after the report open the shop again with the poison mended, to replay dead letters in the console, until Ctrl-C")
	fl.BoolVar(&f.noFaults, "no-faults", false, "kill and cut nothing, and send no poison orders")
	return cmd
}

func (f *demoFlags) check(cmd *cobra.Command) error {
	op := cmd.CommandPath()
	if f.rate < 1 || f.rate > demoMostRate {
		return usage(op, "--rate", fmt.Sprintf("1 to %d", demoMostRate), fmt.Sprint(f.rate), "")
	}
	if f.outage < time.Second || f.outage > demoLongest {
		return usage(op, "--outage", "1s to 24h", f.outage.String(), "")
	}
	if f.stay && f.console == "" {
		f.console = "127.0.0.1:0"
	}
	if err := (&console.Config{Loopback: true}).CheckListen(f.console); f.console != "" && err != nil {
		return inUsage(op+" --console", err)
	}
	least := time.Second
	if !f.noFaults {
		least = f.outage + demoLeast
		if !cmd.Flags().Changed("for") {
			f.lasts = max(f.lasts, f.outage+demoAround)
		}
	}
	if f.lasts < least || f.lasts > 2*demoLongest {
		return usage(op, "--for", fmt.Sprintf("%s to 48h", least), f.lasts.String(), "orders are placed before, during and after the outage")
	}
	return nil
}

// demo sets the scene, runs the demo in it, and clears up.
func (p *program) demo(cmd *cobra.Command, f *demoFlags) (err error) {
	if err := f.check(cmd); err != nil {
		return err
	}
	place, err := p.demoServers(f)
	if err != nil {
		return err
	}
	dir, err := makeDemoDir(f.dir)
	if err != nil {
		return err
	}
	d := newDemo(p, f, dir)
	defer func() {
		err = d.clearUp(err, err != nil && cmd.Context().Err() == nil)
	}()
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	if err := d.setUp(ctx, place); err != nil {
		return d.whyEnded(cmd.Context(), ctx, err)
	}
	go func() {
		select {
		case role := <-d.fleet.died:
			cancel(d.fleet.failed(role, "ended by itself"))
		case <-ctx.Done():
		}
	}()
	endConsole, err := d.openConsole(ctx)
	if err != nil {
		return d.whyEnded(cmd.Context(), ctx, err)
	}
	if err := errors.Join(d.run(ctx), endConsole()); err != nil {
		return d.whyEnded(cmd.Context(), ctx, err)
	}
	return nil
}

// whyEnded prefers the cause of an end to the errors that it brought about.
func (d *demo) whyEnded(users, ctx context.Context, err error) error {
	if users.Err() != nil {
		return interrupted("demo", "every process has ended")
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// demoServers finds the servers to use, if the command line names any. What the
// environment holds for other commands is left alone: a demo is not for production.
type demoServers struct{ database, broker string }

func (p *program) demoServers(f *demoFlags) (demoServers, error) {
	var s demoServers
	if p.databaseURL != "" {
		a, err := databaseServer.resolve(p.databaseURL, p.getenv)
		p.secrets.learn(a.url)
		if err != nil {
			return s, err
		}
		if a.scheme == "sqlite" {
			return s, usage("demo", "--database", "a postgres:// URL", "sqlite", "SQLite is the default; --dir says where its files are kept")
		}
		s.database = a.url
	}
	if p.brokerURL != "" {
		a, err := brokerServer.resolve(p.brokerURL, p.getenv)
		p.secrets.learn(a.url)
		switch {
		case err != nil:
			return s, err
		case a.scheme == "embedded":
			return s, usage("demo", "--broker", "the URL of a server", "embedded", "the embedded broker is the default; --dir says where its files are kept")
		case !f.noFaults && (a.scheme != "amqp" || len(splitList(a.url)) > 1):
			return s, usage("demo", "--broker", "one amqp:// URL, or anything with --no-faults", a.scheme, "only plain AMQP can be cut on its way")
		}
		s.broker = a.url
	}
	return s, nil
}

// makeDemoDir makes the directory of the demo's data: the named one, or a temporary one.
func makeDemoDir(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "outlast-demo-")
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", &outlast.Error{Op: "demo", Code: outlast.CodeInvalid, Err: err}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", &outlast.Error{Op: "demo", Code: outlast.CodeInvalid, Err: err}
	}
	if len(entries) > 0 {
		return "", usage("demo", "--dir", "a new or empty directory", "one with files in it", "")
	}
	return dir, nil
}
