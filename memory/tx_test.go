package memory_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

func TestTx(t *testing.T) {
	ctx := t.Context()
	t.Run("shows what it put only when it commits", func(t *testing.T) {
		s := memory.NewStore()
		ran := false
		for _, commit := range []bool{false, true} {
			tx := s.Begin()
			must(t, tx.Put(ctx, "balance", 5))
			tx.Do(func() { ran = true })
			if tx.Get("balance") != 5 || s.Value("balance") != nil || ran {
				t.Fatalf("in the transaction %v, outside %v, ran %t", tx.Get("balance"), s.Value("balance"), ran)
			}
			if !commit {
				must(t, tx.Rollback())
				continue
			}
			must(t, tx.Commit())
		}
		if s.Value("balance") != 5 || !ran {
			t.Fatalf("after the commit: %v, ran %t", s.Value("balance"), ran)
		}
	})
	t.Run("loses no update and finds a deadlock", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewStore()
			a, b := s.Begin(), s.Begin()
			must(t, a.Put(t.Context(), "x", 1))
			must(t, b.Put(t.Context(), "y", 1))
			done := make(chan error)
			go func() { done <- b.Update(t.Context(), "x", func(old any) any { return old.(int) + 1 }) }()
			synctest.Wait() // b waits for a
			if err := a.Put(t.Context(), "y", 2); outlast.CodeOf(err) != outlast.CodeUnavailable {
				t.Fatalf("a deadlock gave %v", err)
			}
			must(t, a.Commit())
			must(t, <-done)
			must(t, b.Commit())
			if s.Value("x") != 2 {
				t.Fatalf("x is %v, want 2", s.Value("x"))
			}
		})
	})
	t.Run("says that it understands no SQL", func(t *testing.T) {
		tx := memory.NewStore().Begin()
		if _, err := tx.ExecContext(ctx, "DELETE FROM orders"); err == nil {
			t.Error("ExecContext succeeded")
		}
		if err := tx.QueryRowContext(ctx, "SELECT 1").Scan(new(int)); err == nil || errors.Is(err, sql.ErrNoRows) {
			t.Errorf("QueryRowContext gave %v", err)
		}
		must(t, tx.Rollback())
		if err := tx.Rollback(); !errors.Is(err, sql.ErrTxDone) {
			t.Errorf("a second rollback gave %v", err)
		}
	})
}

func TestStoreFaults(t *testing.T) {
	ctx := t.Context()
	t.Run("fails the next calls of a role", func(t *testing.T) {
		s := memory.NewStore(memory.FailNext(memory.RoleInbox, 2))
		for i := range 3 {
			_, err := s.Inbox().Paused(ctx, "g")
			if failed := outlast.CodeOf(err) == outlast.CodeUnavailable; failed != (i < 2) {
				t.Fatalf("call %d: %v", i, err)
			}
		}
	})
	t.Run("leaves the outcome of a commit unknown", func(t *testing.T) {
		for _, applied := range []bool{true, false} {
			s := memory.NewStore(memory.CommitUnknown(1, applied))
			tx := s.Begin()
			must(t, tx.Put(ctx, "x", 1))
			if err := tx.Commit(); outlast.CodeOf(err) != outlast.CodeUnknown {
				t.Fatalf("commit: %v", err)
			}
			if got := s.Value("x") != nil; got != applied {
				t.Fatalf("applied %t, want %t", got, applied)
			}
		}
	})
	t.Run("is slow by the clock of the bubble", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewStore(memory.Slow(memory.RoleCheck, time.Hour))
			began := time.Now()
			must(t, s.Check(t.Context()))
			if took := time.Since(began); took != time.Hour {
				t.Fatalf("took %v", took)
			}
			short, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := s.Check(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("a call whose context ended gave %v", err)
			}
		})
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
