-- Fewer samples of large tables, for PostgreSQL.
--
-- ANALYZE reads 30,000 pages here and there in a table, however large it is. On a backlog of
-- millions of rows, and on a part of the sent log with as many, it ran about once a minute; a
-- disk that had much to write already did little else for ten to twenty seconds of it. No plan
-- on the outbox needs statistics, so that it is not analysed any more, and a part of the sent
-- log only when it has doubled. Nothing is rewritten; the tables are locked for a moment, and
-- nobody waits who reads or writes rows.

-- +goose Up
ALTER TABLE {{t}}outbox SET (autovacuum_analyze_threshold = 2147483647);

-- +goose StatementBegin
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT inhrelid::regclass FROM pg_inherits
        WHERE inhparent IN ('{{t}}sent'::regclass, '{{t}}sent_key'::regclass, '{{t}}sent_body'::regclass) LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_analyze_scale_factor = 1)', part);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION {{t}}keep_ahead(ahead interval) RETURNS integer
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
                    EXECUTE format('CREATE TABLE %s (LIKE {{t}}%s INCLUDING ALL) WITH (autovacuum_analyze_scale_factor = 1)', name, parent);
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

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION {{t}}keep_ahead(ahead interval) RETURNS integer
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
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT inhrelid::regclass FROM pg_inherits
        WHERE inhparent IN ('{{t}}sent'::regclass, '{{t}}sent_key'::regclass, '{{t}}sent_body'::regclass) LOOP
        EXECUTE format('ALTER TABLE %s RESET (autovacuum_analyze_scale_factor)', part);
    END LOOP;
END
$$;
-- +goose StatementEnd

ALTER TABLE {{t}}outbox SET (autovacuum_analyze_threshold = 50000);
