package sqlite

import (
	"testing"

	"github.com/outlastmq/outlast"
)

func TestReaderMemory(t *testing.T) {
	t.Parallel()
	row := &outlast.Row{Message: outlast.Message{Envelope: outlast.Envelope{ID: "a"}}, Seq: 5}
	fresh := func() *reader {
		r := &reader{}
		r.remember(&batch{list: []*outlast.Row{row}}, 0, false)
		return r
	}
	t.Run("keeps what is forgotten while a pick runs", func(t *testing.T) {
		r := fresh()
		r.picking = true
		r.Forget([]*outlast.Row{row})
		if !r.has(5, "a") {
			t.Error("the pick under way may return the row again")
		}
		r.settle()
		if r.has(5, "a") {
			t.Error("the row is remembered after the pick")
		}
	})
	t.Run("returns nothing to an owner that dropped the slot meanwhile", func(t *testing.T) {
		r := fresh()
		r.picking = true
		drops := r.drops
		r.Drop([]int{0})
		if rows := r.remember(&batch{list: []*outlast.Row{row}}, drops, false); rows != nil || r.has(5, "a") || r.cursor != 0 {
			t.Errorf("rows %v, cursor %d", rows, r.cursor)
		}
	})
	t.Run("tells rows with one number apart by their ids", func(t *testing.T) {
		r := fresh()
		if r.has(5, "b") {
			t.Error("another row took its place unseen")
		}
		r.Forget([]*outlast.Row{{Message: outlast.Message{Envelope: outlast.Envelope{ID: "b"}}, Seq: 5}})
		if !r.has(5, "a") {
			t.Error("another row's end was taken for its own")
		}
	})
}

func TestPrimaryCodeFromWords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]outlast.Code{
		"database is locked":                           outlast.CodeUnavailable,
		"database or disk is full":                     outlast.CodeUnavailable,
		"disk I/O error: no space left on device":      outlast.CodeUnavailable,
		"no such table: outlast_outbox":                outlast.CodeSchema,
		"CHECK constraint failed: check_subject":       outlast.CodeInvalid,
		"UNIQUE constraint failed: outlast_retry.grp":  outlast.CodeConflict,
		"NOT NULL constraint failed: outlast_x.type":   outlast.CodeInvalid,
		"near \"SELEC\": syntax error":                 outlast.CodeInternal,
		"attempt to write a readonly database":         outlast.CodeUnavailable,
		"table outlast_outbox has no column named new": outlast.CodeSchema,
	} {
		if got := outlast.CodeOf(mapped("test", words(text))); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]outlast.Code{
		"cannot commit - no transaction is active": outlast.CodeUnavailable,
		"database is locked":                       outlast.CodeUnavailable,
		"FOREIGN KEY constraint failed":            outlast.CodeConflict,
		"disk I/O error":                           outlast.CodeUnknown,
		"database or disk is full":                 outlast.CodeUnknown,
		"something new":                            outlast.CodeUnknown,
	} {
		if got := outlast.CodeOf(commitError("test", words(text))); got != want {
			t.Errorf("COMMIT: %q is %q, want %q", text, got, want)
		}
	}
}

// words is an error of a driver that has no method Code.
type words string

func (w words) Error() string { return string(w) }
