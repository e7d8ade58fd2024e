package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

type placed struct {
	OrderID string `json:"order_id" outlast:"key"`
}

var orderPlaced = outlast.Event[placed]("order.placed", 1)

func begin(t testing.TB, store outlast.Store) outlast.InboxTx {
	t.Helper()
	tx, err := store.Inbox().Begin(t.Context(), "billing", []outlast.Mark{{Source: "orders", ID: outlast.NewID()}})
	must(t, err)
	return tx
}

func TestHandlePgxWorksInTheTransactionOfTheMark(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	must(t, exec(t.Context(), db, "CREATE TABLE charges (id text)"))
	out := outlast.NewOutbox(store)
	handler := postgres.HandlePgx(orderPlaced, func(ctx context.Context, tx pgx.Tx, m outlast.Received[placed]) error {
		if tx.Commit(ctx) == nil || tx.Rollback(ctx) == nil {
			return errors.New("a handler could end its transaction")
		}
		inner, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := inner.Exec(ctx, "INSERT INTO nowhere VALUES (1)"); err == nil {
			return errors.New("no error from a missing table")
		}
		if err := inner.Rollback(ctx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO charges VALUES ($1)", m.Body.OrderID); err != nil {
			return err
		}
		return out.Publish(ctx, postgres.PgxTx(tx), orderPlaced.Message(placed{"follow-up"}))
	})
	count := func() (charges, pending int) {
		must(t, db.QueryRow("SELECT (SELECT count(*) FROM charges), (SELECT count(*) FROM outlast_outbox)").Scan(&charges, &pending))
		return charges, pending
	}
	for _, commit := range []bool{false, true} {
		tx := begin(t, store)
		m := orderPlaced.Message(placed{"order-7"})
		must(t, handler.Run(t.Context(), tx.Tx(), &outlast.Delivered{Message: &m}))
		if commit {
			must(t, tx.Commit(t.Context()))
		}
		tx.Rollback()
		charges, pending := count()
		if want := map[bool]int{true: 1}[commit]; charges != want || pending != want {
			t.Errorf("commit %v: %d charges and %d pending", commit, charges, pending)
		}
	}
}

func TestF02_CommitTellsThreeOutcomes(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	ctx := t.Context()
	must(t, exec(ctx, db, "CREATE TABLE parents (id int PRIMARY KEY)"))
	must(t, exec(ctx, db, "CREATE TABLE children (id int REFERENCES parents DEFERRABLE INITIALLY DEFERRED)"))
	for name, c := range map[string]struct {
		spoil func(tx outlast.InboxTx)
		want  outlast.Code
	}{
		"ok": {func(outlast.InboxTx) {}, ""},
		"an ignored error": {func(tx outlast.InboxTx) {
			_, _ = tx.Tx().ExecContext(ctx, "INSERT INTO nowhere VALUES (1)")
		}, outlast.CodeInvalid},
		"a deferred constraint": {func(tx outlast.InboxTx) {
			_, err := tx.Tx().ExecContext(ctx, "INSERT INTO children VALUES (1)")
			must(t, err)
		}, outlast.CodeInvalid},
		"a connection that is gone": {func(tx outlast.InboxTx) {
			var pid int
			must(t, tx.Tx().QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&pid))
			must(t, db.QueryRow("SELECT pg_terminate_backend($1, 10000)", pid).Scan(new(bool)))
		}, outlast.CodeUnknown},
	} {
		tx := begin(t, store)
		c.spoil(tx)
		if got := outlast.CodeOf(tx.Commit(ctx)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		tx.Rollback()
	}
	// Every connection that is left works.
	for range 30 {
		must(t, db.PingContext(ctx))
	}
}

func TestTransactionOutlivesTheContextOfBegin(t *testing.T) {
	t.Parallel()
	_, store := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := store.Inbox().Begin(ctx, "billing", []outlast.Mark{{Source: "orders", ID: outlast.NewID()}})
	must(t, err)
	cancel()
	_, err = tx.Tx().ExecContext(t.Context(), "SELECT 1")
	must(t, err)
	must(t, tx.Commit(t.Context()))
}

