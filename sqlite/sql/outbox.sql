-- The producer's role. The statement of Insert is composed in Go, because it has
-- as many rows as there are messages.

-- name: withdraw
DELETE FROM {{p}}held WHERE id = ? AND reason = 'due';
