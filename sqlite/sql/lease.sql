-- name: owner_read
SELECT expires_at > {{now}} FROM {{p}}owner WHERE scope = ? AND owner = ?;

-- name: owner_write
INSERT INTO {{p}}owner (scope, owner, expires_at) VALUES (?1, ?2, {{now}} + ?3)
ON CONFLICT (scope, owner) DO UPDATE SET expires_at = excluded.expires_at
RETURNING {{now}}, expires_at;

-- name: owner_delete
DELETE FROM {{p}}owner WHERE scope = ? AND owner = ?;

-- name: owner_forget
-- A day is longer than any lease: who slept longer than that learns it from Settle.
DELETE FROM {{p}}owner WHERE scope = ? AND expires_at < {{now}} - 86400000000;

-- name: owner_others
SELECT count(*) FROM {{p}}owner WHERE scope = ? AND owner <> ? AND expires_at > {{now}};

-- name: slot_free_dead
UPDATE {{p}}slot SET owner = NULL
WHERE scope = ?1 AND owner IS NOT NULL
  AND owner NOT IN (SELECT o.owner FROM {{p}}owner o WHERE o.scope = ?1 AND o.expires_at > {{now}});

-- name: slot_list
SELECT slot, owner, epoch FROM {{p}}slot WHERE scope = ?;

-- name: slot_take
INSERT INTO {{p}}slot (scope, slot, owner, epoch) VALUES (?, ?, ?, 1)
ON CONFLICT (scope, slot) DO UPDATE SET owner = excluded.owner, epoch = epoch + 1
RETURNING epoch;

-- name: slot_release
UPDATE {{p}}slot SET owner = NULL
WHERE scope = ?1 AND owner = ?2 AND (?3 IS NULL
    OR (slot, epoch) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?3)));

-- name: slot_current
SELECT EXISTS (SELECT 1 FROM {{p}}slot WHERE scope = ? AND slot = ? AND epoch = ? AND owner IS NOT NULL);
