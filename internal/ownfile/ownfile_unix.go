//go:build unix

// Package ownfile takes a file for one process.
package ownfile

import (
	"errors"
	"os"
	"syscall"
)

// ErrTaken says that another process has the file.
var ErrTaken = errors.New("it is in use")

// Take opens the file, made with mode 0600 when it is not there, and locks it. The lock
// ends with the process, however it ends, and with the file's Close.
func Take(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrTaken
		}
		return nil, err
	}
	return f, nil
}
