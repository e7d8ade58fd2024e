-- Tracking, for SQLite: the sent log, the facts beside it, and the books. Times are
-- as in the first migration.
--
-- A release that does not know these tables works as before, and leaves no trace in
-- them. A newer one works without them, and tracks nothing.

-- +goose Up
INSERT INTO {{p}}migrations (version) VALUES (2);

-- What has left the outbox: append only, and dropped by age and size, the oldest
-- first. The body goes earlier, when the books of its minute are balanced.
--   sent_at         when it was settled
--   enqueued_at     the books count it in the minute of this
--   deadline        every group should have handled it by then; NULL: the contract does not say
--   fate            0 sent, 1 unheard with leave, 2 expired, 3 withdrawn
--   correlation_id  the flow; NULL: the message began one, named by its id
--   find            business keys by name, a JSON object
CREATE TABLE {{p}}sent (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    sent_at INTEGER NOT NULL DEFAULT {{now}},
    enqueued_at INTEGER NOT NULL,
    deadline INTEGER,
    id TEXT NOT NULL,
    fate INTEGER NOT NULL,
    unheard INTEGER NOT NULL,
    type TEXT NOT NULL,
    kind TEXT NOT NULL,
    exchange TEXT,
    routing_key TEXT,
    ordering_key TEXT,
    correlation_id TEXT,
    causation_id TEXT,
    trace_parent TEXT,
    find TEXT
) STRICT;
CREATE INDEX {{p}}sent_id ON {{p}}sent (id);
CREATE INDEX {{p}}sent_flow ON {{p}}sent (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX {{p}}sent_ordering_key ON {{p}}sent (ordering_key) WHERE ordering_key IS NOT NULL;
CREATE INDEX {{p}}sent_enqueued ON {{p}}sent (enqueued_at);

-- Business keys of what was sent: one row for each value.
CREATE TABLE {{p}}sent_key (
    value TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (value, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX {{p}}sent_key_seq ON {{p}}sent_key (seq);

-- The rest of what was sent, for sending it again.
CREATE TABLE {{p}}sent_body (
    seq INTEGER PRIMARY KEY,
    body TEXT,
    body_bytes BLOB,
    subject TEXT,
    content_type TEXT,
    data_schema TEXT,
    trace_state TEXT,
    headers TEXT,
    occurred_at INTEGER,
    expires_at INTEGER
) STRICT;

-- What happened to messages and no other row tells: failed tries, and what people did.
-- source NULL: this service; grp NULL: on the way out.
CREATE TABLE {{p}}fact (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL DEFAULT {{now}},
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    source TEXT,
    grp TEXT,
    attempt INTEGER,
    code TEXT,
    detail TEXT
) STRICT;
CREATE INDEX {{p}}fact_id ON {{p}}fact (id);

CREATE INDEX {{p}}inbox_minute ON {{p}}inbox (grp, source, enqueued_at);

-- Groups of this database with the types that they hear, for the books of those who
-- send them. until: a person ended it; NULL: it hears.
CREATE TABLE {{p}}hearer (
    grp TEXT NOT NULL,
    type TEXT NOT NULL,
    since INTEGER NOT NULL DEFAULT {{now}},
    until INTEGER,
    PRIMARY KEY (grp, type)
) STRICT, WITHOUT ROWID;

-- Books: what became of the messages enqueued in a minute. A minute without any has
-- no row. open: too early to say; balanced: every group has what it should;
-- unbalanced: ids are missing; signed: a person took it as it is.
CREATE TABLE {{p}}minute (
    minute INTEGER PRIMARY KEY,
    state TEXT NOT NULL,
    sent INTEGER NOT NULL,
    at INTEGER NOT NULL DEFAULT {{now}},
    who TEXT,
    reason TEXT,
    CONSTRAINT check_minute CHECK (state IN ('open', 'balanced', 'unbalanced', 'signed'))
) STRICT;

-- A line of the books for each type and group of a minute. received NULL: the database
-- of the group could not be asked. missing: a JSON list of ids; more: not all are named.
CREATE TABLE {{p}}book (
    minute INTEGER NOT NULL,
    type TEXT NOT NULL,
    grp TEXT NOT NULL,
    sent INTEGER NOT NULL,
    received INTEGER,
    missing TEXT NOT NULL,
    more INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (minute, type, grp)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE {{p}}book;
DROP TABLE {{p}}minute;
DROP TABLE {{p}}hearer;
DROP INDEX {{p}}inbox_minute;
DROP TABLE {{p}}fact;
DROP TABLE {{p}}sent_body;
DROP TABLE {{p}}sent_key;
DROP TABLE {{p}}sent;
DELETE FROM {{p}}migrations WHERE version = 2;
