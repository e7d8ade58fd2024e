package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/sqlite"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// collectorServer is the collector's own database.
var collectorServer = server{
	noun: "collector's database", flag: "--store", env: "OUTLAST_COLLECTOR_URL",
	schemes: []string{"postgres", "postgresql", "sqlite"},
	example: "postgres://collector@db.example:5432/tracking or sqlite:FILE",
}

// collectorFlags are the settings of a collector, named as collector.Config's fields are.
type collectorFlags struct {
	places    placeFlags
	store     string
	conf      collector.Config
	bytes     size
	listen    string
	metrics   string
	logFormat string
	logLevel  string
}

func (p *program) collectorCommand() *cobra.Command {
	f := collectorFlags{bytes: 1 << 30}
	cmd := &cobra.Command{
		Use:   "collector",
		Short: "Keep the view across services in a database of its own: a cache for when one does not answer",
		Long: `Collector reads the databases of the services, round after round, and keeps in a
database of its own what is wrong across all of them: dead letters, messages that the
books miss, held and late ones; and a share of the flows (--share). find, flow and the
console show it, with its age, for a database that does not answer (--collector URL).

It is optional, and a cache: it writes nothing in the databases of the services, needs
no broker, and when it is down nothing else notices. It may be killed at any moment, and
wiped and rebuilt. Bodies and headers of messages are never in it.

What is kept is bounded by --rows, --bytes and --age. When there is too much, the share of
flows goes first, then what is over, and what is still open last; that is counted and
logged.

  /livez   of --listen: 200 while rounds end; 503 when none has for long
  /readyz  200 when its database answered in the last round; a service's database that
           does not answer is in the body, with since when, and changes no code`,
		Example: `  outlast collector --store sqlite:collector.db --in env:ORDERS_DB --in env:BILLING_DB
  outlast collector --store env:COLLECTOR_DB --share 0.02 --listen 127.0.0.1:8082 --metrics 127.0.0.1:9465
  outlast find order-7 --collector sqlite:collector.db --in env:ORDERS_DB --in env:BILLING_DB`,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return unknownCommand(cmd.CommandPath(), given[0], "see outlast collector --help")
			}
			return p.runCollector(cmd, &f)
		},
	}
	f.places.flags(cmd)
	cmd.PersistentFlags().StringVar(&f.store, "store", "", "the collector's own database, a URL or env:NAME, with #SCHEMA behind it when its tables are in one of their own (default $OUTLAST_COLLECTOR_URL)")
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "", "address of the health endpoints: 127.0.0.1:8082 (default none)")
	fl.StringVar(&f.metrics, "metrics", "", "address of the metrics for Prometheus: 127.0.0.1:9465 (default none)")
	fl.StringVar(&f.logFormat, "log", "text", "format of the log on stderr: text or json")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.DurationVar(&f.conf.Every, "every", 10*time.Second, "pause between two rounds, 1s to 1h")
	fl.Float64Var(&f.conf.Share, "share", 0, "share of the flows that is kept although nothing is wrong with them, 0 to 1")
	f.bounds(cmd)
	cmd.AddCommand(p.collectorStatusCommand(&f), p.collectorListCommand(&f), p.collectorWipeCommand(&f), p.collectorRebuildCommand(&f))
	return cmd
}

// bounds are the settings that a rebuild shares.
func (f *collectorFlags) bounds(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.DurationVar(&f.conf.Grace, "grace", time.Minute, "how long a message may be pending or wait before it is kept, 1s to 24h")
	fl.IntVar(&f.conf.Rows, "rows", 200_000, "messages that are kept at most, 100 to 10000000")
	fl.Var(&f.bytes, "bytes", "their facts together, 1MiB to 1TiB")
	fl.DurationVar(&f.conf.Age, "age", 7*24*time.Hour, "how long what is over is kept, 1m to 8784h")
	fl.DurationVar(&f.conf.History, "history", 24*time.Hour, "how far back a new collector looks for its share of flows, 1m to 720h")
}