func TestCheck(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	address := servers.Database(t)
	db := openURL(t, address)
	store := postgres.Store(db)
	wantCode := func(what string, err error, code outlast.Code, parts ...string) {
		t.Helper()
		if outlast.CodeOf(err) != code {
			t.Errorf("%s: %v, want %q", what, err, code)
		}
		for _, part := range parts {
			if !strings.Contains(fmt.Sprint(err), part) {
				t.Errorf("%s: %v does not say %q", what, err, part)
			}
		}
	}
	wantCode("no tables", store.Check(ctx), outlast.CodeSchema, "version 0", "version 6", "outlast migrate up")
	wantCode("use without tables", store.Relay().Identify(ctx, "orders"), outlast.CodeSchema)
	must(t, store.Migrations().Up(ctx, 0))
	must(t, store.Check(ctx))
	must(t, exec(ctx, db, "INSERT INTO outlast_migrations (version) VALUES (99)"))
	must(t, store.Check(ctx)) // they have only been added to
	must(t, exec(ctx, db, "INSERT INTO outlast_meta (key, value) VALUES ('needs', '98')"))
	wantCode("newer tables that need a newer build", store.Check(ctx), outlast.CodeSchema, "version 99", "version 6", "newer build")
	must(t, exec(ctx, db, "DELETE FROM outlast_migrations WHERE version = 99"))
	must(t, exec(ctx, db, "DELETE FROM outlast_meta WHERE key = 'needs'"))

	role := "r" + strings.ReplaceAll(outlast.NewID(), "-", "")
	must(t, exec(ctx, db, "CREATE ROLE "+role+" LOGIN"))
	t.Cleanup(func() {
		_ = exec(context.Background(), db, "DROP OWNED BY "+role)
		must(t, exec(context.Background(), db, "DROP ROLE "+role))
	})
	must(t, exec(ctx, db, "GRANT SELECT ON outlast_migrations TO "+role))
	u, err := url.Parse(address)
	must(t, err)
	u.User = url.User(role)
	weak := openURL(t, u.String())
	wantCode("missing rights", postgres.Store(weak).Check(ctx), outlast.CodeDenied, "outbox")
	must(t, exec(ctx, db, "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO "+role))
	must(t, postgres.Store(weak).Check(ctx)) // it may look, at least
	wantCode("a relay that may not settle", postgres.Store(weak).Relay().Identify(ctx, "orders"), outlast.CodeDenied, "outbox", "--roles")
	must(t, weak.Close())
	readOnly := openURL(t, address+"&default_transaction_read_only=on")
	wantCode("read only", postgres.Store(readOnly).Check(ctx), outlast.CodeUnavailable, "primary")
}

func TestPlainInsertOfAForeignWriter(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	ctx := t.Context()
	must(t, exec(ctx, db, `INSERT INTO outlast_outbox (type, ordering_key, body) VALUES ('order.placed.v1', 'order-7', '{"order_id":"order-7"}')`))
	must(t, exec(ctx, db, `INSERT INTO outlast_outbox (type, body) VALUES ('order.placed.v1', '')`))
	rows, err := store.Relay().Reader().Pick(ctx, lease(t, store, "r"), 10, 1<<20)
	must(t, err)
	if len(rows) != 2 {
		t.Fatalf("picked %d rows", len(rows))
	}
	for _, r := range rows {
		must(t, r.Message.Validate(0))
		if r.ID[14] != '7' {
			t.Errorf("id %s is not of version 7", r.ID)
		}
	}
}

