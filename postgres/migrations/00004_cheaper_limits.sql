-- The check of all limits, cheaper, for PostgreSQL.
--
-- The limits are the same, and so is the error. Setting search_path at every call was a
-- third of what the check cost, so that every name in it is qualified instead: no schema
-- of a caller's search_path is looked into. And one expression decides; which limit was
-- broken is asked only of a row that breaks one. Nothing is locked, and no row is read.

-- +goose Up

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION {{t}}limits_ok(of_table text, type text, kind text, body text, body_bytes bytea, ordering_key text,
    subject text, content_type text, data_schema text, correlation_id text, causation_id text,
    trace_parent text, trace_state text, headers jsonb, exchange text, routing_key text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    beyond text;
BEGIN
    IF pg_catalog.octet_length(type) OPERATOR(pg_catalog.<=) 200
        AND type OPERATOR(pg_catalog.~) '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$'
        AND (kind OPERATOR(pg_catalog.=) 'event' OR kind OPERATOR(pg_catalog.=) 'command')
        AND pg_catalog.num_nonnulls(body, body_bytes) OPERATOR(pg_catalog.=) 1
        AND coalesce(pg_catalog.octet_length(body), pg_catalog.octet_length(body_bytes)) OPERATOR(pg_catalog.<=) 16777216
        AND coalesce(greatest(pg_catalog.octet_length(ordering_key), pg_catalog.octet_length(subject),
            pg_catalog.octet_length(content_type), pg_catalog.octet_length(data_schema),
            pg_catalog.octet_length(correlation_id), pg_catalog.octet_length(causation_id)), 0) OPERATOR(pg_catalog.<=) 255
        AND coalesce(pg_catalog.octet_length(trace_parent), 0) OPERATOR(pg_catalog.<=) 55
        AND coalesce(pg_catalog.octet_length(trace_state), 0) OPERATOR(pg_catalog.<=) 512
        AND coalesce(greatest(pg_catalog.octet_length(exchange), pg_catalog.octet_length(routing_key)), 0) OPERATOR(pg_catalog.<=) 200
        AND pg_catalog.concat(ordering_key, subject, content_type, data_schema, correlation_id, causation_id,
            trace_parent, trace_state, exchange, routing_key) OPERATOR(pg_catalog.!~) '[\x01-\x1f\x7f]'
        AND (headers IS NULL OR {{t}}headers_ok(headers))
    THEN
        RETURN true;
    END IF;
    SELECT l.field INTO beyond FROM (VALUES
        (1, 'type', type, 200), (4, 'ordering_key', ordering_key, 255), (5, 'subject', subject, 255),
        (6, 'content_type', content_type, 255), (7, 'data_schema', data_schema, 255),
        (8, 'correlation_id', correlation_id, 255), (9, 'causation_id', causation_id, 255),
        (10, 'trace_parent', trace_parent, 55), (11, 'trace_state', trace_state, 512),
        (13, 'exchange', exchange, 200), (14, 'routing_key', routing_key, 200),
        (2, 'kind', CASE WHEN kind OPERATOR(pg_catalog.=) 'event' OR kind OPERATOR(pg_catalog.=) 'command' THEN '' ELSE kind END, 0),
        (3, 'body', CASE WHEN pg_catalog.num_nonnulls(body, body_bytes) OPERATOR(pg_catalog.<>) 1
            OR coalesce(pg_catalog.octet_length(body), pg_catalog.octet_length(body_bytes)) OPERATOR(pg_catalog.>) 16777216 THEN 'x' END, 0),
        (12, 'headers', CASE WHEN headers IS NOT NULL AND NOT {{t}}headers_ok(headers) THEN 'x' END, 0)
    ) AS l(place, field, given, most)
    WHERE pg_catalog.octet_length(l.given) OPERATOR(pg_catalog.>) l.most
        OR l.given OPERATOR(pg_catalog.~) '[\x01-\x1f\x7f]'
        OR l.field OPERATOR(pg_catalog.=) 'type' AND l.given OPERATOR(pg_catalog.!~) '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$'
    ORDER BY l.place LIMIT 1;
    IF beyond IS NULL THEN
        RETURN true; -- a NULL that a column itself refuses
    END IF;
    beyond := pg_catalog.concat('{{p}}check_', beyond);
    RAISE check_violation USING TABLE = of_table, CONSTRAINT = beyond,
        MESSAGE = pg_catalog.format('new row for relation "%s" violates check constraint "%s"', of_table, beyond);
END
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION {{t}}limits_ok(of_table text, type text, kind text, body text, body_bytes bytea, ordering_key text,
    subject text, content_type text, data_schema text, correlation_id text, causation_id text,
    trace_parent text, trace_state text, headers jsonb, exchange text, routing_key text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog
AS $$
DECLARE
    -- One expression, which plpgsql evaluates without a query.
    beyond text := CASE
        WHEN octet_length(type) > 200 OR type !~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' THEN 'type'
        WHEN kind NOT IN ('event', 'command') THEN 'kind'
        WHEN num_nonnulls(body, body_bytes) <> 1 OR coalesce(octet_length(body), octet_length(body_bytes)) > 16777216 THEN 'body'
        WHEN octet_length(ordering_key) > 255 OR ordering_key ~ '[\x01-\x1f\x7f]' THEN 'ordering_key'
        WHEN octet_length(subject) > 255 OR subject ~ '[\x01-\x1f\x7f]' THEN 'subject'
        WHEN octet_length(content_type) > 255 OR content_type ~ '[\x01-\x1f\x7f]' THEN 'content_type'
        WHEN octet_length(data_schema) > 255 OR data_schema ~ '[\x01-\x1f\x7f]' THEN 'data_schema'
        WHEN octet_length(correlation_id) > 255 OR correlation_id ~ '[\x01-\x1f\x7f]' THEN 'correlation_id'
        WHEN octet_length(causation_id) > 255 OR causation_id ~ '[\x01-\x1f\x7f]' THEN 'causation_id'
        WHEN octet_length(trace_parent) > 55 OR trace_parent ~ '[\x01-\x1f\x7f]' THEN 'trace_parent'
        WHEN octet_length(trace_state) > 512 OR trace_state ~ '[\x01-\x1f\x7f]' THEN 'trace_state'
        WHEN headers IS NOT NULL AND NOT {{t}}headers_ok(headers) THEN 'headers'
        WHEN octet_length(exchange) > 200 OR exchange ~ '[\x01-\x1f\x7f]' THEN 'exchange'
        WHEN octet_length(routing_key) > 200 OR routing_key ~ '[\x01-\x1f\x7f]' THEN 'routing_key'
        END;
BEGIN
    IF beyond IS NOT NULL THEN
        beyond := '{{p}}check_' || beyond;
        RAISE check_violation USING TABLE = of_table, CONSTRAINT = beyond,
            MESSAGE = format('new row for relation "%s" violates check constraint "%s"', of_table, beyond);
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd
