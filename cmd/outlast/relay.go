package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// relayFlags are the settings of a relay, named as RelayConfig's fields are.
type relayFlags struct {
	conf          outlast.RelayConfig
	inFlightBytes size
	listen        string
	metrics       string
	logFormat     string
	logLevel      string
	every         time.Duration
	warn          thresholds
}

func (p *program) relayCommand() *cobra.Command {
	f := relayFlags{warn: defaultThresholds(), inFlightBytes: 8 << 20}
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Send an outbox to the broker: a sidecar for services in any language",
		Long: `Relay delivers the committed messages of one outbox, in key order, and removes each
when the broker has confirmed and routed it. Run as many as you like on one outbox:
they share the work by leases in the database. Outages of the database and of the
broker are waited out for ever.

With --broker embedded:DIR, where nobody runs the broker of DIR, the relay runs it
itself as long as it lives; other processes connect to it, and a service that wants
to run it (embedded.Start) is refused. As a sidecar of such a service, start the
relay after it.

Problems are logged in words, and shown by the health endpoints of --listen:
  /livez   200 while it works or waits for a server; 503 when it is stuck
  /readyz  200 when database and broker are there; 503 and the reason otherwise;
           warnings of the --warn thresholds are in the body and change no code
With --wake-ups, services that ask for it wake the relay after their commits, so that a
message need not wait for the next sweep (--interval). It holds one more connection,
which needs the PostgreSQL server itself: behind a pooler the relay says once that it
hears nothing, and sweeps as it would without. docs/tables.md has the statement that
wakes, for services in any language.

With --metrics, Prometheus finds /metrics on a listener of its own; docs/metrics.md
lists what is there, and deploy/ holds alerts and dashboards for it.

SIGTERM or Ctrl-C ends it after what it has sent was confirmed (--grace); a second
signal ends it at once, which costs duplicates that the receivers' inboxes drop.`,
		Example: `  outlast relay --source orders --listen 127.0.0.1:8081
  outlast relay --source orders --database env:ORDERS_DB --broker env:MQ --log json`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.relay(cmd, &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.conf.Source, "source", "", "the service whose outbox this is (default $OUTLAST_SOURCE, or whose the database says it is)")
	fl.StringVar(&f.listen, "listen", "", "address of the health endpoints: 127.0.0.1:8081 (default none)")
	fl.StringVar(&f.metrics, "metrics", "", "address of the metrics for Prometheus: 127.0.0.1:9464 (default none)")
	fl.StringVar(&f.logFormat, "log", "text", "format of the log on stderr: text or json")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.DurationVar(&f.every, "report-interval", 30*time.Second, "time between two looks at what waits, 1s to 1h")
	fl.DurationVar(&f.conf.Interval, "interval", time.Second, "longest pause between two sweeps, 10ms to 1h")
	fl.BoolVar(&f.conf.WakeUps, "wake-ups", false, "let other processes end that pause, by one more connection; PostgreSQL only")
	fl.DurationVar(&f.conf.LeaseTTL, "lease", 10*time.Second, "how long slots stay with a relay that gives no sign of life, 2s to 5m")
	fl.IntVar(&f.conf.InFlight, "in-flight", 1024, "unconfirmed messages of one route, 1 to 65536")
	fl.Var(&f.inFlightBytes, "in-flight-bytes", "their bodies together, 64KiB to 256MiB")
	fl.DurationVar(&f.conf.ConfirmDeadline, "confirm-deadline", 10*time.Second, "wait for a confirm, 1s to 5m")
	fl.IntVar(&f.conf.Lanes, "lanes", 4, "channels to the broker in normal use, 1 to 64")
	fl.DurationVar(&f.conf.Grace, "grace", 5*time.Second, "wait for confirms at the end, 0 to 5m")
	fl.BoolVar(&f.conf.NoTracking, "no-tracking", false, "keep no sent log: outlast find and the books then know nothing of what was sent")
	f.warn.flags(cmd)
	return cmd
}

func (p *program) relay(cmd *cobra.Command, f *relayFlags) error {
	op := cmd.CommandPath()
	if f.every < time.Second || f.every > time.Hour {
		return usage(op, "--report-interval", "1s to 1h", f.every.String(), "")
	}
	// For the library 0 stands for the default; on a command line it is a mistake.
	for _, name := range []string{"interval", "lease", "in-flight", "in-flight-bytes", "confirm-deadline", "lanes"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed && isZero(flag.Value) {
			return usage(op, "--"+name, "more than 0", "0", "see "+op+" --help for its range and its default")
		}
	}
	if err := f.warn.check(op); err != nil {
		return err
	}
	logger, err := p.logger(op, f.logFormat, f.logLevel)
	if err != nil {
		return err
	}
	p.brokerLog, p.ownBroker = logger, true
	return p.withBroker(cmd.Context(), func(ctx context.Context, b *broker) error {
		b.sayWhoRuns(logger)
		p.completeRelay(f, b, logger)
		// The settings are checked before the database is waited for, with a store
		// that is never used.
		check := f.conf
		check.Store, check.Source = p.postgresStore(nil), cmp.Or(f.conf.Source, "outlast")
		if _, err := outlast.NewRelay(check); err != nil {
			return inFlagWords(err)
		}
		return p.runRelay(ctx, f, b)
	})
}

// isZero reports whether a flag of a number, a duration or a size was set to nothing.
func isZero(v pflag.Value) bool {
	switch text := v.String(); v.Type() {
	case "duration":
		return text == "0s"
	case "bytes":
		s, ok := v.(*size)
		return ok && *s == 0
	default:
		return text == "0"
	}
}

