//go:build outlast_planted

package planted

import (
	"os"
	"strings"
)

// Environment of a process with a bug: which one, and by how much its clock is wrong.
const (
	envBug  = "OUTLAST_PLANTED"
	envSkew = "OUTLAST_PLANTED_SKEW"
)

var chosen = Bug(os.Getenv(envBug))

// On reports whether a bug is switched on.
func On(b Bug) bool { return b == chosen }

// SQL changes statements for bugs that are in SQL.
func SQL(statements map[string]string) {
	changed := false
	defer func() {
		if inSQL := chosen == NoEpochInMark || chosen == AppClockLease || chosen == CheckThenInsert; inSQL && !changed {
			panic("planted: the statements that have to be changed for " + string(chosen) + " are not as they were")
		}
	}()
	for name, text := range statements {
		switch {
		case chosen == NoEpochInMark && strings.HasPrefix(name, "settle_"):
			text = strings.NewReplacer(" AND g.epoch = s.epoch", "", " AND s.epoch = r.epoch", "").Replace(text)
		case chosen == AppClockLease && strings.HasPrefix(name, "lease_"):
			text = appClock(text, os.Getenv(envSkew))
		case chosen == CheckThenInsert && name == "mark":
			text = checkThenInsert(text)
		case chosen == CheckThenInsert && name == "mark_one":
			text = checkThenInsertOne(text)
		}
		changed = changed || text != statements[name]
		statements[name] = text
	}
}

// appClock judges leases by the clock of this process, which is wrong by skew. What is
// told to hooks stays the database's.
func appClock(text, skew string) string {
	if skew == "" {
		skew = "0"
	}
	const told, kept = "clock_timestamp(), (SELECT", "told(), (SELECT"
	text = strings.ReplaceAll(text, told, kept)
	text = strings.ReplaceAll(text, "clock_timestamp()", "(clock_timestamp() + interval '"+skew+"')")
	return strings.ReplaceAll(text, kept, told)
}

// checkThenInsert asks whether a message is known, and inserts it whatever came meanwhile.
func checkThenInsert(text string) string {
	head, insert, found := strings.Cut(text, ")\nINSERT INTO ")
	table, _, found2 := strings.Cut(insert, " ")
	insert, found3 := strings.CutSuffix(strings.TrimSpace(insert), "RETURNING source, id")
	if !found || !found2 || !found3 {
		panic("planted: the statement \"mark\" is not as it was")
	}
	return head + "), i AS (\nINSERT INTO " + insert + ")\nSELECT m.source, m.id FROM m WHERE NOT EXISTS (SELECT FROM " + table +
		" b WHERE b.grp = $1::text AND b.source = m.source AND b.id = m.id)"
}

// checkThenInsertOne does the same with the statement for one message.
func checkThenInsertOne(text string) string {
	_, insert, found := strings.Cut(text, "INSERT INTO ")
	table, _, found2 := strings.Cut(insert, " ")
	if !found || !found2 {
		panic("planted: the statement \"mark_one\" is not as it was")
	}
	return "WITH i AS (\n" + text + ")\nSELECT 1 WHERE NOT EXISTS (SELECT FROM " + table +
		" b WHERE b.grp = $1::text AND b.source = $2::text AND b.id = $3::text)"
}
