package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestS02_SearchPathLeadsNowhere: a schema of somebody else that comes first in the search
// path, with tables and functions of our names in it, is never looked into.
func TestS02_SearchPathLeadsNowhere(t *testing.T) {
	t.Parallel()
	address := servers.Database(t)
	admin := openURL(t, address)
	must(t, postgres.Store(admin, postgres.Schema("shop")).Migrations().Up(t.Context(), 0))
	must(t, exec(t.Context(), admin, `
		CREATE SCHEMA decoy;
		DO $$ DECLARE r record; BEGIN
			FOR r IN SELECT relname FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r' LOOP
				EXECUTE format('CREATE TABLE decoy.%I (LIKE shop.%I INCLUDING ALL)', r.relname, r.relname);
			END LOOP;
			FOR r IN SELECT relname FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'S' LOOP
				EXECUTE format('CREATE SEQUENCE IF NOT EXISTS decoy.%I', r.relname);
			END LOOP;
		END $$;
		CREATE FUNCTION decoy.caught() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''the decoy was called''; END';
		CREATE FUNCTION decoy.outlast_uuid7() RETURNS uuid LANGUAGE sql AS 'SELECT decoy.caught(); SELECT NULL::uuid';
		CREATE FUNCTION decoy.outlast_headers_ok(jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.caught(); SELECT true';
		CREATE FUNCTION decoy.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT decoy.caught(); SELECT now()';
		CREATE FUNCTION decoy.gen_random_uuid() RETURNS uuid LANGUAGE sql AS 'SELECT decoy.caught(); SELECT NULL::uuid';
		CREATE FUNCTION decoy.jsonb_typeof(jsonb) RETURNS text LANGUAGE sql AS 'SELECT decoy.caught(); SELECT ''object'''`))
	db := openURL(t, address+"&search_path=decoy")
	store := postgres.Store(db, postgres.Schema("shop"), postgres.SettledMargin(time.Second))
	must(t, store.Check(t.Context()))
	must(t, store.Relay().Identify(t.Context(), "orders"))
	outbox := outlast.NewOutbox(store, outlast.OutboxConfig{})
	m := outlast.Message{Body: []byte("{}"), Delay: time.Hour}
	m.Type, m.Headers = "order.placed.v1", outlast.Headers{"a": "b"}
	now := m
	now.Delay = 0
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	must(t, outbox.Publish(t.Context(), tx, now, m))
	must(t, tx.Commit())
	rows, err := store.Relay().Reader().Pick(t.Context(), lease(t, store, "r"), 10, 1<<20)
	must(t, err)
	if len(rows) != 1 {
		t.Errorf("picked %d rows", len(rows))
	}
	status, err := store.Operator().Status(t.Context())
	must(t, err)
	if len(status.Pending) != 1 || len(status.Held) != 1 {
		t.Errorf("%+v", status)
	}
	var decoyed int
	must(t, admin.QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM decoy.outlast_outbox) + (SELECT count(*) FROM decoy.outlast_held) + (SELECT count(*) FROM decoy.outlast_meta)").Scan(&decoyed))
	if decoyed != 0 {
		t.Errorf("%d rows went to the decoys", decoyed)
	}
	var open int
	// TestS02_LimitsCallNothingOfTheCallers is about the exception.
	must(t, admin.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_proc WHERE pronamespace = 'shop'::regnamespace
		AND proname <> 'outlast_limits_ok' AND NOT coalesce(array_to_string(proconfig, ';'), '') LIKE CASE WHEN prosecdef
			THEN 'search_path=pg_catalog, pg_temp%' ELSE 'search_path=pg_catalog%' END`).Scan(&open))
	if open != 0 {
		t.Errorf("%d of our functions run with the caller's search path", open)
	}
}

// TestS02_LimitsCallNothingOfTheCallers: the check of the limits runs with the search path
// of whoever writes, because setting another costs too much. Functions and operators of
// somebody else that come before PostgreSQL's own are not called by it.
func TestS02_LimitsCallNothingOfTheCallers(t *testing.T) {
	t.Parallel()
	address := servers.Database(t)
	admin := openURL(t, address)
	must(t, postgres.Store(admin).Migrations().Up(t.Context(), 0))
	decoys := `CREATE SCHEMA decoy;
		CREATE FUNCTION decoy.caught() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''the decoy was called''; END';`
	for _, f := range []string{
		"octet_length(text) RETURNS integer", "octet_length(bytea) RETURNS integer", "num_nonnulls(text, bytea) RETURNS integer",
		"concat(text, text) RETURNS text", "concat(text, text, text, text, text, text, text, text, text, text) RETURNS text",
		"format(text, text, text) RETURNS text",
	} {
		_, returned, _ := strings.Cut(f, "RETURNS ")
		decoys += "CREATE FUNCTION decoy." + f + " LANGUAGE sql AS 'SELECT decoy.caught(); SELECT NULL::" + returned + "';"
	}
	for i, o := range []string{"= text", "~ text", "!~ text", "<> text", "<= integer", "= integer", "> integer", "<> integer"} {
		name, of, _ := strings.Cut(o, " ")
		decoys += fmt.Sprintf(`CREATE FUNCTION decoy.o%[1]d(%[3]s, %[3]s) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.caught(); SELECT NULL::boolean';
			CREATE OPERATOR decoy.%[2]s (LEFTARG = %[3]s, RIGHTARG = %[3]s, FUNCTION = decoy.o%[1]d);`, i, name, of)
	}
	must(t, exec(t.Context(), admin, decoys))
	conn, err := pgx.Connect(t.Context(), address)
	must(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "SET search_path = decoy, pg_catalog")
	must(t, err)
	const insert = `INSERT INTO public.outlast_outbox (type, ordering_key, body, headers) VALUES ($1, $2, '{}', '{"a":"b"}')`
	_, err = conn.Exec(t.Context(), insert, "order.placed.v1", "order-1")
	must(t, err)
	var refused *pgconn.PgError
	_, err = conn.Exec(t.Context(), insert, "order.placed.v1", "a\nb")
	if !errors.As(err, &refused) || refused.ConstraintName != "outlast_check_ordering_key" {
		t.Errorf("a key with a control character: %v", err)
	}
}
