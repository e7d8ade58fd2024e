package main

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver named "pgx"
	_ "modernc.org/sqlite"             // the driver named "sqlite"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/embedded"
	"github.com/outlastmq/outlast/nats"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
	"github.com/outlastmq/outlast/sqlite"
)

// engines are the databases that a store is built in for.
var engines = []string{"postgres", "sqlite"}

// database is an open store with what only this program asks of it.
type database struct {
	outlast.Store
	sql *sql.DB
	at  string // without secrets
	// outboxBytes is the room that the outbox and the held take on disk.
	outboxBytes func(ctx context.Context) (int64, error)
	// receivers returns the groups that run or received something.
	receivers func(ctx context.Context) ([]receiver, error)
	// examine adds findings about the server's settings.
	examine func(ctx context.Context, d *diagnosis) error
}

func (d *database) close() { _ = d.sql.Close() }

// named adds the file to what SQLite says: it never names it.
func (d *database) named(err error) error {
	var of interface{ Code() int } // of the driver
	var e *outlast.Error
	if !errors.As(err, &e) || !errors.As(e.Err, &of) || !strings.HasPrefix(d.at, "sqlite:") || strings.Contains(e.Op, d.at) {
		return err
	}
	told := *e
	told.Op += " in " + d.at
	return &told
}

// connectError makes an *outlast.Error of what database/sql said before any
// statement of ours ran.
func (d *database) connectError(err error) error {
	var e *outlast.Error
	if errors.As(err, &e) {
		return err
	}
	return &outlast.Error{Op: "connect to " + d.at, Code: outlast.CodeUnavailable, Err: err}
}

// openDatabase joins the scheme of the database's address to its store.
func (p *program) openDatabase(ctx context.Context) (*database, error) {
	a, err := databaseServer.resolve(p.databaseURL, p.getenv)
	p.secrets.learn(a.url)
	if err != nil {
		return nil, err
	}
	if a.scheme == "sqlite" {
		return p.openSQLite(ctx, a)
	}
	return p.openPostgres(ctx, a, false)
}

func (p *program) openPostgres(ctx context.Context, a address, lazy bool) (*database, error) {
	ctx, cancel := p.brief(ctx)
	defer cancel()
	var opts []postgres.OpenOption
	if p.insecurePlain {
		opts = append(opts, postgres.AllowPlain())
	}
	opts = append(opts, postgres.Logger(p.adapterLog()))
	if lazy {
		opts = append(opts, postgres.Lazy())
	}
	db, err := postgres.Open(ctx, a.url, opts...)
	if outlast.CodeOf(err) == outlast.CodeInvalid {
		return nil, inUsage("connect to the database", err)
	}
	if err != nil {
		e := &outlast.Error{Op: "connect to " + a.safe, Code: outlast.CodeOf(err), Err: err}
		var own *outlast.Error
		if errors.As(err, &own) {
			e.Err, e.Hint = own.Err, own.Hint
		}
		return nil, e
	}
	d := &database{Store: p.postgresStore(db), sql: db, at: a.safe}
	d.outboxBytes = func(ctx context.Context) (int64, error) { return postgresBytes(ctx, db, p.schema, p.prefix) }
	d.receivers = func(ctx context.Context) ([]receiver, error) {
		return groupsIn(ctx, db, postgresQuiet, p.prefix, cmp.Or(p.schema, "public"))
	}
	d.examine = func(ctx context.Context, out *diagnosis) error { return examinePostgres(ctx, db, out) }
	return d, nil
}

func (p *program) postgresStore(db *sql.DB) outlast.Store { return p.postgresStoreIn(db, p.schema) }

func (p *program) postgresStoreIn(db *sql.DB, schema string) outlast.Store {
	return postgres.Store(db, p.postgresOptions(schema)...)
}

func (p *program) postgresOptions(schema string) (opts []postgres.Option) {
	if schema != "" {
		opts = append(opts, postgres.Schema(schema))
	}
	if p.prefix != "" {
		opts = append(opts, postgres.Prefix(p.prefix))
	}
	return opts
}

