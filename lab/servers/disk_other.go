//go:build !linux

package servers

import "errors"

var errNoDisk = errors.New("a small disk needs Linux")

func mountDisk(string, int64) error  { return errNoDisk }
func resizeDisk(string, int64) error { return errNoDisk }
func usedDisk(string) (int64, error) { return 0, errNoDisk }
func unmountDisk(string) error       { return errNoDisk }