// withCollector opens the collector's database. With create its tables need not be there,
// nor the server.
func (p *program) withCollector(ctx context.Context, flag, url string, create bool, do func(ctx context.Context, s *collector.Store, at string) error) error {
	p.guardFlag(flag, collectorServer.env, url)
	url, schema := cutSchema(url)
	of := collectorServer
	of.flag = flag
	a, err := of.resolve(url, p.getenv)
	p.secrets.learn(a.url)
	if err != nil {
		return err
	}
	db, engine, err := p.openCollector(ctx, a, create)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := collector.Open(db, engine, schema)
	if err != nil {
		return inUsage("open the collector's database", err)
	}
	if !create {
		short, cancel := p.brief(ctx)
		defer cancel()
		if err := store.Check(short); err != nil {
			return err
		}
	}
	return do(ctx, store, a.safe)
}

func (p *program) openCollector(ctx context.Context, a address, create bool) (*sql.DB, collector.Engine, error) {
	if a.scheme != "sqlite" {
		opts := []postgres.OpenOption{postgres.MaxConns(4), postgres.ApplicationName("outlast collector"), postgres.Lazy()}
		if p.insecurePlain {
			opts = append(opts, postgres.AllowPlain())
		}
		db, err := postgres.Open(ctx, a.url, opts...)
		if outlast.CodeOf(err) == outlast.CodeInvalid {
			return nil, "", inUsage("connect to the collector's database", err)
		}
		return db, collector.Postgres, err
	}
	if _, err := os.Stat(a.path); err != nil && (!create || !dirExists(filepath.Dir(a.path))) {
		return nil, "", &outlast.Error{Op: "open " + a.safe, Code: outlast.CodeNotFound, Err: errors.New("there is no such file"), Hint: "outlast collector creates it, in a directory that exists"}
	}
	db, err := sql.Open("sqlite", sqlite.DSN(a.path))
	if err != nil {
		return nil, "", &outlast.Error{Op: "open " + a.safe, Code: outlast.CodeUnavailable, Err: err}
	}
	return db, collector.SQLite, nil
}

// collecting opens everything that a collector needs.
func (p *program) collecting(ctx context.Context, f *collectorFlags, do func(ctx context.Context, c *collector.Collector, s *collector.Store, at string) error) error {
	// Bad settings are told before anything is opened.
	check := f.conf
	check.Store, check.Places, check.Bytes = &collector.Store{}, []journey.Place{{Name: "one"}}, int64(f.bytes)
	if _, err := collector.New(check); err != nil {
		return inCollectorFlags(err)
	}
	return p.withCollector(ctx, "--store", f.store, true, func(ctx context.Context, s *collector.Store, at string) error {
		f.places.lazy = true
		return p.withPlaces(ctx, &f.places, func(ctx context.Context, places []journey.Place) error {
			c := f.conf
			c.Store, c.Places, c.Bytes, c.Patience = s, places, int64(f.bytes), min(p.timeout, 5*time.Minute)
			x, err := collector.New(c)
			if err != nil {
				return inCollectorFlags(err)
			}
			return do(ctx, x, s, at)
		})
	})
}

// inCollectorFlags names bad settings as the flags that set them.
func inCollectorFlags(err error) error {
	var e *outlast.Error
	if !errors.As(err, &e) || e.Code != outlast.CodeInvalid {
		return err
	}
	for i := range e.Fields {
		name := strings.TrimPrefix(e.Fields[i].Field, "Config.")
		switch name {
		case "Places":
			e.Fields[i].Field = "--in"
		case "Patience":
			e.Fields[i].Field = "--timeout"
		default:
			e.Fields[i].Field = "--" + strings.ToLower(name)
		}
	}
	return usageError{e}
}

func (p *program) runCollector(cmd *cobra.Command, f *collectorFlags) error {
	logger, err := p.logger(cmd.CommandPath(), f.logFormat, f.logLevel)
	if err != nil {
		return err
	}
	for _, name := range []string{"every", "grace", "rows", "bytes", "age", "history"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed && isZero(flag.Value) {
			return usage(cmd.CommandPath(), "--"+name, "more than 0", "0", "")
		}
	}
	return p.collecting(cmd.Context(), f, func(ctx context.Context, c *collector.Collector, s *collector.Store, at string) error {
		watch := &collectorWatch{log: logger, every: f.conf.Every, began: time.Now(), hide: p.secrets.hide, store: s, collector: c, unknown: map[string]time.Time{}}
		g, ctx := errgroup.WithContext(ctx)
		for _, l := range []struct {
			flag, address string
			serve         func(ctx context.Context, l net.Listener) error
		}{{"--listen", f.listen, watch.serveHealth}, {"--metrics", f.metrics, watch.serveMetrics}} {
			if l.address == "" {
				continue
			}
			listener, err := net.Listen("tcp", l.address)
			if err != nil {
				return errors.Join(usageError{&outlast.Error{Op: "collector " + l.flag, Code: outlast.CodeInvalid, Err: err}}, watch.closeAll())
			}
			watch.listeners = append(watch.listeners, listener)
			logger.Info("listening", "flag", l.flag, "address", listener.Addr().String())
			g.Go(func() error { return l.serve(ctx, listener) })
		}
		logger.Info("collector starts", "store", at, "version", readVersion().Version)
		g.Go(func() error { return c.Run(ctx, watch.report) })
		err := g.Wait()
		logger.Info("collector has ended")
		return err
	})
}

func (p *program) collectorStatusCommand(f *collectorFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show which databases answer the collector, since when others do not, and how much it keeps",
		Example: "  outlast collector status --store sqlite:collector.db",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withCollector(cmd.Context(), "--store", f.store, false, func(ctx context.Context, s *collector.Store, _ string) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				places, err := s.Places(ctx)
				if err != nil {
					return err
				}
				held, err := s.Held(ctx)
				if err != nil {
					return err
				}
				for i := range places {
					places[i].Unknown = p.secrets.hide(places[i].Unknown)
				}
				if p.json {
					return p.printJSON(struct {
						Places []collector.Place `json:"places"`
						Kept   []collector.Held  `json:"kept"`
					}{notNil(places), notNil(held)})
				}
				t := newTable("database", "service", "answered", "unknown since", "why")
				for _, x := range places {
					since := "-"
					if !x.UnknownSince.IsZero() {
						since = timeText(x.UnknownSince)
					}
					t.add(x.Name, dash(x.Service), timeText(x.AnsweredAt), since, dash(oneLine(x.Unknown)))
				}
				t.write(p.out)
				t = newTable("kept", "messages>", "bytes>")
				for _, h := range held {
					t.add(h.Why, grouped(h.Messages), sizeText(h.Bytes))
				}
				t.write(p.out)
				return nil
			})
		},
	}
}

func (p *program) collectorListCommand(f *collectorFlags) *cobra.Command {
	var q collector.Query
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what the collector keeps, the newest first, as of when it was told",
		Long: `List shows messages as the collector knows them, each with the time at which it was
told: a copy, and not the truth. outlast find asks the databases themselves.`,
		Example: "  outlast collector list --store sqlite:collector.db --why dead",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Why != "" && !slices.Contains(collector.Whys, q.Why) {
				return usage(cmd.CommandPath(), "--why", strings.Join(collector.Whys, ", "), "another text", "")
			}
			if q.Limit < 1 || q.Limit > 1000 {
				return usage(cmd.CommandPath(), "--limit", "1 to 1000", fmt.Sprint(q.Limit), "")
			}
			return p.withCollector(cmd.Context(), "--store", f.store, false, func(ctx context.Context, s *collector.Store, _ string) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				list, err := s.Messages(ctx, q)
				if err != nil {
					return err
				}
				if p.json {
					return p.printJSON(notNil(list))
				}
				for _, m := range list {
					p.printf("%s  %s  %s, as of %s\n", printable(m.Story.Type()), printable(m.Story.ID), m.Why, timeText(m.AskedAt))
					for _, line := range m.Story.Lines() {
						p.printf("   %s\n", printable(line))
					}
				}
				if len(list) == q.Limit {
					p.printf("there may be more: raise --limit\n")
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&q.Why, "why", "", "only those of one reason: "+strings.Join(collector.Whys, ", "))
	cmd.Flags().BoolVar(&q.Open, "open", false, "only those to which something is still to happen")
	cmd.Flags().IntVar(&q.Limit, "limit", 50, "messages at most, 1 to 1000")
	return cmd
}

func (p *program) collectorWipeCommand(f *collectorFlags) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "wipe",
		Short:   "Forget everything that the collector keeps; what is open comes back by its next rounds",
		Example: "  outlast collector wipe --store sqlite:collector.db --yes",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return usage(cmd.CommandPath(), "--yes", "given: what is over is not read again, and is lost here", "not given", "the databases of the services are not touched")
			}
			return p.withCollector(cmd.Context(), "--store", f.store, false, func(ctx context.Context, s *collector.Store, at string) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				if err := s.Wipe(ctx); err != nil {
					return err
				}
				p.printf("%s is empty\n", at)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, forget it")
	return cmd
}

