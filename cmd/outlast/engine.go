package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/tlsfile"
)

// postgresBytes asks for the room of the two tables that grow in an outage, with
// their indexes and what is stored out of line.
func postgresBytes(ctx context.Context, db *sql.DB, schema, prefix string) (int64, error) {
	if schema == "" {
		schema = "public"
	}
	if prefix == "" {
		prefix = "outlast_"
	}
	var n int64
	err := db.QueryRowContext(ctx, `
		SELECT coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::bigint
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname IN ($2, $3)`, schema, prefix+"outbox", prefix+"held").Scan(&n)
	return n, err
}

// sqliteBytes is the size of the whole database: SQLite has no cheaper answer for
// one table, and it is the file that fills the disk.
func sqliteBytes(file string) (int64, error) {
	var sum int64
	for _, name := range []string{file, file + "-wal"} {
		info, err := os.Stat(name)
		if err != nil && !os.IsNotExist(err) {
			return 0, err
		}
		if err == nil {
			sum += info.Size()
		}
	}
	return sum, nil
}

// postgresSetting is one setting that a promise leans on.
type postgresSetting struct{ name, want, promise, consequence string }

var postgresSettings = []postgresSetting{
	{"fsync", "on", "No loss", "committed messages are lost when the machine dies"},
	{"full_page_writes", "on", "No loss", "a crash may leave torn pages"},
	{"synchronous_commit", "", "No loss", "committed messages of the last moment are lost when the machine dies"},
}

// examinePostgres looks at the settings that decide whether a COMMIT is kept, and at
// what makes every queue in a table slow: an old snapshot.
func examinePostgres(ctx context.Context, db *sql.DB, d *diagnosis) error {
	var version string
	if err := db.QueryRowContext(ctx, "SHOW server_version").Scan(&version); err != nil {
		return err
	}
	d.add("database server", outlast.FindingOK, "", "", "PostgreSQL %s", version)
	for _, s := range postgresSettings {
		var value string
		if err := db.QueryRowContext(ctx, "SELECT pg_catalog.current_setting($1)", s.name).Scan(&value); err != nil {
			return err
		}
		if value == "off" {
			d.add(s.name, outlast.FindingFail, s.promise, "set "+s.name+" = on", "is off: %s", s.consequence)
		} else {
			d.add(s.name, outlast.FindingOK, "", "", "is %s", value)
		}
	}
	if err := examineEncryption(ctx, db, d); err != nil {
		return err
	}
	return examineOldSnapshot(ctx, db, d)
}

func examineEncryption(ctx context.Context, db *sql.DB, d *diagnosis) error {
	var encrypted, local bool
	err := db.QueryRowContext(ctx, `
		SELECT coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()), false),
			coalesce(pg_catalog.inet_client_addr() <<= '127.0.0.0/8' OR pg_catalog.inet_client_addr() = '::1', true)`).Scan(&encrypted, &local)
	switch {
	case err != nil:
		return err
	case encrypted:
		d.add("encryption", outlast.FindingOK, "", "", "the connection is encrypted")
		return d.addCertificate(ctx, db)
	case local:
		d.add("encryption", outlast.FindingOK, "", "", "not encrypted, on this machine")
	default:
		d.add("encryption", outlast.FindingWarn, "", "add sslmode=verify-full to the URL", "the connection is not encrypted, and leaves this machine")
	}
	return nil
}

// addCertificate tells when the server's certificate ends.
func (d *diagnosis) addCertificate(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error {
		c, ok := driver.(*stdlib.Conn)
		if !ok {
			return nil
		}
		if secure, ok := c.Conn().PgConn().Conn().(*tls.Conn); ok {
			d.Findings = append(d.Findings, tlsfile.Findings("encryption", secure.ConnectionState(), nil, time.Now())...)
		}
		return nil
	})
}

// oldSnapshotSeconds is when an open transaction begins to matter: everything that
// is deleted after it began stays in the tables.
const oldSnapshotSeconds = 600

func examineOldSnapshot(ctx context.Context, db *sql.DB, d *diagnosis) error {
	var age sql.NullFloat64
	err := db.QueryRowContext(ctx, `
		SELECT extract(epoch FROM max(pg_catalog.clock_timestamp() - xact_start))::float8
		FROM pg_catalog.pg_stat_activity
		WHERE backend_xmin IS NOT NULL AND datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()`).Scan(&age)
	if err != nil {
		return err
	}
	if age.Float64 > oldSnapshotSeconds {
		d.add("open transactions", outlast.FindingWarn, "", "find it in pg_stat_activity; set idle_in_transaction_session_timeout",
			"one is open for %.0f minutes: deleted rows stay in the tables until it ends", age.Float64/60)
	}
	return nil
}

// commitRefused reports whether the server itself said that a COMMIT did not happen.
// A lost or ending connection says nothing.
func commitRefused(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return false
	}
	const connectionException, operatorIntervention = "08", "57"
	class := pg.Code[:2]
	return class != connectionException && class != operatorIntervention
}

// examineSQLite looks at what the file and this connection have.
func examineSQLite(ctx context.Context, db *sql.DB, d *diagnosis) error {
	var version, journal string
	var synchronous int
	if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return err
	}
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return err
	}
	if err := db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return err
	}
	d.add("database server", outlast.FindingOK, "", "", "SQLite %s: one host, one writer at a time", version)
	if journal != "wal" {
		d.add("journal_mode", outlast.FindingWarn, "", "outlast migrate up sets it", "is %s: readers and writers block each other", journal)
	}
	const full = 2
	if synchronous < full {
		d.add("synchronous", outlast.FindingFail, "No loss", "open the file with sqlite.DSN", "is %s: committed messages are lost when the machine dies", fmt.Sprint(synchronous))
	} else {
		d.add("synchronous", outlast.FindingOK, "", "", "is FULL")
	}
	return nil
}
