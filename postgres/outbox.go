package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/outlastmq/outlast"
)

type outbox struct{ *store }

// insertColumns are the columns that Insert gives; the others have defaults.
var insertColumns = append([]string{"id", "type", "kind", "body", "body_bytes"},
	append(optionalTexts[:len(optionalTexts):len(optionalTexts)], "headers", "may_be_unheard", "occurred_at", "expires_at")...)

// maxInsertRows keeps a statement below the protocol's 65,535 parameters.
const maxInsertRows = 2500

func (s outbox) Insert(ctx context.Context, tx outlast.LiveTx, msgs []*outlast.Message) error {
	if s.err != nil {
		return s.err
	}
	var now, later []*outlast.Message
	for _, m := range msgs {
		if m.Delay == 0 && m.Due.IsZero() {
			now = append(now, m)
		} else {
			later = append(later, m)
		}
	}
	if err := s.insert(ctx, tx, now, false); err != nil {
		return err
	}
	return s.insert(ctx, tx, later, true)
}

func (s outbox) insert(ctx context.Context, tx outlast.LiveTx, msgs []*outlast.Message, due bool) error {
	for len(msgs) > 0 {
		part := msgs[:min(len(msgs), maxInsertRows)]
		msgs = msgs[len(part):]
		b := insertBuilder{args: make([]any, 0, len(part)*(len(insertColumns)+2))}
		b.head(s.conf, due)
		for i, m := range part {
			if i > 0 {
				b.WriteString(", ")
			}
			if err := b.message(s.conf, m, due); err != nil {
				return err
			}
		}
		b.foot(s.conf, due)
		if _, err := tx.ExecContext(ctx, b.String(), b.args...); err != nil {
			return s.fail("enqueue", err, false)
		}
	}
	return nil
}

// insertBuilder writes one INSERT. Its parameters are of types that every
// database/sql driver takes, because the caller's transaction may be of any.
type insertBuilder struct {
	strings.Builder
	args []any
}

func (b *insertBuilder) head(c settings, due bool) {
	columns := strings.Join(insertColumns, ", ")
	if due {
		fmt.Fprintf(b, "WITH v (%s, start, now) AS MATERIALIZED (VALUES ", columns)
		return
	}
	fmt.Fprintf(b, "INSERT INTO %soutbox (%s) VALUES ", c.names()["t"], columns)
}

// foot sends messages whose due time has passed at once; only the database can tell.
func (b *insertBuilder) foot(c settings, due bool) {
	if !due {
		return
	}
	fmt.Fprintf(b, `), h AS (
		INSERT INTO %[1]sheld (%[2]s, due_at, next_at, reason) SELECT %[2]s, start, start, 'due' FROM v WHERE start > now
	) INSERT INTO %[1]soutbox (%[2]s, due_at) SELECT %[2]s, start FROM v WHERE start <= now`,
		c.names()["t"], strings.Join(insertColumns, ", "))
}

func (b *insertBuilder) arg(v any, cast string) string {
	b.args = append(b.args, v)
	return fmt.Sprintf("$%d::%s", len(b.args), cast)
}

func (b *insertBuilder) message(c settings, m *outlast.Message, due bool) error {
	var body, raw any
	switch {
	case isJSON(m.ContentType) && textual(m.Body):
		body = string(m.Body)
	case m.Body == nil:
		raw = []byte{}
	default:
		raw = m.Body
	}
	headers, err := encodeHeaders(m.StoredHeaders())
	if err != nil {
		return &outlast.Error{Op: "enqueue " + m.Type, Code: outlast.CodeInvalid, Err: err}
	}
	kind := m.Kind
	if kind == "" {
		kind = outlast.KindEvent
	}
	values := []string{
		fmt.Sprintf("coalesce(%s, %suuid7())", b.arg(orNil(m.ID), "uuid"), c.names()["t"]),
		b.arg(m.Type, "text"), b.arg(string(kind), "text"), b.arg(body, "text"), b.arg(raw, "bytea"),
	}
	for _, text := range []string{
		m.Envelope.Key, m.Envelope.Subject, m.ContentType, m.DataSchema, m.CorrelationID, m.CausationID,
		m.TraceParent, m.TraceState, m.Exchange, m.RoutingKey,
	} {
		values = append(values, b.arg(orNil(text), "text"))
	}
	unheard := int64(0)
	if m.MayBeUnheard {
		unheard = 1
	}
	values = append(values, b.arg(headers, "jsonb"), "("+b.arg(unheard, "bigint")+" <> 0)", b.arg(instant(m.Time), "timestamptz"))
	values = append(values, b.times(m, due)...)
	fmt.Fprintf(b, "(%s)", strings.Join(values, ", "))
	return nil
}

// times returns expires_at, and for messages with a due time also that and the
// present. A lifetime counts from the due time, as if enqueued then.
func (b *insertBuilder) times(m *outlast.Message, due bool) []string {
	start := "clock_timestamp()"
	if due && m.Due.IsZero() {
		start = fmt.Sprintf("clock_timestamp() + %s * interval '1 microsecond'", b.arg(micros(m.Delay), "bigint"))
	} else if due {
		start = b.arg(instant(m.Due), "timestamptz")
	}
	expires := "NULL::timestamptz"
	switch {
	case m.Lifetime > 0:
		expires = fmt.Sprintf("greatest(%s, clock_timestamp()) + %s * interval '1 microsecond'", start, b.arg(micros(m.Lifetime), "bigint"))
	case !m.ExpiresAt.IsZero():
		expires = b.arg(instant(m.ExpiresAt), "timestamptz")
	}
	if !due {
		return []string{expires}
	}
	return []string{expires, start, "clock_timestamp()"}
}

func instant(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC()
}

func isJSON(contentType string) bool {
	if contentType == "" || contentType == "application/json" {
		return true
	}
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// textual reports whether a text column can hold the body unchanged.
func textual(body []byte) bool {
	return utf8.Valid(body) && strings.IndexByte(string(body), 0) < 0
}

func encodeHeaders(h outlast.Headers) (any, error) {
	if len(h) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(h)
	return string(text), err
}

func (s outbox) Withdraw(ctx context.Context, tx outlast.LiveTx, id string) (bool, error) {
	if s.err != nil {
		return false, s.err
	}
	if _, err := uuid.Parse(id); err != nil {
		return false, nil // no message of ours has such an id
	}
	result, err := tx.ExecContext(ctx, s.sql.Get("withdraw"), id)
	if err != nil {
		return false, s.fail("withdraw", err, false)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return false, s.fail("withdraw", err, false)
	}
	return n > 0, nil
}