// completeRelay fills what no flag says alone.
func (p *program) completeRelay(f *relayFlags, b *broker, logger *slog.Logger) {
	if f.conf.Source == "" {
		f.conf.Source = p.getenv("OUTLAST_SOURCE")
	}
	f.conf.Broker, f.conf.Logger = b, logger
	f.conf.InFlightBytes = int(f.inFlightBytes)
	if f.conf.Grace == 0 {
		f.conf.Grace = outlast.NoGrace
	}
}

// inFlagWords names a relay's bad settings as the flags that set them.
func inFlagWords(err error) error {
	var e *outlast.Error
	if !errors.As(err, &e) || e.Code != outlast.CodeInvalid {
		return err
	}
	flags := map[string]string{
		"Source": "--source", "Interval": "--interval", "WakeUps": "--wake-ups", "LeaseTTL": "--lease", "InFlight": "--in-flight",
		"InFlightBytes": "--in-flight-bytes", "ConfirmDeadline": "--confirm-deadline", "Lanes": "--lanes", "Grace": "--grace",
	}
	for i := range e.Fields {
		if flag, ok := flags[strings.TrimPrefix(e.Fields[i].Field, "RelayConfig.")]; ok {
			e.Fields[i].Field = flag
		}
	}
	return usageError{e}
}

// runRelay returns when the relay and everything around it have ended. The health
// endpoints answer from the beginning, also while the database is waited for.
func (p *program) runRelay(ctx context.Context, f *relayFlags, b *broker) error {
	watch := newRelayWatch(f)
	var listener net.Listener
	if f.listen != "" {
		var err error
		if listener, err = net.Listen("tcp", f.listen); err != nil {
			return usageError{&outlast.Error{Op: "relay --listen", Code: outlast.CodeInvalid, Err: err}}
		}
		watch.log.Info("health endpoints", "address", listener.Addr().String())
	}
	metrics, err := startMetrics(f.metrics)
	if err != nil {
		if listener != nil {
			listener.Close()
		}
		return err
	}
	defer metrics.close()
	if metrics != nil {
		watch.log.Info("metrics", "address", metrics.listener.Addr().String())
	}
	around, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { watch.run(around, listener) })
	defer watching.Wait()
	defer stop()

	db, err := p.waitForDatabase(ctx, watch)
	if err != nil || db == nil {
		return err
	}
	defer db.close()
	defer metrics.close()
	defer watching.Wait() // before the database is closed
	defer stop()
	if f.conf.Source == "" {
		if f.conf.Source, err = p.learnSource(ctx, watch, db); err != nil || f.conf.Source == "" {
			return err
		}
		watch.log.Info("no --source: the database says whose outbox it is", "source", f.conf.Source)
	}
	f.conf.Store = db
	if f.conf.Hooks, err = metrics.observe(f.conf.Source, db, b); err != nil {
		return err
	}
	relay, err := outlast.NewRelay(f.conf)
	if err != nil {
		return inFlagWords(err)
	}
	watch.attach(relay, db)
	watch.log.Info("relay starts", "source", f.conf.Source, "database", db.at, "broker", b.Address(), "version", readVersion().Version)
	defer watch.log.Info("relay has ended")
	return relay.Run(ctx)
}

// waitForDatabase opens the database, however long it is away; nil when ctx ended.
func (p *program) waitForDatabase(ctx context.Context, watch *relayWatch) (*database, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		db, err := p.openDatabase(ctx)
		if err == nil || !outlast.Retryable(err) {
			return db, err
		}
		watch.starting(err)
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			return nil, nil
		}
	}
}

// learnSource asks the database whose outbox it is, however long it is away; "" when
// ctx ended.
func (p *program) learnSource(ctx context.Context, watch *relayWatch, db *database) (string, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		asking, cancel := p.brief(ctx)
		s, err := db.Operator().Status(asking)
		cancel()
		switch {
		case err == nil && s.Source == "":
			return "", usage("outlast relay", "--source", "the service whose outbox this is", "not given", "set --source or OUTLAST_SOURCE")
		case err == nil:
			return s.Source, nil
		case ctx.Err() != nil:
			return "", nil
		case !outlast.Retryable(err):
			return "", err
		}
		watch.starting(err)
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			return "", nil
		}
	}
}

// logger writes to stderr, with secrets hidden.
func (p *program) logger(op, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usage(op, "--log-level", "debug, info, warn or error", "another word", "")
	}
	out := hidingWriter{p.errs, p.secrets.hide}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(out, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, options)), nil
	default:
		return nil, usage(op, "--log", "text or json", "another word", "")
	}
}

// adapterLog is where adapters log: in a command that only asks, as its other warnings.
func (p *program) adapterLog() *slog.Logger {
	if p.brokerLog != nil {
		return p.brokerLog
	}
	return slog.New(warnings{p: p})
}

// warnings shows a log as lines that begin with "warning: ".
type warnings struct {
	p    *program
	with string
}

func (w warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (w warnings) WithGroup(string) slog.Handler                { return w }

func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		w.with += " " + a.String()
	}
	return w
}

func (w warnings) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		w.with += " " + a.String()
		return true
	})
	w.p.warn("%s%s", r.Message, w.with)
	return nil
}

// hidingWriter hides secrets in whole lines.
type hidingWriter struct {
	w    io.Writer
	hide func(string) string
}

func (h hidingWriter) Write(line []byte) (int, error) {
	if _, err := io.WriteString(h.w, h.hide(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}
