-- What SQLite says in its own way.

-- name: there
SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1

-- name: lock
-- A transaction that begins immediately holds the only write lock.
SELECT 1
