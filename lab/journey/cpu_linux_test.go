package journey_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cpu is the processor time that this process and all below it, the servers, have taken.
// It does not depend on what else the machine does, as the time of a clock would.
type cpu struct{ own, postgres, broker time.Duration }

func (c cpu) total() time.Duration { return c.own + c.postgres + c.broker }

func (c cpu) since(was cpu) cpu {
	return cpu{c.own - was.own, c.postgres - was.postgres, c.broker - was.broker}
}

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

func (c cpu) report(b *testing.B) {
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	b.ReportMetric(per(c.own), "relay-cpu-us/message")
	b.ReportMetric(per(c.postgres), "postgres-cpu-us/message")
	b.ReportMetric(per(c.broker), "broker-cpu-us/message")
	b.ReportMetric(per(c.total()), "cpu-us/message")
}
