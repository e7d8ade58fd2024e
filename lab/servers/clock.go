package servers

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// clockSource is preloaded by a server with a clock of its own. Not libfaketime: it allocates
// memory and waits for a semaphore of all processes whenever it reads its file, also in the
// signal handlers in which PostgreSQL asks for the time. Sessions crashed, and one that died
// with the semaphore in hand stopped the whole server.
//
//go:embed clock/clock.c
var clockSource string

// LacksClock says why no server can have a clock of its own here; empty when one can.
func LacksClock() string {
	if runtime.GOOS != "linux" {
		return "a server's clock needs Linux"
	}
	if _, err := exec.LookPath(compiler()); err != nil {
		return "a C compiler is missing: apt-get install -y gcc libc6-dev"
	}
	return ""
}

func compiler() string {
	if cc := os.Getenv("CC"); cc != "" {
		return cc
	}
	return "gcc"
}

// giveClock gives the server a clock that shows the machine's time until it is set.
func (s *PostgresServer) giveClock(ctx context.Context) error {
	s.clock = s.folder.join("clock")
	if err := writeClock(s.clock, 0); err != nil {
		return err
	}
	library := s.folder.join("clock.so")
	compile := exec.CommandContext(ctx, compiler(), "-shared", "-fPIC", "-O2", "-Wall", "-x", "c", "-o", library, "-")
	compile.Stdin = strings.NewReader(clockSource)
	if out, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the clock: %w\n%s", err, out)
	}
	s.process.env = append(os.Environ(), "LD_PRELOAD="+library, "OUTLAST_LAB_SERVER_CLOCK="+s.clock)
	return nil
}

// SetClock makes the server's clock differ from the machine's, as if somebody had set it.
// It needs PostgresConfig.OwnClock.
func (s *PostgresServer) SetClock(difference time.Duration) error {
	if s.clock == "" {
		return errors.New("set the clock: the server has none of its own")
	}
	return writeClock(s.clock, difference)
}

// writeClock writes in place, as processes have the file mapped.
func writeClock(path string, difference time.Duration) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	_, err = file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(difference.Seconds()))), 0)
	return errors.Join(err, file.Close())
}
