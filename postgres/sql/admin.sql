-- Statements of migrations, checks and operators.

-- name: by_index
-- Statements of this transaction are planned without reading whole tables.
SELECT set_config('outlast.enable_seqscan', coalesce(nullif(current_setting('outlast.enable_seqscan', true), ''), current_setting('enable_seqscan')), true),
    set_config('enable_seqscan', 'off', true)

-- name: as_before
SELECT set_config('enable_seqscan', current_setting('outlast.enable_seqscan'), true)

-- name: migrate_serialise
SELECT pg_advisory_xact_lock(hashtextextended($1::text, 7261))

-- name: schema_there
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::text)

-- name: version_there
SELECT to_regclass($1::text) IS NOT NULL

-- name: version
SELECT coalesce(max(version), 0) FROM {{t}}migrations

-- name: needs
SELECT coalesce((SELECT value FROM {{t}}meta WHERE key = 'needs'), '0')::int

-- name: check_server
SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
    current_setting('server_version_num')::int, current_setting('server_encoding')

-- name: missing_rights
-- Which of the rights ($2 on $3, of column $4 if any) this role lacks, as numbers from 1.
SELECT coalesce(array_agg(r.n ORDER BY r.n), '{}')::int[]
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS r(privilege, object, col, n)
CROSS JOIN LATERAL (SELECT to_regclass($1::text || r.object) AS oid) o
WHERE o.oid IS NULL OR NOT CASE
    WHEN r.object = 'seq' THEN has_sequence_privilege(o.oid, r.privilege)
    WHEN r.col = '' THEN has_table_privilege(o.oid, r.privilege)
    ELSE has_column_privilege(o.oid, r.col, r.privilege) END

-- name: op_timeout
-- A person's question must not hold back the work. It reads little, whatever the planner
-- thinks of tables without statistics: compiling it would take longer than the answer.
SELECT set_config('statement_timeout', '30s', true), set_config('jit', 'off', true)

-- name: op_action
INSERT INTO {{t}}action (who, what, target, count, reason)
VALUES ($1::text, $2::text, $3::text, $4::int, nullif($5::text, ''))

-- name: op_actions
SELECT seq, at, who, what, target, count, coalesce(reason, '') FROM {{t}}action
WHERE $2::bigint = 0 OR seq < $2::bigint ORDER BY seq DESC LIMIT $1::int

-- name: op_pause
INSERT INTO {{t}}group (grp, paused, who, reason) VALUES ($1::text, $2::boolean, $3::text, nullif($4::text, ''))
ON CONFLICT (grp) DO UPDATE SET paused = EXCLUDED.paused, since = clock_timestamp(), who = EXCLUDED.who, reason = EXCLUDED.reason

-- name: op_server
SELECT clock_timestamp(), coalesce((SELECT value FROM {{t}}meta WHERE key = 'source'), '')

-- name: op_pending
SELECT type, count(*)::int, greatest((extract(epoch FROM clock_timestamp() - min(enqueued_at)) * 1000000)::bigint, 0)
FROM (SELECT type, enqueued_at FROM {{t}}outbox LIMIT $1::int) x GROUP BY type ORDER BY type

-- name: op_held
SELECT type, reason, count(*)::int, greatest((extract(epoch FROM clock_timestamp() - min(held_at)) * 1000000)::bigint, 0), coalesce(max(error), '')
FROM (SELECT type, reason, held_at, error FROM {{t}}held LIMIT $1::int) x GROUP BY type, reason ORDER BY type, reason

-- name: op_retry
SELECT grp, type, count(*)::int, greatest((extract(epoch FROM clock_timestamp() - min(first_at)) * 1000000)::bigint, 0)
FROM (SELECT grp, type, first_at FROM {{t}}retry LIMIT $1::int) x GROUP BY grp, type ORDER BY grp, type

-- name: op_dead
SELECT grp, type, count(*)::int, greatest((extract(epoch FROM clock_timestamp() - min(last_at)) * 1000000)::bigint, 0)
FROM (SELECT grp, type, last_at FROM {{t}}dead LIMIT $1::int) x GROUP BY grp, type ORDER BY grp, type

-- name: op_overdue
-- Rows behind others of their key are not due by themselves.
SELECT grp, type, count(*)::int FROM (
    SELECT r.grp, r.type FROM {{t}}retry r
    WHERE r.next_at < clock_timestamp() - $2::bigint * interval '1 microsecond' AND r.reason <> 'behind'
      AND NOT (r.ordered AND EXISTS (
        SELECT FROM {{t}}retry e WHERE e.grp = r.grp AND e.ordering_key = r.ordering_key AND e.ordered AND e.seq < r.seq))
    LIMIT $1::int) x GROUP BY grp, type

-- name: op_spent
-- What a person has made due is on its way.
SELECT grp, type, count(*)::int FROM (
    SELECT r.grp, r.type FROM {{t}}retry r WHERE r.reason = 'spent' AND r.next_at > clock_timestamp() LIMIT $1::int) x GROUP BY grp, type

-- name: op_unattended
-- With relays on all slots nothing of the outbox is read.
SELECT count(*)::int, coalesce(greatest((extract(epoch FROM clock_timestamp() - min(enqueued_at)) * 1000000)::bigint, 0), 0)
FROM (
    SELECT o.enqueued_at FROM generate_series(0, 255) AS g(slot)
    CROSS JOIN LATERAL (SELECT enqueued_at FROM {{t}}outbox WHERE slot = g.slot::smallint LIMIT $1::int) o
    WHERE NOT EXISTS (
        SELECT FROM {{t}}slot s JOIN {{t}}owner w ON w.scope = s.scope AND w.owner = s.owner
        WHERE s.scope = 'relay' AND s.slot = g.slot AND w.expires_at > clock_timestamp())
    LIMIT $1::int) x

-- name: op_relays
SELECT o.owner, (SELECT count(*) FROM {{t}}slot s WHERE s.scope = 'relay' AND s.owner = o.owner)::int
FROM {{t}}owner o WHERE o.scope = 'relay' AND o.expires_at > clock_timestamp() ORDER BY o.owner

-- name: op_paused
SELECT grp, since, who, coalesce(reason, '') FROM {{t}}group WHERE paused ORDER BY grp

-- name: op_live_slots
SELECT s.slot FROM {{t}}slot s JOIN {{t}}owner o ON o.scope = s.scope AND o.owner = s.owner
WHERE s.scope = 'relay' AND o.expires_at > clock_timestamp()
