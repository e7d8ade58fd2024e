package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

func lease(t testing.TB, store outlast.Store, owner string) []outlast.Lease {
	t.Helper()
	grant, err := store.Leases().Lease(t.Context(), outlast.LeaseRequest{
		Scope: outlast.RelayScope, Owner: owner, TTL: time.Minute, Total: store.Slots()})
	must(t, err)
	return grant.Held
}

func text(id, key string) *outlast.Message {
	m := &outlast.Message{Envelope: outlast.Envelope{ID: id, Type: "order.placed.v1", Key: key}, Body: []byte(`{"n":1}`)}
	return m
}

// written is a row with the logical times between which its order is free.
type written struct {
	id, key    string
	start, end int64
}

// TestF29_F11_PickKeepsTheOrderOfTransactions writes from many transactions that commit in
// another order than they draw their seqs, with picks of odd sizes and settlements
// beside them. No row may overtake one whose transaction had committed before its
// INSERT began, or an earlier one of its own transaction; none may be lost or come twice.
func TestF29_F11_PickKeepsTheOrderOfTransactions(t *testing.T) {
	t.Parallel()
	db, store := open(t)
	must(t, exec(t.Context(), db, "CREATE TABLE effects (id int PRIMARY KEY, n int)"))
	must(t, exec(t.Context(), db, "INSERT INTO effects SELECT g, 0 FROM generate_series(0, 99) g"))
	var clock atomic.Int64
	var mu sync.Mutex
	all := map[string]*written{}
	var writers sync.WaitGroup
	for w := range 12 {
		writers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 42))
			for range 120 {
				rows, err := writeSome(t.Context(), db, store, rnd, &clock, w)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, r := range rows {
					all[r.id] = r
				}
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	order := drain(t, store, done)
	if t.Failed() {
		return
	}
	checkOrder(t, order, all)
}

// writeSome is one transaction: some take an xid long before they draw a seq, some
// sleep before COMMIT, some roll back.
func writeSome(ctx context.Context, db *sql.DB, store outlast.Store, rnd *rand.Rand, clock *atomic.Int64, writer int) ([]*written, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	if rnd.IntN(3) == 0 {
		if _, err := tx.ExecContext(ctx, "UPDATE effects SET n = n + 1 WHERE id = $1", writer); err != nil {
			return nil, err
		}
		time.Sleep(time.Duration(rnd.IntN(3000)) * time.Microsecond)
	}
	var rows []*written
	for range 1 + rnd.IntN(3) {
		r := &written{id: outlast.NewID(), key: fmt.Sprintf("k%d", rnd.IntN(5)), start: clock.Add(1)}
		if err := store.Outbox().Insert(ctx, tx, []*outlast.Message{text(r.id, r.key)}); err != nil {
			return nil, err
		}
		rows = append(rows, r)
		if rnd.IntN(4) == 0 {
			time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond)
		}
	}
	if rnd.IntN(20) == 0 {
		time.Sleep(time.Duration(rnd.IntN(150)) * time.Millisecond)
	}
	if rnd.IntN(10) == 0 {
		return nil, tx.Rollback()
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	end := clock.Add(1)
	for _, r := range rows {
		r.end = end
	}
	return rows, nil
}

