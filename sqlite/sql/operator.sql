-- Statements that end in WHERE or AND are completed with the conditions of a filter
-- (filter.go), from a fixed list.

-- name: status_pending
-- The index holds type and time, so no row is read; the limit bounds the work.
SELECT type, count(*), max(0, {{now}} - min(enqueued_at)) FROM (
    SELECT type, enqueued_at FROM {{p}}outbox INDEXED BY {{p}}outbox_oldest ORDER BY enqueued_at LIMIT ?)
GROUP BY type ORDER BY type;

-- name: status_held
SELECT type, reason, count(*), max(0, {{now}} - min(held_at)), max(seq) FROM (
    SELECT seq, type, reason, held_at FROM {{p}}held INDEXED BY {{p}}held_status LIMIT ?)
GROUP BY type, reason ORDER BY type, reason;

-- name: held_error
SELECT coalesce(error, '') FROM {{p}}held WHERE seq = ?;

-- name: status_retry
SELECT grp, type, count(*), max(0, {{now}} - min(first_at)) FROM (
    SELECT grp, type, first_at FROM {{p}}retry INDEXED BY {{p}}retry_status LIMIT ?)
GROUP BY grp, type ORDER BY grp, type;

-- name: status_overdue
-- Rows behind others of their key are not due by themselves.
SELECT grp, type, count(*) FROM (
    SELECT r.grp, r.type FROM {{p}}retry r
    WHERE r.next_at < {{now}} - ?2 AND r.reason <> 'behind'
      AND NOT (r.ordered = 1 AND EXISTS (
        SELECT 1 FROM {{p}}retry e
        WHERE e.grp = r.grp AND e.ordering_key = r.ordering_key AND e.ordered = 1 AND e.seq < r.seq))
    LIMIT ?1)
GROUP BY grp, type;

-- name: status_spent
-- What a person has made due is on its way.
SELECT grp, type, count(*) FROM (
    SELECT grp, type FROM {{p}}retry WHERE reason = 'spent' AND next_at > {{now}} LIMIT ?1)
GROUP BY grp, type;

-- name: status_unattended
SELECT count(*), coalesce(max(0, {{now}} - min(enqueued_at)), 0) FROM (
    SELECT enqueued_at FROM {{p}}outbox INDEXED BY {{p}}outbox_oldest WHERE NOT EXISTS (
        SELECT 1 FROM {{p}}slot s JOIN {{p}}owner o ON o.scope = s.scope AND o.owner = s.owner
        WHERE s.scope = ?2 AND o.expires_at > {{now}})
    ORDER BY enqueued_at LIMIT ?1);

-- name: status_dead
SELECT grp, type, count(*), max(0, {{now}} - min(last_at)) FROM (
    SELECT grp, type, last_at FROM {{p}}dead INDEXED BY {{p}}dead_status LIMIT ?)
GROUP BY grp, type ORDER BY grp, type;

-- name: status_relays
SELECT o.owner, (SELECT count(*) FROM {{p}}slot s WHERE s.scope = o.scope AND s.owner = o.owner)
FROM {{p}}owner o WHERE o.scope = ? AND o.expires_at > {{now}} ORDER BY o.owner;

-- name: status_groups
SELECT grp, since, who, coalesce(reason, '') FROM {{p}}group WHERE paused = 1 ORDER BY grp;

-- name: relay_alive
SELECT EXISTS (SELECT 1 FROM {{p}}slot s JOIN {{p}}owner o ON o.scope = s.scope AND o.owner = s.owner
    WHERE s.scope = ? AND o.expires_at > {{now}});

-- name: group_write
INSERT INTO {{p}}group (grp, paused, who, reason) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (grp) DO UPDATE SET paused = excluded.paused, since = {{now}}, who = excluded.who, reason = excluded.reason;

-- name: action_insert
INSERT INTO {{p}}action (who, what, target, count, reason) VALUES (?, ?, ?, ?, ?);

-- name: actions
SELECT seq, at, who, what, target, count, coalesce(reason, '') FROM {{p}}action
WHERE ?1 = 0 OR seq < ?1 ORDER BY seq DESC LIMIT ?2;

-- name: list_pending
SELECT {{read_head}}, '', '', 0, NULL FROM {{p}}outbox WHERE

-- name: list_held
SELECT {{read_head}}, reason, coalesce(error, ''), attempts, next_at FROM {{p}}held WHERE

-- name: body_pending
SELECT {{body}} FROM {{p}}outbox WHERE seq = ?;

-- name: body_held
SELECT {{body}} FROM {{p}}held WHERE seq = ?;

-- name: operator_release
-- The row stays where it is, so that the rows behind it keep their order.
UPDATE {{p}}held SET reason = 'backoff', next_at = {{now}} WHERE seq = ? AND reason NOT IN ('due', 'behind');

-- name: list_retry
SELECT seq, grp, envelope, length(body), reason, coalesce(error, ''), attempts, replays, '', first_at, last_at, next_at FROM {{p}}retry WHERE

-- name: list_dead
SELECT seq, grp, envelope, length(body), reason, coalesce(error, ''), attempts, replays, coalesce(fingerprint, ''), first_at, last_at, NULL FROM {{p}}dead WHERE

-- name: body_retry
SELECT body FROM {{p}}retry WHERE seq = ?;

-- name: body_dead
SELECT body FROM {{p}}dead WHERE seq = ?;

-- name: retry_now
UPDATE {{p}}retry SET next_at = {{now}} WHERE seq = ?;

-- name: replay
-- A copy with other content stays where it is while the message itself waits.
INSERT INTO {{p}}retry (grp, source, id, ordering_key, ordered, type, envelope, body, hash, reason, error, replays, next_at, first_at)
SELECT grp, source, id, ordering_key, ordered, type, envelope, body, hash, 'replay', error, replays + 1, {{now}}, first_at
FROM {{p}}dead WHERE seq = ?
ON CONFLICT (grp, source, id) DO NOTHING;

-- name: replay_state
UPDATE {{p}}inbox SET state = 'retry', at = {{now}}
WHERE (grp, source, id, hash) = (SELECT d.grp, d.source, d.id, d.hash FROM {{p}}dead d WHERE d.seq = ?);

-- name: edit_mark
INSERT INTO {{p}}inbox (grp, source, id, state, hash, enqueued_at) VALUES (?1, ?2, ?3, 'retry', 0, {{now}})
ON CONFLICT (grp, source, id) DO NOTHING;

-- name: edit
INSERT INTO {{p}}retry (grp, source, id, ordering_key, ordered, type, envelope, body, hash, reason, next_at)
SELECT grp, ?2, ?3, ?4, ordered AND ?4 IS NOT NULL, ?5, ?6, ?7, 0, 'edited', {{now}}
FROM {{p}}dead WHERE seq = ?1;

-- name: dead_delete
DELETE FROM {{p}}dead WHERE seq = ?;
