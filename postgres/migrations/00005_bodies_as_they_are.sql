-- The sent log keeps bodies as they come, for PostgreSQL.
--
-- Who wrote the outbox row has had the server try to compress a long body, and what got
-- smaller stays so on its way into the sent log. What did not was tried once more there, at
-- some 40 MB/s, for each message. Nothing is rewritten; the parts that are there are locked
-- for a moment.

-- +goose Up
ALTER TABLE {{t}}sent_body ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN body_bytes SET STORAGE EXTERNAL;

-- +goose Down
ALTER TABLE {{t}}sent_body ALTER COLUMN body SET STORAGE EXTENDED, ALTER COLUMN body_bytes SET STORAGE EXTENDED;
