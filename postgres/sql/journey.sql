-- Statements of tracking: the sent log, facts, and what finds them.

-- name: tracked
-- Whether the tables are there, and whether this role may write them.
SELECT to_regclass($1::text || 'sent') IS NOT NULL AND to_regclass($1::text || 'book') IS NOT NULL,
    coalesce(bool_and(has_table_privilege(to_regclass($1::text || n), 'SELECT') AND has_table_privilege(to_regclass($1::text || n), 'INSERT')), false)
FROM unnest(ARRAY['sent', 'sent_key', 'sent_body', 'fact', 'hearer', 'minute', 'book']) AS t(n)

-- name: settle_sent_tracked
-- As settle_sent and settle_sent_held; what was deleted here, and nothing else, goes
-- into the sent log. Business keys were read by the relay: it knows no bad ones.
WITH r AS MATERIALIZED (
    SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::uuid[], $5::smallint[], $6::bigint[], $7::text[])
        AS r(slot, epoch, seq, id, fate, within, find)
    WHERE EXISTS (SELECT FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = r.slot AND s.epoch = r.epoch)
), now AS MATERIALIZED (
    SELECT clock_timestamp() AS at
), d AS (
    DELETE FROM {{t}}outbox o USING r WHERE o.slot = ANY(ARRAY[r.slot]) AND o.seq = r.seq AND o.id IS NOT DISTINCT FROM r.id
    RETURNING {{gone}}, r.fate, r.within, r.find
), h AS (
    DELETE FROM {{t}}held o USING r
    WHERE (SELECT count(*) FROM d) < cardinality($3::bigint[]) AND o.slot = ANY(ARRAY[r.slot]) AND o.seq = r.seq AND o.id = ANY(ARRAY[r.id])
    RETURNING {{gone}}, r.fate, r.within, r.find
), a AS NOT MATERIALIZED (
    SELECT * FROM d UNION ALL SELECT * FROM h
), k AS (
    INSERT INTO {{t}}sent_key (sent_at, id, value)
    SELECT now.at, a.id, k.value
    FROM unnest($8::bigint[], $9::text[]) AS k(seq, value) JOIN a ON a.seq = k.seq, now
), b AS (
    INSERT INTO {{t}}sent_body (sent_at, enqueued_at, id, body, body_bytes, subject, content_type, data_schema, trace_state, headers, occurred_at, expires_at)
    SELECT now.at, enqueued_at, id, body, body_bytes, subject, content_type, data_schema, trace_state, headers, occurred_at, expires_at
    FROM a, now WHERE fate < 2
)
INSERT INTO {{t}}sent (sent_at, enqueued_at, deadline, id, fate, unheard, type, kind, exchange, routing_key,
    ordering_key, correlation_id, causation_id, trace_parent, find)
SELECT now.at, enqueued_at, CASE WHEN within > 0 THEN enqueued_at + within * interval '1 microsecond' END,
    id, fate, may_be_unheard, type, nullif(kind, 'event'), exchange, routing_key,
    ordering_key, nullif(correlation_id, id::text), causation_id, trace_parent, find::jsonb
FROM a, now

-- name: facts_sent
-- Each branch has its own index in every part. The newest come first; a row that several
-- branches find counts once.
SELECT DISTINCT ON (s.sent_at, s.id) s.sent_at, s.enqueued_at, s.deadline, s.id::text, s.fate, s.type, coalesce(s.kind, 'event'), coalesce(s.exchange, ''), coalesce(s.routing_key, ''),
    coalesce(s.ordering_key, ''), coalesce(s.correlation_id, s.id::text), coalesce(s.causation_id, ''), coalesce(s.trace_parent, ''), s.find::text
FROM (
    (SELECT * FROM {{t}}sent WHERE id = ANY($1::text[]::uuid[]) ORDER BY sent_at DESC, id DESC LIMIT $4::int)
    UNION ALL
    (SELECT * FROM {{t}}sent WHERE correlation_id = ANY($2::text[]) AND correlation_id IS NOT NULL ORDER BY sent_at DESC, id DESC LIMIT $4::int)
    UNION ALL
    (SELECT * FROM {{t}}sent WHERE ordering_key = ANY($3::text[]) AND ordering_key IS NOT NULL ORDER BY sent_at DESC, id DESC LIMIT $4::int)
    UNION ALL
    (SELECT s.* FROM (SELECT DISTINCT k.id, k.sent_at FROM {{t}}sent_key k WHERE k.value = ANY($3::text[]) ORDER BY k.sent_at DESC, k.id DESC LIMIT $4::int) k
        CROSS JOIN LATERAL (SELECT * FROM {{t}}sent x WHERE x.id = k.id AND x.sent_at = k.sent_at LIMIT 1) s)
) s ORDER BY s.sent_at DESC, s.id DESC LIMIT $4::int

