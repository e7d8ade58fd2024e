-- Outlast's tables for SQLite 3.38 and newer.
--
-- They are a public contract: a program in any language enqueues with
--     INSERT INTO outlast_outbox (type, ordering_key, body) VALUES (...);
-- and everything but type and body has a default. Limits are CHECK constraints
-- whose names end in the column that they guard.
--
-- All times are integers: microseconds since 1970-01-01 UTC by the clock of the
-- host, as SQLite reads it (in steps of a millisecond). To read one:
--     SELECT datetime(enqueued_at / 1000000, 'unixepoch') FROM outlast_outbox;
--
-- SQLite has one writer at a time, so seq is the order of the commits too.

-- +goose Up

-- What was applied; each migration adds its own row.
CREATE TABLE {{p}}migrations (
    version INTEGER PRIMARY KEY,
    applied_at INTEGER NOT NULL DEFAULT {{now}}
) STRICT;
INSERT INTO {{p}}migrations (version) VALUES (1);

-- Messages to be sent now. A relay deletes a row when the broker has confirmed and
-- routed it. seq never restarts (AUTOINCREMENT), so that a late repeat of a delete
-- cannot meet another row.
--   id              names the message for ever; a UUIDv7 by default
--   type            contract with its major version, such as order.placed.v1
--   kind            event or command
--   body            as text, usually JSON; exactly one of body and body_bytes is set; at most 16 MiB
--   ordering_key    messages of one key take effect in order; NULL: no order
--   content_type    NULL means application/json
--   headers         a JSON object of texts: at most 128, 32 KiB together
--   exchange, routing_key   override the conventional place, for foreign receivers
--   may_be_unheard  1: settle the message even when no queue is bound to it
--   occurred_at     when the fact occurred; NULL: the time of the enqueue
--   due_at          not sent before; NULL: at once
--   expires_at      dropped and counted when not handled by then; NULL: never
CREATE TABLE {{p}}outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL DEFAULT ({{uuid7}}),
    type TEXT NOT NULL,
    kind TEXT NOT NULL DEFAULT 'event',
    body TEXT,
    body_bytes BLOB,
    ordering_key TEXT,
    subject TEXT,
    content_type TEXT,
    data_schema TEXT,
    correlation_id TEXT,
    causation_id TEXT,
    trace_parent TEXT,
    trace_state TEXT,
    headers TEXT,
    exchange TEXT,
    routing_key TEXT,
    may_be_unheard INTEGER NOT NULL DEFAULT 0,
    occurred_at INTEGER,
    due_at INTEGER,
    expires_at INTEGER,
    enqueued_at INTEGER NOT NULL DEFAULT {{now}},
    CONSTRAINT check_id CHECK (length(id) = 36 AND id NOT GLOB '*[^0-9a-fA-F-]*' AND length(replace(id, '-', '')) = 32
        AND substr(id, 9, 1) || substr(id, 14, 1) || substr(id, 19, 1) || substr(id, 24, 1) = '----'),
    CONSTRAINT check_type CHECK (length(CAST(type AS BLOB)) BETWEEN 1 AND 200 AND type NOT GLOB '*[^A-Za-z0-9_.-]*' AND instr(type, char(0)) = 0
        AND type NOT GLOB '.*' AND type NOT GLOB '*.' AND type NOT GLOB '*..*'),
    CONSTRAINT check_kind CHECK (kind IN ('event', 'command')),
    CONSTRAINT check_body CHECK ((body IS NULL) <> (body_bytes IS NULL) AND length(coalesce(body_bytes, CAST(body AS BLOB))) <= 16777216),
    CONSTRAINT check_ordering_key CHECK (length(CAST(ordering_key AS BLOB)) <= 255 AND ordering_key NOT GLOB {{control}} AND instr(ordering_key, char(0)) = 0),
    CONSTRAINT check_subject CHECK (length(CAST(subject AS BLOB)) <= 255 AND subject NOT GLOB {{control}} AND instr(subject, char(0)) = 0),
    CONSTRAINT check_content_type CHECK (length(CAST(content_type AS BLOB)) <= 255 AND content_type NOT GLOB {{control}} AND instr(content_type, char(0)) = 0),
    CONSTRAINT check_data_schema CHECK (length(CAST(data_schema AS BLOB)) <= 255 AND data_schema NOT GLOB {{control}} AND instr(data_schema, char(0)) = 0),
    CONSTRAINT check_correlation_id CHECK (length(CAST(correlation_id AS BLOB)) <= 255 AND correlation_id NOT GLOB {{control}} AND instr(correlation_id, char(0)) = 0),
    CONSTRAINT check_causation_id CHECK (length(CAST(causation_id AS BLOB)) <= 255 AND causation_id NOT GLOB {{control}} AND instr(causation_id, char(0)) = 0),
    CONSTRAINT check_trace_parent CHECK (length(CAST(trace_parent AS BLOB)) <= 55 AND trace_parent NOT GLOB {{control}} AND instr(trace_parent, char(0)) = 0),
    CONSTRAINT check_trace_state CHECK (length(CAST(trace_state AS BLOB)) <= 512 AND trace_state NOT GLOB {{control}} AND instr(trace_state, char(0)) = 0),
    CONSTRAINT check_headers CHECK (headers IS NULL OR json_valid(headers) AND json_type(headers) = 'object' AND length(CAST(headers AS BLOB)) <= 262144),
    CONSTRAINT check_exchange CHECK (length(CAST(exchange AS BLOB)) <= 200 AND exchange NOT GLOB {{control}} AND instr(exchange, char(0)) = 0),
    CONSTRAINT check_routing_key CHECK (length(CAST(routing_key AS BLOB)) <= 200 AND routing_key NOT GLOB {{control}} AND instr(routing_key, char(0)) = 0),
    CONSTRAINT check_may_be_unheard CHECK (may_be_unheard IN (0, 1))
) STRICT;
CREATE INDEX {{p}}outbox_id ON {{p}}outbox (id);
CREATE INDEX {{p}}outbox_oldest ON {{p}}outbox (enqueued_at, type);

