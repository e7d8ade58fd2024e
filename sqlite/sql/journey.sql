-- Statements of tracking.

-- name: tracked
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('{{p}}sent', '{{p}}book');

-- name: needs
SELECT CAST(coalesce((SELECT value FROM {{p}}meta WHERE key = 'needs'), '0') AS INTEGER);

-- name: log_sent
INSERT INTO {{p}}sent (enqueued_at, deadline, id, fate, unheard, type, kind, exchange, routing_key, ordering_key, correlation_id, causation_id, trace_parent, find)
SELECT enqueued_at, enqueued_at + ?5, id, ?3, may_be_unheard, type, kind, exchange, routing_key, ordering_key, nullif(correlation_id, id), causation_id, trace_parent, ?4
FROM {{p}}outbox WHERE seq = ?1 AND id = ?2;

-- name: log_sent_held
INSERT INTO {{p}}sent (enqueued_at, deadline, id, fate, unheard, type, kind, exchange, routing_key, ordering_key, correlation_id, causation_id, trace_parent, find)
SELECT enqueued_at, enqueued_at + ?5, id, ?3, may_be_unheard, type, kind, exchange, routing_key, ordering_key, nullif(correlation_id, id), causation_id, trace_parent, ?4
FROM {{p}}held WHERE seq = ?1 AND id = ?2;

-- name: log_body
INSERT INTO {{p}}sent_body (seq, body, body_bytes, subject, content_type, data_schema, trace_state, headers, occurred_at, expires_at)
SELECT last_insert_rowid(), body, body_bytes, subject, content_type, data_schema, trace_state, headers, occurred_at, expires_at
FROM {{p}}outbox WHERE seq = ?1 AND id = ?2;

-- name: log_body_held
INSERT INTO {{p}}sent_body (seq, body, body_bytes, subject, content_type, data_schema, trace_state, headers, occurred_at, expires_at)
SELECT last_insert_rowid(), body, body_bytes, subject, content_type, data_schema, trace_state, headers, occurred_at, expires_at
FROM {{p}}held WHERE seq = ?1 AND id = ?2;

-- name: log_key
-- A WITHOUT ROWID table leaves last_insert_rowid() alone.
INSERT INTO {{p}}sent_key (value, seq) VALUES (?, last_insert_rowid()) ON CONFLICT DO NOTHING;

-- name: fact_add
INSERT INTO {{p}}fact (kind, id, source, grp, attempt, code, detail) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: facts_outbox
SELECT {{read_head}}, '', 0, '', NULL, enqueued_at FROM {{p}}outbox
WHERE id IN (SELECT value FROM json_each(?1)) OR correlation_id IN (SELECT value FROM json_each(?2)) OR ordering_key IN (SELECT value FROM json_each(?3))
    OR EXISTS (SELECT 1 FROM json_each(?4) k WHERE instr(json_extract(headers, '$."outlast-find"'), k.value))
ORDER BY enqueued_at DESC, id DESC LIMIT ?5;

-- name: facts_held
SELECT {{read_head}}, reason, attempts, coalesce(error, ''), next_at, held_at FROM {{p}}held
WHERE id IN (SELECT value FROM json_each(?1)) OR correlation_id IN (SELECT value FROM json_each(?2)) OR ordering_key IN (SELECT value FROM json_each(?3))
    OR EXISTS (SELECT 1 FROM json_each(?4) k WHERE instr(json_extract(headers, '$."outlast-find"'), k.value))
ORDER BY enqueued_at DESC, id DESC LIMIT ?5;

-- name: facts_sent
SELECT sent_at, enqueued_at, deadline, id, fate, type, kind, coalesce(routing_key, ''), coalesce(ordering_key, ''), coalesce(correlation_id, id),
    coalesce(causation_id, ''), coalesce(trace_parent, ''), find
FROM {{p}}sent
WHERE seq IN (
    SELECT seq FROM {{p}}sent WHERE id IN (SELECT value FROM json_each(?1))
    UNION SELECT seq FROM {{p}}sent WHERE correlation_id IS NOT NULL AND correlation_id IN (SELECT value FROM json_each(?2))
    UNION SELECT seq FROM {{p}}sent WHERE ordering_key IS NOT NULL AND ordering_key IN (SELECT value FROM json_each(?3))
    UNION SELECT seq FROM {{p}}sent_key WHERE value IN (SELECT value FROM json_each(?3)))
