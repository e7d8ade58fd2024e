package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/postgres"
	"github.com/spf13/cobra"
)

func (p *program) migrateCommand() *cobra.Command {
	cmd := asGroup(&cobra.Command{
		Use:   "migrate",
		Short: "Create and change Outlast's tables, or print the SQL",
		Long: `Migrate creates Outlast's tables in a service's own database and changes them for
newer releases, forward while an older release still runs. To use a migration tool
of your own, print the SQL instead.`,
	})
	cmd.AddCommand(p.migrateUp(), p.migrateDown(), p.migrateStatus(), p.migratePrint())
	return cmd
}

func (p *program) migrateUp() *cobra.Command {
	var (
		to      int
		service string
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Create the tables or bring them to this release's version",
		Long: `Up runs every migration that is missing, each in a transaction of its own; several
runs at once wait for each other. With --service the outbox is marked as that
service's, so that no relay of another one ever sends from it.`,
		Example: "  outlast migrate up --service orders\n  outlast migrate up --database sqlite:orders.db",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.createFile = true
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				return p.runMigrateUp(ctx, db, to, service)
			})
		},
	}
	cmd.Flags().IntVar(&to, "to", 0, "version to migrate to (default the latest)")
	cmd.Flags().StringVar(&service, "service", "", "the service whose outbox this is: orders")
	return cmd
}

func (p *program) runMigrateUp(ctx context.Context, db *database, to int, service string) error {
	m := db.Migrations()
	before, err := p.schemaVersion(ctx, m)
	if err != nil {
		return err
	}
	if err := m.Up(ctx, to); err != nil {
		return p.afterStep(ctx, m, err)
	}
	if service != "" {
		ctx, cancel := p.brief(ctx)
		defer cancel()
		if err := db.Relay().Identify(ctx, service); err != nil {
			return err
		}
	}
	return p.printMigrated(ctx, db, before, service)
}

func (p *program) migrateDown() *cobra.Command {
	var (
		to  int
		yes bool
	)
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take migrations back, down to a version",
		Long: `Down takes migrations back, the newest first. Version 0 removes every table with
all that waits in it, so that asks for --yes.`,
		Example: "  outlast migrate down --to 1\n  outlast migrate down --to 0 --yes",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("to") || to < 0 {
				return usage(cmd.CommandPath(), "--to", "the version to go down to, 0 for no tables", "not given or negative", "")
			}
			if to == 0 && !yes {
				return usage(cmd.CommandPath(), "--yes", "given: version 0 deletes every message in these tables", "not given", "")
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				before, err := p.schemaVersion(ctx, db.Migrations())
				if err != nil {
					return err
				}
				if err := db.Migrations().Down(ctx, to); err != nil {
					return p.afterStep(ctx, db.Migrations(), err)
				}
				return p.printMigrated(ctx, db, before, "")
			})
		},
	}
	cmd.Flags().IntVar(&to, "to", 0, "version to go down to")
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, delete what is in the tables")
	return cmd
}

func (p *program) schemaVersion(ctx context.Context, m outlast.Migrator) (int, error) {
	ctx, cancel := p.brief(ctx)
	defer cancel()
	return m.Version(ctx)
}

// afterStep says at which version a failed or interrupted migration stopped: every
// step is a transaction, so it is a whole one.
func (p *program) afterStep(ctx context.Context, m outlast.Migrator, err error) error {
	version, verr := p.schemaVersion(context.WithoutCancel(ctx), m)
	if verr != nil {
		return err
	}
	return withHint(err, fmt.Sprintf("the tables are at version %d; the same command continues", version))
}

// migrated is what up, down and status print.
type migrated struct {
	Database string `json:"database"`
	Before   *int   `json:"before,omitempty"`
	Version  int    `json:"version"`
	Latest   int    `json:"latest"`
	Service  string `json:"service,omitempty"`
}

