package traps

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// fetched is how many rows of the outbox were read, by whatever way.
const fetched = `SELECT coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0) FROM pg_stat_user_tables WHERE relname = 'outlast_outbox'`

// deleted is how many rows have left the outbox. Counting them would itself be a scan.
const deleted = `SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'outlast_outbox'`

// TestF05_OpenTransactionsElsewhereDelayNothing: a relay that sends only what is older than
// the oldest transaction of the server waits for people who forgot a COMMIT.
func TestF05_OpenTransactionsElsewhereDelayNothing(t *testing.T) {
	t.Parallel()
	const n, commits = 5_000, 50
	drain := func(t *testing.T, w *rig.World) int {
		w.Bind("reader")
		w.Relay("--report-interval", "1h")
		for range commits { // many picks, each of which could look too far
			w.Fill(100, n/commits)
			time.Sleep(5 * time.Millisecond)
		}
		w.Eventually("everything is sent", func() bool { return w.Number(deleted) >= n })
		return w.Number(fetched)
	}
	idle := drain(t, rig.Shared(t))

	w := rig.Shared(t)
	w.Exec("CREATE TABLE ledger (n int)")
	other, err := servers.SharedPostgres(t).NewDatabase(t.Context())
	must(t, err)
	t.Cleanup(func() { must(t, servers.SharedPostgres(t).DropDatabase(context.Background(), other)) })
	for database, statement := range map[string]string{
		other:      "CREATE TABLE forgotten (n int)",
		w.Database: "INSERT INTO ledger VALUES (1)",
	} {
		conn := connect(t, database)
		for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", statement, "SELECT pg_current_xact_id()"} {
			_, err := conn.Exec(t.Context(), sql)
			must(t, err)
		}
	}
	late := connect(t, w.Database)
	_, err = late.Exec(t.Context(), "BEGIN; INSERT INTO outlast_outbox (type, ordering_key, body) VALUES ('order.placed.v1', 'late', '{}')")
	must(t, err)

	busy := drain(t, w) // with all of them open
	t.Logf("%d rows in %d commits: %d rows read, with three open transactions %d", n, commits, idle, busy)
	if busy > 2*idle+n {
		t.Errorf("%d rows were read with transactions open elsewhere, %d without: delivery slows down with them", busy, idle)
	}
	_, err = late.Exec(t.Context(), "COMMIT")
	must(t, err)
	w.Eventually("the late row is sent, too", func() bool { return w.Waiting() == 0 })
	if seen := rig.Drain(t, rig.Channel(t, w.Broker), "reader.0", n+1); len(seen) != n+1 {
		t.Errorf("%d messages arrived, want %d", len(seen), n+1)
	}
}

// TestF14_LeasesAreJudgedByTheDatabasesClock: with the clock of the application two relays
// on two machines can hold one lease. No statement about leases takes an instant.
func TestF14_LeasesAreJudgedByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	store := postgres.Store(w.DB)
	conn := connect(t, w.Database)
	parameterCast := regexp.MustCompile(`\$\d+(::\w+)*::(timestamp|timestamptz|date|time|timetz|interval)\b`)
	leases := 0
	for name, statement := range store.(interface{ Statements() map[string]string }).Statements() {
		if !strings.HasPrefix(name, "lease_") {
			continue
		}
		leases++
		described, err := conn.Prepare(t.Context(), name, statement)
		must(t, err)
		for i, oid := range described.ParamOIDs {
			typ, _ := conn.TypeMap().TypeForOID(oid)
			if typ == nil || slices.Contains([]string{"timestamp", "timestamptz", "date", "time", "timetz", "interval"}, typ.Name) {
				t.Errorf("%s: parameter $%d is an instant of the caller: %+v", name, i+1, typ)
			}
		}
		if parameterCast.MatchString(statement) {
			t.Errorf("%s makes an instant of a parameter:\n%s", name, statement)
		}
	}
	if leases < 5 {
		t.Fatalf("%d statements about leases were found: the test looks at the wrong ones", leases)
	}
	ask := func(owner string) outlast.LeaseGrant {
		grant, err := store.Leases().Lease(t.Context(), outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: owner, Total: store.Slots(), TTL: time.Hour})
		must(t, err)
		return grant
	}
	if grant := ask("first"); len(grant.Held) != store.Slots() {
		t.Fatalf("the first owner holds %d slots, want %d", len(grant.Held), store.Slots())
	}
	if grant := ask("second"); len(grant.Held) != 0 {
		t.Fatalf("the second owner holds %d slots while the first one lives", len(grant.Held))
	}
	// By the clock of this process the hour has just begun; by the database's it is over.
	w.Exec("UPDATE outlast_owner SET expires_at = clock_timestamp() - interval '1 second' WHERE owner = 'first'")
	if grant := ask("second"); len(grant.Held) != store.Slots() {
		t.Errorf("the second owner holds %d slots after the first one's end, want %d", len(grant.Held), store.Slots())
	}
}

