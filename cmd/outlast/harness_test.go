package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shell runs command lines as a person does, in one process.
type shell struct {
	t   *testing.T
	env map[string]string
	dir string
	in  io.Reader
}

func newShell(t *testing.T) *shell {
	t.Helper()
	return &shell{t: t, env: map[string]string{"USER": "ada"}, dir: t.TempDir()}
}

// withTables returns a shell whose environment names a migrated SQLite file.
func withTables(t *testing.T) *shell {
	t.Helper()
	s := newShell(t)
	s.env[databaseServer.env] = "sqlite:" + filepath.Join(s.dir, "orders.db")
	s.ok("migrate", "up", "--service", "orders")
	return s
}

type outcome struct {
	code     int
	out, err string
}

func (s *shell) run(args ...string) outcome {
	s.t.Helper()
	return s.runContext(s.t.Context(), args...)
}

func (s *shell) runContext(ctx context.Context, args ...string) outcome {
	var out, errs syncBuffer
	code := s.program(&out, &errs).run(ctx, args)
	return outcome{code, out.String(), errs.String()}
}

func (s *shell) program(out, errs io.Writer) *program {
	in := s.in
	if in == nil {
		in = strings.NewReader("")
	}
	return newProgram(in, out, errs, func(name string) string { return s.env[name] })
}

// ok runs a command that must succeed and returns its stdout.
func (s *shell) ok(args ...string) string {
	s.t.Helper()
	got := s.run(args...)
	if got.code != exitOK {
		s.t.Fatalf("outlast %s: exit code %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got.code, got.out, got.err)
	}
	return got.out
}

// fails runs a command that must end with code and say all of words on stderr.
func (s *shell) fails(code int, words []string, args ...string) outcome {
	s.t.Helper()
	got := s.run(args...)
	if got.code != code {
		s.t.Errorf("outlast %s: exit code %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got.code, code, got.out, got.err)
	}
	for _, word := range words {
		if !strings.Contains(got.err, word) {
			s.t.Errorf("outlast %s: stderr lacks %q:\n%s", strings.Join(args, " "), word, got.err)
		}
	}
	return got
}

// decode runs a command with --json and decodes its stdout.
func decode[T any](s *shell, args ...string) T {
	s.t.Helper()
	var v T
	out := s.ok(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		s.t.Fatalf("outlast %s: %v in %s", strings.Join(args, " "), err, out)
	}
	return v
}

// syncBuffer can be read while a command in another goroutine writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("lacks %q:\n%s", word, text)
		}
	}
}
