-- Statements of the collector, for PostgreSQL and SQLite alike. (%s) stands for a list
-- of as many parameters as there are values.

-- name: version
SELECT coalesce(max(version), 0) FROM {{t}}migrations

-- name: wipe_key
DELETE FROM {{t}}key

-- name: wipe_fact
DELETE FROM {{t}}fact

-- name: wipe_message
DELETE FROM {{t}}message

-- name: wiped
-- Whoever writes takes this row first, in the same transaction.
UPDATE {{t}}cursor SET position = position + $1 WHERE place = '' AND kind = 'wiped' AND ($2 < 0 OR position = $2)

-- name: wipe_cursor
DELETE FROM {{t}}cursor WHERE place <> ''

-- name: wipe_place
DELETE FROM {{t}}place

-- name: place_answered
INSERT INTO {{t}}place (name, service, tracked, answered_at, unknown, unknown_since, status, hearers)
VALUES ($1, $2, $3, $4, '', 0, $5, $6)
ON CONFLICT (name) DO UPDATE SET service = excluded.service, tracked = excluded.tracked, answered_at = excluded.answered_at,
    unknown = '', unknown_since = 0, status = excluded.status, hearers = excluded.hearers

-- name: place_unknown
-- Since when it is unknown stays as it was while it does not answer.
INSERT INTO {{t}}place (name, service, tracked, answered_at, unknown, unknown_since, status, hearers)
VALUES ($1, '', 0, 0, $2, $3, '', '')
ON CONFLICT (name) DO UPDATE SET unknown = excluded.unknown,
    unknown_since = CASE WHEN {{p}}place.unknown_since = 0 THEN excluded.unknown_since ELSE {{p}}place.unknown_since END

-- name: places
SELECT name, service, tracked, answered_at, unknown, unknown_since, status, hearers FROM {{t}}place ORDER BY name

-- name: cursor_write
INSERT INTO {{t}}cursor (place, kind, position) VALUES ($1, $2, $3)
ON CONFLICT (place, kind) DO UPDATE SET position = excluded.position

-- name: cursors
SELECT place, kind, position FROM {{t}}cursor

-- name: message_write
INSERT INTO {{t}}message (id, flow, type, source, why, open, since, asked_at, bytes, overdue) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (id) DO UPDATE SET flow = excluded.flow, type = excluded.type, source = excluded.source, why = excluded.why,
    open = excluded.open, since = excluded.since, asked_at = excluded.asked_at, bytes = excluded.bytes, overdue = excluded.overdue

-- name: fact_write
INSERT INTO {{t}}fact (id, place, asked_at, facts) VALUES ($1, $2, $3, $4)
ON CONFLICT (id, place) DO UPDATE SET asked_at = excluded.asked_at, facts = excluded.facts

-- name: fact_drop
DELETE FROM {{t}}fact WHERE id = $1 AND place = $2

-- name: key_write
INSERT INTO {{t}}key (value, id) VALUES ($1, $2) ON CONFLICT (value, id) DO NOTHING

-- name: whys
SELECT id, why, since FROM {{t}}message WHERE id IN (%s)

-- name: due
-- Those that nobody asked for the longest.
SELECT id, why, flow FROM {{t}}message WHERE open = 1 AND asked_at < $1 ORDER BY asked_at LIMIT $2

-- name: facts
SELECT id, place, asked_at, facts FROM {{t}}fact WHERE id IN (%s)

-- name: ids_by_id
SELECT id FROM {{t}}message WHERE id IN (%s)

-- name: ids_by_flow
SELECT id FROM {{t}}message WHERE flow IN (%s)

-- name: ids_by_key
SELECT id FROM {{t}}key WHERE value IN (%s)

-- name: messages
-- The newest first, of one reason or of all, behind the one that a page ended with.
SELECT id, why, open, since, asked_at FROM {{t}}message
WHERE ($1 = '' OR why = $1) AND (CAST($2 AS integer) = 0 OR open = 1)
    AND (since < $3 OR since = $3 AND id < $4)
ORDER BY since DESC, id DESC LIMIT $5

-- name: held
SELECT why, count(*), CAST(coalesce(sum(bytes), 0) AS bigint) FROM {{t}}message GROUP BY why

-- name: overdue
-- A build that does not know the column may have closed a message since.
SELECT source, count(*) FROM {{t}}message WHERE overdue = 1 AND open = 1 GROUP BY source

-- name: shed
-- What goes first when there is too much: whose turn it is, the oldest first.
SELECT id, bytes FROM {{t}}message WHERE (why = 'sample') = (CAST($1 AS integer) = 1) AND open = CAST($2 AS integer) ORDER BY since, id LIMIT $3

-- name: old
-- What is over and too old.
SELECT id, bytes FROM {{t}}message WHERE open = 0 AND since < $1 ORDER BY since, id LIMIT $2

-- name: drop_key
DELETE FROM {{t}}key WHERE id IN (%s)

-- name: drop_fact
DELETE FROM {{t}}fact WHERE id IN (%s)

-- name: drop_message
DELETE FROM {{t}}message WHERE id IN (%s)
