package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// usage is what a process has used so far.
type usage struct {
	CPU      float64 // seconds
	RSS      float64 // bytes, the most it ever held
	Reads    float64 // system calls that read and write: not those that wait
	Writes   float64
	Calls    float64 // all system calls, known only under strace
	Switches float64 // times that it gave up a processor
	Allocs   float64 // objects of Go's heap
	Bytes    float64 // of Go's heap, allocated in all
}

func readUsage() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{Allocs: float64(m.Mallocs), Bytes: float64(m.TotalAlloc)}
	u.CPU, u.Switches = processCPU()
	u.RSS = procNumber("/proc/self/status", "VmHWM:") * 1024
	u.Reads = procNumber("/proc/self/io", "syscr:")
	u.Writes = procNumber("/proc/self/io", "syscw:")
	return u
}

// minus is what was used since an earlier reading.
func (u usage) minus(b usage) usage {
	return usage{CPU: u.CPU - b.CPU, RSS: u.RSS, Reads: u.Reads - b.Reads, Writes: u.Writes - b.Writes,
		Switches: u.Switches - b.Switches, Allocs: u.Allocs - b.Allocs, Bytes: u.Bytes - b.Bytes}
}

// procNumber reads one number of a file of /proc; 0 where there is none.
func procNumber(file, field string) float64 {
	data, _ := os.ReadFile(file) // absent on other systems
	for line := range bytes.Lines(data) {
		if words := strings.Fields(string(line)); len(words) > 1 && words[0] == field {
			n, _ := strconv.ParseFloat(words[1], 64)
			return n
		}
	}
	return 0
}

// clockTick is the unit of times in /proc/PID/stat: a hundredth of a second on Linux.
const clockTick = 10 * time.Millisecond

// settledCPU is treeCPU when everything that has just ended is accounted for: between a
// process's end and its parent's notice its time is nowhere.
func settledCPU(root int) float64 {
	time.Sleep(200 * time.Millisecond)
	return treeCPU(root)
}

// treeCPU returns the CPU seconds of a process, of all processes below it, and of those
// below it that have ended.
func treeCPU(root int) float64 {
	below := map[int][]int{}
	ticks := map[int]float64{}
	entries, _ := os.ReadDir("/proc") // absent on other systems
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		// After the name: state, parent, and from the 12th on user, system, and both of dead children.
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parent, _ := strconv.Atoi(f[1])
		below[parent] = append(below[parent], pid)
		for _, t := range f[11:15] {
			n, _ := strconv.ParseFloat(t, 64)
			ticks[pid] += n
		}
	}
	sum := 0.0
	for next := []int{root}; len(next) > 0; next = next[1:] {
		sum += ticks[next[0]]
		next = append(next, below[next[0]]...)
	}
	return sum * clockTick.Seconds()
}

// coreTicks is what all cores together have done since the machine started, in clock ticks.
type coreTicks struct {
	all  float64
	idle float64 // nothing to do
	disk float64 // nothing to do, and a process waits for the disk
}

func readCores() coreTicks {
	data, _ := os.ReadFile("/proc/stat") // absent on other systems
	return parseCores(string(data))
}

// parseCores reads the first line of /proc/stat: user, nice, system, idle, iowait, irq,
// softirq, steal; what follows is part of user and nice (proc_stat(5)).
func parseCores(stat string) (c coreTicks) {
	line, _, _ := strings.Cut(stat, "\n")
	words := strings.Fields(line)
	if len(words) < 9 {
		return c
	}
	for i, w := range words[1:9] {
		n, _ := strconv.ParseFloat(w, 64)
		c.all += n
		switch i {
		case 3:
			c.idle = n
		case 4:
			c.disk = n
		}
	}
	return c
}

// coreShares are parts of the cores' time, of 1.
type coreShares struct{ idle, disk float64 }

func (c coreTicks) since(b coreTicks) coreShares {
	if c.all == b.all {
		return coreShares{}
	}
	return coreShares{(c.idle - b.idle) / (c.all - b.all), (c.disk - b.disk) / (c.all - b.all)}
}
