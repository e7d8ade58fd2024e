package servers

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// LacksClock says why no server can have a clock of its own here; empty when one can.
func LacksClock() string {
	if libfaketime() == "" {
		return "libfaketime is missing: apt-get install -y libfaketime"
	}
	return ""
}

func libfaketime() string {
	found := globServers("/usr/lib/*/faketime/libfaketime.so.1")
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// clockEnvironment has a server read the difference of its clock from a file, whenever it
// asks for the time: all processes of the server see a change at one instant, as they do
// when a machine's clock is set. Kept for a second by each, it gave sessions different
// clocks, and a lease ended by one that another had just renewed. Monotonic time is left
// alone, as a clock that is set leaves it.
func clockEnvironment(file string) []string {
	return append(os.Environ(), "LD_PRELOAD="+libfaketime(), "FAKETIME_TIMESTAMP_FILE="+file, "FAKETIME_NO_CACHE=1",
		"DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_FAKE_MONOTONIC=1")
}

// SetClock makes the server's clock differ from the machine's, as if somebody had set it.
// It needs PostgresConfig.OwnClock.
func (s *PostgresServer) SetClock(difference time.Duration) error {
	if s.clock == "" {
		return errors.New("set the clock: the server has none of its own")
	}
	return writeClock(s.clock, difference)
}

func writeClock(file string, difference time.Duration) error {
	next := file + ".next" // nobody may read half of it
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+d\n", int(difference.Seconds())), 0o644); err != nil {
		return err
	}
	return os.Rename(next, file)
}
