-- Statements of the consumer's role.

-- name: mark
-- In the order given: two transactions with the same messages cannot deadlock.
WITH m AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::timestamptz[]) WITH ORDINALITY AS m(source, id, hash, enqueued, ord)
), x AS (
    DELETE FROM {{t}}suspect s USING m WHERE s.grp = $1::text AND s.source = m.source AND s.id = m.id
)
INSERT INTO {{t}}inbox (grp, source, id, hash, enqueued_at)
SELECT $1::text, m.source, m.id, m.hash, coalesce(m.enqueued, clock_timestamp()) FROM m ORDER BY m.ord
ON CONFLICT (grp, source, id) DO NOTHING
RETURNING source, id

-- name: mark_one
INSERT INTO {{t}}inbox (grp, source, id, hash, enqueued_at)
VALUES ($1::text, $2::text, $3::text, $4::bigint, coalesce($5::timestamptz, clock_timestamp()))
ON CONFLICT (grp, source, id) DO NOTHING

-- name: unsuspect_one
DELETE FROM {{t}}suspect WHERE grp = $1::text AND source = $2::text AND id = $3::text

-- name: marked_one
-- A fresh statement, as marked.
SELECT coalesce(i.state, ''), coalesce(i.hash, 0), $4::text <> '' AND EXISTS (
    SELECT FROM {{t}}retry r WHERE r.grp = $1::text AND r.ordered AND r.ordering_key = $4::text),
    current_setting('synchronous_standby_names') <> ''
FROM (VALUES (1)) m LEFT JOIN LATERAL (
    SELECT b.state, b.hash FROM {{t}}inbox b WHERE b.grp = $1::text AND b.source = $2::text AND b.id = $3::text LIMIT 1
) i ON true

-- name: marked
-- A fresh statement: it sees what the transactions that mark waited for have done.
SELECT m.ord, coalesce(i.state, ''), coalesce(i.hash, 0), m.key <> '' AND EXISTS (
    SELECT FROM {{t}}retry r WHERE r.grp = $1::text AND r.ordered AND r.ordering_key = m.key
    OFFSET 0), -- for each key, and no table of all keys that wait
    current_setting('synchronous_standby_names') <> ''
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS m(source, id, key, ord)
LEFT JOIN LATERAL (
    SELECT b.state, b.hash FROM {{t}}inbox b WHERE b.grp = $1::text AND b.source = m.source AND b.id = m.id LIMIT 1
) i ON true

-- name: inbox_barrier
-- A commit that waits for the standby, after all that can be seen.
SELECT pg_logical_emit_message(true, 'outlast', '')

-- name: inbox_wait
WITH u AS (
    UPDATE {{t}}inbox SET state = 'retry', at = clock_timestamp()
    WHERE grp = $1::text AND source = $2::text AND id = $3::text
)
INSERT INTO {{t}}retry (grp, source, id, ordering_key, ordered, type, envelope, body, hash,
    reason, error, attempts, replays, next_at, first_at)
VALUES ($1::text, $2::text, $3::text, nullif($4::text, ''), $5::boolean AND $4::text <> '', $6::text, $7::text::jsonb, $8::bytea, $9::bigint,
    $10::text, nullif($11::text, ''), $12::int, $13::int, clock_timestamp() + $14::bigint * interval '1 microsecond',
    coalesce($15::timestamptz, clock_timestamp()))
ON CONFLICT (grp, source, id) DO NOTHING

-- name: inbox_bury
-- A message whose id is known with other content leaves the other one as it is ($15).
WITH u AS (
    UPDATE {{t}}inbox SET state = 'dead', at = clock_timestamp()
    WHERE grp = $1::text AND source = $2::text AND id = $3::text AND NOT $15::boolean
)
INSERT INTO {{t}}dead (grp, source, id, ordering_key, ordered, type, envelope, body, hash,
    reason, error, attempts, replays, fingerprint, first_at)
VALUES ($1::text, $2::text, $3::text, nullif($4::text, ''), $5::boolean AND $4::text <> '', $6::text, $7::text::jsonb, $8::bytea, $9::bigint,
    $10::text, nullif($11::text, ''), $12::int, $13::int, nullif($14::text, ''), coalesce($16::timestamptz, clock_timestamp()))
ON CONFLICT (grp, source, id, hash) DO UPDATE SET last_at = clock_timestamp(),
    reason = EXCLUDED.reason, error = EXCLUDED.error, attempts = EXCLUDED.attempts

-- name: retry_claim
-- The first message of its key, or one without a key, whose time has come. Later ones
-- of a key are not looked at: they are outside the index until they are promoted.
SELECT o.seq, o.source, o.id, o.ordered, o.envelope::text, o.body, o.hash, o.attempts, o.replays, o.reason, coalesce(o.error, ''), o.first_at
FROM unnest($2::text[]) AS t(type) CROSS JOIN LATERAL (
    SELECT * FROM {{t}}retry r
    WHERE r.grp = $1::text AND r.type = t.type AND (r.reason <> 'behind' OR r.promoted OR NOT r.ordered)
        AND r.next_at <= (SELECT clock_timestamp())
        AND NOT (r.ordered AND EXISTS (
            SELECT FROM {{t}}retry e
            WHERE e.grp = r.grp AND e.ordered AND e.ordering_key = r.ordering_key AND e.seq < r.seq))
    ORDER BY r.next_at LIMIT 1 FOR UPDATE OF r SKIP LOCKED
) o LIMIT 1

-- name: retry_claim_first
-- The same by walking the keys, for rows whose promotion was missed.
WITH RECURSIVE k AS (
    (SELECT r.ordering_key, r.seq FROM {{t}}retry r WHERE r.grp = $1::text AND r.ordered
    ORDER BY r.ordering_key, r.seq LIMIT 1)
    UNION ALL
    SELECT n.ordering_key, n.seq FROM k CROSS JOIN LATERAL (
        SELECT r.ordering_key, r.seq FROM {{t}}retry r
        WHERE r.grp = $1::text AND r.ordered AND r.ordering_key > k.ordering_key
        ORDER BY r.ordering_key, r.seq LIMIT 1
    ) n
)
SELECT o.seq, o.source, o.id, o.ordered, o.envelope::text, o.body, o.hash, o.attempts, o.replays, o.reason, coalesce(o.error, ''), o.first_at
FROM k CROSS JOIN LATERAL (
    SELECT * FROM {{t}}retry r
    WHERE r.seq = k.seq AND r.type = ANY($2::text[]) AND r.next_at <= (SELECT clock_timestamp())
    LIMIT 1 FOR UPDATE OF r SKIP LOCKED
) o LIMIT 1

-- name: retry_next
-- Microseconds until the next one is due, and whether there are some that are due
-- but in other hands.
SELECT (extract(epoch FROM min(x.next) - min(x.now)) * 1000000)::bigint, coalesce(bool_or(x.due), false)
FROM (SELECT t.type, clock_timestamp() AS now FROM unnest($2::text[]) AS t(type)) t
CROSS JOIN LATERAL (
    SELECT t.now, (
        SELECT r.next_at FROM {{t}}retry r
        WHERE r.grp = $1::text AND r.type = t.type AND (r.reason <> 'behind' OR r.promoted OR NOT r.ordered) AND r.next_at > t.now
        ORDER BY r.next_at LIMIT 1) AS next,
        EXISTS (SELECT FROM {{t}}retry r
            WHERE r.grp = $1::text AND r.type = t.type AND (r.reason <> 'behind' OR r.promoted OR NOT r.ordered) AND r.next_at <= t.now) AS due
) x

-- name: retry_done
WITH d AS (
    DELETE FROM {{t}}retry WHERE seq = $1::bigint RETURNING *
), u AS (
    UPDATE {{t}}inbox i SET state = 'handled', at = clock_timestamp()
    WHERE i.grp = (SELECT d.grp FROM d) AND i.source = (SELECT d.source FROM d) AND i.id = (SELECT d.id FROM d)
), x AS (
    DELETE FROM {{t}}suspect s
    WHERE s.grp = (SELECT d.grp FROM d) AND s.source = (SELECT d.source FROM d) AND s.id = (SELECT d.id FROM d)
)
-- A join could read all that waits, when the statistics are of an empty table.
UPDATE {{t}}retry n SET promoted = true
WHERE n.seq = (SELECT x.seq FROM d CROSS JOIN LATERAL (
    SELECT r.seq FROM {{t}}retry r WHERE r.grp = d.grp AND r.ordered AND r.ordering_key = d.ordering_key AND r.seq > d.seq
    ORDER BY r.seq LIMIT 1) x WHERE d.ordered LIMIT 1)

-- name: retry_wait
WITH d AS (
    UPDATE {{t}}retry SET reason = $2::text, error = nullif($3::text, ''), attempts = $4::int,
        next_at = clock_timestamp() + $5::bigint * interval '1 microsecond', last_at = clock_timestamp(), promoted = true
    WHERE seq = $1::bigint RETURNING *
)
DELETE FROM {{t}}suspect s
WHERE s.grp = (SELECT d.grp FROM d) AND s.source = (SELECT d.source FROM d) AND s.id = (SELECT d.id FROM d)

-- name: retry_bury
WITH d AS (
    DELETE FROM {{t}}retry WHERE seq = $1::bigint RETURNING *
), u AS (
    UPDATE {{t}}inbox i SET state = 'dead', at = clock_timestamp()
    WHERE i.grp = (SELECT d.grp FROM d) AND i.source = (SELECT d.source FROM d) AND i.id = (SELECT d.id FROM d)
), x AS (
    DELETE FROM {{t}}suspect s
    WHERE s.grp = (SELECT d.grp FROM d) AND s.source = (SELECT d.source FROM d) AND s.id = (SELECT d.id FROM d)
), p AS (
    UPDATE {{t}}retry n SET promoted = true
    WHERE n.seq = (SELECT x.seq FROM d CROSS JOIN LATERAL (
        SELECT r.seq FROM {{t}}retry r WHERE r.grp = d.grp AND r.ordered AND r.ordering_key = d.ordering_key AND r.seq > d.seq
        ORDER BY r.seq LIMIT 1) x WHERE d.ordered LIMIT 1)
)
INSERT INTO {{t}}dead (grp, source, id, ordering_key, ordered, type, envelope, body, hash,
    reason, error, attempts, replays, fingerprint, first_at)