-- name: facts_outbox
SELECT {{row}}, '', 0, '', NULL::timestamptz, o.enqueued_at
FROM (SELECT {{light}} FROM {{t}}outbox o
WHERE o.id = ANY($1::text[]::uuid[]) OR o.correlation_id = ANY($2::text[]) OR o.ordering_key = ANY($3::text[])
    OR o.headers ? 'outlast-find' AND (o.headers ->> 'outlast-find') LIKE ANY($5::text[])
ORDER BY o.enqueued_at DESC, o.id DESC LIMIT $4::int) o

-- name: facts_held
SELECT {{row}}, o.reason, o.attempts, coalesce(o.error, ''), o.next_at, o.held_at
FROM (SELECT {{light}}, o.reason, o.attempts, o.error, o.next_at, o.held_at FROM {{t}}held o
WHERE o.id = ANY($1::text[]::uuid[]) OR o.correlation_id = ANY($2::text[]) OR o.ordering_key = ANY($3::text[])
    OR o.headers ? 'outlast-find' AND (o.headers ->> 'outlast-find') LIKE ANY($5::text[])
ORDER BY o.enqueued_at DESC, o.id DESC LIMIT $4::int) o

-- name: facts_retry
SELECT o.grp, o.source, o.id, o.envelope::text, o.reason, coalesce(o.error, ''), o.attempts, o.replays, o.next_at, o.first_at, o.last_at, ''
FROM {{t}}retry o
WHERE o.id = ANY($1::text[]) OR o.envelope ->> 'correlation_id' = ANY($2::text[]) OR o.ordering_key = ANY($3::text[])
    OR EXISTS (SELECT FROM jsonb_each_text(o.envelope -> 'find') f WHERE f.value = ANY($3::text[]))
ORDER BY o.first_at DESC, o.id DESC, o.grp LIMIT $4::int

-- name: facts_dead
SELECT o.grp, o.source, o.id, o.envelope::text, o.reason, coalesce(o.error, ''), o.attempts, o.replays, NULL::timestamptz, o.first_at, o.last_at,
    coalesce(o.fingerprint, '')
FROM {{t}}dead o
WHERE o.id = ANY($1::text[]) OR o.envelope ->> 'correlation_id' = ANY($2::text[]) OR o.ordering_key = ANY($3::text[])
    OR EXISTS (SELECT FROM jsonb_each_text(o.envelope -> 'find') f WHERE f.value = ANY($3::text[]))
ORDER BY o.first_at DESC, o.id DESC, o.grp LIMIT $4::int

-- name: facts_inbox
-- There are few pairs of group and source: the primary key is walked from one to the
-- next, and the ids are looked up in each.
WITH RECURSIVE p AS (
    (SELECT i.grp, i.source FROM {{t}}inbox i ORDER BY i.grp, i.source LIMIT 1)
    UNION ALL
    SELECT n.grp, n.source FROM p CROSS JOIN LATERAL (
        SELECT i.grp, i.source FROM {{t}}inbox i WHERE (i.grp, i.source) > (p.grp, p.source) ORDER BY i.grp, i.source LIMIT 1
    ) n
)
SELECT i.grp, i.source, i.id, i.state, i.enqueued_at, i.at
FROM p CROSS JOIN unnest($1::text[]) AS x(id) CROSS JOIN LATERAL (
    SELECT * FROM {{t}}inbox i WHERE i.grp = p.grp AND i.source = p.source AND i.id = x.id LIMIT 1
) i LIMIT $2::int

-- name: facts_kept
SELECT f.kind, f.id, coalesce(f.source, ''), coalesce(f.grp, ''), f.at, coalesce(f.attempt, 0), coalesce(f.code, ''), coalesce(f.detail, '')
FROM {{t}}fact f WHERE f.id = ANY($1::text[]) AND f.id <> '' ORDER BY f.seq LIMIT $2::int

