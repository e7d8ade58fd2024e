package main

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/outlastmq/outlast/embedded"
)

func TestMissingPermissionIsSaidWithThePath(t *testing.T) {
	s := withTables(t)
	file := filepath.Join(s.dir, "orders.db")
	dir := filepath.Join(s.dir, "broker")
	server, err := embedded.Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	s.env[brokerServer.env] = "embedded:" + dir
	for _, name := range []string{file, dir} {
		if err := os.Chmod(name, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(name, 0o700) })
	}
	for d := s.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755) // of the test: others may look into it
	}
	asNobody(func() {
		s.fails(exitFailure, []string{"permission denied", file}, "status", "--interval", "100ms")
		s.fails(exitFailure, []string{"permission denied", dir}, "peek", "billing")
	})
}

// asNobody runs f on a thread that is not root to the file system; it ends with f.
func asNobody(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		if os.Geteuid() == 0 {
			_ = syscall.Setfsuid(65534)
		}
		f()
	}()
	<-done
}