func (p *program) openSQLite(ctx context.Context, a address) (*database, error) {
	if p.schema != "" {
		return nil, usage("connect to the database", "--schema", "not given for SQLite, which has none", "given", "")
	}
	if err := p.checkFile(a); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", sqlite.DSN(a.path))
	if err != nil {
		return nil, &outlast.Error{Op: "open " + a.safe, Code: outlast.CodeUnavailable, Err: err}
	}
	if err := mayRead(ctx, db, a); err != nil {
		_ = db.Close()
		return nil, err
	}
	d := &database{Store: p.sqliteStore(db), sql: db, at: a.safe}
	d.outboxBytes = func(context.Context) (int64, error) { return sqliteBytes(a.path) }
	d.receivers = func(ctx context.Context) ([]receiver, error) { return groupsIn(ctx, db, sqliteQuiet, p.prefix) }
	d.examine = func(ctx context.Context, out *diagnosis) error { return examineSQLite(ctx, db, out) }
	return d, nil
}

func (p *program) sqliteStore(db *sql.DB) outlast.Store {
	var opts []sqlite.Option
	if p.prefix != "" {
		opts = append(opts, sqlite.Prefix(p.prefix))
	}
	return sqlite.Store(db, opts...)
}

// checkFile refuses a file that is not there: SQLite would make an empty database
// in its place, and a misspelt name would look like one without messages.
func (p *program) checkFile(a address) error {
	info, err := os.Stat(a.path)
	e := &outlast.Error{Op: "open " + a.safe, Code: outlast.CodeNotFound}
	switch {
	case err == nil && info.IsDir():
		e.Code, e.Err = outlast.CodeInvalid, errors.New("it is a directory")
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		e.Code, e.Err = outlast.CodeDenied, err
	case !dirExists(filepath.Dir(a.path)):
		e.Err = fmt.Errorf("there is no directory %q", filepath.Dir(a.path))
	case p.createFile:
		return nil
	default:
		e.Err, e.Hint = errors.New("there is no such file"), "outlast migrate up creates it"
	}
	return e
}

// mayRead says that permission is missing where SQLite only says that it is unable to
// open the file. The file is opened here only after SQLite could not: closing it would
// release the locks that this process has on it.
func mayRead(ctx context.Context, db *sql.DB, a address) error {
	if _, err := os.Stat(a.path); err != nil {
		return nil // it is to be made
	}
	if db.PingContext(ctx) == nil {
		return nil
	}
	f, err := os.Open(a.path)
	if err == nil {
		_ = f.Close()
	}
	if !errors.Is(err, fs.ErrPermission) {
		return nil // the first statement tells more
	}
	return &outlast.Error{Op: "open " + a.safe, Code: outlast.CodeDenied, Err: err,
		Hint: "run as a user who may read and write the file and its folder"}
}

// migrator returns the migrations of an engine, without a connection.
func (p *program) migrator(op, engine string) (outlast.Migrator, error) {
	if engine == "" {
		if p.databaseURL == "" && p.getenv(databaseServer.env) == "" {
			return nil, usage(op, "--engine", "postgres or sqlite", "not given", "or give a database URL")
		}
		a, err := databaseServer.resolve(p.databaseURL, p.getenv)
		if err != nil {
			return nil, err
		}
		if engine = a.scheme; engine != "sqlite" {
			engine = "postgres"
		}
	}
	driver := map[string]string{"postgres": "pgx", "sqlite": "sqlite"}[engine]
	if driver == "" {
		return nil, usage(op, "--engine", "postgres or sqlite", "another word", "")
	}
	// The store only needs to see which driver it is; nothing is dialled or opened.
	db, err := sql.Open(driver, "")
	if err != nil {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeInternal, Err: err}
	}
	defer db.Close()
	if engine == "sqlite" {
		return p.sqliteStore(db).Migrations(), nil
	}
	return p.postgresStore(db).Migrations(), nil
}

// broker is an open broker, and the server of it when that runs in this process.
type broker struct {
	outlast.Broker
	server *embedded.Server
	at     string // in place of Address, when that says less
}

func (b *broker) close() {
	if b.server != nil {
		b.server.Close()
	}
}

// Address is where the broker is, without secrets.
func (b *broker) Address() string {
	if b.at != "" {
		return b.at
	}
	return b.Broker.Address()
}

// sayWhoRuns logs which process runs an embedded broker: while this one does, the
// service that usually runs it cannot start.
func (b *broker) sayWhoRuns(log *slog.Logger) {
	dir, ok := strings.CutPrefix(b.at, "embedded:")
	switch {
	case !ok:
	case b.server != nil:
		log.Info("running the embedded broker in "+dir+"; other processes connect to it", "directory", dir)
	default:
		log.Info("another process runs the embedded broker in "+dir, "directory", dir)
	}
}

