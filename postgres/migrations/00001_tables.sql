-- Outlast's tables for PostgreSQL 13 and newer.
--
-- They are a public contract: a program in any language enqueues with
--     INSERT INTO outlast_outbox (type, ordering_key, body) VALUES (...);
-- and everything but type and body has a default. Limits are CHECK constraints
-- whose names end in the field that they guard.
--
-- The hot table is outlast_outbox: rows come and go, none is updated, and its
-- primary key is its only index. What waits for longer is in outlast_held.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION {{t}}uuid7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
SET search_path = pg_catalog
AS $$
    -- 48 bits of Unix milliseconds over a random UUID, then the version bits.
    SELECT encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION {{t}}headers_ok(h jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog
AS $$
    SELECT jsonb_typeof(h) = 'object' AND CASE WHEN jsonb_typeof(h) = 'object' THEN (
        SELECT count(*) <= 128
            AND coalesce(sum(octet_length(key) + octet_length(value)), 0) <= 32768
            AND coalesce(bool_and(octet_length(key) BETWEEN 1 AND 128), true)
        FROM jsonb_each_text(h)) END
$$;
-- +goose StatementEnd

CREATE SEQUENCE {{t}}seq AS bigint CACHE 1;
COMMENT ON SEQUENCE {{t}}seq IS 'Orders messages at rest. CACHE 1 is needed for the order of a key; never reset it.';

CREATE TABLE {{t}}outbox (
    tx xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq bigint NOT NULL DEFAULT nextval('{{t}}seq'),
    id uuid NOT NULL DEFAULT {{t}}uuid7(),
    slot smallint NOT NULL GENERATED ALWAYS AS (get_byte(decode(md5(coalesce(ordering_key, id::text)), 'hex'), 0)) STORED,
    type text NOT NULL,
    kind text NOT NULL DEFAULT 'event',
    body text,
    body_bytes bytea,
    ordering_key text,
    subject text,
    content_type text,
    data_schema text,
    correlation_id text,
    causation_id text,
    trace_parent text,
    trace_state text,
    headers jsonb,
    exchange text,
    routing_key text,
    may_be_unheard boolean NOT NULL DEFAULT false,
    occurred_at timestamptz,
    due_at timestamptz,
    expires_at timestamptz,
    enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT {{p}}outbox_pkey PRIMARY KEY (slot, seq),
    CONSTRAINT {{p}}check_type CHECK (octet_length(type) <= 200 AND type ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$'),
    CONSTRAINT {{p}}check_kind CHECK (kind IN ('event', 'command')),
    CONSTRAINT {{p}}check_body CHECK (num_nonnulls(body, body_bytes) = 1 AND coalesce(octet_length(body), octet_length(body_bytes)) <= 16777216),
    CONSTRAINT {{p}}check_ordering_key CHECK (octet_length(ordering_key) <= 255 AND ordering_key !~ '[\x01-\x1f\x7f]'),
    CONSTRAINT {{p}}check_subject CHECK (octet_length(subject) <= 255 AND subject !~ '[\x01-\x1f\x7f]'),
    CONSTRAINT {{p}}check_content_type CHECK (octet_length(content_type) <= 255 AND content_type !~ '[\x01-\x1f\x7f]'),
    CONSTRAINT {{p}}check_data_schema CHECK (octet_length(data_schema) <= 255 AND data_schema !~ '[\x01-\x1f\x7f]'),
    CONSTRAINT {{p}}check_correlation_id CHECK (octet_length(correlation_id) <= 255 AND correlation_id !~ '[\x01-\x1f\x7f]'),
    CONSTRAINT {{p}}check_causation_id CHECK (octet_length(causation_id) <= 255 AND causation_id !~ '[\x01-\x1f\x7f]'),
    CONSTRAINT {{p}}check_trace_parent CHECK (octet_length(trace_parent) <= 55 AND trace_parent !~ '[\x01-\x1f\x7f]'),
    CONSTRAINT {{p}}check_trace_state CHECK (octet_length(trace_state) <= 512 AND trace_state !~ '[\x01-\x1f\x7f]'),
    CONSTRAINT {{p}}check_headers CHECK ({{t}}headers_ok(headers)),
    CONSTRAINT {{p}}check_exchange CHECK (octet_length(exchange) <= 200 AND exchange !~ '[\x01-\x1f\x7f]'),
    CONSTRAINT {{p}}check_routing_key CHECK (octet_length(routing_key) <= 200 AND routing_key !~ '[\x01-\x1f\x7f]')
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE {{t}}outbox IS 'Messages to be sent now. A relay deletes a row when the broker has confirmed and routed it.';
COMMENT ON COLUMN {{t}}outbox.tx IS 'The transaction that wrote the row. First column, so that it is known before seq is drawn; leave it to its default.';
COMMENT ON COLUMN {{t}}outbox.seq IS 'Order within a slot; leave it to its default.';
COMMENT ON COLUMN {{t}}outbox.id IS 'Names the message for ever; a UUIDv7 by default.';
COMMENT ON COLUMN {{t}}outbox.slot IS 'Unit that relays lease: first byte of md5 of the ordering key, or of the id.';
COMMENT ON COLUMN {{t}}outbox.type IS 'Contract with its major version, such as order.placed.v1; at most 200 bytes.';
COMMENT ON COLUMN {{t}}outbox.kind IS 'event or command.';
COMMENT ON COLUMN {{t}}outbox.body IS 'Body as text, usually JSON; may be empty. Exactly one of body and body_bytes is set; at most 16 MiB.';
COMMENT ON COLUMN {{t}}outbox.body_bytes IS 'Body as bytes, for what is not text.';
COMMENT ON COLUMN {{t}}outbox.ordering_key IS 'Messages of one key take effect in the order of their transactions; NULL: no order. At most 255 bytes.';
COMMENT ON COLUMN {{t}}outbox.subject IS 'What the message concerns, for people; at most 255 bytes.';
COMMENT ON COLUMN {{t}}outbox.content_type IS 'Media type of the body; NULL means application/json.';
COMMENT ON COLUMN {{t}}outbox.data_schema IS 'URI of the schema of the body.';
COMMENT ON COLUMN {{t}}outbox.correlation_id IS 'The flow that the message belongs to; NULL: it starts one.';
COMMENT ON COLUMN {{t}}outbox.causation_id IS 'The message whose handling wrote this one.';
COMMENT ON COLUMN {{t}}outbox.trace_parent IS 'W3C traceparent.';
COMMENT ON COLUMN {{t}}outbox.trace_state IS 'W3C tracestate.';
COMMENT ON COLUMN {{t}}outbox.headers IS 'A JSON object of texts: at most 128, 32 KiB together.';
COMMENT ON COLUMN {{t}}outbox.exchange IS 'Overrides the conventional exchange, for foreign receivers.';
COMMENT ON COLUMN {{t}}outbox.routing_key IS 'Overrides the conventional routing key.';
COMMENT ON COLUMN {{t}}outbox.may_be_unheard IS 'Settle the message even when no queue is bound to it.';
COMMENT ON COLUMN {{t}}outbox.occurred_at IS 'When the fact occurred; NULL: the time of the enqueue.';
COMMENT ON COLUMN {{t}}outbox.due_at IS 'Not sent before; NULL: at once.';
COMMENT ON COLUMN {{t}}outbox.expires_at IS 'Dropped and counted when not handled by then; NULL: never.';
COMMENT ON COLUMN {{t}}outbox.enqueued_at IS 'When the row was written, by the clock of the database; leave it to its default.';

CREATE TABLE {{t}}held (
    LIKE {{t}}outbox INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING COMMENTS,
    reason text NOT NULL,
    route_exchange text,
    route_type text,
    next_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    error text,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT {{p}}held_pkey PRIMARY KEY (slot, seq),
    CONSTRAINT {{p}}check_reason CHECK (reason IN ('due', 'backoff', 'refused', 'behind', 'unroutable', 'route'))
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX {{p}}held_id ON {{t}}held (id, seq);
CREATE INDEX {{p}}held_key ON {{t}}held (slot, ordering_key, seq) WHERE reason IN ('backoff', 'refused', 'behind');
CREATE INDEX {{p}}held_route ON {{t}}held (slot, route_exchange, route_type, seq) WHERE reason IN ('unroutable', 'route');
CREATE INDEX {{p}}held_next ON {{t}}held (slot, next_at) WHERE reason IN ('due', 'backoff');
CREATE INDEX {{p}}held_oldest ON {{t}}held (enqueued_at) WHERE reason <> 'due';
COMMENT ON TABLE {{t}}held IS 'Messages that cannot be sent now, with the reason.';
COMMENT ON COLUMN {{t}}held.reason IS 'due: until its time. backoff: failed by itself. refused: waits for a person. behind: an earlier row of its key is here. unroutable: no queue is bound. route: its route takes nothing.';
COMMENT ON COLUMN {{t}}held.route_exchange IS 'Exchange that it was to be published to.';
COMMENT ON COLUMN {{t}}held.route_type IS 'Routing key without its bucket.';
COMMENT ON COLUMN {{t}}held.next_at IS 'Next try; NULL: no time ends the wait.';
COMMENT ON COLUMN {{t}}held.attempts IS 'Failed tries so far.';
COMMENT ON COLUMN {{t}}held.error IS 'The last failure, for people.';
COMMENT ON COLUMN {{t}}held.held_at IS 'When it came here.';

CREATE TABLE {{t}}owner (
    scope text NOT NULL,
    owner text NOT NULL,
    expires_at timestamptz NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT {{p}}owner_pkey PRIMARY KEY (scope, owner)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100);
COMMENT ON TABLE {{t}}owner IS 'Owners of leases, alive while expires_at is ahead.';
COMMENT ON COLUMN {{t}}owner.scope IS 'What is shared out: the relays'' slots, a group''s partitions.';
COMMENT ON COLUMN {{t}}owner.owner IS 'A process.';
COMMENT ON COLUMN {{t}}owner.expires_at IS 'End of life unless renewed before; -infinity: others were told that it is over.';
COMMENT ON COLUMN {{t}}owner.since IS 'Start of this life.';

CREATE TABLE {{t}}slot (
    scope text NOT NULL,
    slot integer NOT NULL,
    owner text,
    epoch bigint NOT NULL DEFAULT 0,
    low_seq bigint NOT NULL DEFAULT 0,
    CONSTRAINT {{p}}slot_pkey PRIMARY KEY (scope, slot),
    -- A unique index makes epoch a key column: FOR KEY SHARE then waits for a takeover, but not for low_seq.
    CONSTRAINT {{p}}slot_epoch UNIQUE (scope, slot, epoch)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE {{t}}slot IS 'Leases: one row for each slot of a scope.';
COMMENT ON COLUMN {{t}}slot.scope IS 'See outlast_owner.';
COMMENT ON COLUMN {{t}}slot.slot IS 'Number, from 0.';
COMMENT ON COLUMN {{t}}slot.owner IS 'Who holds it while alive; NULL: nobody.';
COMMENT ON COLUMN {{t}}slot.epoch IS 'Raised whenever the lease changes hands; fences writers of the past.';
COMMENT ON COLUMN {{t}}slot.low_seq IS 'Nothing can appear in the outbox at or below this seq any more; it lags.';

CREATE TABLE {{t}}inbox (
    grp text NOT NULL,
    source text NOT NULL,
    id text NOT NULL,
    state text NOT NULL DEFAULT 'handled',
    hash bigint NOT NULL,
    enqueued_at timestamptz NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT {{p}}inbox_pkey PRIMARY KEY (grp, source, id),
    CONSTRAINT {{p}}check_state CHECK (state IN ('handled', 'retry', 'dead'))
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX {{p}}inbox_purge ON {{t}}inbox (grp, source, enqueued_at) WHERE state = 'handled';
COMMENT ON TABLE {{t}}inbox IS 'Every message that a group has seen, from first sight.';
COMMENT ON COLUMN {{t}}inbox.grp IS 'Group of subscribers.';
COMMENT ON COLUMN {{t}}inbox.source IS 'Service that wrote the message.';
COMMENT ON COLUMN {{t}}inbox.id IS 'Id of the message.';
COMMENT ON COLUMN {{t}}inbox.state IS 'handled, retry (it waits) or dead.';
COMMENT ON COLUMN {{t}}inbox.hash IS 'Of the content, to detect another message with the same id.';
COMMENT ON COLUMN {{t}}inbox.enqueued_at IS 'Of the producer.';
COMMENT ON COLUMN {{t}}inbox.at IS 'When the state was reached.';

CREATE TABLE {{t}}retry (
    seq bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 1),
    grp text NOT NULL,
    source text NOT NULL,
    id text NOT NULL,
    ordering_key text,
    ordered boolean NOT NULL DEFAULT false,
    type text NOT NULL,
    envelope jsonb NOT NULL,
    body bytea NOT NULL,
    hash bigint NOT NULL DEFAULT 0,
    reason text NOT NULL,
    error text,
    attempts integer NOT NULL DEFAULT 0,
    replays integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL,
    promoted boolean NOT NULL DEFAULT false,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT {{p}}retry_pkey PRIMARY KEY (seq),
    CONSTRAINT {{p}}retry_message UNIQUE (grp, source, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX {{p}}retry_next ON {{t}}retry (grp, type, next_at) WHERE reason <> 'behind' OR promoted OR NOT ordered;
CREATE INDEX {{p}}retry_key ON {{t}}retry (grp, ordering_key, seq) WHERE ordered;
COMMENT ON TABLE {{t}}retry IS 'Received messages that wait for a retry, or behind an earlier message of their key.';
COMMENT ON COLUMN {{t}}retry.seq IS 'Order in which they began to wait.';
COMMENT ON COLUMN {{t}}retry.grp IS 'Group of subscribers.';
COMMENT ON COLUMN {{t}}retry.ordered IS 'The group keeps the order of the key: only the first waiting message of a key may run.';
COMMENT ON COLUMN {{t}}retry.envelope IS 'Everything about the message but its body.';
COMMENT ON COLUMN {{t}}retry.reason IS 'failed, snoozed, unavailable, behind, unknown type or replay.';
COMMENT ON COLUMN {{t}}retry.attempts IS 'Failed tries so far.';
COMMENT ON COLUMN {{t}}retry.replays IS 'How often a person brought it back from the dead letters.';
COMMENT ON COLUMN {{t}}retry.next_at IS 'Not tried before.';
COMMENT ON COLUMN {{t}}retry.promoted IS 'A hint that the row became the first of its key; whether it is, the rows tell.';

CREATE TABLE {{t}}dead (
    seq bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 1),
    grp text NOT NULL,
    source text NOT NULL,
    id text NOT NULL,
    ordering_key text,
    ordered boolean NOT NULL DEFAULT false,
    type text NOT NULL,
    envelope jsonb NOT NULL,
    body bytea NOT NULL,
    hash bigint NOT NULL DEFAULT 0,
    reason text NOT NULL,
    error text,
    attempts integer NOT NULL DEFAULT 0,
    replays integer NOT NULL DEFAULT 0,
    fingerprint text,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT {{p}}dead_pkey PRIMARY KEY (seq),
    CONSTRAINT {{p}}dead_message UNIQUE (grp, source, id, hash)
);
CREATE INDEX {{p}}dead_group ON {{t}}dead (grp, seq);
COMMENT ON TABLE {{t}}dead IS 'Received messages that cannot succeed. They stay until a person acts.';
COMMENT ON COLUMN {{t}}dead.reason IS 'Why it was given up.';
COMMENT ON COLUMN {{t}}dead.fingerprint IS 'The same for failures of one cause.';

CREATE TABLE {{t}}suspect (
    grp text NOT NULL,
    source text NOT NULL,
    id text NOT NULL,
    count integer NOT NULL DEFAULT 1,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT {{p}}suspect_pkey PRIMARY KEY (grp, source, id)
);
COMMENT ON TABLE {{t}}suspect IS 'Messages that were in hand when a process died, with how often that was so.';

CREATE TABLE {{t}}instance (
    grp text NOT NULL,
    instance text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT {{p}}instance_pkey PRIMARY KEY (grp, instance)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100);
COMMENT ON TABLE {{t}}instance IS 'Processes of a group with their last sign of life; a clean shutdown deletes the row.';

CREATE TABLE {{t}}group (
    grp text NOT NULL,
    paused boolean NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    reason text,
    CONSTRAINT {{p}}group_pkey PRIMARY KEY (grp)
);
COMMENT ON TABLE {{t}}group IS 'Groups that an operator paused.';

CREATE TABLE {{t}}action (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    what text NOT NULL,
    target text NOT NULL,
    count integer NOT NULL,
    reason text,
    CONSTRAINT {{p}}action_pkey PRIMARY KEY (seq)
);
COMMENT ON TABLE {{t}}action IS 'What operators did, and why.';

CREATE TABLE {{t}}meta (
    key text NOT NULL,
    value text NOT NULL,
    CONSTRAINT {{p}}meta_pkey PRIMARY KEY (key)
);
COMMENT ON TABLE {{t}}meta IS 'Facts about this database: source is the service that owns the outbox.';

-- +goose Down
DROP TABLE {{t}}meta;
DROP TABLE {{t}}action;
DROP TABLE {{t}}group;
DROP TABLE {{t}}instance;
DROP TABLE {{t}}suspect;
DROP TABLE {{t}}dead;
DROP TABLE {{t}}retry;
DROP TABLE {{t}}inbox;
DROP TABLE {{t}}slot;
DROP TABLE {{t}}owner;
DROP TABLE {{t}}held;
DROP TABLE {{t}}outbox;
DROP SEQUENCE {{t}}seq;
DROP FUNCTION {{t}}headers_ok(jsonb);
DROP FUNCTION {{t}}uuid7();
