package servers_test

import (
	"testing"

	"github.com/outlastmq/outlast/lab/servers"
)

func TestPgBouncer(t *testing.T) {
	t.Parallel()
	if why := servers.LacksBouncer(); why != "" {
		t.Fatal(why)
	}
	server := startPostgres(t, servers.PostgresConfig{NoSync: true})
	b, err := servers.PgBouncer(t.Context(), server, servers.Host{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	if got := queryString(t, b.URL()+"&default_query_exec_mode=simple_protocol", "SELECT 'through'"); got != "through" {
		t.Errorf("got %q", got)
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}