// unchecked says what this broker's protocol cannot show.
func (b *broker) unchecked() string {
	if b.Name() == "rabbitmq" {
		return ", as far as AMQP can show: bindings cannot be listed, apply asserts them"
	}
	return ""
}

// openBroker joins the scheme of the broker's address to its adapter. Network
// brokers are not dialled here.
func (p *program) openBroker(ctx context.Context) (*broker, error) {
	a, err := brokerServer.resolve(p.brokerURL, p.getenv)
	p.secrets.learn(a.url)
	if err != nil {
		return nil, err
	}
	var b *broker
	switch a.scheme {
	case "amqp", "amqps":
		opts := []rabbitmq.Option{rabbitmq.ConnectionName("outlast"), rabbitmq.Logger(p.adapterLog())}
		if p.insecurePlain {
			opts = append(opts, rabbitmq.AllowPlain())
		}
		if p.insecureGuest {
			opts = append(opts, rabbitmq.AllowGuest())
		}
		b = &broker{Broker: rabbitmq.Broker(a.url, opts...)}
	case "nats", "tls":
		opts := []nats.Option{nats.Logger(p.adapterLog())}
		if p.insecurePlain {
			opts = append(opts, nats.AllowPlain())
		}
		b = &broker{Broker: nats.Broker(a.url, opts...)}
	default:
		if b, err = p.openEmbedded(ctx, a); err != nil {
			return nil, err
		}
	}
	if v, ok := b.Broker.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			b.close()
			return nil, inUsage("connect to the broker", withFlagHint(err))
		}
	}
	return b, nil
}

// withFlagHint names the program's own flag for what an adapter's option would allow.
func withFlagHint(err error) error {
	var e *outlast.Error
	if errors.As(err, &e) && e.Hint == "" && strings.Contains(err.Error(), "AllowPlain") {
		told := *e
		told.Hint = "--insecure-plain allows it, where nobody else can read along"
		return &told
	}
	return err
}

// openEmbedded joins the process that runs the server of a directory. Only with
// ownBroker it runs the server itself, when nobody does: a command that only asks
// would keep the owner away, and take the server with it when it ends.
func (p *program) openEmbedded(ctx context.Context, a address) (*broker, error) {
	if !dirExists(a.path) && (!p.ownBroker || !dirExists(filepath.Dir(a.path))) {
		return nil, &outlast.Error{Op: "open " + a.safe, Code: outlast.CodeNotFound,
			Err: errors.New("there is no such directory"), Hint: "the service that runs the broker makes it, or outlast relay does, within one that exists"}
	}
	if !p.ownBroker {
		return p.joinEmbedded(ctx, a)
	}
	server, err := embedded.Start(a.path)
	if err == nil {
		p.secrets.learn(server.URL())
		return &broker{Broker: nats.Broker(server.URL()), server: server, at: a.safe}, nil
	}
	if outlast.CodeOf(err) != outlast.CodeConflict {
		return nil, err
	}
	// The owner writes its address soon after it took the directory.
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		b, err := p.joinEmbedded(ctx, a)
		if err == nil || wait > time.Second || !pause(ctx, wait) {
			return b, err
		}
	}
}

// joinEmbedded connects to the process that runs the server of a directory.
func (p *program) joinEmbedded(ctx context.Context, a address) (*broker, error) {
	address, err := embedded.Connect(a.path)
	if outlast.CodeOf(err) == outlast.CodeDenied {
		return nil, err
	}
	if err == nil {
		p.secrets.learn(address)
		err = answers(ctx, address)
	}
	if err != nil {
		return nil, &outlast.Error{Op: "open " + a.safe, Code: outlast.CodeUnavailable,
			Err:  fmt.Errorf("nobody runs the embedded broker of %s", a.path),
			Hint: "start the service that runs it, or outlast relay --broker " + a.safe + ", which runs it when nobody else does"}
	}
	return &broker{Broker: nats.Broker(address), at: a.safe}, nil
}

// answers finds out whether an embedded server listens at the address of a directory:
// the file stays when the server ends, and its port may be another program's by now.
func answers(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	greeting, err := bufio.NewReader(io.LimitReader(conn, 64<<10)).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(greeting, "INFO ") || !strings.Contains(greeting, `"server_name":"outlast-embedded`) {
		return errors.New("another program has the port")
	}
	return nil
}

// dirExists tells a missing directory from one that is there.
func dirExists(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}
