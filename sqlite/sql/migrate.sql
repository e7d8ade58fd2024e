-- name: has_version
SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '{{p}}migrations';

-- name: version
SELECT coalesce(max(version), 0) FROM {{p}}migrations;