// drain picks and settles until the writers are done and nothing comes any more.
func drain(t *testing.T, store outlast.Store, done <-chan struct{}) []string {
	ctx := t.Context()
	leases := lease(t, store, "reader")
	reader := store.Relay().Reader()
	var order []string
	var settling sync.WaitGroup
	defer settling.Wait()
	quiet := 0
	for i := 0; quiet < 3; i++ {
		finished := false
		select {
		case <-done:
			finished = true
		default:
		}
		of := leases
		if !finished && i%4 != 0 { // as after a wake-up
			of = nil
			for _, l := range leases {
				if rand.IntN(4) == 0 {
					of = append(of, l)
				}
			}
		}
		rows, err := reader.Pick(ctx, of, []int{3, 40, 1000}[i%3], []int{100, 1 << 20}[i%2])
		must(t, err)
		if len(rows) == 0 && finished {
			quiet++
		} else {
			quiet = 0
		}
		for _, r := range rows {
			order = append(order, r.ID)
		}
		settling.Go(func() {
			time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
			stale, err := store.Relay().Settle(ctx, &outlast.Settlement{Leases: leases, Sent: rows})
			if err != nil || len(stale) > 0 {
				t.Errorf("settle: %v, stale %v", err, stale)
			}
			reader.Forget(rows)
		})
		if len(rows) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return order
}

func checkOrder(t *testing.T, order []string, all map[string]*written) {
	t.Helper()
	seen := map[string]bool{}
	newest := map[string]*written{}
	wrong := 0
	for _, id := range order {
		r := all[id]
		if r == nil {
			t.Fatalf("picked %s, which did not commit", id)
		}
		if seen[id] {
			t.Errorf("picked %s twice", id)
		}
		seen[id] = true
		if b := newest[r.key]; b != nil && (r.end < b.start || r.end == b.end && r.start < b.start) {
			wrong++
		}
		if b := newest[r.key]; b == nil || r.start > b.start {
			newest[r.key] = r
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d rows were overtaken by one written after their commit, or after them in their transaction", wrong, len(order))
	}
	if len(seen) != len(all) {
		t.Errorf("picked %d of %d rows", len(seen), len(all))
	}
}

func exec(ctx context.Context, db *sql.DB, query string) error {
	_, err := db.ExecContext(ctx, query)
	return err
}

// TestF09_PickSchedules forces the schedules in which a cursor alone goes wrong. A step
// is "begin x", "xid x" (an xid long before any seq), "put x key", "commit x",
// "roll back x", "pick" with the rows it must return, in order, "glance key", a pick of the slot of
// that key alone, "settle", or "race x": x commits in the next pick, before its second statement.
func TestF09_PickSchedules(t *testing.T) {
	t.Parallel()
	for name, schedule := range map[string]string{
		"late commit of the same key": `
			begin a; put a1 k; begin b; put b2 k; commit b; pick b2; commit a; begin c; put c3 k; commit c; pick a1 c3`,
		"late commit found at once when the rest is settled": `
			begin a; put a1 k; begin b; put b2 k; commit b; pick b2; settle; pick; commit a; begin c; put c3 k; commit c; pick a1 c3; settle; pick`,
		"xid long before the seq": `
			begin a; xid a; begin b; put b1 k; commit b; pick b1; settle; pick; put a2 k; begin c; put c3 k; commit c; pick c3; settle; commit a; begin d; put d4 k; commit d; pick a2 d4`,
		"open over many picks": `
			begin a; put a1 k; begin b; put b2 k; commit b; pick b2; settle; begin c; put c3 k; commit c; pick c3; settle;
			begin d; put d4 k; commit d; pick d4; settle; pick; pick; begin e; put e5 k; commit e; pick e5; commit a; begin f; put f6 k; commit f; pick a1 f6`,
		"two late ones in order of seq": `
			begin a; put a1 k; begin b; put b2 k; begin c; put c3 k; commit c; pick c3; settle; commit b; commit a; begin d; put d4 k; commit d; pick a1 b2 d4`,
		"old and young late ones together": `
			begin a; put a1 k; begin x; put x2 k; commit x; pick x2; settle; pick; pick; begin b; put b3 k; begin c; put c4 k; commit c; pick c4; settle;
			commit a; commit b; begin d; put d5 k; commit d; pick a1 b3 d5`,
		"commit between the statements of a pick": `
			begin a; put a1 k; begin x; put x2 k; commit x; pick x2; settle; begin b; xid b; put a3 k; begin y; put y4 k; commit y; pick y4; settle;
			pick; pick; commit b; race a; pick; pick a1 a3`,
		"looks at another slot meanwhile": `
			begin a; put a1 k; begin b; put b2 k; commit b; pick b2; settle; glance j; commit a; glance j; glance j; begin c; put c3 k; commit c; pick a1 c3; settle; pick`,
		"looks at its slot alone": `
			begin a; put a1 k; begin b; put b2 k; commit b; glance k b2; settle; glance k; glance j; commit a; begin c; put c3 k; commit c; glance k a1 c3; settle; pick`,
		"a slot that was not read for long": `
			begin a; xid a; begin x; put x1 k; commit x; pick x1; settle; put a2 k; begin b; put b3 k; commit b; glance k b3; settle; glance j; glance j; pick; glance j;
			commit a; glance j; begin c; put c4 k; commit c; glance k a2 c4; settle; pick`,
		"rolled back": `
			begin a; put a1 k; begin b; put b2 k; commit b; pick b2; roll back a; begin c; put c3 k; commit c; pick c3; settle; pick`,
		"in flight is not picked again": `
			begin b; put b1 k; commit b; pick b1; begin c; put c2 k; commit c; pick c2; pick; pick; settle; pick`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runSchedule(t, schedule)
		})
	}
}

