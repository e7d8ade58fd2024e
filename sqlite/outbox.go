package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

type outbox struct{ s *store }

// insertRows keeps a statement below SQLite's 32,766 parameters.
const insertRows = 1000

const (
	rowNow  = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,NULL,NULL)"
	rowTime = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,coalesce(?, NOW + ?),max(NOW, coalesce(?, NOW + ?, 0)) + ?)"
)

// Insert writes with plain parameters and '?', so that any driver's transaction
// will do. Rows with a due time ahead are moved to the held by a trigger, within the
// same statement. A call with more than 1,000 messages takes more statements.
//
// SQLite may have rolled the whole transaction back when this fails: roll back, and
// begin anew.
func (o outbox) Insert(ctx context.Context, tx outlast.LiveTx, msgs []*outlast.Message) error {
	const op = "insert into outbox"
	if o.s.err != nil {
		return o.s.err
	}
	for len(msgs) > 0 {
		part := msgs[:min(len(msgs), insertRows)]
		msgs = msgs[len(part):]
		query, args := o.statement(part)
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return mapped(op, err)
		}
	}
	return nil
}

func (o outbox) statement(msgs []*outlast.Message) (string, []any) {
	var b strings.Builder
	head, _, _ := strings.Cut(columns, ", enqueued_at")
	b.WriteString("INSERT INTO " + o.s.prefix + "outbox (" + head + ") VALUES ")
	timed := strings.ReplaceAll(rowTime, "NOW", sqlNames("")["now"])
	args := make([]any, 0, 18*len(msgs))
	for i, m := range msgs {
		if i > 0 {
			b.WriteByte(',')
		}
		body, bytes := bodyColumns(m)
		kind := m.Kind
		if kind == "" {
			kind = outlast.KindEvent
		}
		args = append(args, m.ID, m.Type, string(kind), body, bytes, text(m.Envelope.Key), text(m.Envelope.Subject), text(m.ContentType),
			text(m.DataSchema), text(m.CorrelationID), text(m.CausationID), text(m.TraceParent), text(m.TraceState), headersText(m.StoredHeaders()),
			text(m.Exchange), text(m.RoutingKey), m.MayBeUnheard, micros(m.Time))
		if m.Delay == 0 && m.Due.IsZero() && m.Lifetime == 0 {
			b.WriteString(rowNow)
			continue
		}
		// The lifetime counts from the due time, when there is one.
		b.WriteString(timed)
		due, delay := micros(m.Due), interval(m.Delay)
		args = append(args, due, delay, due, delay, interval(m.Lifetime))
	}
	return b.String(), args
}

// interval is a duration in microseconds; NULL for none.
func interval(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return d.Microseconds()
}

func (o outbox) Withdraw(ctx context.Context, tx outlast.LiveTx, id string) (bool, error) {
	if o.s.err != nil {
		return false, o.s.err
	}
	res, err := tx.ExecContext(ctx, o.s.sql.Get("withdraw"), id)
	if err != nil {
		return false, mapped("withdraw", err)
	}
	n, err := res.RowsAffected()
	return n > 0, mapped("withdraw", err)
}