-- Messages that cannot be sent now, with the reason. seq is the one that the row had
-- in the outbox; the two tables never share a number.
--   reason   due: until its time. backoff: failed by itself. refused: waits for a
--            person. behind: an earlier row of its key is here. unroutable: no queue
--            is bound. route: its route takes nothing.
--   next_at  next try; NULL: no time ends the wait
CREATE TABLE {{p}}held (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL DEFAULT ({{uuid7}}),
    type TEXT NOT NULL,
    kind TEXT NOT NULL DEFAULT 'event',
    body TEXT,
    body_bytes BLOB,
    ordering_key TEXT,
    subject TEXT,
    content_type TEXT,
    data_schema TEXT,
    correlation_id TEXT,
    causation_id TEXT,
    trace_parent TEXT,
    trace_state TEXT,
    headers TEXT,
    exchange TEXT,
    routing_key TEXT,
    may_be_unheard INTEGER NOT NULL DEFAULT 0,
    occurred_at INTEGER,
    due_at INTEGER,
    expires_at INTEGER,
    enqueued_at INTEGER NOT NULL DEFAULT {{now}},
    reason TEXT NOT NULL,
    route_exchange TEXT,
    route_type TEXT,
    next_at INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    held_at INTEGER NOT NULL DEFAULT {{now}},
    CONSTRAINT check_id CHECK (length(id) = 36 AND id NOT GLOB '*[^0-9a-fA-F-]*' AND length(replace(id, '-', '')) = 32
        AND substr(id, 9, 1) || substr(id, 14, 1) || substr(id, 19, 1) || substr(id, 24, 1) = '----'),
    CONSTRAINT check_type CHECK (length(CAST(type AS BLOB)) BETWEEN 1 AND 200 AND type NOT GLOB '*[^A-Za-z0-9_.-]*' AND instr(type, char(0)) = 0
        AND type NOT GLOB '.*' AND type NOT GLOB '*.' AND type NOT GLOB '*..*'),
    CONSTRAINT check_kind CHECK (kind IN ('event', 'command')),
    CONSTRAINT check_body CHECK ((body IS NULL) <> (body_bytes IS NULL) AND length(coalesce(body_bytes, CAST(body AS BLOB))) <= 16777216),
    CONSTRAINT check_ordering_key CHECK (length(CAST(ordering_key AS BLOB)) <= 255 AND ordering_key NOT GLOB {{control}} AND instr(ordering_key, char(0)) = 0),
    CONSTRAINT check_subject CHECK (length(CAST(subject AS BLOB)) <= 255 AND subject NOT GLOB {{control}} AND instr(subject, char(0)) = 0),
    CONSTRAINT check_content_type CHECK (length(CAST(content_type AS BLOB)) <= 255 AND content_type NOT GLOB {{control}} AND instr(content_type, char(0)) = 0),
    CONSTRAINT check_data_schema CHECK (length(CAST(data_schema AS BLOB)) <= 255 AND data_schema NOT GLOB {{control}} AND instr(data_schema, char(0)) = 0),
    CONSTRAINT check_correlation_id CHECK (length(CAST(correlation_id AS BLOB)) <= 255 AND correlation_id NOT GLOB {{control}} AND instr(correlation_id, char(0)) = 0),
    CONSTRAINT check_causation_id CHECK (length(CAST(causation_id AS BLOB)) <= 255 AND causation_id NOT GLOB {{control}} AND instr(causation_id, char(0)) = 0),
    CONSTRAINT check_trace_parent CHECK (length(CAST(trace_parent AS BLOB)) <= 55 AND trace_parent NOT GLOB {{control}} AND instr(trace_parent, char(0)) = 0),
    CONSTRAINT check_trace_state CHECK (length(CAST(trace_state AS BLOB)) <= 512 AND trace_state NOT GLOB {{control}} AND instr(trace_state, char(0)) = 0),
    CONSTRAINT check_headers CHECK (headers IS NULL OR json_valid(headers) AND json_type(headers) = 'object' AND length(CAST(headers AS BLOB)) <= 262144),
    CONSTRAINT check_exchange CHECK (length(CAST(exchange AS BLOB)) <= 200 AND exchange NOT GLOB {{control}} AND instr(exchange, char(0)) = 0),
    CONSTRAINT check_routing_key CHECK (length(CAST(routing_key AS BLOB)) <= 200 AND routing_key NOT GLOB {{control}} AND instr(routing_key, char(0)) = 0),
    CONSTRAINT check_may_be_unheard CHECK (may_be_unheard IN (0, 1)),
    CONSTRAINT check_reason CHECK (reason IN ('due', 'backoff', 'refused', 'behind', 'unroutable', 'route'))
) STRICT;
CREATE INDEX {{p}}held_id ON {{p}}held (id);
CREATE INDEX {{p}}held_key ON {{p}}held (ordering_key, seq) WHERE reason IN ('backoff', 'refused', 'behind');
CREATE INDEX {{p}}held_route ON {{p}}held (route_exchange, route_type, reason, seq) WHERE reason IN ('unroutable', 'route');
CREATE INDEX {{p}}held_next ON {{p}}held (next_at) WHERE reason IN ('due', 'backoff');
CREATE INDEX {{p}}held_oldest ON {{p}}held (enqueued_at) WHERE reason <> 'due';
CREATE INDEX {{p}}held_status ON {{p}}held (type, reason, held_at);