-- name: facts_since
-- Facts without an id are of the tables themselves. Of the sent log: begun, unlogged (a
-- relay settles without it until then) and dropped (what was sent before may be gone). Of a
-- group: forgotten (its inbox may have forgotten what it handled before).
SELECT max(f.at) FROM {{t}}fact f WHERE f.id = '' AND f.kind IN ('begun', 'unlogged', 'dropped')

-- name: log_begun
-- A minute ahead: a relay of another process may have looked before the tables were there.
INSERT INTO {{t}}fact (at, kind, id) SELECT clock_timestamp() + interval '1 minute', 'begun', ''
WHERE NOT EXISTS (SELECT FROM {{t}}fact f WHERE f.id = '' AND f.kind IN ('begun', 'unlogged', 'dropped'))

-- name: log_unlogged
WITH d AS (
    DELETE FROM {{t}}fact WHERE id = '' AND kind = 'unlogged' AND at < clock_timestamp()
)
INSERT INTO {{t}}fact (at, kind, id) VALUES (clock_timestamp() + interval '1 minute', 'unlogged', '')

-- name: log_dropped
INSERT INTO {{t}}fact (at, kind, id) SELECT $1::timestamptz, 'dropped', ''
WHERE NOT EXISTS (SELECT FROM {{t}}fact f WHERE f.id = '' AND f.kind = 'dropped' AND f.at >= $1::timestamptz)

-- name: keep_marks
-- Of the facts about the tables the last of each kind says all.
DELETE FROM {{t}}fact f WHERE f.id = '' AND EXISTS (
    SELECT FROM {{t}}fact n WHERE n.id = '' AND n.kind = f.kind AND n.grp IS NOT DISTINCT FROM f.grp AND n.at > f.at)

-- name: ids_waiting
-- The rows that the statements of facts before facts_sent read, by their ids alone. All
-- ids have one order, that of the bytes of their text.
SELECT x.id FROM (
    SELECT o.id::text COLLATE "C" AS id FROM {{t}}outbox o
    WHERE o.id = ANY($1::text[]::uuid[]) OR o.correlation_id = ANY($2::text[]) OR o.ordering_key = ANY($3::text[])
        OR o.headers ? 'outlast-find' AND (o.headers ->> 'outlast-find') LIKE ANY($5::text[])
    UNION
    SELECT o.id::text COLLATE "C" FROM {{t}}held o
    WHERE o.id = ANY($1::text[]::uuid[]) OR o.correlation_id = ANY($2::text[]) OR o.ordering_key = ANY($3::text[])
        OR o.headers ? 'outlast-find' AND (o.headers ->> 'outlast-find') LIKE ANY($5::text[])
    UNION
    SELECT o.id COLLATE "C" FROM {{t}}retry o
    WHERE o.id = ANY($6::text[]) OR o.envelope ->> 'correlation_id' = ANY($2::text[]) OR o.ordering_key = ANY($3::text[])
        OR EXISTS (SELECT FROM jsonb_each_text(o.envelope -> 'find') f WHERE f.value = ANY($3::text[]))
    UNION
    SELECT o.id COLLATE "C" FROM {{t}}dead o
    WHERE o.id = ANY($6::text[]) OR o.envelope ->> 'correlation_id' = ANY($2::text[]) OR o.ordering_key = ANY($3::text[])
        OR EXISTS (SELECT FROM jsonb_each_text(o.envelope -> 'find') f WHERE f.value = ANY($3::text[]))
) x WHERE $7::text = '' OR x.id COLLATE "C" < $7::text ORDER BY x.id COLLATE "C" DESC LIMIT $4::int

-- name: ids_sent
-- Each branch has its own index in every part, as in facts_sent.
SELECT x.id::text FROM (
    SELECT id FROM {{t}}sent WHERE id = ANY($1::text[]::uuid[])
    UNION
    SELECT id FROM {{t}}sent WHERE correlation_id = ANY($2::text[]) AND correlation_id IS NOT NULL
    UNION
    SELECT id FROM {{t}}sent WHERE ordering_key = ANY($3::text[]) AND ordering_key IS NOT NULL
    UNION
    SELECT s.id FROM (SELECT DISTINCT k.id, k.sent_at FROM {{t}}sent_key k WHERE k.value = ANY($3::text[])) k
        CROSS JOIN LATERAL (SELECT x.id FROM {{t}}sent x WHERE x.id = k.id AND x.sent_at = k.sent_at LIMIT 1) s
) x WHERE $5::text = '' OR x.id::text COLLATE "C" < $5::text ORDER BY x.id DESC LIMIT $4::int

