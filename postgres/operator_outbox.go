package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

type outboxOperator struct{ *store }

var (
	pendingColumns = filterColumns{age: "enqueued_at"}
	heldColumns    = filterColumns{age: "enqueued_at", reason: "reason"}
)

func (s outboxOperator) List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
	pending, err := newFilter(f, pendingColumns, true)
	if err != nil {
		return nil, err
	}
	held, err := newFilter(f, heldColumns, true)
	if err != nil {
		return nil, err
	}
	var items []outlast.Item
	err = s.ask(ctx, "list the outbox", func(tx pgx.Tx) error {
		// Each slot gives its first rows, so that a page never sorts the whole table.
		if items, err = s.items(tx.Query(ctx, s.list("outbox", pending, "light", "''", "''", "0", "NULL::timestamptz", "o.enqueued_at"), pending.args...)); err != nil {
			return err
		}
		more, err := s.items(tx.Query(ctx, s.list("held", held, "light", "o.reason", "coalesce(o.error, '')", "o.attempts", "o.next_at", "o.held_at"), held.args...))
		items = append(items, more...)
		return err
	})
	if err != nil {
		return nil, err
	}
	sort.Slice(items, func(i, j int) bool { return items[i].Seq < items[j].Seq })
	return items[:min(len(items), pending.f.Limit)], nil
}

// list is the statement of a page: rows of table slot by slot, then the lowest seqs.
func (s outboxOperator) list(table string, f *filter, columns, reason, failure, attempts, next, last string) string {
	lists := columnLists()
	return fmt.Sprintf(`SELECT %s, o.size, '%s', o.the_reason, o.the_error, o.the_attempts, o.the_next, o.the_last FROM (
		SELECT x.* FROM generate_series(0, %d) AS g(slot) CROSS JOIN LATERAL (
			SELECT %s, coalesce(octet_length(o.body), octet_length(o.body_bytes)) AS size,
				%s AS the_reason, %s AS the_error, %s AS the_attempts, %s AS the_next, %s AS the_last
			FROM %s%s o WHERE o.slot = g.slot::smallint AND %s ORDER BY o.seq LIMIT %d
		) x ORDER BY x.seq LIMIT %d) o ORDER BY o.seq`,
		lists["row"], map[string]string{"outbox": "pending", "held": "held"}[table], slots-1, lists[columns],
		reason, failure, attempts, next, last, s.conf.names()["t"], table, f, f.f.Limit, f.f.Limit)
}

func (s outboxOperator) items(rows pgx.Rows, err error) ([]outlast.Item, error) {
	return collect(func(row pgx.CollectableRow, i *outlast.Item) error {
		var r rowScan
		var next, last *time.Time
		if err := row.Scan(append(r.dest(), &i.BodySize, &i.Where, &i.Reason, &i.Error, &i.Attempts, &next, &last)...); err != nil {
			return err
		}
		message := r.row()
		i.Seq, i.Envelope = message.Seq, message.Envelope
		i.FirstAt, i.LastAt, i.NextAt = message.EnqueuedAt, utc(last), utc(next)
		setBody(i, message.Body, message.ContentType)
		return nil
	})(rows, err)
}

// setBody shows a body: JSON as it is, anything else as bytes; nil is no body.
func setBody(i *outlast.Item, body []byte, contentType string) {
	switch {
	case body == nil:
	case isJSON(contentType) && json.Valid(body):
		i.Body = body
	default:
		i.BodyBytes = body
	}
}

