//go:build !unix

// Package ownfile takes a file for one process.
package ownfile

import (
	"errors"
	"os"
)

// ErrTaken says that another process has the file.
var ErrTaken = errors.New("it is in use")

// Take only opens the file: there are no file locks here.
func Take(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
