package main

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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

// groups returns the groups that left a trace.
func (d *database) groups(ctx context.Context) ([]string, error) {
	status, err := d.Operator().Status(ctx)
	if err != nil {
		return nil, err
	}
	all, err := d.knownGroups(ctx, status)
	known := make([]string, len(all))
	for i, g := range all {
		known[i] = g.Group
	}
	return known, err
}

// knownGroup is a group of which the database has a trace.
type knownGroup struct {
	Group  string `json:"group"`
	Paused bool   `json:"paused"`
	// Instances are those that have not ended in good order: they run, or were killed a
	// while ago (the record stays for ten minutes while others run). Quiet is the time since
	// the last sign of life of any of them.
	Instances int            `json:"instances"`
	Quiet     *time.Duration `json:"quiet_ns,omitempty"`
	Waiting   int            `json:"waiting"`
	Dead      int            `json:"dead"`
}

// knownGroups returns, by name, the groups that run, hear a type, received a message,
// have one waiting or dead, or are paused. With an error it returns those of the status.
func (d *database) knownGroups(ctx context.Context, status *outlast.StoreStatus) ([]knownGroup, error) {
	known := map[string]*knownGroup{}
	of := func(name string) *knownGroup {
		if known[name] == nil {
			known[name] = &knownGroup{Group: name}
		}
		return known[name]
	}
	for _, g := range status.Retry {
		of(g.Group).Waiting += g.Count
	}
	for _, g := range status.Dead {
		of(g.Group).Dead += g.Count
	}
	for _, g := range status.Groups {
		of(g.Group).Paused = true
	}
	err := d.addTraces(ctx, of)
	list := make([]knownGroup, 0, len(known))
	for _, name := range slices.Sorted(maps.Keys(known)) {
		list = append(list, *known[name])
	}
	return list, err
}

// addTraces adds the groups that hear a type, run, or received a message.
func (d *database) addTraces(ctx context.Context, of func(name string) *knownGroup) error {
	hearers, err := d.Journal().Hearers(ctx)
	if err != nil && outlast.CodeOf(err) != outlast.CodeSchema { // tracking may be missing
		return err
	}
	for _, h := range hearers {
		of(h.Group)
	}
	received, err := d.receivers(ctx)
	if err != nil {
		return &outlast.Error{Op: "list groups", Code: outlast.CodeOf(err), Err: err}
	}
	for _, r := range received {
		g := of(r.group)
		g.Instances = r.instances
		if r.instances > 0 {
			g.Quiet = &r.quiet
		}
	}
	return nil
}

// receiver is a group as its instances and its inbox tell.
type receiver struct {
	group     string
	instances int
	quiet     time.Duration
}

// Time since an instance gave a sign of life, in microseconds.
const (
	postgresQuiet = "(extract(epoch FROM clock_timestamp() - at) * 1000000)::bigint"
	sqliteQuiet   = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) - at"
)

// groupsIn asks for the groups of the instances and of the inbox. The inbox may be
// long: the recursion takes one step in its primary key for each group.
func groupsIn(ctx context.Context, db *sql.DB, quiet, prefix string, schema ...string) (groups []receiver, err error) {
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
		SELECT grp, sum(n), min(quiet) FROM (
			SELECT grp, 0 AS n, NULL AS quiet FROM g WHERE grp IS NOT NULL
			UNION ALL
			SELECT grp, 1, `+quiet+` FROM `+table("instance")+`) x
		GROUP BY grp`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r receiver
		var quiet sql.NullInt64
		if err := rows.Scan(&r.group, &r.instances, &quiet); err != nil {
			return nil, err
		}
		r.quiet = max(time.Duration(quiet.Int64)*time.Microsecond, 0)
		groups = append(groups, r)
	}
	return groups, rows.Err()
}
