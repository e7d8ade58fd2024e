-- The collector's own tables, on PostgreSQL and on SQLite alike. Nothing here is the
-- truth: all of it was read from the databases of the services, and may be wiped.
--
-- Times are microseconds since 1970, by the clock of the collector unless a column says
-- otherwise. Bodies and users' headers are never here.

-- +goose Up
CREATE TABLE {{t}}migrations (
    version integer NOT NULL PRIMARY KEY
);
INSERT INTO {{t}}migrations (version) VALUES (1);

-- The databases that are asked.
--   name           as it is shown, without user and secrets
--   answered_at    its last whole answer; 0: it never gave one
--   unknown        why it did not answer the last time; empty: it did
--   unknown_since  since when; 0: it answers
--   status         what waited when it last answered, JSON
--   hearers        which of its groups hear what, JSON
CREATE TABLE {{t}}place (
    name text NOT NULL PRIMARY KEY,
    service text NOT NULL,
    tracked integer NOT NULL,
    answered_at bigint NOT NULL,
    unknown text NOT NULL,
    unknown_since bigint NOT NULL,
    status text NOT NULL,
    hearers text NOT NULL
);

-- How far each kind of reading has come in each database. The row of no place counts how
-- often everything was wiped: a round that began before a wipe writes nothing after it.
CREATE TABLE {{t}}cursor (
    place text NOT NULL,
    kind text NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (place, kind)
);
INSERT INTO {{t}}cursor (place, kind, position) VALUES ('', 'wiped', 0);

-- A message that is kept here.
--   why       why it is: dead, missing, held, waiting, pending, or sample (of flows)
--   open      1: something is still to happen to it, so that it is asked for again
--   since     when it was enqueued, by its sender's database, or else when it was first heard of
--   asked_at  when the databases were last asked for it
--   bytes     what its facts take
CREATE TABLE {{t}}message (
    id text NOT NULL PRIMARY KEY,
    flow text NOT NULL,
    type text NOT NULL,
    source text NOT NULL,
    why text NOT NULL,
    open integer NOT NULL,
    since bigint NOT NULL,
    asked_at bigint NOT NULL,
    bytes bigint NOT NULL
);
CREATE INDEX {{p}}message_flow ON {{t}}message (flow);
CREATE INDEX {{p}}message_asked ON {{t}}message (asked_at) WHERE open = 1;
CREATE INDEX {{p}}message_since ON {{t}}message (since, id);

-- What one database said of a message when it last answered, all of it: a JSON list.
CREATE TABLE {{t}}fact (
    id text NOT NULL,
    place text NOT NULL,
    asked_at bigint NOT NULL,
    facts text NOT NULL,
    PRIMARY KEY (id, place)
);

-- Business keys and ordering keys.
CREATE TABLE {{t}}key (
    value text NOT NULL,
    id text NOT NULL,
    PRIMARY KEY (value, id)
);
CREATE INDEX {{p}}key_id ON {{t}}key (id);

-- +goose Down
DROP TABLE {{t}}key;
DROP TABLE {{t}}fact;
DROP TABLE {{t}}message;
DROP TABLE {{t}}cursor;
DROP TABLE {{t}}place;
DROP TABLE {{t}}migrations;
