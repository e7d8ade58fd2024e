package servers_test

import (
	"testing"

	"github.com/outlastmq/outlast/lab/servers"
)

func TestFailover(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t, servers.PostgresConfig{NoSync: true})
	database, err := primary.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	standby, err := primary.Standby(t.Context(), servers.PostgresConfig{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := primary.Synchronous(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	both := servers.JoinURLs(database, standby, primary) + "&target_session_attrs=read-write"
	execSQL(t, both, "CREATE TABLE kept AS SELECT 'before' AS word")
	for i, pair := range [][2]*servers.PostgresServer{{primary, standby}, {standby, primary}} {
		old, fresh := pair[0], pair[1]
		if err := old.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := fresh.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
		// No standby is there, and no COMMIT may wait for one.
		execSQL(t, both, "UPDATE kept SET word = word || ' after'")
		if err := old.Follow(t.Context(), fresh); err != nil {
			t.Fatal(err)
		}
		if err := fresh.Synchronous(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		execSQL(t, both, "UPDATE kept SET word = word || ', copied'")
		want := []string{"before after, copied", "before after, copied after, copied"}[i]
		if got := queryString(t, both, "SELECT word FROM kept"); got != want {
			t.Errorf("failover %d: %q, want %q", i+1, got, want)
		}
	}
}
