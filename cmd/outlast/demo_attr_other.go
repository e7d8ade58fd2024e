//go:build !linux

package main

import "syscall"

// childAttr is nothing special here: children end when their standard input does.
func childAttr() *syscall.SysProcAttr { return nil }
