package storm

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Usage is what a process of ours holds.
type Usage struct {
	Memory int64 `json:"memory"` // resident, bytes
	Files  int   `json:"files"`  // open, sockets included
}

// Raise keeps the greater of each.
func (u *Usage) Raise(v Usage) {
	u.Memory, u.Files = max(u.Memory, v.Memory), max(u.Files, v.Files)
}

// usageOf reads the process table of Linux; elsewhere it is zero.
func usageOf(pid int) (u Usage) {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u
	}
	u.Files = len(files)
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return u
	}
	if fields := strings.Fields(string(statm)); len(fields) > 1 {
		pages, _ := strconv.ParseInt(fields[1], 10, 64)
		u.Memory = pages * int64(os.Getpagesize())
	}
	return u
}
