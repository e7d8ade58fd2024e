package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// consoleFlags are the settings of a console.
type consoleFlags struct {
	places placeFlags
	listen string
	access string
	audit  string
	cert   string
	key    string
	memory string
	// topology is a file of what the broker should have; only with a broker.
	topology string
	edit     bool
	grace    time.Duration
}

func (p *program) consoleCommand() *cobra.Command {
	var f consoleFlags
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Serve the web console: what waits, what failed, and what to do about it",
		Long: `Console serves a web page on which people find messages, look at what waits and what
failed, and act on it: retry, discard, release, withdraw, pause. It asks the databases
of all services, and needs no broker. Given one with --broker, it shows its queues and,
with --topology, what differs from what is declared, and declares what is missing.

Without --access it asks nobody who they are: it then listens on this machine alone,
and whoever is on this machine may do everything. With --access it reads a JSON file:
  {"users": {"ada": {"password": "pbkdf2-sha256$...", "grants": [
     {"permissions": ["view", "retry"], "services": ["billing"], "types": ["order.*"]}]}}}
or, behind a proxy that says who asks:
  {"forwarded": {"header": "X-Forwarded-User", "from": ["10.0.0.0/8"], "users": {"ada": {"grants": [...]}}}}
or, with a provider of OpenID Connect, by a claim (default "sub") and by "groups":
  {"oidc": {"issuer": "https://login.example", "client_id": "outlast", "client_secret": "env:OIDC_SECRET",
     "redirect": "https://console.example/callback", "claim": "email", "groups": {"ops": {"grants": [...]}}}}
outlast console password makes the hash. Permissions: view, view_body, retry, discard,
edit, operate, audit, configure. What is not granted is refused.

Without --audit there are no actions, and nobody sees a body. With it, every action and
every look at a body is written to that file before it is done, each line with the hash
of the one before; outlast console verify checks the file. Beside it, FILE.operations
keeps the operations on groups: what is under way when the console ends, however it
does, goes on when it starts again. One console at a time has these files.`,
		Example: `  outlast console --database env:ORDERS_DB --in env:BILLING_DB --audit audit.jsonl
  outlast console --broker env:BROKER --topology topology.json --audit audit.jsonl
  outlast console --listen :8440 --access access.json --audit audit.jsonl --cert tls.pem --key tls.key`,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return unknownCommand(cmd.CommandPath(), given[0], "see outlast console --help")
			}
			return p.serveConsole(cmd.Context(), &f)
		},
	}
	f.places.flags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8440", "address to listen at")
	fl.StringVar(&f.access, "access", "", "JSON file of who may do what")
	fl.StringVar(&f.audit, "audit", "", "file that records who did what; needed for every action")
	fl.StringVar(&f.cert, "cert", "", "PEM file of the TLS certificate")
	fl.StringVar(&f.key, "key", "", "PEM file of its key")
	fl.DurationVar(&f.grace, "grace", 5*time.Minute, "how long what should happen may take before pages call it late")
	fl.BoolVar(&f.edit, "allow-edit", false, "let people with the permission edit put a new message with another body into the place of a dead letter")
	fl.StringVar(&f.topology, "topology", "", "JSON file of what the broker should have, as outlast topology show --json prints it; needs a broker")
	fl.StringVar(&f.memory, "collector", "", "a collector's database, to show what it remembers of a database that does not answer; a URL or env:NAME")
	cmd.AddCommand(p.consolePasswordCommand(), p.consoleVerifyCommand())
	return cmd
}

func (p *program) consolePasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "password",
		Short:   "Read a password from standard input and print its hash for --access",
		Example: "  outlast console password < password.txt",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			line, err := bufio.NewReader(p.in).ReadString('\n')
			if line = strings.TrimRight(line, "\r\n"); line == "" {
				return &outlast.Error{Op: cmd.CommandPath(), Code: outlast.CodeInvalid, Err: errors.Join(errors.New("no password on standard input"), err)}
			}
			hash, err := console.HashPassword(line)
			if err != nil {
				return err
			}
			p.printf("%s\n", hash)
			return nil
		},
	}
}

