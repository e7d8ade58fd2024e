-- One check of all limits, for PostgreSQL.
--
-- PostgreSQL reads the text of every CHECK constraint anew for each INSERT statement:
-- with one for each field, and a function that was called for rows without headers too,
-- they cost several times what the INSERT itself does. The limits are the same as
-- before, and so is the error of a row beyond them, which names the field as a
-- constraint of its own.
--
-- What is in the tables has passed the same limits and is not read again: that is why
-- the constraints are NOT VALID. They hold for all that is written.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION {{t}}limits_ok(of_table text, type text, kind text, body text, body_bytes bytea, ordering_key text,
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

ALTER TABLE {{t}}outbox
    DROP CONSTRAINT {{p}}check_type,
    DROP CONSTRAINT {{p}}check_kind,
    DROP CONSTRAINT {{p}}check_body,
    DROP CONSTRAINT {{p}}check_ordering_key,
    DROP CONSTRAINT {{p}}check_subject,
    DROP CONSTRAINT {{p}}check_content_type,
    DROP CONSTRAINT {{p}}check_data_schema,
    DROP CONSTRAINT {{p}}check_correlation_id,
    DROP CONSTRAINT {{p}}check_causation_id,
    DROP CONSTRAINT {{p}}check_trace_parent,
    DROP CONSTRAINT {{p}}check_trace_state,
    DROP CONSTRAINT {{p}}check_headers,
    DROP CONSTRAINT {{p}}check_exchange,
    DROP CONSTRAINT {{p}}check_routing_key,
    ADD CONSTRAINT {{p}}check_limits CHECK ({{t}}limits_ok('{{p}}outbox',
        type, kind, body, body_bytes, ordering_key, subject, content_type, data_schema,
        correlation_id, causation_id, trace_parent, trace_state, headers, exchange, routing_key)) NOT VALID;
ALTER TABLE {{t}}held
    DROP CONSTRAINT {{p}}check_type,
    DROP CONSTRAINT {{p}}check_kind,
    DROP CONSTRAINT {{p}}check_body,
    DROP CONSTRAINT {{p}}check_ordering_key,
    DROP CONSTRAINT {{p}}check_subject,
    DROP CONSTRAINT {{p}}check_content_type,
    DROP CONSTRAINT {{p}}check_data_schema,
    DROP CONSTRAINT {{p}}check_correlation_id,
    DROP CONSTRAINT {{p}}check_causation_id,
    DROP CONSTRAINT {{p}}check_trace_parent,
    DROP CONSTRAINT {{p}}check_trace_state,
    DROP CONSTRAINT {{p}}check_headers,
    DROP CONSTRAINT {{p}}check_exchange,
    DROP CONSTRAINT {{p}}check_routing_key,
    ADD CONSTRAINT {{p}}check_limits CHECK ({{t}}limits_ok('{{p}}held',
        type, kind, body, body_bytes, ordering_key, subject, content_type, data_schema,
        correlation_id, causation_id, trace_parent, trace_state, headers, exchange, routing_key)) NOT VALID;

-- +goose Down
ALTER TABLE {{t}}held
    DROP CONSTRAINT {{p}}check_limits,
    ADD CONSTRAINT {{p}}check_type CHECK (octet_length(type) <= 200 AND type ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$') NOT VALID,
    ADD CONSTRAINT {{p}}check_kind CHECK (kind IN ('event', 'command')) NOT VALID,
    ADD CONSTRAINT {{p}}check_body CHECK (num_nonnulls(body, body_bytes) = 1 AND coalesce(octet_length(body), octet_length(body_bytes)) <= 16777216) NOT VALID,
    ADD CONSTRAINT {{p}}check_ordering_key CHECK (octet_length(ordering_key) <= 255 AND ordering_key !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_subject CHECK (octet_length(subject) <= 255 AND subject !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_content_type CHECK (octet_length(content_type) <= 255 AND content_type !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_data_schema CHECK (octet_length(data_schema) <= 255 AND data_schema !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_correlation_id CHECK (octet_length(correlation_id) <= 255 AND correlation_id !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_causation_id CHECK (octet_length(causation_id) <= 255 AND causation_id !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_trace_parent CHECK (octet_length(trace_parent) <= 55 AND trace_parent !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_trace_state CHECK (octet_length(trace_state) <= 512 AND trace_state !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_headers CHECK ({{t}}headers_ok(headers)) NOT VALID,
    ADD CONSTRAINT {{p}}check_exchange CHECK (octet_length(exchange) <= 200 AND exchange !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_routing_key CHECK (octet_length(routing_key) <= 200 AND routing_key !~ '[\x01-\x1f\x7f]') NOT VALID;
ALTER TABLE {{t}}outbox
    DROP CONSTRAINT {{p}}check_limits,
    ADD CONSTRAINT {{p}}check_type CHECK (octet_length(type) <= 200 AND type ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$') NOT VALID,
    ADD CONSTRAINT {{p}}check_kind CHECK (kind IN ('event', 'command')) NOT VALID,
    ADD CONSTRAINT {{p}}check_body CHECK (num_nonnulls(body, body_bytes) = 1 AND coalesce(octet_length(body), octet_length(body_bytes)) <= 16777216) NOT VALID,
    ADD CONSTRAINT {{p}}check_ordering_key CHECK (octet_length(ordering_key) <= 255 AND ordering_key !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_subject CHECK (octet_length(subject) <= 255 AND subject !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_content_type CHECK (octet_length(content_type) <= 255 AND content_type !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_data_schema CHECK (octet_length(data_schema) <= 255 AND data_schema !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_correlation_id CHECK (octet_length(correlation_id) <= 255 AND correlation_id !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_causation_id CHECK (octet_length(causation_id) <= 255 AND causation_id !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_trace_parent CHECK (octet_length(trace_parent) <= 55 AND trace_parent !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_trace_state CHECK (octet_length(trace_state) <= 512 AND trace_state !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_headers CHECK ({{t}}headers_ok(headers)) NOT VALID,
    ADD CONSTRAINT {{p}}check_exchange CHECK (octet_length(exchange) <= 200 AND exchange !~ '[\x01-\x1f\x7f]') NOT VALID,
    ADD CONSTRAINT {{p}}check_routing_key CHECK (octet_length(routing_key) <= 200 AND routing_key !~ '[\x01-\x1f\x7f]') NOT VALID;
DROP FUNCTION {{t}}limits_ok;
