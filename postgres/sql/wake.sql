-- Wake-ups across processes. Nothing runs these unless it was asked for.

-- name: wake_notify
-- A transaction of its own. In that of a producer it would make commits wait for each other.
SELECT pg_notify('{{wake}}', '')

-- name: wake_listen
LISTEN "{{wake}}"
