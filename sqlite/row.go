package sqlite

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
)

// columns are those of a message at rest, but seq.
const columns = "id, type, kind, body, body_bytes, ordering_key, subject, content_type, data_schema, correlation_id, causation_id, " +
	"trace_parent, trace_state, headers, exchange, routing_key, may_be_unheard, occurred_at, due_at, expires_at, enqueued_at"

// What is read of a row, in the order of scanMessage and scanRow.
const (
	readHead = "seq, id, type, kind, coalesce(ordering_key, ''), coalesce(subject, ''), coalesce(content_type, ''), coalesce(data_schema, ''), " +
		"coalesce(correlation_id, ''), coalesce(causation_id, ''), coalesce(trace_parent, ''), coalesce(trace_state, ''), headers, " +
		"coalesce(exchange, ''), coalesce(routing_key, ''), may_be_unheard, occurred_at, due_at, expires_at, enqueued_at"
	bodyColumn = "coalesce(body_bytes, CAST(body AS BLOB))"
	readJudged = "coalesce(due_at > NOW, 0), coalesce(expires_at <= NOW, 0)"
)

// messageScan takes the columns of readHead.
type messageScan struct {
	seq                           int64
	m                             *outlast.Message
	headers                       sql.NullString
	occurred, due, expires, queue sql.NullInt64
}

func (s *messageScan) targets() []any {
	m := s.m
	return []any{&s.seq, &m.ID, &m.Type, &m.Kind, &m.Envelope.Key, &m.Envelope.Subject, &m.ContentType, &m.DataSchema,
		&m.CorrelationID, &m.CausationID, &m.TraceParent, &m.TraceState, &s.headers,
		&m.Exchange, &m.RoutingKey, &m.MayBeUnheard, &s.occurred, &s.due, &s.expires, &s.queue}
}

func (s *messageScan) finish() {
	s.m.SetStoredHeaders(parseHeaders(s.headers.String))
	s.m.Time, s.m.Due = instant(s.occurred), instant(s.due)
	s.m.ExpiresAt, s.m.EnqueuedAt = instant(s.expires), instant(s.queue)
}

// scanRow reads one row of a statement with {{read}}, and reason and attempts
// behind them when it is of the held.
func scanRow(rows interface{ Scan(...any) error }, held bool) (*outlast.Row, error) {
	row := &outlast.Row{InHeld: held}
	s := messageScan{m: &row.Message}
	targets := append(s.targets(), &row.Body, &row.NotDue, &row.Expired)
	if held {
		targets = append(targets, &row.Reason, &row.Attempts)
	}
	if err := rows.Scan(targets...); err != nil {
		return nil, err
	}
	s.finish()
	row.Seq = s.seq
	return row, nil
}

// parseHeaders never fails: a row of another writer whose values are no texts is for
// the relay to refuse by itself, with its reason, not for the pick to stumble over.
func parseHeaders(text string) outlast.Headers {
	if text == "" {
		return nil
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &raw) != nil || len(raw) == 0 {
		return nil
	}
	h := make(outlast.Headers, len(raw))
	for name, value := range raw {
		var s string
		if json.Unmarshal(value, &s) != nil {
			s = string(value)
		}
		h[name] = s
	}
	return h
}

func headersText(h outlast.Headers) any {
	if len(h) == 0 {
		return nil
	}
	text, err := json.Marshal(h)
	if err != nil {
		return nil // a map of strings always has a JSON form
	}
	return string(text)
}

func instant(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64)
}

// micros is the column's form of an instant; NULL for the zero one.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// text is the column's form of an optional text.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// bodyColumns puts readable bodies into the column that people read.
func bodyColumns(m *outlast.Message) (body, bytes any) {
	kind, _, _ := strings.Cut(strings.ToLower(m.ContentType), ";")
	kind = strings.TrimSpace(kind)
	readable := kind == "" || kind == "application/json" || strings.HasSuffix(kind, "+json") || strings.HasPrefix(kind, "text/")
	s := string(m.Body)
	if readable && utf8.ValidString(s) && !strings.ContainsRune(s, 0) {
		return s, nil
	}
	if m.Body == nil {
		return nil, []byte{}
	}
	return nil, m.Body
}

func jsonList[E any](list []E) string {
	if list == nil {
		list = []E{}
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(fmt.Sprintf("sqlite: a list of %T has no JSON form: %v", list, err)) // only texts and numbers come here
	}
	return string(b)
}
