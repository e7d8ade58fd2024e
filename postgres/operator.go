package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

type operator struct{ *store }

func (s operator) Outbox() outlast.OutboxOperator { return outboxOperator(s) }
func (s operator) Retries() outlast.RetryOperator { return retryOperator(s) }
func (s operator) Dead() outlast.DeadOperator     { return deadOperator(s) }

// ask runs fn in a transaction that ends by itself when a question is too heavy.
func (s *store) ask(ctx context.Context, op string, fn func(tx pgx.Tx) error) error {
	return s.tx(ctx, op, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, s.sql.Get("op_timeout")); err != nil {
			return err
		}
		return fn(tx)
	})
}

// act runs fn and records what was done in the same transaction.
func (s *store) act(ctx context.Context, what, target string, by outlast.Action, fn func(tx pgx.Tx) (int, error)) (count int, err error) {
	if by.Who == "" {
		return 0, &outlast.Error{Op: what, Code: outlast.CodeInvalid, Fields: []outlast.FieldError{{Field: "who", Limit: "not empty", Given: `""`}}}
	}
	err = s.ask(ctx, what, func(tx pgx.Tx) error {
		if count, err = fn(tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.sql.Get("op_action"), outlast.CleanErrorText(by.Who), what, target, count, outlast.CleanErrorText(by.Reason))
		return err
	})
	if err != nil {
		return 0, err
	}
	return count, nil
}

func (s operator) SetPaused(ctx context.Context, group string, paused bool, by outlast.Action) error {
	what := "resume"
	if paused {
		what = "pause"
	}
	_, err := s.act(ctx, what, group, by, func(tx pgx.Tx) (int, error) {
		_, err := tx.Exec(ctx, s.sql.Get("op_pause"), group, paused, by.Who, by.Reason)
		return 1, err
	})
	return err
}

func (s operator) Actions(ctx context.Context, q outlast.ActionQuery) (list []outlast.ActionRecord, err error) {
	err = s.ask(ctx, "read actions", func(tx pgx.Tx) error {
		list, err = collect(func(row pgx.CollectableRow, a *outlast.ActionRecord) error {
			return row.Scan(&a.Seq, &a.At, &a.Who, &a.What, &a.Target, &a.Count, &a.Reason)
		})(tx.Query(ctx, s.sql.Get("op_actions"), q.Limited(), q.Before))
		return err
	})
	return list, err
}

// collect makes a reader of rows of a function that scans one.
func collect[T any](scan func(pgx.CollectableRow, *T) error) func(pgx.Rows, error) ([]T, error) {
	return func(rows pgx.Rows, err error) ([]T, error) {
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (v T, err error) { return v, scan(row, &v) })
	}
}

