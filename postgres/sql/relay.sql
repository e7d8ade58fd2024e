-- Statements of the relay's role.

-- name: identify_put
INSERT INTO {{t}}meta (key, value) VALUES ('source', $1::text) ON CONFLICT (key) DO NOTHING

-- name: identify_get
SELECT value FROM {{t}}meta WHERE key = 'source'

-- name: low
-- What a reader must know of slots that are new to it.
SELECT s.slot, s.low_seq
FROM unnest($1::int[]) AS g(slot) JOIN {{t}}slot s ON s.scope = 'relay' AND s.slot = g.slot

-- name: raise_low
-- Rows that a takeover holds are left for the next time: waiting could deadlock.
WITH r AS MATERIALIZED (
    SELECT s.slot, g.low FROM {{t}}slot s
    JOIN unnest($1::int[], $2::bigint[], $3::bigint[]) AS g(slot, epoch, low) ON g.slot = s.slot AND g.epoch = s.epoch
    WHERE s.scope = 'relay' AND s.low_seq < g.low
    ORDER BY s.slot
    FOR NO KEY UPDATE OF s SKIP LOCKED
)
UPDATE {{t}}slot s SET low_seq = r.low FROM r WHERE s.scope = 'relay' AND s.slot = r.slot
RETURNING s.slot

-- name: standby
SELECT pg_is_in_recovery()

-- name: pick
-- From one snapshot: the snapshot itself (with 1 for a seq on a standby), what lies between late and cursor (names
-- only), and what lies above cursor, slot by slot in the order given, at most $4 of a
-- slot and $5 in all, with bodies as long as they stay within $6 bytes together.
-- A LATERAL with a LIMIT can only be a nested loop over the primary key, whatever
-- the statistics say. Each row is visited once; what of its body lies elsewhere is read
-- only when it is sent.
-- A row can be seen whose COMMIT the standby does not have: its wait was cancelled, or the
-- server started again. Where commits wait for a standby, reading rows is a commit too,
-- after theirs, so that nothing is sent that a failover would undo.
WITH w AS MATERIALIZED (
    SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS w(slot, late, cursor, ord)
), found AS MATERIALIZED (
    SELECT f.*, sum(f.size) OVER (ORDER BY f.ord, f.seq ROWS UNBOUNDED PRECEDING) AS running
    FROM (
        SELECT w.ord, x.*
        FROM w CROSS JOIN LATERAL (
            SELECT p.*, coalesce(octet_length(p.body), octet_length(p.body_bytes)) AS size
            FROM {{t}}outbox p WHERE p.slot = w.slot AND p.seq > w.cursor
            ORDER BY p.seq LIMIT $4::int
        ) x LIMIT $5::int
    ) f
)
SELECT 0 AS part, pg_current_snapshot()::text || CASE
        WHEN current_setting('synchronous_standby_names') = '' OR pg_is_in_recovery() THEN ''
        WHEN EXISTS (SELECT FROM found) OR EXISTS (SELECT FROM w WHERE w.late < w.cursor)
            THEN left(pg_logical_emit_message(true, 'outlast', '')::text, 0)
        ELSE '' END AS snapshot, (SELECT count(*) FROM found) AS n,
    pg_is_in_recovery()::int::bigint, 0::smallint, '00000000-0000-0000-0000-000000000000'::uuid, {{norow}}
UNION ALL
(SELECT 1, '', 0, l.seq, w.slot, l.id, {{norow}}
FROM w CROSS JOIN LATERAL (
    SELECT p.seq, p.id FROM {{t}}outbox p
    WHERE p.slot = w.slot AND p.seq > w.late AND p.seq <= w.cursor
    ORDER BY p.seq LIMIT $7::int
) l WHERE w.late < w.cursor LIMIT $7::int)
UNION ALL
SELECT 2, '', 0, {{row}}
FROM found o WHERE o.running <= $6::bigint OR o.running = o.size