// TestLimitsOfEveryField: the tables refuse what is beyond a limit, and name the field
// that it is beyond, whoever writes; what is just within is taken. A rolled back
// migration leaves the limits as they were.
func TestLimitsOfEveryField(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	ctx := t.Context()
	limits := map[string]int{"type": 200, "ordering_key": 255, "subject": 255, "content_type": 255, "data_schema": 255, "correlation_id": 255,
		"causation_id": 255, "trace_parent": 55, "trace_state": 512, "exchange": 200, "routing_key": 200}
	full := map[string]string{"body": "'{}'", "kind": "'command'", "headers": `'{"a":"1"}'`}
	beyond := [][2]string{
		{"type", "'no spaces'"}, {"type", "''"}, {"kind", "'letter'"}, {"body", "NULL"}, {"body_bytes", "''"},
		{"headers", "'[1]'"}, {"headers", "'null'"}, {"headers", `'{"":"1"}'`}, {"headers", "jsonb_build_object('a', repeat('x', 32768))"},
	}
	for column, n := range limits {
		full[column] = fmt.Sprintf("repeat('x', %d)", n)
		beyond = append(beyond, [2]string{column, fmt.Sprintf("repeat('x', %d)", n+1)}, [2]string{column, `E'a\nb'`})
	}
	for _, version := range []int{store.Migrations().Latest(), 3, 2, store.Migrations().Latest()} {
		if version < store.Migrations().Latest() {
			must(t, store.Migrations().Down(ctx, version))
		} else {
			must(t, store.Migrations().Up(ctx, version))
		}
		for table, reason := range map[string]string{"outlast_outbox": "", "outlast_held": "'refused'"} {
			must(t, exec(ctx, db, insertOf(table, full, "reason", reason)))
			for _, b := range beyond {
				field := strings.TrimSuffix(b[0], "_bytes")
				row := maps.Clone(full)
				row[b[0]] = b[1]
				want := fmt.Sprintf("new row for relation %q violates check constraint %q", table, "outlast_check_"+field)
				var refused *pgconn.PgError
				err := exec(ctx, db, insertOf(table, row, "reason", reason))
				if !errors.As(err, &refused) || refused.Code != "23514" || refused.Message != want || refused.ConstraintName != "outlast_check_"+field {
					t.Errorf("version %d: %s = %s: %v, want %s", version, b[0], b[1], err, want)
				}
			}
		}
	}
}

// insertOf writes an INSERT of one row of expressions, and of a further column when it
// has a value.
func insertOf(table string, row map[string]string, column, value string) string {
	columns := slices.Sorted(maps.Keys(row))
	values := make([]string, len(columns))
	for i, c := range columns {
		values[i] = row[c]
	}
	if value != "" {
		columns, values = append(columns, column), append(values, value)
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(columns, ", "), strings.Join(values, ", "))
}

