package shop

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver named "sqlite"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/sqlite"
)

// SchemaPrefix begins the name of each service's schema in a shared PostgreSQL
// database: "shop_orders".
const SchemaPrefix = "shop_"

// Database is one service's own database.
type Database struct {
	*sql.DB
	Store   outlast.Store
	Service string
}

// Open opens the database of a service. address is "sqlite:DIR", for the file
// DIR/SERVICE.db, or a PostgreSQL URL, for the schema shop_SERVICE. It creates
// nothing.
func Open(ctx context.Context, address, service string) (*Database, error) {
	if dir, ok := strings.CutPrefix(address, "sqlite:"); ok {
		db, err := sql.Open("sqlite", sqlite.DSN(filepath.Join(dir, service+".db")))
		if err != nil {
			return nil, err
		}
		return &Database{DB: db, Store: sqlite.Store(db), Service: service}, nil
	}
	schema := SchemaPrefix + service
	address, err := withSearchPath(address, schema)
	if err != nil {
		return nil, err
	}
	db, err := postgres.Open(ctx, address)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	return &Database{DB: db, Store: postgres.Store(db, postgres.Schema(schema)), Service: service}, nil
}

// withSearchPath makes the tables of the shop be looked up in the service's schema.
func withSearchPath(address, schema string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		// The parser's error would repeat a password.
		return "", &outlast.Error{Op: "open database", Code: outlast.CodeInvalid,
			Fields: []outlast.FieldError{{Field: "address", Limit: "sqlite:DIR or a postgres:// URL", Given: "another text"}}}
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// Prepare creates what is missing: Outlast's tables, the journal and the service's own.
func (d *Database) Prepare(ctx context.Context) error {
	if err := d.Store.Migrations().Up(ctx, 0); err != nil {
		return err
	}
	engine := strings.NewReplacer(
		"{{serial}}", "INTEGER PRIMARY KEY AUTOINCREMENT",
		"{{now}}", "(CAST(unixepoch('subsec') * 1000000 AS INTEGER))")
	if d.Store.Engine() == "postgres" {
		engine = strings.NewReplacer(
			"{{serial}}", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
			"{{now}}", "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
	}
	for _, schema := range []string{journalSchema, schemas[d.Service]} {
		if _, err := d.ExecContext(ctx, engine.Replace(schema)); err != nil {
			return fmt.Errorf("create the tables of %s: %w", d.Service, err)
		}
	}
	return nil
}

// DropSchema deletes the service's schema and all in it, if it holds a shop's journal;
// another schema of that name is a CodeConflict. It is for PostgreSQL only.
func (d *Database) DropSchema(ctx context.Context) error {
	schema := SchemaPrefix + d.Service
	var exists, ours bool
	err := d.QueryRowContext(ctx, `SELECT to_regnamespace($1) IS NOT NULL, to_regclass($1 || '.journal_sent') IS NOT NULL`, schema).
		Scan(&exists, &ours)
	if err != nil || !exists {
		return err
	}
	if !ours {
		return &outlast.Error{Op: fmt.Sprintf("replace the schema %q", schema), Code: outlast.CodeConflict,
			Hint: "it was not made by this shop: use another database"}
	}
	_, err = d.ExecContext(ctx, `DROP SCHEMA `+schema+` CASCADE`)
	return err
}

var schemas = map[string]string{
	"orders": ordersSchema, "payments": paymentsSchema, "stock": stockSchema,
	"shipping": shippingSchema, "notifications": notificationsSchema,
}
