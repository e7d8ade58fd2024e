package postgres_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// secured is a server with TLS on, which asks the role "app" for a certificate.
type secured struct {
	t         *testing.T
	admin     *sql.DB
	ours      *servers.Authority
	data      string // the server's folder
	localhost string // address by name, of the role "app"
}

func startSecured(t *testing.T) *secured {
	t.Helper()
	server, err := servers.Postgres(t.Context(), servers.PostgresConfig{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	s := &secured{t: t, admin: openURL(t, server.URL()), ours: servers.NewAuthority(t, "ours")}
	must(t, s.admin.QueryRowContext(t.Context(), "SHOW data_directory").Scan(&s.data))
	s.ours.Join(s.in("root.crt"), s.ours.File)
	s.present(s.ours, time.Now().Add(time.Hour), "localhost")
	must(t, exec(t.Context(), s.admin, "CREATE ROLE app LOGIN"))
	for _, sql := range []string{
		"COPY (VALUES ('host all outlast 127.0.0.1/32 trust'), ('hostssl all app 127.0.0.1/32 cert'), ('hostssl all app ::1/128 cert')) TO '" + s.in("pg_hba.conf") + "'",
		"ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "ALTER SYSTEM SET ssl = on",
	} {
		must(t, exec(t.Context(), s.admin, sql))
	}
	s.reload()
	c, err := pgx.ParseConfig(server.URL())
	must(t, err)
	s.localhost = fmt.Sprintf("postgres://app@localhost:%d/postgres?sslmode=verify-full", c.Port)
	return s
}

func (s *secured) in(name string) string { return filepath.Join(s.data, name) }

// present gives the server a certificate.
func (s *secured) present(a *servers.Authority, until time.Time, host string) {
	a.Issue(s.in("server.crt"), s.in("server.key"), "server", until, host)
}

// reload returns when new sessions have the new settings: the postmaster takes the signal
// in its own time.
func (s *secured) reload() {
	s.t.Helper()
	var before, after time.Time
	const loaded = "SELECT pg_conf_load_time()"
	must(s.t, s.fresh(loaded, &before))
	must(s.t, exec(s.t.Context(), s.admin, "SELECT pg_reload_conf()"))
	for deadline := time.Now().Add(time.Minute); !after.After(before); {
		must(s.t, s.fresh(loaded, &after))
		if time.Now().After(deadline) {
			s.t.Fatal("the server does not reload")
		}
	}
}

// fresh asks a session of its own, which has the postmaster's settings.
func (s *secured) fresh(query string, dest any) error {
	s.admin.SetMaxIdleConns(0)
	return s.admin.QueryRowContext(s.t.Context(), query).Scan(dest)
}

// TestS27_PostgresIsVerified: what does not verify fails closed, on both sides.
func TestS27_PostgresIsVerified(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	theirs := servers.NewAuthority(t, "theirs")
	cert, key := s.ours.Files("app", time.Now().Add(time.Hour))
	oldCert, oldKey := s.ours.Files("old", time.Now().Add(-time.Hour))
	otherCert, otherKey := s.ours.Files("outlast", time.Now().Add(time.Hour))
	files := func(ca, cert, key string) string { return "&sslrootcert=" + ca + "&sslcert=" + cert + "&sslkey=" + key }
	good := s.localhost + files(s.ours.File, cert, key)
	try := func(name, address, reason string) {
		t.Helper()
		db, err := postgres.Open(t.Context(), address)
		// What a server says as it ends a connection may be lost with it.
		for range 50 {
			if !errors.Is(err, syscall.ECONNRESET) {
				break
			}
			db, err = postgres.Open(t.Context(), address)
		}
		if err == nil {
			var encrypted bool
			must(t, db.QueryRowContext(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted))
			must(t, db.Close())
			if !encrypted {
				t.Errorf("%s: not encrypted", name)
			}
		}
		if (err == nil) != (reason == "") || err != nil && !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want %q", name, err, reason)
		}
	}
	try("good", good, "")
	try("wrong authority", s.localhost+files(theirs.File, cert, key), "unknown authority")
	try("system authorities", s.localhost+"&sslcert="+cert+"&sslkey="+key, "unknown authority")
	try("wrong name", strings.Replace(good, "localhost", "127.0.0.1", 1), "127.0.0.1")
	try("no certificate", s.localhost+"&sslrootcert="+s.ours.File, "certificate")
	try("old certificate", s.localhost+files(s.ours.File, oldCert, oldKey), "certificate")
	try("another role's certificate", s.localhost+files(s.ours.File, otherCert, otherKey), "certificate authentication failed")
	try("missing file", s.localhost+files("/nowhere.pem", cert, key), "cannot be parsed")
	s.present(s.ours, time.Now().Add(-time.Minute), "localhost")
	s.reload()
	try("expired server", good, "expired")
	s.present(theirs, time.Now().Add(time.Hour), "localhost")
	s.reload()
	try("server of another authority", good, "unknown authority")
}

// TestS26_PostgresCertificatesRotateUnderLoad: new connections of an open pool use what
// the files hold by then, and no statement fails meanwhile.
func TestS26_PostgresCertificatesRotateUnderLoad(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	dir := t.TempDir()
	trust, cert, key := filepath.Join(dir, "trust.pem"), filepath.Join(dir, "app.pem"), filepath.Join(dir, "app.key")
	s.ours.Join(trust, s.ours.File)
	s.ours.Issue(cert, key, "app", time.Now().Add(time.Hour))
	db := openURL(t, s.localhost+"&sslrootcert="+trust+"&sslcert="+cert+"&sslkey="+key, postgres.MaxConns(4))
	db.SetMaxIdleConns(0) // every statement connects anew

	issuer := func() (issuer string) {
		t.Helper()
		must(t, db.QueryRowContext(t.Context(), "SELECT issuer_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&issuer))
		return issuer
	}
	if got := issuer(); got != "/CN=ours" {
		t.Fatalf("the certificate is of %q", got)
	}
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				failed <- nil
				return
			default:
			}
			if _, err := db.ExecContext(t.Context(), "SELECT 1"); err != nil {
				failed <- fmt.Errorf("statement %d: %w", n, err)
				return
			}
		}
	}()
	next := servers.NewAuthority(t, "next")
	next.Join(trust, s.ours.File, next.File)
	next.Join(s.in("root.crt"), s.ours.File, next.File)
	s.reload()
	s.present(next, time.Now().Add(time.Hour), "localhost")
	next.Issue(cert, key, "app", time.Now().Add(time.Hour)) // the key comes after the certificate
	s.reload()
	next.Join(trust, next.File)
	next.Join(s.in("root.crt"), next.File)
	s.reload()
	if got := issuer(); got != "/CN=next" {
		t.Errorf("after the rotation the certificate is of %q", got)
	}
	close(stop)
	must(t, <-failed)
	// A rotation that failed half-way closes the door, and says why.
	s.ours.Join(trust, s.ours.File)
	if err := exec(t.Context(), db, "SELECT 1"); outlast.CodeOf(err) == "" && (err == nil || !strings.Contains(err.Error(), "unknown authority")) {
		t.Errorf("a server of an authority that is not trusted any more: %v", err)
	}
}
