-- Statements of the producer's role. Their texts never change, so that each connection
-- prepares them once.

-- name: insert_one
INSERT INTO {{t}}outbox ({{inserted}})
VALUES (coalesce($1::uuid, {{t}}uuid7()), $2::text, $3::text, $4::text, $5::bytea,
    $6::text, $7::text, $8::text, $9::text, $10::text, $11::text, $12::text, $13::text, $14::text, $15::text,
    $16::jsonb, $17::bigint <> 0, $18::timestamptz,
    coalesce($19::timestamptz, clock_timestamp() + $20::bigint * interval '1 microsecond'))

-- name: insert_many
-- Columns that no message uses are NULL instead of an array.
INSERT INTO {{t}}outbox ({{inserted}})
SELECT coalesce(m.id::uuid, {{t}}uuid7()), {{given}},
    coalesce(m.expires::timestamptz, clock_timestamp() + m.lifetime::bigint * interval '1 microsecond')
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[],
    $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
    $16::text[], $17::text[], $18::text[], $19::text[], $20::text[]) AS m({{unnested}})

-- name: insert_due
-- Messages whose due time has passed are sent at once; only the database can tell. A
-- lifetime counts from the due time, as if enqueued then.
WITH m AS MATERIALIZED (
    SELECT m.*, clock_timestamp() AS now,
        coalesce(m.due::timestamptz, clock_timestamp() + m.delay::bigint * interval '1 microsecond') AS start
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[],
        $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
        $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[]) AS m({{unnested}}, due, delay)
), v AS MATERIALIZED (
    SELECT coalesce(m.id::uuid, {{t}}uuid7()) AS id, {{given}},
        coalesce(m.expires::timestamptz, greatest(m.start, m.now) + m.lifetime::bigint * interval '1 microsecond') AS expires_at,
        m.start, m.now
    FROM m
), h AS (
    INSERT INTO {{t}}held ({{inserted}}, due_at, next_at, reason)
    SELECT {{inserted}}, v.start, v.start, 'due' FROM v WHERE v.start > v.now
)
INSERT INTO {{t}}outbox ({{inserted}}, due_at) SELECT {{inserted}}, v.start FROM v WHERE v.start <= v.now

-- name: withdraw
DELETE FROM {{t}}held WHERE id = $1::uuid AND reason = 'due'