-- A row with a due time ahead waits among the held from the start, whoever wrote
-- it; its number comes from the outbox, so that it is unique.
-- +goose StatementBegin
CREATE TRIGGER {{p}}outbox_due AFTER INSERT ON {{p}}outbox WHEN NEW.due_at > {{now}}
BEGIN
    INSERT INTO {{p}}held (seq, id, type, kind, body, body_bytes, ordering_key, subject, content_type, data_schema,
        correlation_id, causation_id, trace_parent, trace_state, headers, exchange, routing_key,
        may_be_unheard, occurred_at, due_at, expires_at, enqueued_at, reason, next_at)
    SELECT seq, id, type, kind, body, body_bytes, ordering_key, subject, content_type, data_schema,
        correlation_id, causation_id, trace_parent, trace_state, headers, exchange, routing_key,
        may_be_unheard, occurred_at, due_at, expires_at, enqueued_at, 'due', due_at
    FROM {{p}}outbox WHERE seq = NEW.seq;
    DELETE FROM {{p}}outbox WHERE seq = NEW.seq;
END;
-- +goose StatementEnd

-- Owners of leases, alive while expires_at is ahead. An expired row stays for a day,
-- so that its owner learns what happened.
CREATE TABLE {{p}}owner (
    scope TEXT NOT NULL,
    owner TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (scope, owner)
) STRICT, WITHOUT ROWID;

-- Leases: one row for each slot of a scope that was ever taken. epoch rises whenever
-- the lease is taken anew and fences writers of the past. SQLite has one slot for
-- the relays; a group's partitions may be more.
CREATE TABLE {{p}}slot (
    scope TEXT NOT NULL,
    slot INTEGER NOT NULL,
    owner TEXT,
    epoch INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, slot)
) STRICT, WITHOUT ROWID;

