-- Tracking, for PostgreSQL: the sent log, the facts beside it, and the books.
--
-- A release that does not know these tables works as before, and leaves no trace in
-- them. A newer one works without them, and tracks nothing.
--
-- Settling moves a row from the outbox into the sent log by one statement: what is
-- needed to find the message into outlast_sent (parts of 6 hours), the rest of it with
-- the body into outlast_sent_body (parts of one hour). Rows are only appended, and
-- parts are dropped whole. Parts are made by functions that run with the rights of
-- their owner, because relays need no right to create tables; they take no name that
-- is not a part of these two tables, and no caller who may not delete from them. Where
-- no part fits, rows go into the default one, and nothing fails.
--
-- The new index of the inbox is small, but the inbox is read once to make it, and
-- its writers wait meanwhile.

-- +goose Up
CREATE TABLE {{t}}sent (
    sent_at timestamptz NOT NULL,
    enqueued_at timestamptz NOT NULL,
    deadline timestamptz,
    id uuid NOT NULL,
    fate smallint NOT NULL,
    unheard boolean NOT NULL,
    type text NOT NULL,
    kind text,
    exchange text,
    routing_key text,
    ordering_key text,
    correlation_id text,
    causation_id text,
    trace_parent text,
    find jsonb
) PARTITION BY RANGE (sent_at);
CREATE INDEX {{p}}sent_id ON {{t}}sent (id);
CREATE INDEX {{p}}sent_flow ON {{t}}sent (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX {{p}}sent_ordering_key ON {{t}}sent (ordering_key) WHERE ordering_key IS NOT NULL;
CREATE INDEX {{p}}sent_enqueued ON {{t}}sent USING brin (enqueued_at) WITH (pages_per_range = 16);
CREATE TABLE {{t}}sent_default PARTITION OF {{t}}sent DEFAULT;
COMMENT ON TABLE {{t}}sent IS 'What has left the outbox: append only, dropped by partition.';
COMMENT ON COLUMN {{t}}sent.sent_at IS 'When it was settled, by the clock of the database.';
COMMENT ON COLUMN {{t}}sent.enqueued_at IS 'The books count it in the minute of this.';
COMMENT ON COLUMN {{t}}sent.deadline IS 'Every group should have handled it by then; NULL: the contract does not say.';
COMMENT ON COLUMN {{t}}sent.fate IS '0 sent, 1 unheard with leave, 2 expired, 3 withdrawn.';
COMMENT ON COLUMN {{t}}sent.unheard IS 'The contract allows that no group hears it.';
COMMENT ON COLUMN {{t}}sent.kind IS 'NULL: event.';
COMMENT ON COLUMN {{t}}sent.correlation_id IS 'The flow; NULL: the message began one, named by its id.';
COMMENT ON COLUMN {{t}}sent.find IS 'Business keys by name.';

CREATE TABLE {{t}}sent_key (
    sent_at timestamptz NOT NULL,
    id uuid NOT NULL,
    value text NOT NULL
) PARTITION BY RANGE (sent_at);
CREATE INDEX {{p}}sent_key_value ON {{t}}sent_key (value);
CREATE TABLE {{t}}sent_key_default PARTITION OF {{t}}sent_key DEFAULT;
COMMENT ON TABLE {{t}}sent_key IS 'Business keys of what was sent: one row for each value.';

CREATE TABLE {{t}}sent_body (
    sent_at timestamptz NOT NULL,
    enqueued_at timestamptz NOT NULL,
    id uuid NOT NULL,
    body text,
    body_bytes bytea,
    subject text,
    content_type text,
    data_schema text,
    trace_state text,
    headers jsonb,
    occurred_at timestamptz,
    expires_at timestamptz
) PARTITION BY RANGE (sent_at);
CREATE INDEX {{p}}sent_body_at ON {{t}}sent_body USING brin (sent_at) WITH (pages_per_range = 16);
CREATE TABLE {{t}}sent_body_default PARTITION OF {{t}}sent_body DEFAULT;
COMMENT ON TABLE {{t}}sent_body IS 'The rest of what was sent, for sending it again, until the books of its minute are balanced.';

CREATE TABLE {{t}}fact (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    id text NOT NULL,
    source text,
    grp text,
    attempt integer,
    code text,
    detail text,
    CONSTRAINT {{p}}fact_pkey PRIMARY KEY (seq)
);
CREATE INDEX {{p}}fact_id ON {{t}}fact (id);
CREATE INDEX {{p}}fact_at ON {{t}}fact USING brin (at) WITH (pages_per_range = 16);
COMMENT ON TABLE {{t}}fact IS 'What happened to messages and no other row tells: failed tries, and what people did. Append only.';
COMMENT ON COLUMN {{t}}fact.source IS 'Service that wrote the message; NULL: this one.';
COMMENT ON COLUMN {{t}}fact.grp IS 'Group; NULL: on the way out.';

CREATE INDEX {{p}}inbox_waiting ON {{t}}inbox (grp, source, enqueued_at) WHERE state <> 'handled';

CREATE TABLE {{t}}hearer (
    grp text NOT NULL,
    type text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    until timestamptz,
    CONSTRAINT {{p}}hearer_pkey PRIMARY KEY (grp, type)
);
COMMENT ON TABLE {{t}}hearer IS 'Groups of this database with the types that they hear, for the books of those who send them.';
COMMENT ON COLUMN {{t}}hearer.until IS 'A person ended it; NULL: it hears.';

CREATE TABLE {{t}}minute (
    minute timestamptz NOT NULL,
    state text NOT NULL,
    sent bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text,
    reason text,
    CONSTRAINT {{p}}minute_pkey PRIMARY KEY (minute),
    CONSTRAINT {{p}}check_minute CHECK (state IN ('open', 'balanced', 'unbalanced', 'signed'))
);
CREATE INDEX {{p}}minute_open ON {{t}}minute (minute) WHERE state IN ('open', 'unbalanced');
COMMENT ON TABLE {{t}}minute IS 'Books: what became of the messages enqueued in a minute. A minute without any has no row.';
COMMENT ON COLUMN {{t}}minute.state IS 'open: too early to say. balanced: every group has what it should. unbalanced: ids are missing. signed: a person took it as it is.';

CREATE TABLE {{t}}book (
    minute timestamptz NOT NULL,
    type text NOT NULL,
    grp text NOT NULL,
    sent bigint NOT NULL,
    received bigint,
    missing jsonb NOT NULL,
    more boolean NOT NULL DEFAULT false,
    CONSTRAINT {{p}}book_pkey PRIMARY KEY (minute, type, grp)
);
COMMENT ON TABLE {{t}}book IS 'Books: a line for each type and group of a minute.';
COMMENT ON COLUMN {{t}}book.received IS 'NULL: the database of the group could not be asked.';
COMMENT ON COLUMN {{t}}book.missing IS 'Ids that the group has not seen.';
COMMENT ON COLUMN {{t}}book.more IS 'More are missing than are named.';

-- +goose StatementBegin
CREATE FUNCTION {{t}}keep_ahead(ahead interval) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s'
AS $$
DECLARE
    parent text; width integer; start bigint; name text; made integer := 0;
BEGIN
    IF NOT has_table_privilege(session_user, '{{t}}sent', 'INSERT') THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for the sent log';
    END IF;
    FOR parent, width IN VALUES ('sent', 21600), ('sent_key', 21600), ('sent_body', 3600) LOOP
        start := floor(extract(epoch FROM clock_timestamp()) / width)::bigint * width;
        WHILE start <= extract(epoch FROM clock_timestamp() + least(ahead, interval '2 days')) LOOP
            name := '{{t}}' || parent || '_p' || to_char(to_timestamp(start) AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
            IF to_regclass(name) IS NULL THEN
                BEGIN
                    EXECUTE format('CREATE TABLE %s (LIKE {{t}}%s INCLUDING ALL)', name, parent);
                    EXECUTE format('ALTER TABLE {{t}}%s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
                        parent, name, to_timestamp(start), to_timestamp(start + width));
                    made := made + 1;
                EXCEPTION WHEN check_violation OR lock_not_available OR duplicate_table THEN
                    NULL; -- the default part has rows of that time, or there is too much to do: the next time
                END;
            END IF;
            start := start + width;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION {{t}}drop_part(part text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s'
AS $$
DECLARE
    found oid; parent oid;
BEGIN
    IF NOT has_table_privilege(session_user, '{{t}}sent', 'DELETE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for the sent log';
    END IF;
    SELECT i.inhrelid, i.inhparent INTO found, parent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent IN ('{{t}}sent'::regclass, '{{t}}sent_key'::regclass, '{{t}}sent_body'::regclass)
        AND c.relname = part AND part ~ '_p[0-9]{10}$';
    IF found IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %s', found::regclass);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;
-- +goose StatementEnd

SELECT {{t}}keep_ahead(interval '12 hours');

-- +goose Down
DROP FUNCTION {{t}}drop_part(text);
DROP FUNCTION {{t}}keep_ahead(interval);
DROP TABLE {{t}}book;
DROP TABLE {{t}}minute;
DROP TABLE {{t}}hearer;
DROP INDEX {{t}}inbox_waiting;
DROP TABLE {{t}}fact;
DROP TABLE {{t}}sent_body;
DROP TABLE {{t}}sent_key;
DROP TABLE {{t}}sent;