ORDER BY seq DESC LIMIT ?4;

-- name: facts_retry
SELECT grp, source, id, envelope, reason, coalesce(error, ''), attempts, replays, next_at, last_at FROM {{p}}retry
WHERE id IN (SELECT value FROM json_each(?1)) OR json_extract(envelope, '$.correlation_id') IN (SELECT value FROM json_each(?2))
    OR ordering_key IN (SELECT value FROM json_each(?3))
    OR EXISTS (SELECT 1 FROM json_each(envelope, '$.find') f WHERE f.value IN (SELECT value FROM json_each(?3)))
ORDER BY first_at DESC, id DESC, grp LIMIT ?4;

-- name: facts_dead
SELECT grp, source, id, envelope, reason, coalesce(error, ''), attempts, replays, NULL, last_at FROM {{p}}dead
WHERE id IN (SELECT value FROM json_each(?1)) OR json_extract(envelope, '$.correlation_id') IN (SELECT value FROM json_each(?2))
    OR ordering_key IN (SELECT value FROM json_each(?3))
    OR EXISTS (SELECT 1 FROM json_each(envelope, '$.find') f WHERE f.value IN (SELECT value FROM json_each(?3)))
ORDER BY first_at DESC, id DESC, grp LIMIT ?4;

-- name: facts_inbox
-- There are few pairs of group and source: the primary key is walked from one to the next.
WITH RECURSIVE p (grp, source) AS (
    SELECT * FROM (SELECT grp, source FROM {{p}}inbox ORDER BY grp, source LIMIT 1)
    UNION ALL
    SELECT n.grp, n.source FROM p JOIN {{p}}inbox n ON (n.grp, n.source, n.id) = (
        SELECT i.grp, i.source, i.id FROM {{p}}inbox i WHERE (i.grp, i.source) > (p.grp, p.source) ORDER BY i.grp, i.source, i.id LIMIT 1)
)
SELECT i.grp, i.source, i.id, i.state, i.enqueued_at, i.at
FROM p CROSS JOIN json_each(?1) x JOIN {{p}}inbox i ON i.grp = p.grp AND i.source = p.source AND i.id = x.value LIMIT ?2;

-- name: facts_kept
SELECT kind, id, coalesce(source, ''), coalesce(grp, ''), at, coalesce(attempt, 0), coalesce(code, ''), coalesce(detail, '')
FROM {{p}}fact WHERE id IN (SELECT value FROM json_each(?1)) AND id <> '' ORDER BY seq LIMIT ?2;

-- name: facts_since
-- Facts without an id are of the tables themselves. Of the sent log: begun, unlogged (a
-- relay has settled without it) and dropped (what was sent before may be gone). Of a group:
-- forgotten (its inbox may have forgotten what it handled before).
SELECT max(at) FROM {{p}}fact WHERE id = '' AND kind IN ('begun', 'unlogged', 'dropped');

-- name: log_begun
INSERT INTO {{p}}fact (kind, id) SELECT 'begun', ''
WHERE NOT EXISTS (SELECT 1 FROM {{p}}fact WHERE id = '' AND kind IN ('begun', 'unlogged', 'dropped'));

-- name: log_unlogged
-- A minute ahead, so that not each settlement writes a row.
INSERT INTO {{p}}fact (at, kind, id) SELECT {{now}} + 60000000, 'unlogged', ''
WHERE NOT EXISTS (SELECT 1 FROM {{p}}fact WHERE id = '' AND kind = 'unlogged' AND at > {{now}});

-- name: log_dropped
INSERT INTO {{p}}fact (at, kind, id)
SELECT max(sent_at) + 1, 'dropped', '' FROM {{p}}sent WHERE seq IN (SELECT value FROM json_each(?)) HAVING count(*) > 0;

-- name: log_withdrawn
-- That a message was withdrawn no other row tells, and it may have been published before.
INSERT INTO {{p}}fact (at, kind, id)
SELECT max(at) + 1, 'unlogged', '' FROM {{p}}fact WHERE at < {{now}} - ? AND kind = 'withdrawn' HAVING count(*) > 0;

-- name: keep_marks
-- Of the facts about the tables the last of each kind says all.
DELETE FROM {{p}}fact WHERE id = '' AND EXISTS (
    SELECT 1 FROM {{p}}fact n WHERE n.id = '' AND n.kind = {{p}}fact.kind AND n.grp IS {{p}}fact.grp AND n.at > {{p}}fact.at);

-- name: ids_waiting
-- The rows that facts_outbox, facts_held, facts_retry and facts_dead read, by their ids alone.
SELECT id FROM (
    SELECT id FROM {{p}}outbox
    WHERE id IN (SELECT value FROM json_each(?1)) OR correlation_id IN (SELECT value FROM json_each(?2)) OR ordering_key IN (SELECT value FROM json_each(?3))
        OR EXISTS (SELECT 1 FROM json_each(?4) k WHERE instr(json_extract(headers, '$."outlast-find"'), k.value))
    UNION
    SELECT id FROM {{p}}held
    WHERE id IN (SELECT value FROM json_each(?1)) OR correlation_id IN (SELECT value FROM json_each(?2)) OR ordering_key IN (SELECT value FROM json_each(?3))
        OR EXISTS (SELECT 1 FROM json_each(?4) k WHERE instr(json_extract(headers, '$."outlast-find"'), k.value))
    UNION
    SELECT id FROM {{p}}retry
    WHERE id IN (SELECT value FROM json_each(?1)) OR json_extract(envelope, '$.correlation_id') IN (SELECT value FROM json_each(?2))
        OR ordering_key IN (SELECT value FROM json_each(?3))
        OR EXISTS (SELECT 1 FROM json_each(envelope, '$.find') f WHERE f.value IN (SELECT value FROM json_each(?3)))
    UNION
    SELECT id FROM {{p}}dead
    WHERE id IN (SELECT value FROM json_each(?1)) OR json_extract(envelope, '$.correlation_id') IN (SELECT value FROM json_each(?2))
        OR ordering_key IN (SELECT value FROM json_each(?3))
        OR EXISTS (SELECT 1 FROM json_each(envelope, '$.find') f WHERE f.value IN (SELECT value FROM json_each(?3)))
) WHERE ?5 = '' OR id < ?5 ORDER BY id DESC LIMIT ?6;

-- name: ids_sent
SELECT DISTINCT id FROM {{p}}sent
WHERE seq IN (
    SELECT seq FROM {{p}}sent WHERE id IN (SELECT value FROM json_each(?1))
    UNION SELECT seq FROM {{p}}sent WHERE correlation_id IS NOT NULL AND correlation_id IN (SELECT value FROM json_each(?2))
    UNION SELECT seq FROM {{p}}sent WHERE ordering_key IS NOT NULL AND ordering_key IN (SELECT value FROM json_each(?3))
    UNION SELECT seq FROM {{p}}sent_key WHERE value IN (SELECT value FROM json_each(?3)))
    AND (?4 = '' OR id < ?4)
ORDER BY id DESC LIMIT ?5;

-- name: failures
-- Several groups may have been last seen at one time: their keys order them.
SELECT coalesce(fingerprint, ''), grp, type, reason, coalesce(error, ''), count(*), min(first_at), max(last_at)
FROM {{p}}dead WHERE ?1 = '' OR grp = ?1
GROUP BY 1, 2, 3 HAVING ?2 IS NULL OR max(last_at) < ?2
    OR max(last_at) = ?2 AND ?5 <> '' AND (coalesce(fingerprint, ''), grp, type) > (?4, ?5, ?6)
ORDER BY max(last_at) DESC, coalesce(fingerprint, ''), grp, type LIMIT ?3;

-- name: hear
INSERT INTO {{p}}hearer (grp, type) VALUES (?1, ?2)
ON CONFLICT (grp, type) DO UPDATE SET since = {{now}}, until = NULL WHERE until IS NOT NULL;