// TestF26_NoTransactionIsOpenWhileTheBrokerStalls: a relay that waits for its broker within
// a transaction keeps locks, and the database from cleaning up, for as long as that takes.
func TestF26_NoTransactionIsOpenWhileTheBrokerStalls(t *testing.T) {
	t.Parallel()
	const n = 200
	w := rig.Shared(t)
	w.Bind("reader")
	far, p := behind(t, w, "heartbeat=60")
	health := freeAddress(t)
	far.Relay("--confirm-deadline", "5m", "--lease", "2s", "--listen", health)
	w.Fill(10, 10)
	w.Eventually("the relay works", func() bool { return w.Waiting() == 0 })
	p.Stall()
	w.Fill(n, n)
	w.Eventually("the relay has all in hand", func() bool { return buffered(t, health) == n })
	// Transactions that are open now must end although the broker says nothing. That the
	// lease is renewed shows that the relay is at work all the while.
	const open = `SELECT coalesce(string_agg(format('%s/%s', pid, xact_start), ' ' ORDER BY pid), '') FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL`
	const renewed = "SELECT coalesce(max(expires_at), 'epoch')::text FROM outlast_owner"
	before := strings.Fields(w.Text(open))
	for range 3 {
		last := w.Text(renewed)
		w.Eventually("the lease is renewed", func() bool { return w.Text(renewed) != last })
	}
	after := strings.Fields(w.Text(open))
	for _, transaction := range before {
		if slices.Contains(after, transaction) {
			t.Errorf("transaction %s is open while the broker stalls", transaction)
		}
	}
	// A lock that nobody can have while another transaction has touched the table.
	locker := connect(t, w.Database)
	for _, sql := range []string{"SET statement_timeout = '60s'", "BEGIN", "LOCK TABLE outlast_outbox, outlast_held IN ACCESS EXCLUSIVE MODE", "COMMIT"} {
		_, err := locker.Exec(t.Context(), sql)
		must(t, err)
	}
	if waiting := w.Waiting(); waiting != n {
		t.Errorf("%d rows wait, want %d: the broker did not stall", waiting, n)
	}
	must(t, p.Restore())
	w.Eventually("everything is sent", func() bool { return w.Waiting() == 0 })
}

// TestStatementsAreFarFewerThanRows: a statement for each row makes the database, and
// not the broker, the limit.
func TestStatementsAreFarFewerThanRows(t *testing.T) {
	t.Parallel()
	const n = 5_000
	w := counting(t)
	w.Bind("reader")
	w.Exec("SELECT pg_stat_statements_reset()")
	outbox := outlast.NewOutbox(postgres.Store(w.DB))
	for range n / 500 {
		msgs := make([]outlast.Message, 500)
		for i := range msgs {
			msgs[i] = outlast.Message{Envelope: outlast.Envelope{Type: "order.placed.v1", Key: fmt.Sprintf("k%d", i)}, Body: []byte("{}")}
		}
		tx, err := w.DB.BeginTx(t.Context(), nil)
		must(t, err)
		must(t, outbox.Publish(t.Context(), tx, msgs...))
		must(t, tx.Commit())
	}
	const calls = `SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
		WHERE query NOT LIKE '%pg_stat_%' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())`
	written := w.Number(calls)
	w.Relay("--report-interval", "1h")
	w.Eventually("everything is sent", func() bool { return w.Number(deleted) >= n })
	sent := w.Number(calls) - written
	updates := w.Number(`SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'outlast_outbox'`)
	t.Logf("%d rows: %d statements to write them, %d to send them, %d updates", n, written, sent, updates)
	if written == 0 || written > 5*n/500 {
		t.Errorf("%d statements wrote %d rows in %d transactions", written, n, n/500)
	}
	if sent == 0 || sent > n/10 {
		t.Errorf("%d statements for %d rows: want far fewer statements than rows", sent, n)
		t.Log(w.Text(`SELECT string_agg(format('%s x %s', calls, left(regexp_replace(query, '\s+', ' ', 'g'), 140)), E'\n' ORDER BY calls DESC) FROM pg_stat_statements`))
	}
	if updates != 0 {
		t.Errorf("%d updates in the outbox, want none", updates)
	}
}

