package embedded

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/outlastmq/outlast"
)

// TestADirectoryWithoutPermissionIsDenied, and is not taken for one that another
// process runs, or nobody.
func TestADirectoryWithoutPermissionIsDenied(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "broker")
	s, err := Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	openToOthers(dir)
	asNobody(func() {
		_, connected := Connect(dir)
		_, started := Start(dir)
		_, made := Start(filepath.Join(dir, "below"))
		for deed, err := range map[string]error{"Connect": connected, "Start": started, "Start below": made} {
			if outlast.CodeOf(err) != outlast.CodeDenied || !strings.Contains(err.Error(), "permission denied") || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s: %v", deed, err)
			}
		}
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

// openToOthers lets others look into the folders of the test above dir.
func openToOthers(dir string) {
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755)
	}
}
