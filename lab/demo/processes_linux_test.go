package demo_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDemo_ends_every_process_when_it_is_interrupted(t *testing.T) {
	t.Parallel()
	r := start(t, "--for", "60s", "--rate", "10", "--no-faults")
	r.hears("the shop is open")
	children := childrenOf(t, r.cmd.Process.Pid)
	if len(children) != 7 {
		t.Errorf("%d processes, want the broker, the relay and five services", len(children))
	}
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-r.ended; err == nil {
		t.Error("an interrupted demo ended with exit code 0")
	}
	for _, pid := range children {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d is still alive", pid)
		}
	}
}

func TestDemo_leaves_no_process_when_it_is_killed(t *testing.T) {
	t.Parallel()
	r := start(t, "--for", "60s", "--rate", "10", "--no-faults")
	r.hears("the shop is open")
	children := childrenOf(t, r.cmd.Process.Pid)
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	for _, pid := range children {
		awaitGone(t, pid)
	}
}

// childrenOf returns the processes whose parent is pid, from /proc.
func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(files) == 0 {
		t.Fatalf("read the list of processes: %v", err)
	}
	var children []int
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		// The name, in parentheses, may hold anything.
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			children = append(children, child)
		}
	}
	return children
}

// awaitGone waits until a process, whose parent is not this one, has ended.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for ; time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") || syscall.Kill(pid, 0) != nil {
			return
		}
	}
	t.Errorf("process %d is still alive", pid)
}
