//go:build unix

package embedded

import (
	"errors"
	"os"
	"syscall"
)

// own takes the directory. The lock ends with the process, however it ends.
func own(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("the directory is in use")
		}
		return nil, err
	}
	return f, nil
}