-- name: unhear
UPDATE {{p}}hearer SET until = {{now}} WHERE grp = ? AND type = ? AND until IS NULL;

-- name: hearers
SELECT h.grp, h.type, h.since, h.until, (SELECT max(f.at) FROM {{p}}fact f WHERE f.id = '' AND f.kind = 'forgotten' AND f.grp = h.grp)
FROM {{p}}hearer h ORDER BY h.grp, h.type;

-- name: forget
INSERT INTO {{p}}fact (at, kind, id, grp) SELECT {{now}} - ?2 + ?2 / 24, 'forgotten', '', ?1
WHERE NOT EXISTS (SELECT 1 FROM {{p}}fact WHERE id = '' AND kind = 'forgotten' AND grp = ?1 AND at >= {{now}} - ?2);

-- name: log_bytes
-- What the sent log takes, by a mean of its newest rows: SQLite counts no pages of a table cheaply.
SELECT count(*), coalesce(max(seq) - min(seq) + 1, 0) FROM (SELECT min(seq) AS seq FROM {{p}}sent UNION ALL SELECT max(seq) FROM {{p}}sent) WHERE seq IS NOT NULL;

-- name: keep_body
DELETE FROM {{p}}sent_body WHERE seq IN (
    SELECT b.seq FROM {{p}}sent_body b JOIN {{p}}sent s ON s.seq = b.seq
    WHERE s.sent_at < {{now}} - ?1
        AND (?2 = 0 OR EXISTS (SELECT 1 FROM {{p}}minute m WHERE m.minute = s.enqueued_at - s.enqueued_at % 60000000 AND m.state IN ('balanced', 'signed')))
    ORDER BY b.seq LIMIT ?3);

-- name: keep_old
SELECT s.seq FROM {{p}}sent s
WHERE s.sent_at < {{now}} - ?1 AND (s.deadline IS NULL OR s.deadline < {{now}})
    AND (?2 = 0 OR EXISTS (SELECT 1 FROM {{p}}minute m WHERE m.minute = s.enqueued_at - s.enqueued_at % 60000000 AND m.state IN ('balanced', 'signed')))
ORDER BY s.seq LIMIT ?3;

-- name: keep_due
SELECT count(*) FROM (SELECT 1 FROM {{p}}sent WHERE sent_at < {{now}} - ? LIMIT 1000);

-- name: drop_body
DELETE FROM {{p}}sent_body WHERE seq IN (SELECT value FROM json_each(?));

-- name: drop_key
DELETE FROM {{p}}sent_key WHERE (value, seq) IN (SELECT k.value, k.seq FROM json_each(?) x JOIN {{p}}sent_key k ON k.seq = x.value);

-- name: drop_sent
DELETE FROM {{p}}sent WHERE seq IN (SELECT value FROM json_each(?));

-- name: keep_facts
DELETE FROM {{p}}fact WHERE seq IN (SELECT seq FROM {{p}}fact WHERE at < {{now}} - ? AND id <> '' ORDER BY seq LIMIT ?);

-- name: closed
-- Read while no other writer can be at work, so that what is not there cannot come.
SELECT min({{now}}, coalesce((SELECT min(enqueued_at) FROM {{p}}outbox), {{now}}));

-- name: books_due
-- Minutes follow each other, so that only those behind the last one are new; earlier
-- ones that are not closed have a row, or held messages.
SELECT x.minute, (SELECT count(*) FROM {{p}}held h WHERE h.reason <> 'due' AND h.enqueued_at >= x.minute AND h.enqueued_at < x.minute + 60000000)
FROM (
    SELECT m.minute FROM {{p}}minute m WHERE m.state IN ('open', 'unbalanced') AND m.minute < ?1
    UNION
    SELECT s.enqueued_at - s.enqueued_at % 60000000 FROM {{p}}sent s
    WHERE s.enqueued_at >= (SELECT coalesce(max(minute) + 60000000, 0) FROM {{p}}minute) AND s.enqueued_at < ?1
    UNION
    SELECT h.enqueued_at - h.enqueued_at % 60000000 FROM {{p}}held h
    WHERE h.reason <> 'due' AND h.enqueued_at < ?1
        AND NOT EXISTS (SELECT 1 FROM {{p}}minute m WHERE m.minute = h.enqueued_at - h.enqueued_at % 60000000 AND m.state IN ('balanced', 'signed'))
) x ORDER BY 1 LIMIT ?2;

