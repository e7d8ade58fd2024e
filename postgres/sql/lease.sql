-- Leases. Membership changes are serialised per scope by a lock that ends with its
-- transaction; renewals and settlements never wait for it.

-- name: lease_renew
UPDATE {{t}}owner SET expires_at = clock_timestamp() + $3::bigint * interval '1 microsecond'
WHERE scope = $1::text AND owner = $2::text AND expires_at > clock_timestamp()

-- name: lease_renew_look
-- Renewing, and looking at the same time, is all there is to do as long as nobody
-- comes or goes. As long as the record has not ended nobody can have taken a slot of
-- ours, so that the snapshot, which is older than the renewal, shows them right.
WITH r AS (
    UPDATE {{t}}owner SET expires_at = clock_timestamp() + $4::bigint * interval '1 microsecond'
    WHERE scope = $1::text AND owner = $2::text AND expires_at > clock_timestamp()
    RETURNING expires_at
)
SELECT
    coalesce(array_agg(s.slot ORDER BY s.slot) FILTER (WHERE s.owner = $2::text), '{}')::int[],
    coalesce(array_agg(s.epoch ORDER BY s.slot) FILTER (WHERE s.owner = $2::text), '{}')::bigint[],
    (SELECT count(*) FROM {{t}}owner o WHERE o.scope = $1::text AND o.expires_at > clock_timestamp()),
    count(*),
    count(*) FILTER (WHERE s.owner IS NULL OR s.owner <> $2::text AND NOT EXISTS (
        SELECT FROM {{t}}owner o WHERE o.scope = s.scope AND o.owner = s.owner AND o.expires_at > clock_timestamp())),
    clock_timestamp(), (SELECT expires_at FROM r),
    EXISTS (SELECT FROM {{t}}group g WHERE g.grp = '@' || $1::text AND g.paused)
FROM {{t}}slot s WHERE s.scope = $1::text AND s.slot < $3::int

-- name: lease_look
-- What is held, how many owners live, how many slots are there, and whether some can
-- be taken. Our own record is locked by this transaction: nobody can take ours.
SELECT
    coalesce(array_agg(s.slot ORDER BY s.slot) FILTER (WHERE s.owner = $2::text), '{}')::int[],
    coalesce(array_agg(s.epoch ORDER BY s.slot) FILTER (WHERE s.owner = $2::text), '{}')::bigint[],
    (SELECT count(*) FROM {{t}}owner o WHERE o.scope = $1::text AND o.expires_at > clock_timestamp()),
    count(*),
    count(*) FILTER (WHERE s.owner IS NULL OR s.owner <> $2::text AND NOT EXISTS (
        SELECT FROM {{t}}owner o WHERE o.scope = s.scope AND o.owner = s.owner AND o.expires_at > clock_timestamp())),
    clock_timestamp(), (SELECT o.expires_at FROM {{t}}owner o WHERE o.scope = $1::text AND o.owner = $2::text),
    EXISTS (SELECT FROM {{t}}group g WHERE g.grp = '@' || $1::text AND g.paused)
FROM {{t}}slot s WHERE s.scope = $1::text AND s.slot < $3::int

-- name: lease_serialise
SELECT pg_advisory_xact_lock(hashtextextended($1::text, 7262))

-- name: lease_slots
INSERT INTO {{t}}slot (scope, slot) SELECT $1::text, g FROM generate_series(0, $2::int - 1) g
ON CONFLICT (scope, slot) DO NOTHING

-- name: lease_known
SELECT EXISTS (SELECT FROM {{t}}owner WHERE scope = $1::text AND owner = $2::text)

-- name: lease_abandon
-- An owner that comes back after its end starts with nothing.
UPDATE {{t}}slot SET owner = NULL WHERE scope = $1::text AND owner = $2::text

-- name: lease_join
INSERT INTO {{t}}owner (scope, owner, expires_at)
VALUES ($1::text, $2::text, clock_timestamp() + $3::bigint * interval '1 microsecond')
ON CONFLICT (scope, owner) DO UPDATE SET expires_at = EXCLUDED.expires_at, since = clock_timestamp()

-- name: lease_reap
-- A record that ended is closed before its slots are taken: a renewal that is under
-- way either comes first, and then it is not touched here, or finds it closed. Our own
-- was renewed in this transaction; when it ends before the transaction does, we are told.
WITH e AS MATERIALIZED (
    SELECT o.owner FROM {{t}}owner o
    WHERE o.scope = $1::text AND o.owner <> $2::text AND o.expires_at <= clock_timestamp() AND o.expires_at > '-infinity'
    ORDER BY o.owner FOR UPDATE SKIP LOCKED
)
UPDATE {{t}}owner o SET expires_at = '-infinity', since = clock_timestamp() FROM e WHERE o.scope = $1::text AND o.owner = e.owner

-- name: lease_clean
DELETE FROM {{t}}owner o WHERE o.scope = $1::text AND o.expires_at = '-infinity' AND o.since < clock_timestamp() - interval '7 days'

-- name: lease_take
-- Slots in a settlement's hand are left for the next time.
WITH f AS MATERIALIZED (
    SELECT s.slot FROM {{t}}slot s
    WHERE s.scope = $1::text AND s.slot < $3::int AND (s.owner IS NULL OR NOT EXISTS (
        SELECT FROM {{t}}owner o WHERE o.scope = s.scope AND o.owner = s.owner AND o.expires_at > '-infinity'))
    ORDER BY s.slot LIMIT $4::int FOR UPDATE OF s SKIP LOCKED
)
UPDATE {{t}}slot s SET owner = $2::text, epoch = s.epoch + 1 FROM f WHERE s.scope = $1::text AND s.slot = f.slot

-- name: lease_release
WITH f AS MATERIALIZED (
    SELECT s.slot FROM {{t}}slot s
    WHERE s.scope = $1::text AND s.owner = $2::text AND ($3::int[] IS NULL
        OR (s.slot, s.epoch) IN (SELECT * FROM unnest($3::int[], $4::bigint[])))
    ORDER BY s.slot FOR UPDATE OF s
)
UPDATE {{t}}slot s SET owner = NULL, epoch = s.epoch + 1 FROM f WHERE s.scope = $1::text AND s.slot = f.slot

-- name: lease_leave
DELETE FROM {{t}}owner WHERE scope = $1::text AND owner = $2::text