func runSchedule(t *testing.T, schedule string) {
	ctx := t.Context()
	second := &atStatement{}
	config, err := pgx.ParseConfig(servers.Database(t))
	must(t, err)
	config.Tracer = second
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { must(t, db.Close()) })
	store := postgres.Store(db)
	must(t, store.Migrations().Up(ctx, 0))
	second.sql = store.(interface{ Statements() map[string]string }).Statements()["late"]
	must(t, exec(ctx, db, "CREATE TABLE effects (n int)"))
	leases, reader := lease(t, store, "reader"), store.Relay().Reader()
	txs := map[string]*sql.Tx{}
	names := map[string]string{}
	var inFlight []*outlast.Row
	for step := range strings.SplitSeq(schedule, ";") {
		w := strings.Fields(step)
		switch w[0] {
		case "begin":
			tx, err := db.BeginTx(ctx, nil)
			must(t, err)
			txs[w[1]] = tx
		case "xid":
			_, err := txs[w[1]].ExecContext(ctx, "INSERT INTO effects VALUES (1)")
			must(t, err)
		case "put":
			id := outlast.NewID()
			names[id] = w[1]
			must(t, store.Outbox().Insert(ctx, txs[w[1][:1]], []*outlast.Message{text(id, w[2])}))
		case "commit":
			must(t, txs[w[1]].Commit())
		case "race":
			tx := txs[w[1]]
			second.do = func() { must(t, tx.Commit()) }
		case "roll":
			must(t, txs[w[2]].Rollback())
		case "pick", "glance":
			of := leases
			if w[0] == "glance" {
				of = slotOf(store, leases, w[1])
				w = w[1:]
			}
			rows, err := reader.Pick(ctx, of, 100, 1<<20)
			must(t, err)
			if second.do != nil {
				t.Fatalf("step %q: there was no second statement", strings.TrimSpace(step))
			}
			var got []string
			for _, r := range rows {
				got = append(got, names[r.ID])
			}
			if strings.Join(got, " ") != strings.Join(w[1:], " ") {
				t.Fatalf("step %q: picked %q", strings.TrimSpace(step), got)
			}
			inFlight = append(inFlight, rows...)
		case "settle":
			_, err := store.Relay().Settle(ctx, &outlast.Settlement{Leases: leases, Sent: inFlight})
			must(t, err)
			reader.Forget(inFlight)
			inFlight = nil
		default:
			t.Fatalf("step %q", step)
		}
	}
	for _, tx := range txs {
		_ = tx.Rollback()
	}
}

// slotOf returns the lease of a key's slot.
func slotOf(store outlast.Store, leases []outlast.Lease, key string) []outlast.Lease {
	slot := store.Outbox().(outlast.SlotNamer).SlotOf(text("", key))
	return slices.DeleteFunc(slices.Clone(leases), func(l outlast.Lease) bool { return l.Slot != slot })
}

// atStatement does something once, just before a statement is sent, alone or in a batch.
type atStatement struct {
	sql string
	do  func()
}

func (a *atStatement) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if do := a.do; do != nil && q.SQL == a.sql {
		a.do = nil
		do()
	}
	return ctx
}

func (a *atStatement) TraceBatchStart(ctx context.Context, conn *pgx.Conn, b pgx.TraceBatchStartData) context.Context {
	for _, q := range b.Batch.QueuedQueries {
		a.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{SQL: q.SQL})
	}
	return ctx
}

func (*atStatement) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (*atStatement) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

func (*atStatement) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestF05_PickWithOldTransactionsOpen holds a snapshot and a writer open while rows come
// and go: neither may keep rows back, and the writer's own row comes when it commits.
func TestF05_PickWithOldTransactionsOpen(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprintf("the slot alone %t", alone), func(t *testing.T) {
			t.Parallel()
			pickWithOldTransactions(t, alone)
		})
	}
}

func pickWithOldTransactions(t *testing.T, alone bool) {
	ctx := t.Context()
	db, store := open(t)
	leases, reader := lease(t, store, "reader"), store.Relay().Reader()
	if alone {
		_, err := reader.Pick(ctx, leases, 100, 1<<20) // of all, so that those of one are of few
		must(t, err)
		leases = slotOf(store, leases, "k")
	}
	old, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	must(t, err)
	defer func() { _ = old.Rollback() }()
	_, err = old.ExecContext(ctx, "SELECT count(*) FROM outlast_outbox")
	must(t, err)
	writer, err := db.BeginTx(ctx, nil)
	must(t, err)
	defer func() { _ = writer.Rollback() }()
	late := outlast.NewID()
	must(t, store.Outbox().Insert(ctx, writer, []*outlast.Message{text(late, "k")}))
	for i := range 200 {
		tx, err := db.BeginTx(ctx, nil)
		must(t, err)
		id := outlast.NewID()
		must(t, store.Outbox().Insert(ctx, tx, []*outlast.Message{text(id, "k")}))
		must(t, tx.Commit())
		rows, err := reader.Pick(ctx, leases, 100, 1<<20)
		must(t, err)
		if len(rows) != 1 || rows[0].ID != id {
			t.Fatalf("round %d: picked %d rows, want the new one", i, len(rows))
		}
		_, err = store.Relay().Settle(ctx, &outlast.Settlement{Leases: leases, Sent: rows})
		must(t, err)
		reader.Forget(rows)
	}
	must(t, writer.Commit())
	rows, err := reader.Pick(ctx, leases, 100, 1<<20)
	must(t, err)
	if len(rows) != 1 || rows[0].ID != late {
		t.Fatalf("picked %d rows after the late commit, want its row", len(rows))
	}
	must(t, old.Rollback())
}
