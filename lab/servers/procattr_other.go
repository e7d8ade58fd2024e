//go:build !linux

package servers

import "syscall"

// dieWithParent does nothing here: only Linux can tie a child's life to its parent's.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