-- name: late
-- Names of the rows of each slot above $2, up to $3, as the snapshot $5 shows them: a
-- transaction that committed since may have rows below $2, which go before those above.
SELECT w.slot, l.seq, l.id
FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS w(slot, low, high)
CROSS JOIN LATERAL (
    SELECT p.seq, p.id FROM {{t}}outbox p
    WHERE p.slot = w.slot AND p.seq > w.low AND p.seq <= w.high
        AND pg_visible_in_snapshot(p.tx, $5::text::pg_snapshot)
    ORDER BY p.seq LIMIT $4::int
) l LIMIT $4::int

-- name: fetch
-- Named rows, in the order given, as long as their bodies stay within $3 bytes.
SELECT {{row}}
FROM (
    SELECT r.*, sum(x.size) OVER (ORDER BY r.ord ROWS UNBOUNDED PRECEDING) AS running, x.size
    FROM unnest($1::smallint[], $2::bigint[]) WITH ORDINALITY AS r(slot, seq, ord)
    CROSS JOIN LATERAL (
        SELECT coalesce(octet_length(p.body), octet_length(p.body_bytes))::bigint AS size
        FROM {{t}}outbox p WHERE p.slot = r.slot AND p.seq = r.seq LIMIT 1
    ) x
) f CROSS JOIN LATERAL (
    SELECT * FROM {{t}}outbox p WHERE p.slot = f.slot AND p.seq = f.seq LIMIT 1
) o WHERE f.running <= $3::bigint OR f.running = f.size

-- name: settle_lock
-- A takeover changes epoch, a key column, and so conflicts with this lock; a change
-- of low_seq does not. What is locked here stays ours until the commit.
WITH l AS MATERIALIZED (
    SELECT s.slot FROM {{t}}slot s
    JOIN unnest($1::int[], $2::bigint[]) AS g(slot, epoch) ON g.slot = s.slot AND g.epoch = s.epoch
    WHERE s.scope = 'relay'
    ORDER BY s.slot
    FOR KEY SHARE OF s
)
SELECT coalesce((SELECT array_agg(l.slot) FROM l), '{}')::int[], pg_current_xact_id()::text

-- Statements that settle compare slots and ids with arrays of one, or by IS NOT DISTINCT FROM
-- where no index has them. It is the same as an equality, and leaves one plan: a look into an
-- index for each name that was given. Equalities alone could as well be met by reading all of
-- an index in its order, if the table looks empty.

-- name: settle_sent
-- A row that somebody holds meanwhile is deleted there; held is not touched otherwise.
WITH d AS (
    DELETE FROM {{t}}outbox o
    USING unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::uuid[]) AS r(slot, epoch, seq, id)
    WHERE o.slot = ANY(ARRAY[r.slot]) AND o.seq = r.seq AND o.id IS NOT DISTINCT FROM r.id
        AND EXISTS (SELECT FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = r.slot AND s.epoch = r.epoch)
    RETURNING 1
)
DELETE FROM {{t}}held o
USING unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::uuid[]) AS r(slot, epoch, seq, id)
WHERE (SELECT count(*) FROM d) < cardinality($3::bigint[])
    AND o.slot = ANY(ARRAY[r.slot]) AND o.seq = r.seq AND o.id = ANY(ARRAY[r.id])
    AND EXISTS (SELECT FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = r.slot AND s.epoch = r.epoch)

-- name: settle_sent_held
DELETE FROM {{t}}held o
USING unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::uuid[]) AS r(slot, epoch, seq, id)
WHERE o.slot = ANY(ARRAY[r.slot]) AND o.seq = r.seq AND o.id = ANY(ARRAY[r.id])
    AND EXISTS (SELECT FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = r.slot AND s.epoch = r.epoch)

-- name: settle_hold
WITH d AS (
    DELETE FROM {{t}}outbox o
    USING unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::uuid[],
        $5::text[], $6::text[], $7::text[], $8::bigint[], $9::int[], $10::text[])
        AS r(slot, epoch, seq, id, reason, route_exchange, route_type, wait, attempts, error)
    WHERE o.slot = ANY(ARRAY[r.slot]) AND o.seq = r.seq AND o.id IS NOT DISTINCT FROM r.id
        AND EXISTS (SELECT FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = r.slot AND s.epoch = r.epoch)
    RETURNING o.*, r.reason, r.route_exchange, r.route_type, r.wait, r.attempts, r.error
)
INSERT INTO {{t}}held (seq, {{message}}, occurred_at, due_at, enqueued_at,
    reason, route_exchange, route_type, next_at, attempts, error)
SELECT seq, {{message}}, occurred_at, due_at, enqueued_at, reason, route_exchange, route_type,
    CASE WHEN reason = 'due' AND due_at IS NOT NULL THEN due_at
        WHEN wait >= 0 THEN clock_timestamp() + wait * interval '1 microsecond' END,
    attempts, nullif(error, '')
FROM d

-- name: settle_hold_again
UPDATE {{t}}held o SET reason = r.reason, route_exchange = r.route_exchange, route_type = r.route_type,
    next_at = CASE WHEN r.wait >= 0 THEN clock_timestamp() + r.wait * interval '1 microsecond' END,
    attempts = r.attempts, error = nullif(r.error, ''),
    -- What waited for its time counts as enqueued when it stops to: see settled_look.
    enqueued_at = CASE WHEN o.reason = 'due' AND r.reason <> 'due' THEN clock_timestamp() ELSE o.enqueued_at END
FROM unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::uuid[],
    $5::text[], $6::text[], $7::text[], $8::bigint[], $9::int[], $10::text[])
    AS r(slot, epoch, seq, id, reason, route_exchange, route_type, wait, attempts, error)
WHERE o.slot = ANY(ARRAY[r.slot]) AND o.seq = r.seq AND o.id = ANY(ARRAY[r.id])
    AND EXISTS (SELECT FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = r.slot AND s.epoch = r.epoch)

-- name: settle_release
-- A fresh seq, drawn after the xid as for every other row: see outlast_outbox.tx. The
-- fact of a message that was due later occurred when it was written.
WITH d AS (
    DELETE FROM {{t}}held o
    USING unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::uuid[]) AS r(slot, epoch, seq, id)
    WHERE o.slot = ANY(ARRAY[r.slot]) AND o.seq = r.seq AND o.id = ANY(ARRAY[r.id])
        AND EXISTS (SELECT FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = r.slot AND s.epoch = r.epoch)
    RETURNING o.*
)
INSERT INTO {{t}}outbox ({{message}}, occurred_at)
SELECT {{message}}, CASE WHEN reason = 'due' THEN coalesce(occurred_at, enqueued_at) ELSE occurred_at END FROM d ORDER BY d.seq

-- name: held_keys
SELECT DISTINCT h.slot, h.ordering_key FROM {{t}}held h
WHERE h.slot = ANY($1::smallint[]) AND h.reason IN ('backoff', 'refused', 'behind') AND h.ordering_key IS NOT NULL

-- name: held_routes
SELECT coalesce(h.route_exchange, ''), coalesce(h.route_type, ''), h.reason, count(*) FROM {{t}}held h
WHERE h.slot = ANY($1::smallint[]) AND h.reason IN ('unroutable', 'route')
GROUP BY 1, 2, 3

-- name: held_due
-- The longest due of each slot, at most $3 of a slot, are the candidates: a page costs
-- the same with any number of rows due.
WITH now AS MATERIALIZED (SELECT clock_timestamp() AS at), c AS (
    SELECT x.slot, x.seq, x.id, x.size
    FROM unnest($1::smallint[]) AS w(slot) CROSS JOIN LATERAL (
        SELECT h.slot, h.seq, h.id, coalesce(octet_length(h.body), octet_length(h.body_bytes))::bigint AS size
        FROM {{t}}held h
        WHERE h.slot = w.slot AND h.reason IN ('due', 'backoff') AND h.next_at <= (SELECT at FROM now)
        ORDER BY h.next_at LIMIT $3::int
    ) x WHERE x.seq > $2::bigint
    ORDER BY x.seq LIMIT $4::int
), f AS (
    SELECT c.*, sum(c.size) OVER (ORDER BY c.seq ROWS UNBOUNDED PRECEDING) AS running FROM c
)
SELECT {{row}}, o.reason, o.attempts
FROM f CROSS JOIN LATERAL (
    SELECT * FROM {{t}}held h WHERE h.slot = f.slot AND h.seq = f.seq AND h.id = f.id LIMIT 1
) o WHERE f.running <= $5::bigint OR f.running = f.size
ORDER BY o.seq

