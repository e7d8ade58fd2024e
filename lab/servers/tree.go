package servers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processInfo is one row of the system's process table.
type processInfo struct {
	parent int
	zombie bool
}

// descendants returns the process ids below root, which itself is not among them. A walk
// over parents is needed because servers leave their process group: each PostgreSQL
// backend calls setsid, as does Erlang's child starter.
func descendants(root int) ([]int, error) {
	table, err := processTable()
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for pid, info := range table {
		if !info.zombie {
			children[info.parent] = append(children[info.parent], pid)
		}
	}
	var found []int
	for next := children[root]; len(next) > 0; {
		pid := next[0]
		found = append(found, pid)
		next = append(next[1:], children[pid]...)
	}
	return found, nil
}

// signalTree sends sig to root and all its descendants and returns the descendants. The
// root is frozen first, so that it cannot fork a child that the walk would miss.
func signalTree(root int, sig syscall.Signal) ([]int, error) {
	if err := syscall.Kill(root, syscall.SIGSTOP); err != nil {
		return nil, fmt.Errorf("freeze process %d: %w", root, err)
	}
	below, err := descendants(root)
	if err != nil {
		return nil, err
	}
	for _, pid := range append([]int{root}, below...) {
		// One that has just ended by itself is as good as signalled.
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, fmt.Errorf("send %v to process %d: %w", sig, pid, err)
		}
	}
	return below, nil
}

// awaitGone waits until none of the processes runs any more. They are not our children,
// so there is nothing to wait on but the process table.
func awaitGone(pids []int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		table, err := processTable()
		if err != nil {
			return err
		}
		var alive []int
		for _, pid := range pids {
			if info, ok := table[pid]; ok && !info.zombie {
				alive = append(alive, pid)
			}
		}
		if len(alive) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for processes to end: %v still run after %v", alive, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func processTable() (map[int]processInfo, error) {
	if runtime.GOOS == "linux" {
		return readProc()
	}
	return readPS()
}

func readProc() (map[int]processInfo, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	table := make(map[int]processInfo)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it ended since the folder was listed
		}
		// "pid (name) state parent ...": the name may itself hold spaces and brackets.
		line := string(stat)
		fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			continue
		}
		table[pid] = processInfo{parent: parent, zombie: fields[0] == "Z" || fields[0] == "X"}
	}
	return table, nil
}

func readPS() (map[int]processInfo, error) {
	output, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,stat=").Output()
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	table := make(map[int]processInfo)
	for line := range strings.Lines(string(output)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		pid, err1 := strconv.Atoi(fields[0])
		parent, err2 := strconv.Atoi(fields[1])
		if err1 != nil || err2 != nil {
			continue
		}
		table[pid] = processInfo{parent: parent, zombie: strings.HasPrefix(fields[2], "Z")}
	}
	return table, nil
}
