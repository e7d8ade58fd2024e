//go:build !linux

package postgres

import "syscall"

// boundSilence does nothing here: the system's own limits hold.
func boundSilence(string, string, syscall.RawConn) error { return nil }
