package sqlite_test

import (
	"slices"
	"testing"

	"github.com/outlastmq/outlast"
)

// TestFailuresOfOneTime: groups whose last deaths have the very same time are listed in the
// order of the bytes of their keys, and none is skipped.
func TestFailuresOfOneTime(t *testing.T) {
	t.Parallel()
	db, store, _ := fresh(t)
	var keys []outlast.FailureKey
	for _, k := range [][3]string{{"", "g", "a.v1"}, {"f00d", "G", "b.v1"}, {"f00d", "a", "b.v1"}, {"f00d", "g", "B.v1"}, {"f00d", "g", "a.v1"}, {"f00e", "Z", "a.v1"}, {"f00e", "a", "a.v1"}} {
		keys = append(keys, outlast.FailureKey{Fingerprint: k[0], Group: k[1], Type: k[2]})
	}
	for i := range keys {
		k := keys[len(keys)-1-i]
		_, err := db.ExecContext(t.Context(), `INSERT INTO outlast_dead (grp, source, id, type, reason, attempts, fingerprint, first_at, last_at, envelope, body)
			VALUES (?, 'orders', hex(randomblob(8)), ?, 'verdict', 1, nullif(?, ''), 1767312000000000, 1767312000000000, '{}', x'7b7d')`, k.Group, k.Type, k.Fingerprint)
		must(t, err)
	}
	var got []outlast.FailureKey
	for q := (outlast.FailureQuery{Limit: 2}); len(got) <= len(keys); {
		page, err := store.Journal().Failures(t.Context(), q)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, f := range page {
			got = append(got, f.Key())
			q.Before, q.After = f.LastSeen, f.Key()
		}
	}
	if !slices.Equal(got, keys) {
		t.Errorf("the failures are\n%v, want\n%v", got, keys)
	}
}
