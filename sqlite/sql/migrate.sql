-- name: has_version
SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '{{p}}migrations';

-- name: version
SELECT coalesce(max(version), 0) FROM {{p}}migrations;

-- name: write_nothing
-- Needs the right to write, and changes nothing.
DELETE FROM {{p}}meta WHERE key = '';
