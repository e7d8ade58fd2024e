package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresConfig says how a PostgreSQL server is started. The zero value is a server as a
// production machine would run it.
type PostgresConfig struct {
	// NoSync turns fsync off. Committed data still outlives Kill, as the operating system
	// has it; only a crash of the machine would lose it. Faster, and wrong for benchmarks.
	NoSync bool

	// Settings are further settings as in postgresql.conf, such as
	// {"max_prepared_transactions": "10"}. They win over ours.
	Settings map[string]string

	// Host is where the server runs.
	Host Host

	// OwnClock gives the server a clock that [PostgresServer.SetClock] sets; see [LacksClock].
	OwnClock bool

	// OwnDisk puts the data on a file system of its own, in memory, that FillDisk fills. The
	// process must have mounts of its own, as package network makes them.
	OwnDisk bool
}

// PostgresServer is a PostgreSQL server on a loopback port. Its methods may be called
// concurrently.
type PostgresServer struct {
	url     string
	process *process // nil: not started by us
	folder  *folder
	disk    bool   // its data is on a disk of its own
	clock   string // file with the difference of its clock; empty: the machine's
}

// Postgres makes a new, empty server and starts it. It returns when the server answers
// queries. The newest PostgreSQL in the usual places is taken. As root the server runs as
// the user postgres, because it refuses to be root. ctx bounds the start alone; without a
// deadline the bound is two minutes. The caller must Close the server.
func Postgres(ctx context.Context, config PostgresConfig) (*PostgresServer, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	account, err := postgresAccount()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	home, err := newFolder()
	if err != nil {
		return nil, err
	}
	data, err := postgresData(home, config)
	if err != nil {
		return nil, errors.Join(err, home.remove())
	}
	if err := initdb(ctx, bin, data, account); err != nil {
		return nil, errors.Join(err, removeDisk(home, config), home.remove())
	}
	if config.Host.IP != "" {
		// A namespace holds nobody but the test.
		const everybody = "host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n"
		if err := appendTo(filepath.Join(data, "pg_hba.conf"), everybody); err != nil {
			return nil, errors.Join(err, home.remove())
		}
	}
	s := describePostgres(bin, account, home, data, port, config)
	if config.OwnClock {
		if err := s.giveClock(ctx); err != nil {
			return nil, errors.Join(err, home.remove())
		}
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, home.remove())
	}
	return s, nil
}

// describePostgres describes a server whose data is in home; nothing runs until Start.
func describePostgres(bin string, account *syscall.Credential, home *folder, data string, port int, config PostgresConfig) *PostgresServer {
	return &PostgresServer{
		url:    fmt.Sprintf("postgres://outlast@%s/postgres?sslmode=disable", config.Host.address(port)),
		folder: home,
		disk:   config.OwnDisk,
		process: &process{
			name:       "postgres",
			path:       filepath.Join(bin, "postgres"),
			args:       postgresArgs(data, port, config),
			dir:        data,
			user:       account,
			log:        home.join("postgres.log"),
			stopSignal: syscall.SIGINT, // "fast": ends sessions, then writes a checkpoint
			// An immediate shutdown: as abrupt as a kill, but it frees the shared memory.
			deathSig: syscall.SIGQUIT,
			host:     config.Host,
		},
	}
}

func postgresArgs(data string, port int, config PostgresConfig) []string {
	settings := map[string]string{
		"listen_addresses":        config.Host.ip(),
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": "",
		"max_connections":         "300", // many parallel tests share one server
		"timezone":                "UTC",
	}
	if config.NoSync {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
	}
	for name, value := range config.Settings {
		settings[name] = value
	}
	args := []string{"-D", data}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	return args
}

func initdb(ctx context.Context, bin, data string, account *syscall.Credential) error {
	if err := makeDataFolder(data, account); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "outlast",
		"--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	cmd.Dir = data
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	if err := into(cmd.SysProcAttr); err != nil {
		return err
	}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, output)
	}
	return nil
}

// postgresData says where the data is, and mounts its disk if it is to have one.
func postgresData(home *folder, config PostgresConfig) (string, error) {
	if !config.OwnDisk {
		return home.join("data"), nil
	}
	if err := os.Mkdir(home.join("disk"), 0o755); err != nil {
		return "", err
	}
	return home.join("disk", "data"), mountDisk(home.join("disk"), diskSize)
}

// removeDisk undoes postgresData for a server that came to nothing.
func removeDisk(home *folder, config PostgresConfig) error {
	if !config.OwnDisk {
		return nil
	}
	return unmountDisk(home.join("disk"))
}