SELECT grp, source, id, ordering_key, ordered, type, envelope, body, hash,
    $2::text, nullif($3::text, ''), $4::int, replays, nullif($5::text, ''), first_at
FROM d
ON CONFLICT (grp, source, id, hash) DO UPDATE SET last_at = clock_timestamp(),
    reason = EXCLUDED.reason, error = EXCLUDED.error, attempts = EXCLUDED.attempts

-- name: purge
-- The index is by the time of enqueueing, which other statements share, so that a purge walks
-- only what was enqueued longer ago than the window. What was handled late may be young there:
-- of that it looks at ten times as many rows as it may delete at most, and what lies behind
-- them is kept longer, by as much as they were late.
WITH now AS MATERIALIZED (
    SELECT clock_timestamp() - $4::bigint * interval '1 microsecond' AS bound
)
DELETE FROM {{t}}inbox WHERE ctid = ANY(ARRAY(
    SELECT i.ctid FROM {{t}}inbox i
    WHERE i.grp = $1::text AND i.source = $2::text AND i.state = 'handled' AND i.at < (SELECT bound FROM now)
        AND i.enqueued_at <= (SELECT max(e.enqueued_at) FROM (
            SELECT l.enqueued_at FROM {{t}}inbox l
            WHERE l.grp = $1::text AND l.source = $2::text AND l.state = 'handled'
                AND l.enqueued_at < least($3::timestamptz, (SELECT bound FROM now))
            ORDER BY l.enqueued_at LIMIT 10 * $5::int) e)
    ORDER BY i.enqueued_at LIMIT $5::int FOR UPDATE SKIP LOCKED))

-- name: purge_noted
-- As purge; what is forgotten is noted by the same statement.
WITH now AS MATERIALIZED (
    SELECT clock_timestamp() - $4::bigint * interval '1 microsecond' AS bound
), d AS (
    DELETE FROM {{t}}inbox WHERE ctid = ANY(ARRAY(
        SELECT i.ctid FROM {{t}}inbox i
        WHERE i.grp = $1::text AND i.source = $2::text AND i.state = 'handled' AND i.at < (SELECT bound FROM now)
            AND i.enqueued_at <= (SELECT max(e.enqueued_at) FROM (
                SELECT l.enqueued_at FROM {{t}}inbox l
                WHERE l.grp = $1::text AND l.source = $2::text AND l.state = 'handled'
                    AND l.enqueued_at < least($3::timestamptz, (SELECT bound FROM now))
                ORDER BY l.enqueued_at LIMIT 10 * $5::int) e)
        ORDER BY i.enqueued_at LIMIT $5::int FOR UPDATE SKIP LOCKED))
    RETURNING 1
), n AS (
    INSERT INTO {{t}}fact (at, kind, id, grp)
    SELECT now.bound + $4::bigint / 24 * interval '1 microsecond', 'forgotten', '', $1::text FROM now
    WHERE EXISTS (SELECT FROM d)
        AND NOT EXISTS (SELECT FROM {{t}}fact f WHERE f.id = '' AND f.kind = 'forgotten' AND f.grp = $1::text AND f.at >= now.bound)
)
SELECT count(*)::int FROM d

-- name: alive
INSERT INTO {{t}}instance (grp, instance) VALUES ($1::text, $2::text)
ON CONFLICT (grp, instance) DO UPDATE SET at = clock_timestamp()

-- name: others
SELECT instance, greatest((extract(epoch FROM clock_timestamp() - at) * 1000000)::bigint, 0) FROM {{t}}instance
WHERE grp = $1::text AND instance <> $2::text ORDER BY instance

-- name: leave
DELETE FROM {{t}}instance WHERE grp = $1::text AND instance = $2::text

-- name: suspect
INSERT INTO {{t}}suspect (grp, source, id) VALUES ($1::text, $2::text, $3::text)
ON CONFLICT (grp, source, id) DO UPDATE SET count = {{p}}suspect.count + 1, at = clock_timestamp()
RETURNING count

-- name: unsuspect
-- A mark of the message locks its row for as long as the handler runs. A row of 0 goes with
-- the message's end.
WITH s AS MATERIALIZED (
    SELECT ctid FROM {{t}}suspect WHERE grp = $1::text AND source = $2::text AND id = $3::text AND count > 0 FOR UPDATE SKIP LOCKED
), u AS (
    UPDATE {{t}}suspect SET count = count - 1 WHERE ctid = ANY(ARRAY(SELECT ctid FROM s)) RETURNING id
)
SELECT EXISTS (SELECT FROM u) OR NOT EXISTS (
    SELECT FROM {{t}}suspect WHERE grp = $1::text AND source = $2::text AND id = $3::text AND count > 0)

-- name: paused
SELECT coalesce((SELECT paused FROM {{t}}group WHERE grp = $1::text), false)
