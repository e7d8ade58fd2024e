package postgres

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/sqlfile"
)

// role is one of the database roles that share out the work on a service's tables.
type role struct {
	name   string
	about  string // for people, in the printed SQL
	grants []grant
}

// grant is rights on one table or sequence. Columns narrow them.
type grant struct {
	object   string
	rights   []string
	columns  []string
	tracking bool // of what is recorded beside the work, which goes on without it
}

func on(object string, rights ...string) grant { return grant{object: object, rights: rights} }

// of narrows a grant to columns.
func (g grant) of(columns ...string) grant {
	g.columns = columns
	return g
}

// Objects that the roles have rights on. A new table belongs into this list, and its
// rights into the roles below: a test compares both with the database.
var roleTables = []string{
	"outbox", "held", "owner", "slot", "inbox", "retry", "dead", "suspect", "instance", "group", "action", "meta", "migrations",
	"sent", "sent_key", "sent_body", "sent_default", "sent_key_default", "sent_body_default", "fact", "hearer", "minute", "book",
}

// trackedTables are written by whoever tracks: all of them, or nothing is tracked.
var trackedTables = []string{"sent", "sent_key", "sent_body", "fact", "hearer", "minute", "book"}

// recording is what the sent log, the facts and the books need beside the work itself.
func recording(more ...grant) []grant {
	var all []grant
	for _, t := range trackedTables {
		all = append(all, on(t, "SELECT", "INSERT"))
	}
	all = append(all, on("hearer", "UPDATE"))
	all = append(all, more...)
	for i := range all {
		all[i].tracking = true
	}
	return all
}

const ownerRole = "owner"

// messageInsert are the columns that a producer gives. It gives neither tx nor seq nor
// enqueued_at: with those it could put a message where no relay looks any more.
func messageInsert(more ...string) []string {
	return append(slices.Clone(insertColumns), more...)
}

// leasing is what leases need: of slots for the relay, of partitions for a group.
var leasing = []grant{
	on("owner", "SELECT", "INSERT", "UPDATE", "DELETE"),
	on("slot", "SELECT", "INSERT"),
	on("slot", "UPDATE").of("owner", "epoch", "low_seq"),
}

// counting is what numbers for people need, without a body.
var counting = []grant{
	on("outbox", "SELECT").of("type", "enqueued_at"),
	on("held", "SELECT").of("type", "reason", "held_at", "error"),
	on("retry", "SELECT").of("grp", "type", "first_at"),
	on("dead", "SELECT").of("grp", "type", "last_at"),
	on("group", "SELECT"),
	on("owner", "SELECT"),
	on("slot", "SELECT"),
	on("meta", "SELECT"),
	on("migrations", "SELECT"),
}

// enqueuing is what writing a message needs: now, or with a due time.
var enqueuing = []grant{
	on("outbox", "INSERT").of(messageInsert("due_at")...),
	on("held", "INSERT").of(messageInsert("due_at", "next_at", "reason")...),
	on("seq", "USAGE"),
	on("migrations", "SELECT"),
	on("meta", "SELECT"),
}

