-- name: mark
INSERT INTO {{p}}inbox (grp, source, id, hash, enqueued_at) VALUES (?1, ?2, ?3, ?4, coalesce(?5, {{now}}))
ON CONFLICT (grp, source, id) DO NOTHING;

-- name: known
SELECT state, hash FROM {{p}}inbox WHERE grp = ? AND source = ? AND id = ?;

-- name: key_waits
SELECT EXISTS (SELECT 1 FROM {{p}}retry WHERE grp = ? AND ordering_key = ? AND ordered = 1);

-- name: state
UPDATE {{p}}inbox SET state = ?1, at = {{now}} WHERE grp = ?2 AND source = ?3 AND id = ?4 AND hash = ?5;

-- name: retry_insert
INSERT INTO {{p}}retry (grp, source, id, ordering_key, ordered, type, envelope, body, hash, reason, error, attempts, replays, next_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, {{now}} + ?14);

-- name: retry_next
-- The first message of those that may run: no earlier waiting one of its key.
SELECT r.seq, r.source, r.id, r.envelope, r.body, r.hash, r.ordered, r.attempts, r.replays, r.reason, coalesce(r.error, ''),
    r.first_at, r.last_at, r.next_at - {{now}}
FROM {{p}}retry r
WHERE r.grp = ?1 AND r.type IN (SELECT value FROM json_each(?2))
  AND NOT (r.ordered = 1 AND EXISTS (
    SELECT 1 FROM {{p}}retry e
    WHERE e.grp = r.grp AND e.ordering_key = r.ordering_key AND e.ordered = 1 AND e.seq < r.seq))
ORDER BY r.next_at, r.seq LIMIT 1;

-- name: retry_unchanged
SELECT EXISTS (SELECT 1 FROM {{p}}retry WHERE seq = ? AND attempts = ? AND last_at = ?);

-- name: retry_update
UPDATE {{p}}retry SET attempts = ?2, reason = ?3, error = ?4, next_at = {{now}} + ?5, last_at = {{now}} WHERE seq = ?1;

-- name: retry_delete
DELETE FROM {{p}}retry WHERE seq = ?;

-- name: dead_insert
-- What comes again in the same state takes no second place.
INSERT INTO {{p}}dead (grp, source, id, ordering_key, ordered, type, envelope, body, hash, reason, error, attempts, replays, fingerprint, first_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, coalesce(?15, {{now}}))
ON CONFLICT (grp, source, id, hash) DO UPDATE SET reason = excluded.reason, error = excluded.error,
    attempts = excluded.attempts, fingerprint = excluded.fingerprint, last_at = {{now}};

-- name: purgeable
SELECT id FROM {{p}}inbox
WHERE grp = ?1 AND source = ?2 AND state = 'handled' AND at < {{now}} - ?3 AND enqueued_at < ?4 ORDER BY at LIMIT ?5;

-- name: purge
DELETE FROM {{p}}inbox
WHERE grp = ?1 AND source = ?2 AND state = 'handled' AND at < {{now}} - ?3 AND enqueued_at < ?4
  AND id IN (SELECT value FROM json_each(?5));

-- name: alive
INSERT INTO {{p}}instance (grp, instance) VALUES (?, ?) ON CONFLICT (grp, instance) DO UPDATE SET at = {{now}};

-- name: instances
SELECT instance, {{now}} - at FROM {{p}}instance WHERE grp = ? AND instance <> ? ORDER BY instance;

-- name: leave
DELETE FROM {{p}}instance WHERE grp = ? AND instance = ?;

-- name: suspect
INSERT INTO {{p}}suspect (grp, source, id) VALUES (?, ?, ?)
ON CONFLICT (grp, source, id) DO UPDATE SET count = count + 1, at = {{now}} RETURNING count;

-- name: suspect_less
UPDATE {{p}}suspect SET count = count - 1 WHERE grp = ? AND source = ? AND id = ?;

-- name: suspect_none
DELETE FROM {{p}}suspect WHERE grp = ? AND source = ? AND id = ? AND count <= 0;

-- name: suspect_clear
DELETE FROM {{p}}suspect WHERE grp = ? AND source = ? AND id = ?;

-- name: paused
SELECT EXISTS (SELECT 1 FROM {{p}}group WHERE grp = ? AND paused = 1);
