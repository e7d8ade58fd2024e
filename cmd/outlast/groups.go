package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

// checkGroup refuses a group of which the database has no trace: a misspelt name would
// be paused, and the group that was meant would go on.
func (d *database) checkGroup(ctx context.Context, op, group string) error {
	known, err := d.groups(ctx)
	if err != nil || slices.Contains(known, group) {
		return err
	}
	e := &outlast.Error{Op: op, Code: outlast.CodeNotFound,
		Err:  fmt.Errorf("the database knows no group %q; it knows none at all", group),
		Hint: "--force does it for a group that has not started yet"}
	if len(known) > 0 {
		e.Err = fmt.Errorf("the database knows no group %q; it knows %s", group, strings.Join(known, ", "))
	}
	return e
}

// groups returns the groups that left a trace: that run, hear a type, received a
// message, have one waiting or dead, or are paused.
func (d *database) groups(ctx context.Context) ([]string, error) {
	status, err := d.Operator().Status(ctx)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, g := range slices.Concat(status.Retry, status.Dead) {
		known = append(known, g.Group)
	}
	for _, g := range status.Groups {
		known = append(known, g.Group)
	}
	hearers, err := d.Journal().Hearers(ctx)
	if err != nil && outlast.CodeOf(err) != outlast.CodeSchema { // tracking may be missing
		return nil, err
	}
	for _, h := range hearers {
		known = append(known, h.Group)
	}
	received, err := d.receivers(ctx)
	if err != nil {
		return nil, &outlast.Error{Op: "list groups", Code: outlast.CodeOf(err), Err: err}
	}
	known = append(known, received...)
	slices.Sort(known)
	return slices.Compact(known), nil
}

// groupsIn asks for the groups of the instances and of the inbox. The inbox may be
// long: the recursion takes one step in its primary key for each group.
func groupsIn(ctx context.Context, db *sql.DB, prefix string, schema ...string) (groups []string, err error) {
	if prefix == "" {
		prefix = "outlast_"
	}
	table := func(name string) string { return pgx.Identifier(append(schema, prefix+name)).Sanitize() }
	rows, err := db.QueryContext(ctx, `
		WITH RECURSIVE g (grp) AS (
			SELECT min(grp) FROM `+table("inbox")+`
			UNION ALL
			SELECT (SELECT min(i.grp) FROM `+table("inbox")+` i WHERE i.grp > g.grp) FROM g WHERE g.grp IS NOT NULL
		)
		SELECT grp FROM g WHERE grp IS NOT NULL UNION SELECT grp FROM `+table("instance"))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var group string
		if err := rows.Scan(&group); err != nil {
			return nil, err
		}
		groups = append(groups, group)
	}
	return groups, rows.Err()
}
