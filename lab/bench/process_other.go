//go:build !linux

package main

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }

// processCPU is not known here: CPU columns show 0.
func processCPU() (seconds, switches float64) { return 0, 0 }
