package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

type (
	retryOperator struct{ *store }
	deadOperator  struct{ *store }
)

var (
	retryColumns = filterColumns{age: "first_at", reason: "reason", group: "grp"}
	deadColumns  = filterColumns{age: "last_at", reason: "reason", group: "grp", fingerprint: "fingerprint"}
)

const (
	retrySelect = "SELECT 'retry', o.seq, o.grp, o.envelope::text, o.source, o.id, o.reason, coalesce(o.error, ''), o.attempts, o.replays, '', o.first_at, o.last_at, o.next_at, octet_length(o.body), %s FROM %sretry o"
	deadSelect  = "SELECT 'dead', o.seq, o.grp, o.envelope::text, o.source, o.id, o.reason, coalesce(o.error, ''), o.attempts, o.replays, coalesce(o.fingerprint, ''), o.first_at, o.last_at, NULL::timestamptz, octet_length(o.body), %s FROM %sdead o"
)

func received(rows pgx.Rows, err error) ([]outlast.Item, error) {
	return collect(func(row pgx.CollectableRow, i *outlast.Item) error {
		var envelope, source, id string
		var next *time.Time
		var body []byte
		if err := row.Scan(&i.Where, &i.Seq, &i.Group, &envelope, &source, &id, &i.Reason, &i.Error, &i.Attempts, &i.Replays,
			&i.Fingerprint, &i.FirstAt, &i.LastAt, &next, &i.BodySize, &body); err != nil {
			return err
		}
		m, err := decodeMessage(envelope, body)
		if err != nil {
			return err
		}
		i.Envelope = m.Envelope
		i.Envelope.Source, i.Envelope.ID = source, id
		i.FirstAt, i.LastAt, i.NextAt = i.FirstAt.UTC(), i.LastAt.UTC(), utc(next)
		setBody(i, body, m.ContentType)
		return nil
	})(rows, err)
}

func (s *store) listReceived(ctx context.Context, op, query string, f outlast.Filter, c filterColumns) (items []outlast.Item, err error) {
	b, err := newFilter(f, c, false)
	if err != nil {
		return nil, err
	}
	err = s.ask(ctx, op, func(tx pgx.Tx) error {
		items, err = received(tx.Query(ctx, fmt.Sprintf(query, "NULL::bytea", s.conf.names()["t"])+
			fmt.Sprintf(" WHERE %s ORDER BY o.seq LIMIT %d", b, b.f.Limit), b.args...))
		return err
	})
	return items, err
}

func (s *store) showReceived(ctx context.Context, query, group, id string) (*outlast.Item, error) {
	op := fmt.Sprintf("show message %q", clip(id))
	var items []outlast.Item
	err := s.ask(ctx, op, func(tx pgx.Tx) (err error) {
		items, err = received(tx.Query(ctx, fmt.Sprintf(query, "o.body", s.conf.names()["t"])+
			" WHERE o.grp = $1::text AND o.id = $2::text ORDER BY o.seq DESC LIMIT 1", group, id))
		return err
	})
	if err == nil && len(items) == 0 {
		err = &outlast.Error{Op: op, Code: outlast.CodeNotFound}
	}
	if err != nil {
		return nil, err
	}
	return &items[0], nil
}

func (s retryOperator) List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
	return s.listReceived(ctx, "list retries", retrySelect, f, retryColumns)
}

func (s retryOperator) Show(ctx context.Context, group, id string) (*outlast.Item, error) {
	return s.showReceived(ctx, retrySelect, group, id)
}

// Now leaves out rows that are being tried.
func (s retryOperator) Now(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	b, err := newFilter(f, retryColumns, false)
	if err != nil {
		return 0, err
	}
	return s.act(ctx, "retry now", target(f), by, func(tx pgx.Tx) (int, error) {
		tag, err := tx.Exec(ctx, fmt.Sprintf(`UPDATE %[1]sretry SET next_at = clock_timestamp() WHERE seq = ANY(ARRAY(
			SELECT o.seq FROM %[1]sretry o WHERE %[2]s ORDER BY o.seq LIMIT %[3]d FOR UPDATE SKIP LOCKED))`,
			s.conf.names()["t"], b, b.f.Limit), b.args...)
		return int(tag.RowsAffected()), err
	})
}

func (s deadOperator) List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
	return s.listReceived(ctx, "list dead letters", deadSelect, f, deadColumns)
}

func (s deadOperator) Show(ctx context.Context, group, id string) (*outlast.Item, error) {
	return s.showReceived(ctx, deadSelect, group, id)
}