-- name: fact_add
INSERT INTO {{t}}fact (kind, id, source, grp, attempt, code, detail)
SELECT $1::text, x.id, nullif(x.source, ''), nullif($4::text, ''), nullif($5::int, 0), nullif($6::text, ''), nullif($7::text, '')
FROM unnest($2::text[], $3::text[]) AS x(id, source)

-- name: fact_hold
INSERT INTO {{t}}fact (kind, id, attempt, code, detail)
SELECT 'failed', x.id, x.attempt, x.code, nullif(x.detail, '')
FROM unnest($1::int[], $2::bigint[], $3::text[], $4::int[], $5::text[], $6::text[]) AS x(slot, epoch, id, attempt, code, detail)
WHERE EXISTS (SELECT FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = x.slot AND s.epoch = x.epoch)

-- name: failures
-- Several groups may have been last seen at one time: their keys order them, each by its bytes.
SELECT coalesce(fingerprint, ''), grp, type, (array_agg(reason ORDER BY last_at DESC))[1], coalesce((array_agg(error ORDER BY last_at DESC))[1], ''),
    count(*)::int, min(first_at), max(last_at)
FROM {{t}}dead WHERE $1::text = '' OR grp = $1::text
GROUP BY 1, 2, 3 HAVING $2::timestamptz IS NULL OR max(last_at) < $2::timestamptz
    OR max(last_at) = $2::timestamptz AND $5::text <> ''
        AND (coalesce(fingerprint, '') COLLATE "C", grp COLLATE "C", type COLLATE "C") > ($4::text, $5::text, $6::text)
ORDER BY max(last_at) DESC, coalesce(fingerprint, '') COLLATE "C", grp COLLATE "C", type COLLATE "C" LIMIT $3::int

-- name: hear
INSERT INTO {{t}}hearer (grp, type) SELECT $1::text, unnest($2::text[])
ON CONFLICT (grp, type) DO UPDATE SET since = clock_timestamp(), until = NULL WHERE {{p}}hearer.until IS NOT NULL

-- name: unhear
UPDATE {{t}}hearer SET until = clock_timestamp() WHERE grp = $1::text AND type = $2::text AND until IS NULL

-- name: hearers
SELECT h.grp, h.type, h.since, h.until, (SELECT max(f.at) FROM {{t}}fact f WHERE f.id = '' AND f.kind = 'forgotten' AND f.grp = h.grp)
FROM {{t}}hearer h ORDER BY h.grp, h.type

-- name: keep_ahead
SELECT {{t}}keep_ahead(interval '12 hours')

-- name: drop_part
SELECT {{t}}drop_part($1::text)

-- name: parts
-- The parts of the sent log, the oldest first, with their ends and their bytes.
SELECT p.relname, c.relname, to_timestamp(right(c.relname, 10) || '00', 'YYYYMMDDHH24MI')::timestamp AT TIME ZONE 'UTC',
    pg_total_relation_size(c.oid), clock_timestamp()
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
WHERE i.inhparent IN ('{{t}}sent'::regclass, '{{t}}sent_key'::regclass, '{{t}}sent_body'::regclass) AND c.relname ~ '_p[0-9]{10}$'
ORDER BY 3, 1

-- name: facts_begin
-- A person's question must not hold back the work: see op_timeout.
SELECT set_config('statement_timeout', '30s', true), set_config('jit', 'off', true), coalesce((SELECT value FROM {{t}}meta WHERE key = 'source'), '')

-- name: keep_default
WITH d AS (
    DELETE FROM {{t}}sent_default WHERE ctid = ANY(ARRAY(
        SELECT s.ctid FROM {{t}}sent_default s
        WHERE s.sent_at < clock_timestamp() - $1::bigint * interval '1 microsecond' AND (s.deadline IS NULL OR s.deadline < clock_timestamp())
            AND (NOT $2::boolean OR EXISTS (SELECT FROM {{t}}minute m WHERE m.minute = date_trunc('minute', s.enqueued_at, 'UTC') AND m.state IN ('balanced', 'signed')))
        LIMIT 10000))
    RETURNING sent_at
)
INSERT INTO {{t}}fact (at, kind, id) SELECT max(sent_at) + interval '1 microsecond', 'dropped', '' FROM d HAVING count(*) > 0

