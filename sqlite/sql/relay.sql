-- {{read}} are the columns of a row as row.go scans them.

-- name: identify
INSERT INTO {{p}}meta (key, value) VALUES ('source', ?) ON CONFLICT (key) DO NOTHING;

-- name: source
SELECT value FROM {{p}}meta WHERE key = 'source';

-- name: pick
SELECT {{read}} FROM {{p}}outbox WHERE seq > ? ORDER BY seq LIMIT ?;

-- name: pick_one
SELECT {{read}} FROM {{p}}outbox WHERE seq = ? AND id = ?;

-- name: rescan
SELECT seq, id FROM {{p}}outbox WHERE seq <= ? ORDER BY seq LIMIT ?;

-- name: sent
DELETE FROM {{p}}outbox WHERE seq = ? AND id = ?;

-- name: sent_held
DELETE FROM {{p}}held WHERE seq = ? AND id = ?;

-- name: hold
INSERT INTO {{p}}held (seq, {{columns}}, reason, route_exchange, route_type, next_at, attempts, error)
SELECT seq, {{columns}}, ?3, ?4, ?5, {{now}} + ?6, ?7, ?8 FROM {{p}}outbox WHERE seq = ?1 AND id = ?2;

-- name: hold_again
UPDATE {{p}}held SET reason = ?3, route_exchange = ?4, route_type = ?5, next_at = {{now}} + ?6, attempts = ?7, error = ?8
WHERE seq = ?1 AND id = ?2;

-- name: release
-- AUTOINCREMENT gives the row a new number, behind all others.
INSERT INTO {{p}}outbox ({{columns}})
SELECT {{columns_released}} FROM {{p}}held WHERE seq = ? AND id = ?;

-- name: held_keys
SELECT DISTINCT ordering_key FROM {{p}}held WHERE reason IN ('backoff', 'refused', 'behind') AND ordering_key <> '';

-- name: held_routes
SELECT route_exchange, route_type, reason, count(*) FROM {{p}}held
WHERE reason IN ('unroutable', 'route') GROUP BY route_exchange, route_type, reason;

-- name: now
SELECT {{now}};

-- name: held_due
-- The inner query sorts numbers only, not bodies.
SELECT {{read}}, reason, attempts FROM {{p}}held
WHERE seq IN (
    SELECT seq FROM {{p}}held WHERE reason IN ('due', 'backoff') AND next_at <= ?1 AND seq > ?2 ORDER BY seq LIMIT ?3)
ORDER BY seq;

-- name: held_next
SELECT min(next_at) FROM {{p}}held WHERE reason IN ('due', 'backoff') AND next_at > ?;

-- name: held_of_key
SELECT {{read}}, reason, attempts FROM {{p}}held
WHERE reason IN ('backoff', 'refused', 'behind') AND ordering_key = ? AND seq > ? ORDER BY seq LIMIT ?;

-- name: held_of_route
SELECT {{read}}, reason, attempts FROM {{p}}held
WHERE seq IN (
    SELECT seq FROM {{p}}held
    WHERE reason IN ('unroutable', 'route') AND route_exchange = ? AND route_type = ? AND seq > ? ORDER BY seq LIMIT ?)
ORDER BY seq;

-- name: settled_before
-- Read while no other writer can be at work, so that what is not there cannot come.
SELECT min({{now}},
    coalesce((SELECT min(enqueued_at) FROM {{p}}outbox), {{now}}),
    coalesce((SELECT min(enqueued_at) FROM {{p}}held WHERE reason <> 'due'), {{now}}));