// TestACopiedBacklogIsNotScanned: after a COPY the planner's numbers are of an empty
// table. A pick that depends on them reads the whole table each time.
func TestACopiedBacklogIsNotScanned(t *testing.T) {
	t.Parallel()
	const n = 100_000
	w := rig.Shared(t)
	w.Bind("reader")
	w.Exec("ALTER TABLE outlast_outbox SET (autovacuum_enabled = off)")
	w.Exec("ANALYZE outlast_outbox")
	copyInto(t, w.Database, n)
	const scans = `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'outlast_outbox'`
	const looks = `SELECT coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'outlast_outbox'`
	before := w.Number(scans)
	w.Relay("--report-interval", "1h")
	w.Eventually("the backlog is sent", func() bool { return w.Number(deleted) >= n })
	// What was still looked up when the last row left is counted a moment later.
	w.Eventually("the look-ups are counted", func() bool { return w.Number(looks) >= n })
	grown := w.Number(scans) - before
	t.Logf("%d rows: %d look-ups by index, %d scans, %d rows read", n, w.Number(looks), grown, w.Number(fetched))
	if grown > 2 { // the first report of what waits may read it
		t.Errorf("the outbox was scanned %d times while %d rows were sent", grown, n)
	}
	if read := w.Number(fetched); read > 10*n {
		t.Errorf("%d rows were read to send %d", read, n)
	}
}

// copyInto commits many rows of a thousand keys at once.
func copyInto(t *testing.T, database string, n int) {
	t.Helper()
	i := 0
	rows := pgx.CopyFromFunc(func() ([]any, error) {
		if i == n {
			return nil, nil
		}
		i++
		return []any{"order.placed.v1", fmt.Sprintf("k%d", i%1000), strings.Repeat("x", 200)}, nil
	})
	_, err := connect(t, database).CopyFrom(t.Context(), pgx.Identifier{"outlast_outbox"}, []string{"type", "ordering_key", "body"}, rows)
	must(t, err)
}

// TestABurstAfterAQuietTimeIsNotScanned: the plans that a relay's session keeps are of an
// outbox that was empty, and vacuumed to no page at all, when it was last analysed.
func TestABurstAfterAQuietTimeIsNotScanned(t *testing.T) {
	t.Parallel()
	const n = 50_000
	w := rig.Shared(t)
	w.Bind("reader")
	for _, table := range []string{"outlast_outbox", "outlast_held"} {
		w.Exec("ALTER TABLE " + table + " SET (autovacuum_enabled = off)")
	}
	w.Relay("--report-interval", "1h")
	for range 2 {
		for range 40 { // a session plans for the values a few times, and keeps a plan for any after that
			w.Exec(`INSERT INTO outlast_outbox (type, ordering_key, body) VALUES ('order.placed.v1', 'k', '{}')`)
			w.Eventually("one message is sent", func() bool { return w.Waiting() == 0 })
		}
		for _, table := range []string{"outlast_outbox", "outlast_held"} {
			w.Exec("VACUUM ANALYZE " + table)
		}
	}
	w.Exec(`INSERT INTO outlast_outbox (type, ordering_key, body) SELECT 'order.placed.v1', 'k' || g, '{}' FROM generate_series(1, 20) g`)
	w.Eventually("a few messages are sent", func() bool { return w.Waiting() == 0 })
	copyInto(t, w.Database, n)
	w.Eventually("the burst is sent", func() bool { return w.Number(deleted) >= n+100 })
	if read := w.Number(fetched); read > 10*n {
		t.Errorf("%d rows were read to send %d", read, n)
		t.Log(w.Text(`SELECT format('%s look-ups by index, %s scans with %s rows', idx_scan, seq_scan, seq_tup_read) FROM pg_stat_user_tables WHERE relname = 'outlast_outbox'`))
	}
}

// TestF22_TheClockIsNoFilter: a volatile function in a claim's predicate turns the bound of
// an index into a filter over all rows.
func TestF22_TheClockIsNoFilter(t *testing.T) {
	t.Parallel()
	w := rig.Shared(t)
	w.Exec(`INSERT INTO outlast_outbox (type, body) SELECT 'order.placed.v1', '' FROM generate_series(1, 20000)`)
	w.Exec(`INSERT INTO outlast_held (type, body, reason, next_at) SELECT 'order.placed.v1', '', 'backoff', now() + interval '1 hour' FROM generate_series(1, 20000)`)
	all := postgres.Store(w.DB).(interface{ Statements() map[string]string }).Statements()
	slots, zeros := make([]int16, 256), make([]int64, 256)
	for i := range slots {
		slots[i] = int16(i)
	}
	for _, c := range []struct {
		name, table string
		bound       []string
		args        []any
	}{
		{"pick", "outlast_outbox", []string{"slot", "seq"}, []any{slots, zeros, zeros, 64, 1000, 1 << 20, 5000}},
		{"held_due", "outlast_held", []string{"slot"}, []any{slots, 0, 64, 1000, 1 << 20}},
		{"held_next", "outlast_held", []string{"slot"}, []any{slots, 1000}},
	} {
		nodes := plan(t, w, all[c.name], c.args...)
		found := 0
		for _, node := range nodes {
			if node["Relation Name"] != c.table {
				continue
			}
			found++
			bound := c.bound
			if node["Index Name"] == "outlast_held_id" {
				bound = []string{"id", "seq"} // names one row
			}
			if problem := unbounded(node, bound); problem != "" {
				t.Errorf("%s: %s: %v", c.name, problem, node)
			}
		}
		if found == 0 {
			t.Errorf("%s does not touch %s", c.name, c.table)
		}
	}
	// The check sees the mistake when it is made.
	naive := strings.Replace(all["held_due"], "h.next_at <= (SELECT at FROM now)", "h.next_at <= clock_timestamp()", 1)
	if naive == all["held_due"] {
		t.Fatal("the statement has another form: look at this test")
	}
	seen := false
	for _, node := range plan(t, w, naive, slots, 0, 64, 1000, 1<<20) {
		seen = seen || node["Relation Name"] == "outlast_held" && unbounded(node, nil) != ""
	}
	if !seen {
		t.Error("clock_timestamp() in the predicate goes unnoticed: the check is blind")
	}
}