-- name: keep_default_key
DELETE FROM {{t}}sent_key_default WHERE ctid = ANY(ARRAY(
    SELECT k.ctid FROM {{t}}sent_key_default k
    WHERE k.sent_at < clock_timestamp() - $1::bigint * interval '1 microsecond'
        AND NOT ($2::boolean AND EXISTS (SELECT FROM {{t}}sent s WHERE s.id = k.id))
    LIMIT 10000))

-- name: keep_default_body
DELETE FROM {{t}}sent_body_default WHERE ctid = ANY(ARRAY(
    SELECT b.ctid FROM {{t}}sent_body_default b
    WHERE b.sent_at < clock_timestamp() - $1::bigint * interval '1 microsecond'
        AND (NOT $2::boolean OR EXISTS (SELECT FROM {{t}}minute m WHERE m.minute = date_trunc('minute', b.enqueued_at, 'UTC') AND m.state IN ('balanced', 'signed')))
    LIMIT 10000))

-- name: keep_facts
-- That a message was withdrawn no other row tells, and it may have been published before.
WITH d AS (
    DELETE FROM {{t}}fact WHERE ctid = ANY(ARRAY(
        SELECT f.ctid FROM {{t}}fact f WHERE f.at < clock_timestamp() - $1::bigint * interval '1 microsecond' AND f.id <> '' LIMIT 10000))
    RETURNING at, kind
)
INSERT INTO {{t}}fact (at, kind, id) SELECT max(at) + interval '1 microsecond', 'unlogged', '' FROM d WHERE kind = 'withdrawn' HAVING count(*) > 0

-- name: closed_look
-- As settled_look, without the held: the books keep the minutes of those open.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text,
    (SELECT min(x.enqueued_at) FROM (
        SELECT g AS slot, coalesce((SELECT s.low_seq FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = g), 0) AS low
        FROM generate_series(0, 255) g OFFSET 0
    ) w CROSS JOIN LATERAL (
        SELECT p.enqueued_at FROM {{t}}outbox p WHERE p.slot = w.slot::smallint AND p.seq > w.low ORDER BY p.seq LIMIT 1
    ) x)

-- name: books_due
-- Minutes follow each other, so that only those behind the last one are new; earlier
-- ones that are not closed have a row, or held messages.
WITH last AS MATERIALIZED (
    SELECT coalesce(max(minute) + interval '1 minute', '-infinity') AS at FROM {{t}}minute
), held AS MATERIALIZED (
    SELECT date_trunc('minute', enqueued_at, 'UTC') AS minute, count(*)::int AS n FROM {{t}}held
    WHERE reason <> 'due' AND enqueued_at < $1::timestamptz GROUP BY 1
)
SELECT x.minute, coalesce((SELECT h.n FROM held h WHERE h.minute = x.minute), 0)
FROM (
    SELECT m.minute FROM {{t}}minute m WHERE m.state IN ('open', 'unbalanced') AND m.minute < $1::timestamptz
    UNION
    SELECT DISTINCT date_trunc('minute', s.enqueued_at, 'UTC') FROM {{t}}sent s
    WHERE s.enqueued_at >= (SELECT at FROM last) AND s.enqueued_at < $1::timestamptz
    UNION
    SELECT h.minute FROM held h WHERE NOT EXISTS (SELECT FROM {{t}}minute m WHERE m.minute = h.minute AND m.state IN ('balanced', 'signed'))
) x ORDER BY 1 LIMIT $2::int

-- name: books_sent
SELECT s.id::text, s.type, s.fate FROM {{t}}sent s
WHERE s.enqueued_at >= $1::timestamptz AND s.enqueued_at < $1::timestamptz + interval '1 minute'

-- name: books_seen
SELECT i.id FROM {{t}}inbox i
WHERE i.grp = $1::text AND i.source = $2::text AND i.enqueued_at >= $3::timestamptz AND i.enqueued_at < $3::timestamptz + interval '1 minute'
    AND i.state = 'handled'
UNION ALL
SELECT i.id FROM {{t}}inbox i
WHERE i.grp = $1::text AND i.source = $2::text AND i.enqueued_at >= $3::timestamptz AND i.enqueued_at < $3::timestamptz + interval '1 minute'
    AND i.state <> 'handled'

-- name: books_known
SELECT i.id FROM unnest($3::text[]) AS x(id) CROSS JOIN LATERAL (
    SELECT i.id FROM {{t}}inbox i WHERE i.grp = $1::text AND i.source = $2::text AND i.id = x.id LIMIT 1
) i

-- name: books_minute
INSERT INTO {{t}}minute (minute, state, sent) VALUES ($1::timestamptz, $2::text, $3::bigint)
ON CONFLICT (minute) DO UPDATE SET state = EXCLUDED.state, sent = EXCLUDED.sent, at = clock_timestamp()
WHERE {{p}}minute.state <> 'signed'
RETURNING minute

-- name: books_clear
DELETE FROM {{t}}book WHERE minute = $1::timestamptz

-- name: books_line
INSERT INTO {{t}}book (minute, type, grp, sent, received, missing, more)
VALUES ($1::timestamptz, $2::text, $3::text, $4::bigint, $5::bigint, $6::text::jsonb, $7::boolean)

-- name: books_minutes
SELECT minute, state, sent, at, coalesce(who, ''), coalesce(reason, '') FROM {{t}}minute
WHERE ($1::text = '' OR state = $1::text) AND ($2::timestamptz IS NULL OR minute < $2::timestamptz)
ORDER BY minute DESC LIMIT $3::int

-- name: books_lines
SELECT type, grp, sent, coalesce(received, -1), missing::text, more FROM {{t}}book WHERE minute = $1::timestamptz ORDER BY type, grp

-- name: books_sign
UPDATE {{t}}minute SET state = 'signed', at = clock_timestamp(), who = $2::text, reason = nullif($3::text, '')
WHERE minute = ANY($1::timestamptz[]) AND state IN ('open', 'unbalanced')

-- name: books_reopen
UPDATE {{t}}minute SET state = 'open', at = clock_timestamp()
WHERE state = 'balanced' AND minute >= $1::timestamptz AND ($2::timestamptz IS NULL OR minute < $2::timestamptz)
    AND minute >= coalesce((SELECT max(f.at) FROM {{t}}fact f WHERE f.id = '' AND f.kind = 'dropped'), '-infinity')

-- name: books_resend
-- The newest sending of each id. What has its body is enqueued as new.
WITH x AS MATERIALIZED (
    SELECT DISTINCT ON (s.id) s.* FROM {{t}}sent s WHERE s.id = ANY($1::text[]::uuid[]) ORDER BY s.id, s.sent_at DESC
), f AS MATERIALIZED (
    SELECT x.*, b.body, b.body_bytes, b.subject, b.content_type, b.data_schema, b.trace_state, b.headers, b.occurred_at, b.expires_at,
        CASE WHEN x.enqueued_at < clock_timestamp() - $2::bigint * interval '1 microsecond' THEN 'old'
            WHEN b.id IS NULL THEN 'bodiless' ELSE 'sent' END AS what
    FROM x LEFT JOIN LATERAL (
        SELECT * FROM {{t}}sent_body b WHERE b.sent_at = x.sent_at AND b.id = x.id LIMIT 1
    ) b ON true
), i AS (
    INSERT INTO {{t}}outbox (id, type, kind, body, body_bytes, ordering_key, subject, content_type, data_schema, correlation_id, causation_id,
        trace_parent, trace_state, headers, exchange, routing_key, may_be_unheard, occurred_at, expires_at)
    SELECT id, type, coalesce(kind, 'event'), body, body_bytes, ordering_key, subject, content_type, data_schema, coalesce(correlation_id, id::text), causation_id,
        trace_parent, trace_state, headers, exchange, routing_key, unheard, coalesce(occurred_at, enqueued_at), expires_at
    FROM f WHERE what = 'sent' ORDER BY sent_at
)
SELECT id::text, what FROM f

-- name: keep_books
SELECT EXISTS (SELECT FROM {{t}}minute)

-- name: facts_indexed
-- What follows has an index for every condition. Without statistics the planner takes
-- many rows to match, and with a LIMIT it would rather read the whole sent log.
SELECT set_config('enable_seqscan', 'off', true)
