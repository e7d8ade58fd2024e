package servers_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast/lab/servers"
)

func TestOwnClock(t *testing.T) {
	t.Parallel()
	if why := servers.LacksClock(); why != "" {
		t.Fatal(why)
	}
	server := startPostgres(t, servers.PostgresConfig{NoSync: true, OwnClock: true})
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, difference := range []time.Duration{0, time.Hour, -time.Hour} {
		if err := server.SetClock(difference); err != nil {
			t.Fatal(err)
		}
		// An open session sees it as well.
		for limit := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			var now time.Time
			if err := conn.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&now); err != nil {
				t.Fatal(err)
			}
			if off := time.Until(now) - difference; off.Abs() < time.Minute {
				break
			} else if time.Now().After(limit) {
				t.Fatalf("the clock is off by %s, want %s", time.Until(now), difference)
			}
		}
	}
}
