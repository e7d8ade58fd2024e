package postgres

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/md5"
	"encoding/json"
	"mime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/outlastmq/outlast"
)

type outbox struct{ *store }

// insertColumns are the columns that a producer gives; the others have defaults.
var insertColumns = slices.Concat([]string{"id", "type", "kind", "body", "body_bytes"}, optionalTexts[:],
	[]string{"headers", "may_be_unheard", "occurred_at", "expires_at"})

// maxInsertRows bounds what one statement holds.
const maxInsertRows = 2500

func (s outbox) Insert(ctx context.Context, tx outlast.LiveTx, msgs []*outlast.Message) error {
	if s.err != nil {
		return s.err
	}
	if len(msgs) == 1 && !isLater(msgs[0]) {
		return s.insertOne(ctx, tx, msgs[0])
	}
	var now, later []*outlast.Message
	for _, m := range msgs {
		if isLater(m) {
			later = append(later, m)
		} else {
			now = append(now, m)
		}
	}
	if err := s.insertMany(ctx, tx, "insert_many", now); err != nil {
		return err
	}
	return s.insertMany(ctx, tx, "insert_due", later)
}

// SlotOf is what the column slot of the outbox computes.
func (s outbox) SlotOf(m *outlast.Message) int {
	key := m.Envelope.Key
	if key == "" {
		id, err := uuid.Parse(m.ID)
		if err != nil {
			return -1
		}
		key = id.String()
	}
	var sum [md5.Size]byte
	fips140.WithoutEnforcement(func() { sum = md5.Sum([]byte(key)) }) // it protects nothing
	return int(sum[0])
}

func isLater(m *outlast.Message) bool { return m.Delay != 0 || !m.Due.IsZero() }

// insertOne is the way of most messages. Its parameters are of types that every
// database/sql driver takes, because the caller's transaction may be of any.
func (s outbox) insertOne(ctx context.Context, tx outlast.LiveTx, m *outlast.Message) error {
	headers, err := encodeHeaders(m)
	if err != nil {
		return err
	}
	args := append(make([]any, 0, 20), orNil(m.ID), m.Type, string(kindOf(m)))
	if storedAsText(m) {
		args = append(args, string(m.Body), nil)
	} else {
		args = append(args, nil, bytesOf(m.Body))
	}
	for _, text := range optionalTextsOf(m) {
		args = append(args, orNil(*text))
	}
	unheard := int64(0)
	if m.MayBeUnheard {
		unheard = 1
	}
	args = append(args, orNil(headers), unheard, instant(m.Time))
	if m.Lifetime > 0 {
		args = append(args, nil, micros(m.Lifetime))
	} else {
		args = append(args, instant(m.ExpiresAt), nil)
	}
	return s.enqueue(ctx, tx, "insert_one", args)
}

func (s outbox) enqueue(ctx context.Context, tx outlast.LiveTx, name string, args []any) error {
	if _, err := tx.ExecContext(ctx, s.sql.Get(name), args...); err != nil {
		return s.fail("enqueue", err, false)
	}
	return nil
}

func (s outbox) insertMany(ctx context.Context, tx outlast.LiveTx, name string, msgs []*outlast.Message) error {
	for len(msgs) > 0 {
		part := msgs[:min(len(msgs), maxInsertRows)]
		msgs = msgs[len(part):]
		c := messageColumns{n: len(part)}
		for i, m := range part {
			if err := c.set(i, m); err != nil {
				return err
			}
		}
		if err := s.enqueue(ctx, tx, name, c.args(name == "insert_due")); err != nil {
			return err
		}
	}
	return nil
}

// messageColumns are messages as the arrays that insert_many and insert_due take.
type messageColumns struct {
	n                                  int
	id, typ, kind, body                textArray
	bytes                              bytesArray
	texts                              [len(optionalTexts)]textArray
	headers, unheard, occurred         textArray
	expires, lifetime, dueAt, dueAfter textArray
}

// set fills the i-th place of the columns that the message uses. It keeps pointers to
// the message's texts.
func (c *messageColumns) set(i int, m *outlast.Message) error {
	headers, err := encodeHeaders(m)
	if err != nil {
		return err
	}
	c.id.set(i, c.n, &m.ID)
	c.typ.set(i, c.n, &m.Type)
	kind := string(kindOf(m))
	c.kind.set(i, c.n, &kind)
	if storedAsText(m) {
		body := string(m.Body)
		c.body.put(i, c.n, &body)
	} else {
		c.bytes.put(i, c.n, bytesOf(m.Body))
	}
	for at, text := range optionalTextsOf(m) {
		c.texts[at].set(i, c.n, text)
	}
	c.headers.set(i, c.n, &headers)
	if m.MayBeUnheard {
		c.unheard.set(i, c.n, new("true"))
	}
	c.occurred.setTime(i, c.n, m.Time)
	if m.Lifetime > 0 {
		c.lifetime.setMicros(i, c.n, m.Lifetime)
	} else {
		c.expires.setTime(i, c.n, m.ExpiresAt)
	}
	c.dueAt.setTime(i, c.n, m.Due)
	if m.Delay != 0 {
		c.dueAfter.setMicros(i, c.n, m.Delay)
	}
	return nil
}

func (c *messageColumns) args(due bool) []any {
	args := append(make([]any, 0, 22), c.id.arg(), c.typ.arg(), c.kind.arg(), c.body.arg(), c.bytes.arg())
	for i := range c.texts {
		args = append(args, c.texts[i].arg())
	}
	args = append(args, c.headers.arg(), c.unheard.arg(), c.occurred.arg(), c.expires.arg(), c.lifetime.arg())
	if due {
		args = append(args, c.dueAt.arg(), c.dueAfter.arg())
	}
	return args
}

// optionalTextsOf are the message's values of [optionalTexts].
func optionalTextsOf(m *outlast.Message) [len(optionalTexts)]*string {
	return [...]*string{
		&m.Envelope.Key, &m.Subject, &m.ContentType, &m.DataSchema, &m.CorrelationID, &m.CausationID,
		&m.TraceParent, &m.TraceState, &m.Exchange, &m.RoutingKey,
	}
}

func kindOf(m *outlast.Message) outlast.Kind {
	if m.Kind == "" {
		return outlast.KindEvent
	}
	return m.Kind
}

func instant(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC()
}

// storedAsText reports whether the body goes into the column that people can read: it
// is JSON, and a text column can hold it unchanged.
func storedAsText(m *outlast.Message) bool {
	return isJSON(m.ContentType) && utf8.Valid(m.Body) && bytes.IndexByte(m.Body, 0) < 0
}

func isJSON(contentType string) bool {
	if contentType == "" || contentType == "application/json" {
		return true
	}
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// encodeHeaders returns an object of JSON, or "" without any headers.
func encodeHeaders(m *outlast.Message) (string, error) {
	h := m.StoredHeaders()
	if len(h) == 0 {
		return "", nil
	}
	text, err := json.Marshal(h)
	if err != nil {
		return "", &outlast.Error{Op: "enqueue " + m.Type, Code: outlast.CodeInvalid, Err: err}
	}
	return string(text), nil
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