// Replay leaves out letters whose message waits already: then a letter of the same
// id but other content came in between.
func (s deadOperator) Replay(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	b, err := newFilter(f, deadColumns, false)
	if err != nil {
		return 0, err
	}
	return s.act(ctx, "dead replay", target(f), by, func(tx pgx.Tx) (int, error) {
		msgs, err := readActed(tx.Query(ctx, fmt.Sprintf(`WITH c AS MATERIALIZED (
			SELECT o.seq FROM %[1]sdead o
			WHERE %[2]s AND NOT EXISTS (SELECT FROM %[1]sretry r WHERE r.grp = o.grp AND r.source = o.source AND r.id = o.id)
				AND NOT EXISTS (SELECT FROM %[1]sdead e WHERE e.grp = o.grp AND e.source = o.source AND e.id = o.id AND e.seq < o.seq)
			ORDER BY o.seq LIMIT %[3]d FOR UPDATE OF o SKIP LOCKED
		), d AS (
			DELETE FROM %[1]sdead o USING c WHERE o.seq = c.seq RETURNING o.*
		), u AS (
			INSERT INTO %[1]sinbox (grp, source, id, state, hash, enqueued_at)
			SELECT grp, source, id, 'retry', hash, first_at FROM d
			ON CONFLICT (grp, source, id) DO UPDATE SET state = 'retry', hash = EXCLUDED.hash, at = clock_timestamp()
		)
		INSERT INTO %[1]sretry (grp, source, id, ordering_key, ordered, type, envelope, body, hash, reason, error, attempts, replays, next_at, first_at)
		SELECT grp, source, id, ordering_key, ordered, type, envelope, body, hash, 'replay', error, 0, replays + 1, clock_timestamp(), first_at
		FROM d ORDER BY d.seq RETURNING grp, source, id`, s.conf.names()["t"], b, b.f.Limit), b.args...))
		if err == nil {
			err = s.addActed(ctx, tx, outlast.FactReplayed, msgs, by)
		}
		return len(msgs), err
	})
}

func (s deadOperator) Discard(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	b, err := newFilter(f, deadColumns, false)
	if err != nil {
		return 0, err
	}
	return s.act(ctx, "dead discard", target(f), by, func(tx pgx.Tx) (int, error) {
		msgs, err := readActed(tx.Query(ctx, fmt.Sprintf(`DELETE FROM %[1]sdead WHERE seq = ANY(ARRAY(
			SELECT o.seq FROM %[1]sdead o WHERE %[2]s ORDER BY o.seq LIMIT %[3]d FOR UPDATE SKIP LOCKED)) RETURNING grp, source, id`,
			s.conf.names()["t"], b, b.f.Limit), b.args...))
		if err == nil {
			err = s.addActed(ctx, tx, outlast.FactDiscarded, msgs, by)
		}
		return len(msgs), err
	})
}

func (s deadOperator) Edit(ctx context.Context, group, id string, edited *outlast.Message, by outlast.Action) error {
	const op = "dead edit"
	envelope, err := encodeMessage(edited)
	if err != nil {
		return err
	}
	t := s.conf.names()["t"]
	_, err = s.act(ctx, op, id+" as "+edited.ID, by, func(tx pgx.Tx) (int, error) {
		var old factOf
		var ordered bool
		err := tx.QueryRow(ctx, fmt.Sprintf(`DELETE FROM %[1]sdead WHERE seq = (
			SELECT seq FROM %[1]sdead WHERE grp = $1::text AND id = $2::text ORDER BY seq LIMIT 1 FOR UPDATE) RETURNING grp, source, id, ordered`, t),
			group, id).Scan(&old.group, &old.source, &old.id, &ordered)
		if errors.Is(err, pgx.ErrNoRows) {
			return 0, &outlast.Error{Op: op, Code: outlast.CodeNotFound}
		}
		if err != nil {
			return 0, err
		}
		tag, err := tx.Exec(ctx, fmt.Sprintf(`INSERT INTO %[1]sinbox (grp, source, id, state, hash, enqueued_at)
			VALUES ($1::text, $2::text, $3::text, 'retry', 0, clock_timestamp()) ON CONFLICT (grp, source, id) DO NOTHING`, t), group, edited.Source, edited.ID)
		if err != nil {
			return 0, err
		}
		if tag.RowsAffected() == 0 {
			return 0, &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: fmt.Errorf("group %q knows %s already", group, edited.ID)}
		}
		_, err = tx.Exec(ctx, fmt.Sprintf(`INSERT INTO %[1]sretry (grp, source, id, ordering_key, ordered, type, envelope, body, hash, reason, attempts, replays, next_at, first_at)
			VALUES ($1::text, $2::text, $3::text, nullif($4::text, ''), $5::boolean AND $4::text <> '', $6::text, $7::text::jsonb, $8::bytea, 0, 'edited', 0, 0, clock_timestamp(), clock_timestamp())`, t),
			group, edited.Source, edited.ID, edited.Key, ordered, edited.Type, envelope, bytesOf(edited.Body))
		if err != nil {
			return 0, err
		}
		by.Reason = edited.ID + ": " + by.Reason
		return 1, s.addActed(ctx, tx, outlast.FactDiscarded, []factOf{old}, by)
	})
	return err
}