// roles returns the roles but the owner, whose rights come with owning.
func roles() []role {
	everything := make([]grant, 0, len(roleTables))
	for _, t := range roleTables {
		g := on(t, "SELECT")
		g.tracking = slices.Contains(trackedTables, t) || strings.HasSuffix(t, "_default")
		everything = append(everything, g)
	}
	return []role{
		{"app", "enqueues, and reads nothing", enqueuing},
		{"canceller", "withdraws messages with a due time; for an app that does", []grant{
			on("held", "SELECT").of("id", "reason"), on("held", "DELETE"),
		}},
		{"relay", "sends and settles the outbox; sees of the inbox only numbers", slices.Concat(leasing, counting, []grant{
			on("outbox", "SELECT", "DELETE"),
			on("outbox", "INSERT").of(messageInsert()...),
			on("held", "SELECT", "DELETE"),
			on("held", "INSERT"), // the row moves with its seq and enqueued_at
			on("held", "UPDATE").of("reason", "route_exchange", "route_type", "next_at", "attempts", "error", "enqueued_at"),
			on("meta", "INSERT"),
			on("seq", "USAGE"),
		}, recording(
			on("sent", "DELETE"), on("sent_key", "DELETE"), on("sent_body", "DELETE"), on("fact", "DELETE"),
			on("sent_default", "SELECT", "DELETE"), on("sent_key_default", "SELECT", "DELETE"), on("sent_body_default", "SELECT", "DELETE"),
			on("minute", "UPDATE"), on("book", "DELETE"),
		))},
		{"consumer", "handles messages, and enqueues what follows; sees of the outbox only numbers", slices.Concat(leasing, counting, enqueuing, []grant{
			on("inbox", "SELECT", "INSERT", "DELETE"),
			on("inbox", "UPDATE").of("state", "at"),
			on("retry", "SELECT", "INSERT", "DELETE"),
			on("retry", "UPDATE").of("reason", "error", "attempts", "next_at", "last_at", "promoted"),
			on("dead", "SELECT", "INSERT"),
			on("dead", "UPDATE").of("reason", "error", "attempts", "last_at"),
			on("suspect", "SELECT", "INSERT", "UPDATE", "DELETE"),
			on("instance", "SELECT", "INSERT", "UPDATE", "DELETE"),
		}, recording())},
		{"viewer", "looks at everything, bodies too", everything},
		{"operator", "looks, and acts on what waits; every act is recorded", slices.Concat(everything, []grant{
			on("outbox", "DELETE"),
			on("outbox", "UPDATE").of("due_at"), // only to lock a row before it is deleted
			on("held", "DELETE"),
			on("held", "UPDATE").of("reason", "next_at"),
			on("inbox", "INSERT"),
			on("inbox", "UPDATE").of("state", "hash", "at"),
			on("retry", "INSERT"),
			on("retry", "UPDATE").of("next_at"),
			on("dead", "DELETE"),
			on("dead", "UPDATE").of("last_at"), // only to lock a row before it is deleted
			on("group", "INSERT", "UPDATE"),
			on("action", "INSERT"),
		}, recording(
			on("minute", "UPDATE"),
			on("outbox", "INSERT").of(messageInsert()...), // what the books miss is sent again
			on("seq", "USAGE"),
		))},
	}
}

// PrintRoles writes the SQL that makes the database roles of a service and gives each
// the rights it needs, and no others: owner (whose login migrates), app, canceller,
// relay, consumer, viewer and operator, each named "service_role" and without a login.
// Give them to logins: GRANT orders_app TO orders_web. Options name the schema and the
// prefix of the tables, as for [Store].
//
// The SQL is for a superuser, or for one who may create roles and owns the tables, after
// the first migration, and after every later one: then for a member of the owner role
// too. Running it again is harmless, and takes back what it does not give.
// It returns CodeInvalid for a service, schema or prefix that is no plain identifier.
func PrintRoles(w io.Writer, service string, opts ...Option) error {
	conf := settings{schema: "public", prefix: "outlast_"}
	for _, o := range opts {
		o(&conf)
	}
	var bad []outlast.FieldError
	for _, f := range [][2]string{{"service", service}, {"schema", conf.schema}, {"prefix", conf.prefix}} {
		if sqlfile.CheckIdentifier(f[1]) != nil {
			bad = append(bad, identifierError(f[0], f[1]))
		}
	}
	if bad != nil {
		return &outlast.Error{Op: "print roles", Code: outlast.CodeInvalid, Fields: bad}
	}
	_, err := io.WriteString(w, roleSQL(service, conf))
	return err
}

// identifierError says what a name for SQL may be.
func identifierError(field, given string) outlast.FieldError {
	return outlast.FieldError{Field: field, Limit: fmt.Sprintf("1 to %d of a-z, 0-9 and '_', not starting with a digit", sqlfile.MaxIdentifier),
		Given: fmt.Sprintf("%q", clip(given))}
}

