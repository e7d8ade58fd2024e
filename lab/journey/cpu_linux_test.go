package journey_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// process is a line of /proc/PID/stat.
type process struct {
	parent int
	name   string
	ticks  int64
}

func usage(t testing.TB) (sum cpu) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	all := map[int]process{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		must(t, err)
		line := string(text)
		name := line[strings.IndexByte(line, '(')+1 : strings.LastIndexByte(line, ')')]
		fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
		p := process{name: name}
		p.parent, _ = strconv.Atoi(fields[1])
		for _, f := range fields[11:15] { // user and system, its own and of children that have ended
			n, _ := strconv.ParseInt(f, 10, 64)
			p.ticks += n
		}
		all[pid] = p
	}
	const tick = 10 * time.Millisecond
	for pid, p := range all {
		switch d := time.Duration(p.ticks) * tick; {
		case pid == os.Getpid():
			sum.own += d
		case !below(all, pid, os.Getpid()):
		case strings.HasPrefix(p.name, "postgres"):
			sum.postgres += d
		default:
			sum.broker += d
		}
	}
	return sum
}

func below(all map[int]process, pid, root int) bool {
	for ; pid > 1; pid = all[pid].parent {
		if pid == root {
			return true
		}
	}
	return false
}
