-- Which messages are past their deadline, for a gauge that is read often.
--   overdue  1: it was at asked_at, by what the databases said then

-- +goose Up
ALTER TABLE {{t}}message ADD COLUMN overdue integer NOT NULL DEFAULT 0;
CREATE INDEX {{p}}message_overdue ON {{t}}message (source) WHERE overdue = 1 AND open = 1;
INSERT INTO {{t}}migrations (version) VALUES (2);

-- +goose Down
DROP INDEX {{t}}message_overdue;
ALTER TABLE {{t}}message DROP COLUMN overdue;
DELETE FROM {{t}}migrations WHERE version = 2;