-- name: held_next
-- How many rows are due now (up to $2 of a slot), and the microseconds until the next one is.
WITH now AS MATERIALIZED (SELECT clock_timestamp() AS at)
SELECT coalesce(sum(x.n), 0)::bigint, (extract(epoch FROM min(x.next) - (SELECT at FROM now)) * 1000000)::bigint,
    pg_is_in_recovery()
FROM unnest($1::smallint[]) AS w(slot) CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM (
            SELECT FROM {{t}}held h
            WHERE h.slot = w.slot AND h.reason IN ('due', 'backoff') AND h.next_at <= (SELECT at FROM now)
            LIMIT $2::int) d) AS n,
        (SELECT h.next_at FROM {{t}}held h
            WHERE h.slot = w.slot AND h.reason IN ('due', 'backoff') AND h.next_at > (SELECT at FROM now)
            ORDER BY h.next_at LIMIT 1) AS next
) x

-- name: held_key
WITH f AS (
    SELECT c.*, sum(c.size) OVER (ORDER BY c.seq ROWS UNBOUNDED PRECEDING) AS running
    FROM (
        SELECT h.slot, h.seq, h.id, coalesce(octet_length(h.body), octet_length(h.body_bytes))::bigint AS size
        FROM {{t}}held h
        WHERE h.slot = $1::smallint AND h.ordering_key = $2::text AND h.reason IN ('backoff', 'refused', 'behind')
            AND h.seq > $3::bigint
        ORDER BY h.seq LIMIT $4::int
    ) c
)
SELECT {{row}}, o.reason, o.attempts
FROM f CROSS JOIN LATERAL (
    SELECT * FROM {{t}}held h WHERE h.slot = f.slot AND h.seq = f.seq AND h.id = f.id LIMIT 1
) o WHERE f.running <= $5::bigint OR f.running = f.size
ORDER BY o.seq

-- name: held_route
WITH f AS (
    SELECT c.*, sum(c.size) OVER (ORDER BY c.seq ROWS UNBOUNDED PRECEDING) AS running
    FROM (
        SELECT x.* FROM unnest($1::smallint[]) AS w(slot) CROSS JOIN LATERAL (
            SELECT h.slot, h.seq, h.id, coalesce(octet_length(h.body), octet_length(h.body_bytes))::bigint AS size
            FROM {{t}}held h
            WHERE h.slot = w.slot AND h.route_exchange = $2::text AND h.route_type = $3::text
                AND h.reason IN ('unroutable', 'route') AND h.seq > $4::bigint
            ORDER BY h.seq LIMIT $5::int
        ) x ORDER BY x.seq LIMIT $5::int
    ) c
)
SELECT {{row}}, o.reason, o.attempts
FROM f CROSS JOIN LATERAL (
    SELECT * FROM {{t}}held h WHERE h.slot = f.slot AND h.seq = f.seq AND h.id = f.id LIMIT 1
) o WHERE f.running <= $6::bigint OR f.running = f.size
ORDER BY o.seq

-- name: settled_look
-- The oldest unsettled row of each slot stands for its slot: enqueued_at follows seq
-- but for moments, which the margin covers.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text, least(
    (SELECT min(x.enqueued_at) FROM (
        SELECT g AS slot, coalesce((SELECT s.low_seq FROM {{t}}slot s WHERE s.scope = 'relay' AND s.slot = g), 0) AS low
        FROM generate_series(0, 255) g OFFSET 0
    ) w CROSS JOIN LATERAL (
        SELECT p.enqueued_at FROM {{t}}outbox p WHERE p.slot = w.slot::smallint AND p.seq > w.low ORDER BY p.seq LIMIT 1
    ) x),
    (SELECT h.enqueued_at FROM {{t}}held h WHERE h.reason <> 'due' ORDER BY h.enqueued_at LIMIT 1))

-- name: settled_draw
-- now() is the start of this transaction, so it precedes the xid.
SELECT now(), pg_current_xact_id()::text