func makeDataFolder(data string, account *syscall.Credential) error {
	if err := os.Mkdir(data, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if account == nil {
		return nil
	}
	if err := os.Chown(data, int(account.Uid), int(account.Gid)); err != nil {
		return fmt.Errorf("hand over the data folder: %w", err)
	}
	return nil
}

// URL is the address of the server's database "postgres", with rights to do everything.
func (s *PostgresServer) URL() string { return s.url }

// Start starts a server that was stopped or killed, on its port and data, and returns when
// it answers queries. Starting one that runs is an error.
func (s *PostgresServer) Start(ctx context.Context) error {
	if s.process == nil {
		return fmt.Errorf("start postgres: %w", ErrNotOurs)
	}
	return s.process.startAndWait(ctx, s.ping)
}

// Stop ends all sessions, writes a checkpoint and returns when the server has ended.
func (s *PostgresServer) Stop(ctx context.Context) error {
	if s.process == nil {
		return fmt.Errorf("stop postgres: %w", ErrNotOurs)
	}
	return s.process.stop(ctx)
}

// Kill sends SIGKILL to the server and all its backends and returns when all are gone. The
// next Start goes through crash recovery.
func (s *PostgresServer) Kill() error {
	if s.process == nil {
		return fmt.Errorf("kill postgres: %w", ErrNotOurs)
	}
	return s.process.kill()
}

// Restart is Stop and Start.
func (s *PostgresServer) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Pause freezes the server and all its backends with SIGSTOP: connections stay open and
// new ones are accepted by the kernel, but nothing answers.
func (s *PostgresServer) Pause() error {
	if s.process == nil {
		return fmt.Errorf("pause postgres: %w", ErrNotOurs)
	}
	return s.process.pause()
}

// Continue ends a Pause.
func (s *PostgresServer) Continue() error {
	if s.process == nil {
		return fmt.Errorf("continue postgres: %w", ErrNotOurs)
	}
	return s.process.resume()
}

// Close kills the server and removes its data. A server that is not ours is left alone.
func (s *PostgresServer) Close() error {
	if s.process == nil {
		return nil
	}
	// Not a plain kill: that would leave a shared memory segment behind.
	ctx, cancel := context.WithTimeout(context.Background(), killLimit)
	defer cancel()
	stopped := s.process.stop(ctx)
	killed := s.process.kill()
	if s.disk {
		killed = errors.Join(killed, unmountDisk(s.diskFolder()))
	}
	return errors.Join(stopped, killed, s.folder.remove())
}

// NewDatabase creates an empty database and returns its URL.
func (s *PostgresServer) NewDatabase(ctx context.Context) (string, error) {
	name := "lab_" + strings.ToLower(rand.Text())
	if err := s.exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("create database: %w", err)
	}
	address, err := url.Parse(s.url)
	if err != nil {
		return "", fmt.Errorf("read the server's URL: %w", err)
	}
	address.Path = "/" + name
	return address.String(), nil
}

// DropDatabase removes a database made by NewDatabase; its open sessions are ended.
func (s *PostgresServer) DropDatabase(ctx context.Context, databaseURL string) error {
	address, err := url.Parse(databaseURL)
	if err != nil {
		return fmt.Errorf("drop database: %w", err)
	}
	name := strings.TrimPrefix(address.Path, "/")
	if !strings.HasPrefix(name, "lab_") {
		return fmt.Errorf("drop database %q: NewDatabase did not make it", name)
	}
	if err := s.exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database: %w", err)
	}
	return nil
}

func (s *PostgresServer) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}

func (s *PostgresServer) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return s.exec(ctx, "SELECT 1")
}

// postgresBin returns the folder of the newest PostgreSQL: Debian keeps one per major
// version outside PATH.
func postgresBin() (string, error) {
	found := globServers("/usr/lib/postgresql/*/bin/postgres")
	slices.SortFunc(found, func(a, b string) int { return postgresMajor(a) - postgresMajor(b) })
	return findServer("postgres", "postgresql", envPostgres, found)
}

// postgresMajor reads 15 from /usr/lib/postgresql/15/bin/postgres.
func postgresMajor(path string) int {
	major, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 sorts first
	return major
}

// lookupPostgres finds the user in the generation's own list.
func lookupPostgres() (*user.User, error) {
	root, err := generation()
	if err != nil {
		return nil, err
	}
	if root == "" {
		return user.Lookup("postgres")
	}
	list, err := os.ReadFile(filepath.Join(root, "etc", "passwd"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		if fields := strings.Split(line, ":"); len(fields) > 3 && fields[0] == "postgres" {
			return &user.User{Uid: fields[2], Gid: fields[3]}, nil
		}
	}
	return nil, user.UnknownUserError("postgres")
}

func postgresAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := lookupPostgres()
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root and needs the user postgres; "+
			"apt-get install -y postgresql makes it: %w", err)
	}
	uid, err1 := strconv.ParseUint(account.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(account.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("read the ids of the user postgres: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
