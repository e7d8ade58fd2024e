package servers_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast/lab/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

func startPostgres(t *testing.T, config servers.PostgresConfig) *servers.PostgresServer {
	t.Helper()
	server, err := servers.Postgres(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func execSQL(t *testing.T, databaseURL, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func queryString(t *testing.T, databaseURL, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	server := startPostgres(t, servers.PostgresConfig{Settings: map[string]string{"max_connections": "17"}})
	database, err := server.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, database, `CREATE TABLE kept (word text)`)

	// The steps follow each other on one server: each leaves it running.
	t.Run("syncs_by_default_and_takes_settings", func(t *testing.T) {
		if got := queryString(t, database, `SELECT current_setting('fsync')`); got != "on" {
			t.Errorf("fsync is %q, want on", got)
		}
		if got := queryString(t, database, `SELECT current_setting('max_connections')`); got != "17" {
			t.Errorf("max_connections is %q, want 17", got)
		}
	})
	t.Run("kill_ends_all_backends_and_keeps_what_was_committed", func(t *testing.T) {
		execSQL(t, database, `INSERT INTO kept VALUES ('killed')`)
		open, err := pgx.Connect(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close(context.Background())
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := open.Ping(t.Context()); err == nil {
			t.Error("a session answered after Kill")
		}
		if conn, err := pgx.Connect(t.Context(), database); err == nil {
			conn.Close(context.Background())
			t.Error("the server took a connection after Kill")
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := queryString(t, database, `SELECT word FROM kept`); got != "killed" {
			t.Errorf("the row is %q after the restart, want killed", got)
		}
	})
	t.Run("restart_keeps_port_and_data", func(t *testing.T) {
		execSQL(t, database, `UPDATE kept SET word = 'restarted'`)
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := queryString(t, database, `SELECT word FROM kept`); got != "restarted" {
			t.Errorf("the row is %q after the restart, want restarted", got)
		}
	})
	t.Run("paused_it_does_not_answer_until_continued", func(t *testing.T) {
		open, err := pgx.Connect(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close(context.Background())
		if err := server.Pause(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		var netErr net.Error
		if err := open.Ping(ctx); !errors.As(err, &netErr) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a frozen server answered: %v", err)
		}
		if err := server.Continue(); err != nil {
			t.Fatal(err)
		}
		if got := queryString(t, database, `SELECT word FROM kept`); got != "restarted" {
			t.Errorf("the row is %q after the pause, want restarted", got)
		}
	})
	t.Run("starting_it_twice_is_an_error", func(t *testing.T) {
		if err := server.Start(t.Context()); err == nil {
			t.Error("Start of a running server succeeded")
		}
	})
	t.Run("stopping_it_twice_is_none", func(t *testing.T) {
		for range 2 {
			if err := server.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestPostgres_shows_the_log_when_it_does_not_start(t *testing.T) {
	t.Parallel()
	_, err := servers.Postgres(t.Context(), servers.PostgresConfig{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "unrecognized configuration parameter") {
		t.Fatalf("the error does not hold the server's complaint: %v", err)
	}
}

func TestPostgres_close_removes_its_folder(t *testing.T) {
	t.Parallel()
	server, err := servers.Postgres(t.Context(), servers.PostgresConfig{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	data := queryString(t, server.URL(), `SELECT current_setting('data_directory')`)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(data)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestDatabase_is_fresh_for_each_test_and_dropped_after_it(t *testing.T) {
	t.Parallel()
	server := servers.SharedPostgres(t)
	var used []string
	for range 2 {
		t.Run("one", func(t *testing.T) {
			database := servers.Database(t)
			execSQL(t, database, `CREATE TABLE own (id int)`) // fails if it exists
			used = append(used, database)
		})
	}
	for _, database := range used {
		address, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		query := `SELECT count(*)::text FROM pg_database WHERE datname = '` + strings.TrimPrefix(address.Path, "/") + `'`
		if got := queryString(t, server.URL(), query); got != "0" {
			t.Errorf("database %s outlived its test", address.Path)
		}
	}
}