func (s operator) Status(ctx context.Context) (*outlast.StoreStatus, error) {
	st := &outlast.StoreStatus{}
	limit := outlast.CountLimit + 1
	err := s.ask(ctx, "read the status", func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, s.sql.Get("op_server")).Scan(&st.Now, &st.Source); err != nil {
			return err
		}
		query := func(name string, args ...any) (pgx.Rows, error) { return tx.Query(ctx, s.sql.Get(name), args...) }
		age := func(d *time.Duration, us int64) { *d = time.Duration(us) * time.Microsecond }
		group := collect(func(row pgx.CollectableRow, g *outlast.GroupStatus) error {
			var us int64
			err := row.Scan(&g.Group, &g.Type, &g.Count, &us)
			age(&g.Oldest, us)
			return err
		})
		var err error
		if st.Pending, err = collect(func(row pgx.CollectableRow, r *outlast.RouteStatus) error {
			var us int64
			err := row.Scan(&r.Type, &r.Count, &us)
			age(&r.Oldest, us)
			return err
		})(query("op_pending", limit)); err != nil {
			return err
		}
		if st.Held, err = collect(func(row pgx.CollectableRow, h *outlast.HeldStatus) error {
			var us int64
			err := row.Scan(&h.Type, &h.Reason, &h.Count, &us, &h.Error)
			age(&h.Oldest, us)
			return err
		})(query("op_held", limit)); err != nil {
			return err
		}
		if st.Retry, err = group(query("op_retry", limit)); err != nil {
			return err
		}
		if err := s.overdue(ctx, tx, st); err != nil {
			return err
		}
		var us int64
		if err := tx.QueryRow(ctx, s.sql.Get("op_unattended"), limit).Scan(&st.Unattended.Count, &us); err != nil {
			return err
		}
		age(&st.Unattended.Oldest, us)
		if st.Dead, err = group(query("op_dead", limit)); err != nil {
			return err
		}
		if st.Relays, err = collect(func(row pgx.CollectableRow, r *outlast.RelayStatus) error {
			return row.Scan(&r.Owner, &r.Slots)
		})(query("op_relays")); err != nil {
			return err
		}
		paused, err := collect(func(row pgx.CollectableRow, g *outlast.PausedGroup) error {
			return row.Scan(&g.Group, &g.Since, &g.Who, &g.Reason)
		})(query("op_paused"))
		for _, p := range paused {
			st.AddPaused(p)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	st.Now = st.Now.UTC()
	return st, nil
}

// overdue adds to the waiting messages how many of them are late, and how many a person must
// move.
func (s operator) overdue(ctx context.Context, tx pgx.Tx, st *outlast.StoreStatus) error {
	spent, err := collect(func(row pgx.CollectableRow, g *outlast.GroupStatus) error {
		return row.Scan(&g.Group, &g.Type, &g.Spent)
	})(tx.Query(ctx, s.sql.Get("op_spent"), outlast.CountLimit+1))
	if err != nil {
		return err
	}
	late, err := collect(func(row pgx.CollectableRow, g *outlast.GroupStatus) error {
		return row.Scan(&g.Group, &g.Type, &g.Overdue)
	})(tx.Query(ctx, s.sql.Get("op_overdue"), outlast.CountLimit+1, micros(outlast.OverdueAfter)))
	for _, l := range append(late, spent...) {
		for i := range st.Retry {
			if g := &st.Retry[i]; g.Group == l.Group && g.Type == l.Type {
				g.Overdue, g.Spent = g.Overdue+l.Overdue, g.Spent+l.Spent
			}
		}
	}
	return err
}

// filter builds the WHERE of one table from a Filter. Only fixed texts go into the
// statement; values are parameters.
type filter struct {
	f     outlast.Filter
	where []string
	args  []any
}

// filterColumns says which column a field of the filter means in a table; empty
// fields are not there.
type filterColumns struct{ age, reason, group, fingerprint string }

func newFilter(f outlast.Filter, c filterColumns, uuids bool) (*filter, error) {
	if f.Limit == 0 {
		f.Limit = 100
	}
	if f.Limit < 1 || f.Limit > 10_000 {
		return nil, &outlast.Error{Op: "filter", Code: outlast.CodeInvalid,
			Fields: []outlast.FieldError{{Field: "limit", Limit: "1 to 10000", Given: fmt.Sprint(f.Limit)}}}
	}
	b := &filter{f: f, where: []string{"true"}}
	switch {
	case f.IDs != nil && uuids:
		valid := []string{}
		for _, id := range f.IDs {
			if u, err := uuid.Parse(id); err == nil {
				valid = append(valid, u.String())
			}
		}
		b.add("o.id = ANY(%s::text[]::uuid[])", valid)
	case f.IDs != nil:
		b.add("o.id = ANY(%s::text[])", f.IDs)
	}
	b.text("type", f.Type)
	b.text("ordering_key", f.Key)
	b.text(c.reason, f.Reason)
	b.text(c.group, f.Group)
	b.text(c.fingerprint, f.Fingerprint)
	if f.OlderThan > 0 {
		b.add("o."+c.age+" <= clock_timestamp() - %s::bigint * interval '1 microsecond'", micros(f.OlderThan))
	}
	if f.NewerThan > 0 {
		b.add("o."+c.age+" >= clock_timestamp() - %s::bigint * interval '1 microsecond'", micros(f.NewerThan))
	}
	if f.After > 0 {
		b.add("o.seq > %s::bigint", f.After)
	}
	return b, nil
}

func (b *filter) add(cond string, arg any) {
	b.args = append(b.args, arg)
	b.where = append(b.where, fmt.Sprintf(cond, fmt.Sprintf("$%d", len(b.args))))
}

func (b *filter) text(column, value string) {
	switch {
	case value == "":
	case column == "": // rows of this table have no such thing
		b.where = append(b.where, "false")
	default:
		b.add("o."+column+" = %s::text", value)
	}
}

func (b *filter) String() string { return strings.Join(b.where, " AND ") }

// target is the filter as the record of actions shows it.
func target(f outlast.Filter) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	if n := len(f.IDs); n > 10 {
		add("ids", strings.Join(f.IDs[:10], ",")+fmt.Sprintf(" and %d more", n-10))
	} else {
		add("ids", strings.Join(f.IDs, ","))
	}
	add("type", f.Type)
	add("key", f.Key)
	add("group", f.Group)
	add("reason", f.Reason)
	add("fingerprint", f.Fingerprint)
	if f.OlderThan > 0 {
		add("older than", f.OlderThan.String())
	}
	if f.NewerThan > 0 {
		add("newer than", f.NewerThan.String())
	}
	if parts == nil {
		return "all"
	}
	return outlast.CleanErrorText(strings.Join(parts, " "))
}