func roleSQL(service string, conf settings) string {
	var b strings.Builder
	t, schema := conf.names()["t"], pgx.Identifier{conf.schema}.Sanitize()
	name := func(r string) string { return service + "_" + r }
	all := roles()
	owner := name(ownerRole)
	names := []string{}

	fmt.Fprintf(&b, "-- Roles of the service %s. Run it after every migration; running it again is harmless.\n", service)
	fmt.Fprintf(&b, "-- %s: owns the tables; whoever migrates is a member, with ALTER ROLE ... SET role = '%s'\n", owner, owner)
	for _, r := range all {
		fmt.Fprintf(&b, "-- %s: %s\n", name(r.name), r.about)
	}
	fmt.Fprint(&b, "-- None has a login: GRANT each to the login that does its work.\n\n")
	// One transaction, so that nobody who works meanwhile finds a right missing; and not
	// behind a long one, with everybody else waiting behind that.
	fmt.Fprint(&b, "BEGIN;\nSET LOCAL lock_timeout = '10s';\n")
	for _, r := range append([]role{{name: ownerRole}}, all...) {
		fmt.Fprintf(&b, "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '%[1]s') THEN CREATE ROLE %[1]s NOLOGIN; END IF; END $$;\n", name(r.name))
		if r.name != ownerRole {
			names = append(names, name(r.name))
		}
	}
	everyone := strings.Join(names, ", ")
	// A function of anybody's could stand in for one of the server's: CVE-2018-1058.
	fmt.Fprintf(&b, "\nREVOKE CREATE ON SCHEMA %s FROM PUBLIC;\n", schema)
	fmt.Fprintf(&b, "GRANT USAGE, CREATE ON SCHEMA %s TO %s;\n", schema, owner)
	fmt.Fprintf(&b, "GRANT USAGE ON SCHEMA %s TO %s;\n\n", schema, everyone)
	for _, table := range roleTables {
		fmt.Fprintf(&b, "ALTER TABLE %s%s OWNER TO %s;\n", t, table, owner)
		fmt.Fprintf(&b, "REVOKE ALL ON %s%s FROM PUBLIC, %s;\n", t, table, everyone)
	}
	fmt.Fprintf(&b, "ALTER SEQUENCE %sseq OWNER TO %s;\n", t, owner)
	fmt.Fprintf(&b, "REVOKE ALL ON SEQUENCE %sseq FROM PUBLIC, %s;\n", t, everyone)
	fmt.Fprintf(&b, "DO $$ DECLARE part regclass; BEGIN FOR part IN SELECT inhrelid FROM pg_catalog.pg_inherits"+
		" WHERE inhparent IN ('%[1]ssent'::regclass, '%[1]ssent_key'::regclass, '%[1]ssent_body'::regclass)"+
		" LOOP EXECUTE format('ALTER TABLE %%s OWNER TO %[2]s', part); END LOOP; END $$;\n", t, owner)
	for _, f := range []string{"uuid7()", "headers_ok(jsonb)", "limits_ok", "keep_ahead(interval)", "drop_part(text)"} {
		fmt.Fprintf(&b, "ALTER FUNCTION %s%s OWNER TO %s;\n", t, f, owner)
		fmt.Fprintf(&b, "GRANT EXECUTE ON FUNCTION %s%s TO %s;\n", t, f, everyone)
	}
	for _, r := range all {
		fmt.Fprintf(&b, "\n")
		for _, g := range r.grants {
			fmt.Fprintf(&b, "GRANT %s TO %s;\n", g.sql(t), name(r.name))
		}
	}
	fmt.Fprint(&b, "\nCOMMIT;\n")
	return b.String()
}

// sql is "SELECT (id, reason) ON outlast_held".
func (g grant) sql(t string) string {
	rights := slices.Clone(g.rights)
	if g.columns != nil {
		for i := range rights {
			rights[i] += " (" + strings.Join(g.columns, ", ") + ")"
		}
	}
	kind := ""
	if g.object == "seq" {
		kind = "SEQUENCE "
	}
	return strings.Join(rights, ", ") + " ON " + kind + t + g.object
}

// May returns which of the roles of [PrintRoles] this connection's role can stand in
// for, by name: all of them for the owner of the tables.
func (s *store) May(ctx context.Context) (may []string, err error) {
	err = s.conn(ctx, "look at the rights", false, func(c *pgx.Conn) error {
		may, _, err = s.rights(ctx, c)
		return err
	})
	return may, err
}

// rights finds out which roles' work this connection's role may do, and for each of the
// others the objects that it lacks a right on.
func (s *store) rights(ctx context.Context, q querier) (may []string, missing map[string][]string, err error) {
	var privileges, objects, columns, of []string
	for _, r := range roles() {
		for _, g := range r.grants {
			if g.tracking {
				continue // tracking is looked at for itself, and older tables have none
			}
			for _, privilege := range g.rights {
				for _, column := range orWhole(g.columns) {
					privileges, objects = append(privileges, privilege), append(objects, g.object)
					columns, of = append(columns, column), append(of, r.name)
				}
			}
		}
	}
	var lacks []int
	if err := q.QueryRow(ctx, s.sql.Get("missing_rights"), s.conf.names()["t"], privileges, objects, columns).Scan(&lacks); err != nil {
		return nil, nil, err
	}
	missing = map[string][]string{}
	for _, n := range lacks {
		if r, object := of[n-1], objects[n-1]; !slices.Contains(missing[r], object) {
			missing[r] = append(missing[r], object)
		}
	}
	for _, r := range roles() {
		if missing[r.name] == nil {
			may = append(may, r.name)
		}
	}
	return may, missing, nil
}

func orWhole(columns []string) []string {
	if columns == nil {
		return []string{""}
	}
	return columns
}

func deniedRights(op string, objects []string) error {
	return &outlast.Error{Op: op, Code: outlast.CodeDenied, Err: fmt.Errorf("this role lacks rights on %q", objects),
		Hint: "grant it the role that `outlast migrate print --roles` makes for this work"}
}
