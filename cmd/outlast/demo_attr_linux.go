package main

import "syscall"

// childAttr gives a child its own process group, so that Ctrl-C reaches the demo
// alone, and has the kernel end the child when the demo is killed itself.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
