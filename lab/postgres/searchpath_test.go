package postgres_test

import (
	"testing"
	"time"

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
	must(t, admin.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_proc WHERE pronamespace = 'shop'::regnamespace
		AND NOT coalesce(array_to_string(proconfig, ';'), '') LIKE CASE WHEN prosecdef
			THEN 'search_path=pg_catalog, pg_temp%' ELSE 'search_path=pg_catalog%' END`).Scan(&open))
	if open != 0 {
		t.Errorf("%d of our functions run with the caller's search path", open)
	}
}
