package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/outlastmq/outlast"
)

// optionalTexts are the columns of a message at rest in which NULL and "" are one.
var optionalTexts = [...]string{
	"ordering_key", "subject", "content_type", "data_schema", "correlation_id", "causation_id",
	"trace_parent", "trace_state", "exchange", "routing_key",
}

// columnLists are parts of statements, so that they and [rowScan] cannot differ.
func columnLists() map[string]string {
	texts := make([]string, len(optionalTexts))
	nulls := make([]string, len(optionalTexts))
	for i, c := range optionalTexts {
		texts[i], nulls[i] = "o."+c, "NULL::text"
	}
	optional := strings.Join(optionalTexts[:], ", ")
	return map[string]string{
		// row: what rowScan reads, of the table o.
		"row": "o.seq, o.slot, o.id, o.type, o.kind, o.body, o.body_bytes, " + strings.Join(texts, ", ") +
			", o.headers::text, o.may_be_unheard, o.occurred_at, o.due_at, o.expires_at, o.enqueued_at," +
			" coalesce(o.due_at > clock_timestamp(), false), coalesce(o.expires_at <= clock_timestamp(), false)",
		// norow: the same behind seq, slot and id, with nothing in it.
		"norow": "'', '', NULL::text, NULL::bytea, " + strings.Join(nulls, ", ") +
			", NULL::text, false, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, false, false",
		// light: a row without its body, for lists.
		"light": "o.seq, o.slot, o.id, o.type, o.kind, NULL::text AS body, NULL::bytea AS body_bytes, o." + strings.Join(optionalTexts[:], ", o.") +
			", o.headers, o.may_be_unheard, o.occurred_at, o.due_at, o.expires_at, o.enqueued_at",
		// gone: what the sent log takes of a deleted row.
		"gone": "o.seq, o.id, o.type, o.kind, o.body, o.body_bytes, o." + strings.Join(optionalTexts[:], ", o.") +
			", o.headers, o.may_be_unheard, o.occurred_at, o.expires_at, o.enqueued_at",
		// inserted: what a producer gives. unnested: the same as insert_many and insert_due
		// get it; given: without id and expires_at, cast to the types of the table.
		"inserted": strings.Join(insertColumns, ", "),
		"unnested": "id, type, kind, body, body_bytes, " + optional + ", headers, may_be_unheard, occurred_at, expires, lifetime",
		"given": "m.type, m.kind, m.body, m.body_bytes, m." + strings.Join(optionalTexts[:], ", m.") +
			", m.headers::jsonb AS headers, m.may_be_unheard IS NOT NULL AS may_be_unheard, m.occurred_at::timestamptz AS occurred_at",
		// message: the columns that move between outbox and held with a row.
		"message": "id, type, kind, body, body_bytes, " + optional + ", headers, may_be_unheard, expires_at",
	}
}

// rowScan receives the columns {{row}}, of one row after another: what it gives away
// is not its own.
type rowScan struct {
	seq                              int64
	slot                             int16
	id                               [16]byte
	typ, kind                        lastText
	body, bytes                      []byte
	texts                            [len(optionalTexts)]lastText
	headers                          lastText
	unheard, notDue, expired         bool
	occurred, due, expires, enqueued pgtype.Timestamptz
}

// lastText is a text in which NULL and "" are one. What is the same in the row before,
// as types and content types mostly are, is kept once.
type lastText string

func (t *lastText) ScanBytes(b []byte) error {
	if string(b) != string(*t) {
		*t = lastText(b)
	}
	return nil
}

func (r *rowScan) dest(before ...any) []any {
	d := append(make([]any, 0, 40), before...)
	d = append(d, &r.seq, &r.slot, &r.id, &r.typ, &r.kind, &r.body, &r.bytes)
	for i := range r.texts {
		d = append(d, &r.texts[i])
	}
	return append(d, &r.headers, &r.unheard, &r.occurred, &r.due, &r.expires, &r.enqueued, &r.notDue, &r.expired)
}

func (r *rowScan) row() *outlast.Row {
	row := &outlast.Row{Seq: r.seq, Slot: int(r.slot), NotDue: r.notDue, Expired: r.expired}
	row.Message = outlast.Message{
		Envelope: outlast.Envelope{
			ID: uuid.UUID(r.id).String(), Type: string(r.typ), Kind: outlast.Kind(r.kind),
			Key: string(r.texts[0]), Subject: string(r.texts[1]), ContentType: string(r.texts[2]), DataSchema: string(r.texts[3]),
			CorrelationID: string(r.texts[4]), CausationID: string(r.texts[5]), TraceParent: string(r.texts[6]), TraceState: string(r.texts[7]),
			Time: r.occurred.Time.UTC(), EnqueuedAt: r.enqueued.Time.UTC(), ExpiresAt: r.expires.Time.UTC(),
		},
		Body: r.body, Exchange: string(r.texts[8]), RoutingKey: string(r.texts[9]), MayBeUnheard: r.unheard, Due: r.due.Time.UTC(),
	}
	if r.body == nil {
		row.Body = r.bytes
	}
	row.SetStoredHeaders(decodeHeaders(string(r.headers)))
	return row
}

// decodeHeaders takes values of other types than text as their JSON: a foreign
// writer may have put numbers there.
func decodeHeaders(text string) outlast.Headers {
	if text == "" || text == "{}" {
		return nil
	}
	var values map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &values) != nil {
		return nil // not an object: the CHECK constraint keeps it out
	}
	h := make(outlast.Headers, len(values))
	for name, raw := range values {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			s = string(raw)
		}
		h[name] = s
	}
	return h
}

func utc(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// readRows reads rows of {{row}} alone.
func readRows(rows pgx.Rows, err error) ([]*outlast.Row, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*outlast.Row
	var r rowScan
	dest := r.dest()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return nil, fmt.Errorf("read a row: %w", err)
		}
		out = append(out, r.row())
	}
	return out, rows.Err()
}

// micros is a duration as statements take it.
func micros(d time.Duration) int64 { return int64(d / time.Microsecond) }

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}
