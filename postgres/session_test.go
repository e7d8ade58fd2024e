package postgres

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outlastmq/outlast"
)

// TestF02_An_ended_session_leaves_its_commit_unknown: found by a storm through PgBouncer, whose
// server was restarted while it committed.
func TestF02_An_ended_session_leaves_its_commit_unknown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		severity, code string
		unknown        bool
	}{
		{"FATAL", "08P01", true}, // PgBouncer: server conn crashed?
		{"FATAL", "57P01", true}, // terminating connection due to administrator command
		{"FATAL", "57P02", true}, // a crash of another backend
		{"FATAL", "XX000", true},
		{"ERROR", "08007", true},  // transaction_resolution_unknown
		{"ERROR", "40003", true},  // statement_completion_unknown
		{"FATAL", "25P03", false}, // idle in transaction for too long: no COMMIT had come
		{"ERROR", "40001", false}, // serialization_failure
		{"ERROR", "23505", false}, // a deferred constraint
	} {
		err := (&store{}).fail("commit", fmt.Errorf("commit: %w", &pgconn.PgError{Severity: c.severity, Code: c.code}), true)
		if got := outlast.CodeOf(err) == outlast.CodeUnknown; got != c.unknown {
			t.Errorf("%s %s: unknown %v, want %v (%v)", c.severity, c.code, got, c.unknown, err)
		}
	}
}
