package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Standby makes a streaming copy of the server and starts it; it answers queries that write
// nothing. Which of the two holds what the other lacks after a failure depends on
// [PostgresServer.Synchronous]. The caller must Close both.
func (s *PostgresServer) Standby(ctx context.Context, config PostgresConfig) (*PostgresServer, error) {
	if s.process == nil {
		return nil, fmt.Errorf("make a standby: %w", ErrNotOurs)
	}
	home, err := newFolder()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, errors.Join(err, home.remove())
	}
	data, err := postgresData(home, config)
	if err != nil {
		return nil, errors.Join(err, home.remove())
	}
	standby := describePostgres(filepath.Dir(s.process.path), s.process.user, home, data, port, config)
	if err := makeDataFolder(data, s.process.user); err != nil {
		return nil, errors.Join(err, home.remove())
	}
	if config.OwnClock {
		if err := standby.giveClock(ctx); err != nil {
			return nil, errors.Join(err, home.remove())
		}
	}
	if err := standby.Follow(ctx, s); err != nil {
		return nil, errors.Join(err, home.remove())
	}
	return standby, nil
}

// Follow makes a server that does not run a standby of primary: its data is replaced by a
// copy of the primary's, and it is started. So the old primary comes back after a failover.
func (s *PostgresServer) Follow(ctx context.Context, primary *PostgresServer) error {
	if s.process == nil || primary.process == nil {
		return fmt.Errorf("follow: %w", ErrNotOurs)
	}
	if s.process.running() {
		return errors.New("follow: the server runs")
	}
	entries, err := os.ReadDir(s.process.dir)
	if err != nil {
		return fmt.Errorf("empty the data folder: %w", err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(s.process.dir, entry.Name())); err != nil {
			return fmt.Errorf("empty the data folder: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(s.process.path), "pg_basebackup"),
		"--pgdata", s.process.dir, "--dbname", primary.url, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.process.user}
	if err := into(cmd.SysProcAttr); err != nil {
		return err
	}
	cmd.Dir = s.process.dir
	var output []byte
	err = s.process.host.enter(func() (err error) { output, err = cmd.CombinedOutput(); return err })
	if err != nil {
		return fmt.Errorf("pg_basebackup: %w\n%s", err, output)
	}
	// Copied from the primary. Promoted, this server has no standby that it could wait for.
	if err := appendTo(filepath.Join(s.process.dir, "postgresql.auto.conf"), "synchronous_standby_names = ''\n"); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Promote makes a standby the primary, and returns when it takes writes. The old primary must
// not run any more: two primaries would each accept what the other never sees.
func (s *PostgresServer) Promote(ctx context.Context) error {
	// Who waits inside pg_promote has a snapshot, and what is still to be replayed may wait for
	// that to end: for max_standby_streaming_delay, when the statement is cancelled.
	if err := s.exec(ctx, "SELECT pg_promote(false)"); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if err := s.until(ctx, "SELECT 1 / (NOT pg_is_in_recovery())::int"); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	return nil
}

// Synchronous says whether a COMMIT is acknowledged only when the standby has it on disk.
// While it is on and no standby answers, every COMMIT waits. Turning it on returns when the
// standby takes part.
func (s *PostgresServer) Synchronous(ctx context.Context, on bool) error {
	names := "''"
	if on {
		names = "'*'"
	}
	if err := s.exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = "+names); err != nil {
		return fmt.Errorf("set synchronous replication: %w", err)
	}
	if err := s.exec(ctx, "SELECT pg_reload_conf()"); err != nil || !on {
		return err
	}
	if err := s.until(ctx, "SELECT 1 / count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"); err != nil {
		return fmt.Errorf("wait for the standby: %w", err)
	}
	return nil
}

// until asks a question again and again, as long as it is an error.
func (s *PostgresServer) until(ctx context.Context, question string) error {
	ctx, cancel := withLimit(ctx, startLimit)
	defer cancel()
	for {
		err := s.exec(ctx, question)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-time.After(probePause):
		}
	}
}

// Running reports whether the server has been started and has not ended.
func (s *PostgresServer) Running() bool { return s.process != nil && s.process.running() }

// Logs are the files that the server writes what it does to.
func (s *PostgresServer) Logs() []string {
	if s.process == nil {
		return nil
	}
	return []string{s.process.log}
}

// Ping returns nil when the server answers a query within a quarter of a minute.
func (s *PostgresServer) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if err = s.ping(ctx); err == nil {
			return nil
		}
		time.Sleep(probePause)
	}
	return err
}

// JoinURLs returns one address for several servers with the same database, of which pgx takes
// the one that accepts writes.
func JoinURLs(databaseURL string, servers ...*PostgresServer) string {
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, HostOf(s.url))
	}
	return strings.Replace(databaseURL, "@"+HostOf(databaseURL)+"/", "@"+strings.Join(hosts, ",")+"/", 1)
}

// HostOf returns what is between the user and the path of a URL of ours.
func HostOf(databaseURL string) string {
	_, rest, _ := strings.Cut(databaseURL, "@")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
