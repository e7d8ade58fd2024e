package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Bouncer is a PgBouncer in transaction mode before one PostgreSQL server: a session of a
// client is another session of the server in each transaction.
type Bouncer struct {
	url     string
	process *process
	folder  *folder
}

// LacksBouncer says why no PgBouncer can be started; empty when one can.
func LacksBouncer() string {
	if _, err := bouncerPath(); err != nil {
		return err.Error()
	}
	return ""
}

func bouncerPath() (string, error) {
	if found := globServers("/usr/sbin/pgbouncer"); len(found) > 0 {
		return found[0], nil
	}
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("find pgbouncer: install it with: apt-get install -y pgbouncer")
}

// PgBouncer starts a PgBouncer before server, on host. It returns when it takes connections.
// The caller must Close it.
func PgBouncer(ctx context.Context, server *PostgresServer, host Host) (*Bouncer, error) {
	path, err := bouncerPath()
	if err != nil {
		return nil, err
	}
	account, err := postgresAccount() // it does not run as root either
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
	config := home.join("pgbouncer.ini")
	if err := os.WriteFile(config, []byte(bouncerConfig(HostOf(server.url), host.ip(), port)), 0o644); err != nil {
		return nil, errors.Join(err, home.remove())
	}
	b := &Bouncer{
		url:    strings.Replace(server.url, HostOf(server.url), host.address(port), 1),
		folder: home,
		process: &process{name: "pgbouncer", path: path, args: []string{config}, dir: home.path, user: account, log: home.join("pgbouncer.log"),
			stopSignal: syscall.SIGINT, deathSig: syscall.SIGKILL, host: host},
	}
	if err := b.Start(ctx); err != nil {
		return nil, errors.Join(err, home.remove())
	}
	return b, nil
}

func bouncerConfig(target, ip string, port int) string {
	host, targetPort, _ := strings.Cut(target, ":")
	return fmt.Sprintf(`[databases]
* = host=%s port=%s user=outlast
[pgbouncer]
listen_addr = %s
listen_port = %d
unix_socket_dir =
auth_type = any
admin_users = outlast
pool_mode = transaction
max_client_conn = 1000
default_pool_size = 20
ignore_startup_parameters = extra_float_digits
server_connect_timeout = 5
server_login_retry = 1
query_wait_timeout = 15
`, host, targetPort, ip, port)
}

// URL is the address of the database "postgres" through the PgBouncer.
func (b *Bouncer) URL() string { return b.url }

// Start starts one that was killed, and returns when it takes connections: the server behind
// it may be down.
func (b *Bouncer) Start(ctx context.Context) error {
	return b.process.startAndWait(ctx, probeTCP(HostOf(b.url)))
}

// Running reports whether it has been started and has not ended.
func (b *Bouncer) Running() bool { return b.process.running() }

// Kill ends it and all its sessions.
func (b *Bouncer) Kill() error { return b.process.kill() }

// Pause freezes it with SIGSTOP; Continue ends that.
func (b *Bouncer) Pause() error { return b.process.pause() }

// Continue ends a Pause.
func (b *Bouncer) Continue() error { return b.process.resume() }

// Close kills it and removes its folder.
func (b *Bouncer) Close() error { return errors.Join(b.process.kill(), b.folder.remove()) }
