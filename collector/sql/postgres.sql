-- What PostgreSQL says in its own way.

-- name: there
SELECT count(*) FROM (SELECT to_regclass($1) AS t) x WHERE t IS NOT NULL

-- name: lock
-- One migrator at a time.
SELECT count(*) FROM (SELECT pg_advisory_xact_lock(7310589132)) x
