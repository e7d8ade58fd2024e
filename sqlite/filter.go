package sqlite

import (
	"fmt"
	"strings"

	"github.com/outlastmq/outlast"
)

const (
	defaultLimit = 100
	maxLimit     = 10_000
)

// where is a condition with its arguments. Its text comes from this file only.
type where struct {
	conds []string
	args  []any
}

func (w *where) add(cond string, args ...any) {
	w.conds = append(w.conds, cond)
	w.args = append(w.args, args...)
}

func (w *where) String() string { return strings.Join(w.conds, " AND ") }

// limited fills the limit in and checks it.
func limited(op string, f outlast.Filter) (outlast.Filter, error) {
	if f.Limit == 0 {
		f.Limit = defaultLimit
	}
	if f.Limit < 1 || f.Limit > maxLimit {
		return f, invalid(op, "limit", fmt.Sprintf("1 to %d", maxLimit), fmt.Sprint(f.Limit))
	}
	return f, nil
}

// conditions turns a filter into a condition. at is the column that gives the age.
func (s *store) conditions(f outlast.Filter, at string) *where {
	w := &where{}
	now := sqlNames("")["now"]
	w.add("seq > ?", f.After)
	if len(f.IDs) > 0 {
		w.add("id IN (SELECT value FROM json_each(?))", jsonList(f.IDs))
	}
	equal := func(column, value string) {
		if value != "" {
			w.add(column+" = ?", value)
		}
	}
	equal("type", f.Type)
	equal("ordering_key", f.Key)
	equal("grp", f.Group)
	equal("reason", f.Reason)
	equal("fingerprint", f.Fingerprint)
	if f.OlderThan > 0 {
		w.add(at+" < "+now+" - ?", f.OlderThan.Microseconds())
	}
	if f.NewerThan > 0 {
		w.add(at+" > "+now+" - ?", f.NewerThan.Microseconds())
	}
	return w
}

// target is the text of a filter for the record of an action.
func target(f outlast.Filter) string {
	if len(f.IDs) == 1 {
		return f.IDs[0]
	}
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	add("ids", strings.Join(f.IDs, ","))
	add("type", f.Type)
	add("key", f.Key)
	add("group", f.Group)
	add("reason", f.Reason)
	add("fingerprint", f.Fingerprint)
	if f.OlderThan > 0 {
		add("older", f.OlderThan.String())
	}
	if f.NewerThan > 0 {
		add("newer", f.NewerThan.String())
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, " ")
}