func (s outboxOperator) Show(ctx context.Context, id string) (*outlast.Item, error) {
	op := fmt.Sprintf("show message %q", clip(id))
	missing := &outlast.Error{Op: op, Code: outlast.CodeNotFound}
	if s.err != nil {
		return nil, s.err
	}
	if _, err := uuid.Parse(id); err != nil {
		return nil, missing
	}
	f, err := newFilter(outlast.Filter{IDs: []string{id}, Limit: 1}, pendingColumns, true)
	if err != nil {
		return nil, err
	}
	lists := columnLists()
	show := func(table, place, more string) string {
		return fmt.Sprintf("SELECT %s, coalesce(octet_length(o.body), octet_length(o.body_bytes)), '%s', %s FROM %s%s o WHERE %s LIMIT 1",
			lists["row"], place, more, s.conf.names()["t"], table, f)
	}
	var items []outlast.Item
	err = s.ask(ctx, op, func(tx pgx.Tx) error {
		items, err = s.items(tx.Query(ctx, show("held", "held", "o.reason, coalesce(o.error, ''), o.attempts, o.next_at, o.held_at"), f.args...))
		if err != nil || len(items) > 0 {
			return err
		}
		items, err = s.items(tx.Query(ctx, show("outbox", "pending", "'', '', 0, NULL::timestamptz, o.enqueued_at"), f.args...))
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, missing
	}
	return &items[0], nil
}

// Release turns the rows into ones that are tried again now, on their own.
func (s outboxOperator) Release(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	b, err := newFilter(f, heldColumns, true)
	if err != nil {
		return 0, err
	}
	held := s.conf.names()["t"] + "held"
	return s.act(ctx, "outbox release", target(f), by, func(tx pgx.Tx) (int, error) {
		tag, err := tx.Exec(ctx, fmt.Sprintf(`UPDATE %s SET reason = 'backoff', next_at = clock_timestamp() WHERE ctid = ANY(ARRAY(
			SELECT o.ctid FROM %s o WHERE o.reason NOT IN ('due', 'behind') AND %s ORDER BY o.seq LIMIT %d FOR UPDATE SKIP LOCKED))`,
			held, held, b, b.f.Limit), b.args...)
		return int(tag.RowsAffected()), err
	})
}

func (s outboxOperator) Withdraw(ctx context.Context, f outlast.Filter, by outlast.Action) (withdrawn int, uncertain []string, err error) {
	pending, err := newFilter(f, pendingColumns, true)
	if err != nil {
		return 0, nil, err
	}
	held, err := newFilter(f, heldColumns, true)
	if err != nil {
		return 0, nil, err
	}
	withdrawn, err = s.act(ctx, "outbox withdraw", target(f), by, func(tx pgx.Tx) (int, error) {
		live, err := collect(func(row pgx.CollectableRow, slot *int) error { return row.Scan(slot) })(tx.Query(ctx, s.sql.Get("op_live_slots")))
		if err != nil {
			return 0, err
		}
		alive := map[int]bool{}
		for _, slot := range live {
			alive[slot] = true
		}
		n, left := 0, pending.f.Limit
		var acted []factOf
		for _, from := range []struct {
			table, sure string
			f           *filter
		}{{"held", "o.reason IN ('due', 'behind', 'refused', 'unroutable')", held}, {"outbox", "false", pending}} {
			if left == 0 {
				break
			}
			gone, err := collect(func(row pgx.CollectableRow, g *withdrawnRow) error { return row.Scan(&g.id, &g.slot, &g.sure) })(
				tx.Query(ctx, fmt.Sprintf(`DELETE FROM %[1]s o WHERE o.ctid = ANY(ARRAY(
					SELECT o.ctid FROM %[1]s o WHERE %[2]s LIMIT %[3]d FOR UPDATE SKIP LOCKED)) RETURNING o.id::text, o.slot, %[4]s`,
					s.conf.names()["t"]+from.table, from.f, left, from.sure), from.f.args...))
			if err != nil {
				return 0, err
			}
			for _, g := range gone {
				acted = append(acted, factOf{id: g.id})
				if !g.sure && alive[g.slot] {
					uncertain = append(uncertain, g.id)
				}
			}
			n, left = n+len(gone), left-len(gone)
		}
		return n, s.addActed(ctx, tx, outlast.FactWithdrawn, acted, by)
	})
	if err != nil {
		return 0, nil, err
	}
	return withdrawn, uncertain, nil
}

type withdrawnRow struct {
	id   string
	slot int
	sure bool
}