func (p *program) printMigrated(ctx context.Context, db *database, before int, service string) error {
	version, err := p.schemaVersion(ctx, db.Migrations())
	if err != nil {
		return err
	}
	r := migrated{Database: db.at, Before: &before, Version: version, Latest: db.Migrations().Latest(), Service: service}
	if p.json {
		return p.printJSON(r)
	}
	if before == version {
		p.printf("%s: version %d already, nothing to do\n", r.Database, version)
	} else {
		p.printf("%s: from version %d to %d\n", r.Database, before, version)
	}
	if service != "" {
		p.printf("this is the outbox of %s\n", service)
	}
	return nil
}

func (p *program) migrateStatus() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the tables' version; exit code 1 when this release cannot use them",
		Example: "  outlast migrate status --json",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				version, err := p.schemaVersion(ctx, db.Migrations())
				if err != nil {
					return err
				}
				r := migrated{Database: db.at, Version: version, Latest: db.Migrations().Latest()}
				if p.json {
					err = p.printJSON(r)
				} else {
					p.printf("%s: version %d, this release knows %d\n", r.Database, r.Version, r.Latest)
				}
				if err != nil || version >= r.Latest {
					return err
				}
				return &outlast.Error{Op: "migrate status", Code: outlast.CodeSchema,
					Err: errors.New("the tables are missing or older than this release"), Hint: "outlast migrate up"}
			})
		},
	}
}

func (p *program) migratePrint() *cobra.Command {
	var (
		from, to int
		engine   string
		roles    bool
		service  string
	)
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print the SQL, for your own migration tool",
		Long: `Print writes the SQL that takes the tables from one version to another. It connects
to nothing. The engine comes from --engine, or from the scheme of the database URL.

With --roles it prints PostgreSQL roles instead: an owner, and one for each kind of work
(app, canceller, relay, consumer, viewer, operator) with the rights that it needs and no
others. Run that SQL after every migration.`,
		Example: "  outlast migrate print --engine postgres --schema messaging > 0007_outlast.sql\n  outlast migrate print --engine postgres --from 1 --to 2\n  outlast migrate print --roles --service orders | psql \"$DATABASE_URL\"",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if roles {
				return p.printRoles(cmd, engine, service)
			}
			if service != "" {
				return usage(cmd.CommandPath(), "--service", "given with --roles", "given alone", "")
			}
			m, err := p.migrator(cmd.CommandPath(), engine)
			if err != nil {
				return err
			}
			if m.Latest() == 0 { // the store refuses its schema or prefix, and says so
				return inUsage(cmd.CommandPath(), m.Print(io.Discard, 0, 1))
			}
			if to == 0 {
				to = m.Latest()
			}
			if from < 0 || from >= to || to > m.Latest() {
				return usage(cmd.CommandPath(), "--from and --to", fmt.Sprintf("0 <= from < to <= %d", m.Latest()), fmt.Sprintf("%d and %d", from, to), "")
			}
			return m.Print(p.out, from, to)
		},
	}
	cmd.Flags().IntVar(&from, "from", 0, "version that the tables have, 0 for none")
	cmd.Flags().IntVar(&to, "to", 0, "version to come to (default the latest)")
	cmd.Flags().StringVar(&engine, "engine", "", "postgres or sqlite (default the database URL's)")
	cmd.Flags().BoolVar(&roles, "roles", false, "print roles with least rights, for PostgreSQL")
	cmd.Flags().StringVar(&service, "service", "", "begins the roles' names: orders gives orders_app, orders_relay, ...")
	return cmd
}

func (p *program) printRoles(cmd *cobra.Command, engine, service string) error {
	op := cmd.CommandPath()
	switch {
	case engine != "" && engine != "postgres":
		return usage(op, "--engine", "postgres with --roles: other databases have none", "another word", "")
	case service == "":
		return usage(op, "--service", "the service whose roles these are: orders", "not given", "roles belong to the whole server, so that each service has its own")
	case cmd.Flags().Changed("from") || cmd.Flags().Changed("to"):
		return usage(op, "--from and --to", "not given with --roles", "given", "")
	}
	return inUsage(op, postgres.PrintRoles(p.out, service, p.postgresOptions(p.schema)...))
}