// TestPlansNeedNoStatistics looks at how the hot statements find their rows: when the outbox
// was filled by COPY into a table that was analysed while empty, and when the plan was made
// while all tables were empty and vacuumed. A prepared statement keeps such a plan when they
// are filled.
func TestPlansNeedNoStatistics(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	ctx := t.Context()
	tables := []string{"outlast_outbox", "outlast_held", "outlast_inbox", "outlast_retry"}
	for _, table := range tables {
		must(t, exec(ctx, db, "ALTER TABLE "+table+" SET (autovacuum_enabled = off)"))
	}
	all := store.(interface{ Statements() map[string]string }).Statements()
	slots, zeros, far := make([]int16, 256), make([]int64, 256), make([]int64, 256)
	for i := range slots {
		slots[i], far[i] = int16(i), 1<<40
	}
	ids := make([]string, 1000)
	seqs, epochs, some := make([]int64, 1000), make([]int64, 1000), make([]int16, 1000)
	for i := range ids {
		ids[i], seqs[i], some[i] = outlast.NewID(), int64(i*50), int16(i%256)
	}
	conn, err := db.Conn(ctx)
	must(t, err)
	defer conn.Close()
	marks := make([]time.Time, 1000)
	holds := []any{some, epochs, seqs, ids, ids, ids, ids, epochs, make([]int32, 1000), ids}
	statements := map[string][]any{
		"pick":                {slots, zeros, zeros, 64, 1000, 1 << 20, 5000},
		"late":                {slots, zeros, far, 5000, "1:1:"},
		"fetch":               {some, seqs, 1 << 20},
		"held_next":           {slots, 1000},
		"held_due":            {slots, 0, 5000, 1000, 1 << 20},
		"held_key":            {1, "key", 0, 1000, 1 << 20},
		"held_route":          {slots, "exchange", "type", 0, 1000, 1 << 20},
		"settle_sent":         {some, epochs, seqs, ids},
		"settle_sent_held":    {some, epochs, seqs, ids},
		"settle_sent_tracked": {some, epochs, seqs, ids, some, epochs, ids, seqs, ids},
		"settle_release":      {some, epochs, seqs, ids},
		"settle_hold":         holds,
		"settle_hold_again":   holds,
		"settled_look":        {},
		"mark":                {"billing", ids, ids, seqs, marks},
		"marked":              {"billing", ids, ids, ids},
		"mark_one":            {"billing", "orders", ids[0], 1, marks[0]},
		"marked_one":          {"billing", "orders", ids[0], "key"},
		"inbox_wait":          {"billing", "orders", ids[0], "key", true, "type", "{}", "", 1, "failed", "text", 1, 1, 1, marks[0]},
		"inbox_bury":          {"billing", "orders", ids[0], "key", true, "type", "{}", "", 1, "failed", "text", 1, 1, "print", false, marks[0]},
		"retry_done":          {1},
		"retry_bury":          {1, "spent", "text", 1, "print"},
		"retry_wait":          {1, "failed", "text", 1, 1},
		"retry_claim":         {"billing", ids[:3]},
		"retry_claim_first":   {"billing", ids[:3]},
		"retry_next":          {"billing", ids[:3]},
	}
	// What looks a row up has a condition for each column that these names, as PostgreSQL writes
	// them. One that is read in its order, up to a limit, needs none of its last.
	scan := regexp.MustCompile(`(?:Seq Scan|Index (?:Only )?Scan using (\S+)) on (\w+).*\n(?: *Index Cond:(.*))?`)
	columns := map[string][]string{
		"outlast_outbox_pkey": {"slot", "seq"}, "outlast_held_pkey": {"slot", "seq"}, "outlast_held_id": {"(id", "(seq"}, "outlast_held_next": {"slot", "next_at"},
		"outlast_held_key": {"slot", "ordering_key"}, "outlast_held_route": {"slot", "route_exchange", "route_type"}, "outlast_held_oldest": {},
		"outlast_inbox_pkey": {"(grp", "(source", "(id"}, "outlast_retry_pkey": {"(seq"}, "outlast_retry_next": {"(grp", "(type", "next_at"},
		"outlast_retry_key": {"(grp", "(ordering_key"}}
	look := func(state string, modes ...string) {
		t.Helper()
		for name, args := range statements {
			for _, mode := range modes {
				_, err := conn.ExecContext(ctx, "SET plan_cache_mode = "+mode)
				must(t, err)
				plan := explain(t, conn, all[name], args)
				for _, m := range scan.FindAllStringSubmatch(plan, -1) {
					wanted, known := columns[m[1]]
					if name == "retry_claim_first" && m[1] == "outlast_retry_key" {
						wanted = wanted[:1] // it begins with the first key
					}
					lacks := func(c string) bool { return !strings.Contains(m[3], c) }
					if slices.Contains(tables, m[2]) && (!known || slices.ContainsFunc(wanted, lacks)) {
						t.Errorf("%s: %s reads much of %s with %s:\n%s", state, name, m[2], mode, plan)
					}
				}
			}
		}
	}
	// As when they run: see by_index.
	_, err = conn.ExecContext(ctx, "SET enable_seqscan = off")
	must(t, err)
	for _, table := range tables {
		must(t, exec(ctx, db, "VACUUM ANALYZE "+table))
	}
	look("vacuumed while empty", "force_generic_plan")
	must(t, exec(ctx, db, `INSERT INTO outlast_outbox (type, body) SELECT 'order.placed.v1', repeat('x', 200) FROM generate_series(1, 60000)`))
	// The plan for these values, and the one that a prepared statement is left with.
	look("copied into", "force_custom_plan", "force_generic_plan")
}

// literal writes a value, or a slice of them, as PostgreSQL reads it.
func literal(arg any) string {
	v := reflect.ValueOf(arg)
	if at, ok := arg.(time.Time); ok {
		return at.Format(time.RFC3339)
	}
	if v.Kind() != reflect.Slice {
		return fmt.Sprint(arg)
	}
	items := make([]string, v.Len())
	for i := range items {
		items[i] = literal(v.Index(i).Interface())
	}
	return "{" + strings.Join(items, ",") + "}"
}

// explain returns the plan of a statement that is prepared and executed.
func explain(t *testing.T, conn *sql.Conn, query string, args []any) string {
	t.Helper()
	ctx := t.Context()
	_, err := conn.ExecContext(ctx, "PREPARE explained AS "+query)
	must(t, err)
	var values []string
	for _, arg := range args {
		values = append(values, "'"+literal(arg)+"'")
	}
	call := "EXPLAIN EXECUTE explained"
	if len(values) > 0 {
		call += " (" + strings.Join(values, ", ") + ")"
	}
	rows, err := conn.QueryContext(ctx, call, pgx.QueryExecModeExec)
	must(t, err)
	var plan strings.Builder
	for rows.Next() {
		var line string
		must(t, rows.Scan(&line))
		fmt.Fprintln(&plan, line)
	}
	must(t, rows.Err())
	_, err = conn.ExecContext(ctx, "DEALLOCATE explained")
	must(t, err)
	return plan.String()
}
