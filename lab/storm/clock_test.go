package storm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const tellTime = `package main

import "time"

func main() { println(time.Now().Unix()) }
`

// TestSkewedBuildHasItsOwnClock asks a program with a clock of its own for the time.
func TestSkewedBuildHasItsOwnClock(t *testing.T) {
	t.Parallel()
	source := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(source, []byte(tellTime), 0o644); err != nil {
		t.Fatal(err)
	}
	program, err := BuildSkewed(t.Context(), source, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(cmd.Environ(), clockSetting(-time.Hour, 0))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	if off := time.Until(time.Unix(seconds, 0)) + time.Hour; off.Abs() > 5*time.Minute {
		t.Errorf("the clock is off by %s, want an hour less", time.Until(time.Unix(seconds, 0)))
	}
}
