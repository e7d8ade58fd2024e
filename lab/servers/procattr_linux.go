package servers

import "syscall"

// dieWithParent has the kernel send sig to the child when this process ends, so that a
// test binary that panics or is killed leaves no server behind.
func dieWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }
