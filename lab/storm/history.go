package storm

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/outlastmq/outlast/lab/storm/role"
	"github.com/outlastmq/outlast/outlasttest/check"
	"github.com/outlastmq/outlast/outlasttest/history"
	"github.com/outlastmq/outlast/postgres"
)

func (s *stage) historyFolder() string { return filepath.Join(s.config.Folder, "history") }

// openHistory begins the lab's own part of the history: the faults, and what was left.
func (s *stage) openHistory() (err error) {
	if s.config.WithoutHistory {
		return nil
	}
	if err := os.MkdirAll(s.historyFolder(), 0o755); err != nil {
		return err
	}
	if s.history, err = history.NewRecorder(filepath.Join(s.historyFolder(), "lab.jsonl"), "lab"); err != nil {
		return err
	}
	s.timeline.Observe(func(name string, on bool) {
		if on {
			s.history.Fault(concern(name)+": "+name, history.On, "")
		} else {
			s.history.Fault(concern(name)+": "+name, history.Off, "")
		}
	})
	return nil
}

// concern is the part of the system that a fault is about, by its name.
func concern(name string) string {
	for _, c := range []struct{ word, concern string }{
		{"clock", "clock"}, {"dead letters", "consumer"}, {"producer", "producer"}, {"every process", "producer"}, // among others
		{"relay", "relay"}, {"billing-", "consumer"}, {"audit-", "consumer"}, {"orders-", "consumer"}, {"late-", "consumer"},
		{"postgres", "database"}, {"standby", "database"}, {"pgbouncer", "database"}, {"sessions", "database"}, {"database", "database"}, {"tables", "database"},
	} {
		if strings.Contains(name, c.word) {
			return c.concern
		}
	}
	return "broker"
}

// closeHistory records what became of every transaction and of every message that is still
// somewhere. All processes must have ended.
func (s *stage) closeHistory(ctx context.Context, rest Rest) error {
	if s.history == nil {
		return nil
	}
	s.history.Quiesce(rest.Reached)
	for _, name := range databaseNames {
		if err := role.Ledger(name).Read(ctx, s.databases[name], s.history); err != nil {
			return err
		}
		if err := s.history.Left(ctx, postgres.Store(s.databases[name]), name); err != nil {
			return err
		}
	}
	return s.history.Close()
}

// checkHistory has the histories judged by the invariants.
func (s *stage) checkHistory(ctx context.Context, report *Report) error {
	if s.history == nil {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(s.historyFolder(), "*.jsonl"))
	if err != nil {
		return err
	}
	report.History, err = check.Files(ctx, check.Options{Recover: s.config.Patience}, files...)
	return err
}
