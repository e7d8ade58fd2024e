package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/outlastmq/outlast/internal/report"
)

// surroundings are what else decides about the numbers of a run.
type surroundings struct {
	// CPU is the processor's name; empty where it is not known. Times of two processors do not compare.
	CPU string `json:"cpu,omitempty"`
	// SyncMS is the time in milliseconds that the disk of the servers takes to make
	// 4 KiB durable, in the middle, and SlowSyncMS in the slowest of a hundred.
	SyncMS     float64 `json:"sync_ms"`
	SlowSyncMS float64 `json:"slow_sync_ms"`
	// Load is the machine's load average before the run; empty where it is not known.
	Load string `json:"load,omitempty"`
}

const syncProbes = 100

func lookAround() (s surroundings, err error) {
	data, _ := os.ReadFile("/proc/loadavg") // absent on other systems
	if fields := strings.Fields(string(data)); len(fields) > 0 {
		s.Load = fields[0]
	}
	data, _ = os.ReadFile("/proc/cpuinfo") // absent on other systems too
	s.CPU = processorName(string(data))
	f, err := os.CreateTemp("", "outlast-bench-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page, took := make([]byte, 4096), make([]float64, 0, syncProbes)
	for range syncProbes {
		if _, err := f.Write(page); err != nil {
			return s, err
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return s, err
		}
		took = append(took, time.Since(began).Seconds()*1000)
	}
	s.SyncMS, s.SlowSyncMS = report.Quantile(took, 0.5), report.Quantile(took, 0.99)
	return s, nil
}

// machineSpeed is the CPU, in seconds, that a fixed piece of work takes now: shared cores have more than one speed.
func machineSpeed() float64 {
	data, took := make([]byte, 4<<20), make([]float64, 0, 25)
	for range cap(took) {
		before, _ := processCPU()
		sha256.Sum256(data)
		after, _ := processCPU()
		took = append(took, after-before)
	}
	return report.Quantile(took, 0.5)
}

// processorName reads the first processor's name from the kernel's list of them.
func processorName(list string) string {
	for line := range strings.Lines(list) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (s surroundings) String() string {
	text := fmt.Sprintf("a sync of the disk takes %s ms, the slowest in a hundred %s ms", report.Number(s.SyncMS), report.Number(s.SlowSyncMS))
	if s.Load != "" {
		text += "; load average " + s.Load
	}
	if s.CPU != "" {
		text = s.CPU + "; " + text
	}
	return text
}
