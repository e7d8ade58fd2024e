package servers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// envGeneration names the folder of another generation of servers: a small system, as
// debootstrap makes it, with PostgreSQL and RabbitMQ in it. Servers then run in it by chroot,
// which needs root.
const envGeneration = "OUTLAST_TEST_GENERATION"

// generation returns the folder, and makes it ready on first use; empty means this machine's
// own servers.
var generation = sync.OnceValues(func() (string, error) {
	root := os.Getenv(envGeneration)
	if root == "" {
		return "", nil
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("%s: running servers in another system needs root", envGeneration)
	}
	if _, err := os.Stat(filepath.Join(root, "etc", "passwd")); err != nil {
		return "", fmt.Errorf("%s: %w", envGeneration, err)
	}
	return root, alias(root)
})

// alias makes paths mean the same inside of root and outside: within, the path of root
// itself leads back to its top.
func alias(root string) error {
	link := filepath.Join(root, root)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/", link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// into has a process run in the other generation, if there is one.
func into(attr *syscall.SysProcAttr) error {
	root, err := generation()
	if root != "" {
		attr.Chroot = root
	}
	return err
}

// globServers is filepath.Glob in the generation; the paths are as seen from within.
func globServers(pattern string) []string {
	root, _ := generation() // told of when a server starts
	found, _ := filepath.Glob(root + pattern)
	for i := range found {
		found[i] = strings.TrimPrefix(found[i], root)
	}
	return found
}

// serversFolder is where servers' folders are made: within the generation, so that its
// servers reach them.
func serversFolder() (string, error) {
	root, err := generation()
	if err != nil || root == "" {
		return os.TempDir(), err
	}
	return filepath.Join(root, "tmp"), nil
}