// TestF22_NobodyPurgesTheHeld: held rows that are ten years old, of every reason that waits
// for something, outlive a relay at work and every clean-up that there is.
func TestF22_NobodyPurgesTheHeld(t *testing.T) {
	t.Parallel()
	const n = 20_000
	w := rig.Shared(t)
	store := postgres.Store(w.DB)
	// A relay takes up what is due at once, and what waits for a route that it can use: these
	// wait for next year, for a person, or behind one of those.
	w.Exec(`INSERT INTO outlast_held (type, ordering_key, body, reason, next_at, held_at, enqueued_at)
		SELECT 'order.placed.v1', 'waits' || i / 4, '', (ARRAY['backoff', 'refused', 'behind', 'due'])[i % 4 + 1],
			CASE WHEN i % 4 IN (0, 3) THEN now() + interval '1 year' END, now() - interval '10 years', now() - interval '10 years'
		FROM generate_series(0, $1::int - 1) i`, n)
	deletes, deletesHeld := 0, regexp.MustCompile(`DELETE FROM \S*outlast_held\b`)
	for name, statement := range store.(interface{ Statements() map[string]string }).Statements() {
		if !deletesHeld.MatchString(statement) {
			continue
		}
		deletes++
		if !slices.Contains([]string{"withdraw", "settle_sent_tracked", "settle_sent", "settle_sent_held", "settle_release"}, name) {
			t.Errorf("%s deletes held rows: only the settlement of a named row may, and a producer's own withdrawal", name)
		}
	}
	if deletes < 5 {
		t.Fatalf("%d statements that delete held rows were found: the test looks for the wrong words", deletes)
	}
	w.Bind("reader")
	w.Relay("--report-interval", "1h")
	w.Fill(10, 100)
	w.Eventually("the relay works", func() bool { return w.Number("SELECT count(*) FROM outlast_outbox") == 0 })
	_, err := store.Journal().Keep(t.Context(), outlast.Retention{BodyAge: time.Nanosecond, Age: time.Nanosecond, Bytes: 1})
	must(t, err)
	_, err = store.Inbox().Purge(t.Context(), outlast.PurgeRequest{Group: "reader", Source: "orders", SettledBefore: time.Now(), Limit: n})
	must(t, err)
	if held := w.Number("SELECT count(*) FROM outlast_held"); held != n {
		t.Errorf("%d rows are held, of %d that nobody has sent, withdrawn or released", held, n)
	}
}

// unbounded says how a node reads its table otherwise than between the bounds of an index.
func unbounded(node map[string]any, columns []string) string {
	cond, _ := node["Index Cond"].(string)
	if cond == "" { // a bitmap's bounds are at the scan below it, and again here
		cond, _ = node["Recheck Cond"].(string)
	}
	if cond == "" {
		return "no bound of an index"
	}
	for _, column := range columns {
		if !strings.Contains(cond, column) {
			return column + " is no bound of the index"
		}
	}
	if filter, ok := node["Filter"].(string); ok && (strings.Contains(filter, "seq") || strings.Contains(filter, "next_at") || strings.Contains(filter, "clock")) {
		return "a filter stands for a bound"
	}
	return ""
}

// plan returns all nodes of a statement's plan.
func plan(t *testing.T, w *rig.World, statement string, args ...any) (nodes []map[string]any) {
	t.Helper()
	var text string
	must(t, w.DB.QueryRowContext(t.Context(), "EXPLAIN (FORMAT JSON) "+statement, args...).Scan(&text))
	var plans []map[string]any
	must(t, json.Unmarshal([]byte(text), &plans))
	var walk func(node map[string]any)
	walk = func(node map[string]any) {
		nodes = append(nodes, node)
		children, _ := node["Plans"].([]any)
		for _, child := range children {
			walk(child.(map[string]any))
		}
	}
	walk(plans[0]["Plan"].(map[string]any))
	return nodes
}