func (p *program) consoleVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "verify FILE",
		Short:   "Check that no line of an audit log was changed or removed, and print the newest hash",
		Example: "  outlast console verify audit.jsonl",
		Args:    args("FILE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			file, err := os.Open(given[0])
			if err != nil {
				return &outlast.Error{Op: cmd.CommandPath(), Code: outlast.CodeNotFound, Err: err}
			}
			defer file.Close()
			n, hash, err := console.VerifyAudit(file)
			if err != nil {
				return &outlast.Error{Op: cmd.CommandPath(), Code: outlast.CodeConflict, Err: err}
			}
			p.printf("%s, the chain holds; newest hash %s\n", plural(n, "record"), dash(hash))
			return nil
		},
	}
}

// accessFile is what --access names. Exactly one of its fields is set.
type accessFile struct {
	Users     map[string]console.User `json:"users"`
	Forwarded *struct {
		Header string                  `json:"header"`
		From   []netip.Prefix          `json:"from"`
		Users  map[string]console.User `json:"users"`
	} `json:"forwarded"`
	OIDC *oidcAccess `json:"oidc"`
}

func readAccess(ctx context.Context, name string, getenv func(string) string) (console.Authenticator, error) {
	bad := func(err error) error {
		return usageError{&outlast.Error{Op: "read --access " + name, Code: outlast.CodeInvalid, Err: err}}
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, bad(err)
	}
	defer file.Close()
	var a accessFile
	d := json.NewDecoder(file)
	d.DisallowUnknownFields() // a misspelt word must not grant less or more than was meant
	if err := d.Decode(&a); err != nil {
		return nil, bad(err)
	}
	ways := 0
	for _, set := range []bool{len(a.Users) > 0, a.Forwarded != nil, a.OIDC != nil} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		return nil, bad(errors.New(`it needs one of "users", "forwarded" and "oidc"`))
	}
	if a.OIDC != nil {
		auth, err := newOIDC(ctx, a.OIDC, getenv)
		if err != nil {
			return nil, bad(err)
		}
		return auth, nil
	}
	if a.Forwarded == nil {
		auth, err := console.Basic(a.Users)
		if err != nil {
			return nil, bad(err)
		}
		return auth, nil
	}
	if a.Forwarded.Header == "" || len(a.Forwarded.From) == 0 {
		return nil, bad(errors.New(`"forwarded" needs "header" and "from"`))
	}
	users := a.Forwarded.Users
	return console.Forwarded(a.Forwarded.Header, a.Forwarded.From, func(name string) []console.Grant { return users[name].Grants }), nil
}

func (p *program) serveConsole(ctx context.Context, f *consoleFlags) error {
	if f.grace <= 0 {
		return usage("console", "--grace", "positive", f.grace.String(), "")
	}
	if (f.cert == "") != (f.key == "") {
		return usage("console", "--cert and --key", "both or none", "one", "")
	}
	c := console.Config{Loopback: f.access == "", Redact: p.secrets.hide, Patience: min(p.timeout, 10*time.Second), Grace: f.grace, AllowEdit: f.edit}
	var err error
	if f.access != "" {
		if c.Authenticate, err = readAccess(ctx, f.access, p.getenv); err != nil {
			return err
		}
	}
	if err := c.CheckListen(f.listen); err != nil {
		return inUsage("console --listen", withHint(err, "--access says who may do what"))
	}
	if f.topology != "" {
		if p.brokerURL == "" && p.getenv(brokerServer.env) == "" {
			return usage("console", "--topology", "given with a broker", "no broker", "--broker names one")
		}
		if c.Declared, err = p.topology("console", &topologyFlags{file: f.topology}); err != nil {
			return err
		}
	}
	if f.audit != "" {
		if c.Audit, err = console.OpenAudit(f.audit); err != nil {
			return err
		}
		defer c.Audit.Close()
		if c.Operations, err = console.OpenOperations(f.audit + ".operations"); err != nil {
			return err
		}
		defer c.Operations.Close()
	}
	f.places.lazy = true
	return p.withPlaces(ctx, &f.places, func(ctx context.Context, places []journey.Place) error {
		c.Places = places
		return p.withMemory(ctx, f.memory, func(ctx context.Context, m *collector.Store) error {
			c.Collector = m
			return p.withConsoleBroker(ctx, f, c)
		})
	})
}