// How long, and how often, a rebuild asks a database again that has a transaction open.
const (
	unclosedLimit = time.Minute
	unclosedPause = 200 * time.Millisecond
)

func (p *program) collectorRebuildCommand(f *collectorFlags) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Wipe, and read the databases until everything is kept anew",
		Long: `Rebuild forgets everything and does rounds until there is no more to read. Exit code 1
when a database does not answer: what it knows is then missing. With --share it waits, for a
minute at most, for transactions that are open now: only what was committed before them is over.`,
		Example: "  outlast collector rebuild --store sqlite:collector.db --in env:ORDERS_DB --in env:BILLING_DB --yes",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return usage(cmd.CommandPath(), "--yes", "given: what is over is not read again, and is lost here", "not given", "the databases of the services are not touched")
			}
			return p.collecting(cmd.Context(), f, func(ctx context.Context, c *collector.Collector, s *collector.Store, at string) error {
				if err := errors.Join(s.Migrate(ctx), s.Wipe(ctx)); err != nil {
					return err
				}
				var waits time.Time // since there is nothing else to do
				for {
					r, err := c.Round(ctx)
					if err != nil {
						return err
					}
					if r.More {
						continue
					}
					if waits.IsZero() {
						waits = time.Now()
					}
					if r.Unclosed > 0 && time.Since(waits) < unclosedLimit {
						select {
						case <-ctx.Done():
							return ctx.Err()
						case <-time.After(unclosedPause):
						}
						continue
					}
					p.printf("%s holds %s\n", at, plural(r.Kept, "message"))
					if r.Unclosed > 0 {
						p.printf("the share of the flows of %s is not among them, as a transaction is open there; a collector that runs reads it later\n", plural(r.Unclosed, "database"))
					}
					if len(r.Unknown) > 0 {
						return &outlast.Error{Op: cmd.CommandPath(), Code: outlast.CodeUnavailable, Err: fmt.Errorf("%s did not answer", plural(len(r.Unknown), "database")), Hint: "outlast collector status"}
					}
					return nil
				}
			})
		},
	}
	f.places.flags(cmd)
	f.bounds(cmd)
	cmd.Flags().Float64Var(&f.conf.Share, "share", 0, "share of the flows that is kept although nothing is wrong with them, 0 to 1")
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, forget what is there")
	return cmd
}

// withMemory opens the collector's database that --collector names, or goes on without
// one. It is an addition: one that does not answer is a warning.
func (p *program) withMemory(ctx context.Context, url string, do func(ctx context.Context, m *collector.Store) error) error {
	if url == "" {
		return do(ctx, nil)
	}
	done := false
	err := p.withCollector(ctx, "--collector", url, false, func(ctx context.Context, s *collector.Store, _ string) error {
		done = true
		return do(ctx, s)
	})
	var bad usageError
	if done || err == nil || errors.As(err, &bad) {
		return err
	}
	p.warn("the collector is left out: %v", err)
	return do(ctx, nil)
}
