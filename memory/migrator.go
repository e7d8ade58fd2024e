package memory

import (
	"context"
	"fmt"
	"io"

	"github.com/outlastmq/outlast"
)

// latest is the version of the memory store's tables.
const latest = 2

// tracked is the version that brought the sent log; older ones work without it.
const tracked = 2

type migrator struct{ s *Store }

func (m migrator) Latest() int { return latest }

func (m migrator) Version(ctx context.Context) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, unavailable("read version", err)
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return m.s.version, nil
}

func (m migrator) Up(ctx context.Context, to int) error {
	if to == 0 {
		to = latest
	}
	return m.migrate(ctx, "migrate up", to, func(have int) bool { return have < to })
}

func (m migrator) Down(ctx context.Context, to int) error {
	return m.migrate(ctx, "migrate down", to, func(have int) bool { return have > to })
}

func (m migrator) migrate(ctx context.Context, op string, to int, moves func(have int) bool) error {
	if to < 0 || to > latest {
		return invalid(op, "version", fmt.Sprintf("0 to %d", latest), fmt.Sprint(to))
	}
	if err := ctx.Err(); err != nil {
		return unavailable(op, err)
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if moves(m.s.version) {
		if m.s.version == 0 || to == 0 {
			m.s.clear()
		}
		if to < tracked {
			m.s.clearJournal()
		}
		m.s.version = to
	}
	return nil
}

func (m migrator) Print(w io.Writer, from, to int) error {
	if from < 0 || to > latest || from > to {
		return invalid("print migrations", "versions", fmt.Sprintf("0 to %d, rising", latest), fmt.Sprintf("%d to %d", from, to))
	}
	for v := from + 1; v <= to; v++ {
		if _, err := fmt.Fprintf(w, "-- version %d: the memory store needs no SQL\n", v); err != nil {
			return &outlast.Error{Op: "print migrations", Code: outlast.CodeInternal, Err: err}
		}
	}
	return nil
}