-- name: books_sent
SELECT id, type, fate FROM {{p}}sent WHERE enqueued_at >= ?1 AND enqueued_at < ?1 + 60000000;

-- name: books_seen
SELECT id FROM {{p}}inbox WHERE grp = ?1 AND source = ?2 AND enqueued_at >= ?3 AND enqueued_at < ?3 + 60000000;

-- name: books_known
SELECT i.id FROM json_each(?3) x JOIN {{p}}inbox i ON i.grp = ?1 AND i.source = ?2 AND i.id = x.value;

-- name: books_minute
INSERT INTO {{p}}minute (minute, state, sent) VALUES (?1, ?2, ?3)
ON CONFLICT (minute) DO UPDATE SET state = excluded.state, sent = excluded.sent, at = {{now}} WHERE state <> 'signed';

-- name: books_clear
DELETE FROM {{p}}book WHERE minute = ?;

-- name: books_line
INSERT INTO {{p}}book (minute, type, grp, sent, received, missing, more) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: books_minutes
SELECT minute, state, sent, at, coalesce(who, ''), coalesce(reason, '') FROM {{p}}minute
WHERE (?1 = '' OR state = ?1) AND (?2 IS NULL OR minute < ?2) ORDER BY minute DESC LIMIT ?3;

-- name: books_lines
SELECT type, grp, sent, coalesce(received, -1), missing, more FROM {{p}}book WHERE minute = ? ORDER BY type, grp;

-- name: books_sign
UPDATE {{p}}minute SET state = 'signed', at = {{now}}, who = ?2, reason = ?3 WHERE minute = ?1 AND state IN ('open', 'unbalanced');

-- name: books_reopen
UPDATE {{p}}minute SET state = 'open', at = {{now}}
WHERE state = 'balanced' AND minute >= ?1 AND (?2 IS NULL OR minute < ?2)
    AND minute >= coalesce((SELECT max(f.at) FROM {{p}}fact f WHERE f.id = '' AND f.kind = 'dropped'), 0);

-- name: resend_look
-- The newest sending of an id, and whether it may be sent again.
SELECT s.seq, CASE WHEN s.enqueued_at < {{now}} - ?2 THEN 'old' WHEN b.seq IS NULL THEN 'bodiless' ELSE 'sent' END
FROM {{p}}sent s LEFT JOIN {{p}}sent_body b ON b.seq = s.seq WHERE s.id = ?1 ORDER BY s.seq DESC LIMIT 1;

-- name: resend
INSERT INTO {{p}}outbox (id, type, kind, body, body_bytes, ordering_key, subject, content_type, data_schema, correlation_id, causation_id,
    trace_parent, trace_state, headers, exchange, routing_key, may_be_unheard, occurred_at, expires_at)
SELECT s.id, s.type, s.kind, b.body, b.body_bytes, s.ordering_key, b.subject, b.content_type, b.data_schema, coalesce(s.correlation_id, s.id), s.causation_id,
    s.trace_parent, b.trace_state, b.headers, s.exchange, s.routing_key, s.unheard, coalesce(b.occurred_at, s.enqueued_at), b.expires_at
FROM {{p}}sent s JOIN {{p}}sent_body b ON b.seq = s.seq WHERE s.seq = ?;

-- name: keep_books
SELECT EXISTS (SELECT 1 FROM {{p}}minute);

-- name: keep_open
-- A writer that set the time of its enqueue back, or a clock that was, leaves minutes
-- behind those that the books have passed: they are opened for them.
INSERT INTO {{p}}minute (minute, state, sent)
SELECT DISTINCT enqueued_at - enqueued_at % 60000000, 'open', 0 FROM {{p}}sent
WHERE sent_at < {{now}} - ? AND enqueued_at - enqueued_at % 60000000 < (SELECT max(minute) FROM {{p}}minute)
ON CONFLICT DO NOTHING;
