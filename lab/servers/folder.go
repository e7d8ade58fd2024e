package servers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const folderPattern = "outlast-servers-"

// folder is a server's temporary folder. Its owner holds a lock on one file in it, and the
// kernel drops the lock when the owner dies: so the next process can tell an orphan from a
// folder in use without asking for process ids.
type folder struct {
	path string
	lock *os.File
}

func newFolder() (*folder, error) {
	parent, err := serversFolder()
	if err != nil {
		return nil, err
	}
	return newFolderIn(parent)
}

func newFolderIn(parent string) (*folder, error) {
	removeOrphans(parent)
	for {
		path, err := os.MkdirTemp(parent, folderPattern)
		if err != nil {
			return nil, fmt.Errorf("make a server folder: %w", err)
		}
		// Another user must be able to pass through: PostgreSQL does not run as root.
		if err := os.Chmod(path, 0o755); err != nil {
			return nil, fmt.Errorf("open the server folder: %w", err)
		}
		lock, err := lockFolder(path, os.O_CREATE)
		if err == nil && isAt(lock, lock.Name()) {
			return &folder{path: path, lock: lock}, nil
		}
		// Between the making of the lock file and the lock another process may have taken
		// the folder for an orphan. It removes it, and the lock is one of a file that is gone.
		if err == nil {
			lock.Close()
		} else if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the server folder: %w", err)
		}
	}
}

// isAt reports whether path still leads to an open file.
func isAt(f *os.File, path string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	found, err := os.Stat(path)
	return err == nil && os.SameFile(held, found)
}

func (f *folder) join(names ...string) string {
	return filepath.Join(append([]string{f.path}, names...)...)
}

func (f *folder) remove() error {
	err := os.RemoveAll(f.path)
	f.lock.Close()
	if err != nil {
		return fmt.Errorf("remove the server folder: %w", err)
	}
	return nil
}

// removeOrphans is best effort: a folder that cannot be removed belongs to somebody else.
// A folder without a lock file is left alone, as its owner may just be making it.
func removeOrphans(parent string) {
	paths, err := filepath.Glob(filepath.Join(parent, folderPattern+"*"))
	if err != nil {
		return
	}
	for _, path := range paths {
		lock, err := lockFolder(path, 0)
		if err != nil {
			continue
		}
		os.RemoveAll(path)
		lock.Close()
	}
}

func lockFolder(path string, flag int) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}