// withConsoleBroker serves with the broker, when one is given. It is an addition: one that
// cannot be opened is a warning.
func (p *program) withConsoleBroker(ctx context.Context, f *consoleFlags, c console.Config) error {
	if p.brokerURL == "" && p.getenv(brokerServer.env) == "" {
		return p.listenConsole(ctx, f, c)
	}
	b, err := p.openBroker(ctx)
	var bad usageError
	switch {
	case errors.As(err, &bad):
		return err
	case err != nil:
		p.warn("the broker is left out: %v", err)
		return p.listenConsole(ctx, f, c)
	}
	defer b.close()
	c.Broker = b
	return p.listenConsole(ctx, f, c)
}

// listenConsole serves until ctx ends.
func (p *program) listenConsole(ctx context.Context, f *consoleFlags, c console.Config) error {
	o, err := openConsole(f, c)
	if err != nil {
		return err
	}
	if host, _, _ := net.SplitHostPort(f.listen); f.cert == "" && !isLoopback(host) {
		p.warn("without --cert and --key, passwords and pages cross the network in the clear: serve it behind a proxy with TLS")
	}
	p.warnOfSilent(ctx, c.Places)
	p.printf("the console is at %s\n", o.address())
	if c.Audit == nil {
		fmt.Fprintln(p.errs, "looking only: with --audit FILE people can act")
	}
	return o.serve(ctx)
}

// warnOfSilent says which databases do not answer: a wrong name looks like one that is down.
func (p *program) warnOfSilent(ctx context.Context, places []journey.Place) {
	ctx, cancel := context.WithTimeout(ctx, min(p.timeout, 3*time.Second))
	defer cancel()
	errs := make([]error, len(places))
	var all sync.WaitGroup
	for i, place := range places {
		all.Go(func() {
			if errs[i] = place.Err; place.Store != nil {
				_, errs[i] = place.Store.Operator().Status(ctx)
			}
		})
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			p.warn("%s does not answer, and is shown as unknown until it does: %v", places[i].Name, err)
		}
	}
}

// openedConsole is a console that listens, and does not serve yet.
type openedConsole struct {
	*console.Console
	listener  net.Listener
	cert, key string
}

func openConsole(f *consoleFlags, c console.Config) (*openedConsole, error) {
	x, err := console.New(c)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", f.listen)
	if err != nil {
		return nil, usageError{&outlast.Error{Op: "listen for the console", Code: outlast.CodeInvalid, Err: err}}
	}
	return &openedConsole{x, listener, f.cert, f.key}, nil
}

func (o *openedConsole) address() string {
	if o.cert != "" {
		return fmt.Sprintf("https://%s/", o.listener.Addr())
	}
	return fmt.Sprintf("http://%s/", o.listener.Addr())
}

// serve serves until ctx ends, and joins everything that it started.
func (o *openedConsole) serve(ctx context.Context) error {
	g, inner := errgroup.WithContext(ctx)
	server := &http.Server{Handler: o, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return inner }} // streams of events end with it
	g.Go(func() error { return o.Run(inner) })
	g.Go(func() error {
		serve := server.Serve
		if o.cert != "" {
			serve = func(l net.Listener) error { return server.ServeTLS(l, o.cert, o.key) }
		}
		if err := serve(o.listener); !errors.Is(err, http.ErrServerClosed) {
			return &outlast.Error{Op: "serve the console", Code: outlast.CodeInternal, Err: err}
		}
		return nil
	})
	g.Go(func() error {
		<-inner.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
		return nil
	})
	return g.Wait()
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}