-- Every message that a group has seen, from first sight. hash detects another
-- message with the same source and id.
CREATE TABLE {{p}}inbox (
    grp TEXT NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'handled',
    hash INTEGER NOT NULL,
    enqueued_at INTEGER NOT NULL,
    at INTEGER NOT NULL DEFAULT {{now}},
    PRIMARY KEY (grp, source, id),
    CONSTRAINT check_state CHECK (state IN ('handled', 'retry', 'dead'))
) STRICT, WITHOUT ROWID;
CREATE INDEX {{p}}inbox_purge ON {{p}}inbox (grp, source, at, enqueued_at) WHERE state = 'handled';

-- Received messages that wait for a retry, or behind an earlier message of their
-- key. seq is the order in which they began to wait. envelope is a JSON object.
CREATE TABLE {{p}}retry (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    grp TEXT NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    ordering_key TEXT,
    ordered INTEGER NOT NULL DEFAULT 0,
    type TEXT NOT NULL,
    envelope TEXT NOT NULL,
    body BLOB NOT NULL,
    hash INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL,
    error TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    replays INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL,
    first_at INTEGER NOT NULL DEFAULT {{now}},
    last_at INTEGER NOT NULL DEFAULT {{now}},
    UNIQUE (grp, source, id)
) STRICT;
CREATE INDEX {{p}}retry_next ON {{p}}retry (grp, next_at);
CREATE INDEX {{p}}retry_key ON {{p}}retry (grp, ordering_key, seq) WHERE ordered = 1;
CREATE INDEX {{p}}retry_status ON {{p}}retry (grp, type, first_at);

-- Received messages that cannot succeed. They stay until a person acts.
CREATE TABLE {{p}}dead (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    grp TEXT NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    ordering_key TEXT,
    ordered INTEGER NOT NULL DEFAULT 0,
    type TEXT NOT NULL,
    envelope TEXT NOT NULL,
    body BLOB NOT NULL,
    hash INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL,
    error TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    replays INTEGER NOT NULL DEFAULT 0,
    fingerprint TEXT,
    first_at INTEGER NOT NULL DEFAULT {{now}},
    last_at INTEGER NOT NULL DEFAULT {{now}},
    UNIQUE (grp, source, id, hash)
) STRICT;
CREATE INDEX {{p}}dead_status ON {{p}}dead (grp, type, last_at);

-- Messages that were in hand when a process died, with how often that was so.
CREATE TABLE {{p}}suspect (
    grp TEXT NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    count INTEGER NOT NULL DEFAULT 1,
    at INTEGER NOT NULL DEFAULT {{now}},
    PRIMARY KEY (grp, source, id)
) STRICT, WITHOUT ROWID;

-- Processes of a group with their last sign of life; a clean shutdown deletes the row.
CREATE TABLE {{p}}instance (
    grp TEXT NOT NULL,
    instance TEXT NOT NULL,
    at INTEGER NOT NULL DEFAULT {{now}},
    PRIMARY KEY (grp, instance)
) STRICT, WITHOUT ROWID;

-- Groups that an operator paused.
CREATE TABLE {{p}}group (
    grp TEXT NOT NULL PRIMARY KEY,
    paused INTEGER NOT NULL,
    since INTEGER NOT NULL DEFAULT {{now}},
    who TEXT NOT NULL,
    reason TEXT
) STRICT, WITHOUT ROWID;

-- What operators did, and why.
CREATE TABLE {{p}}action (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL DEFAULT {{now}},
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    target TEXT NOT NULL,
    count INTEGER NOT NULL,
    reason TEXT
) STRICT;

-- Facts about this database: source is the service that owns the outbox.
CREATE TABLE {{p}}meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE {{p}}meta;
DROP TABLE {{p}}action;
DROP TABLE {{p}}group;
DROP TABLE {{p}}instance;
DROP TABLE {{p}}suspect;
DROP TABLE {{p}}dead;
DROP TABLE {{p}}retry;
DROP TABLE {{p}}inbox;
DROP TABLE {{p}}slot;
DROP TABLE {{p}}owner;
DROP TABLE {{p}}held;
DROP TABLE {{p}}outbox;
DROP TABLE {{p}}migrations;
