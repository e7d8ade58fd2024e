package storm

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestALeaderThatEndsAtOnceIsNone: queues count as led when their leaders stay. One whose leaders
// end one after the other, and then stay away, has none.
func TestALeaderThatEndsAtOnceIsNone(t *testing.T) {
	down := errors.New("the node does not answer")
	for _, c := range []struct {
		name       string
		look       func(after time.Duration) (string, error)
		leaderless []string
		err        error
		took       time.Duration
	}{
		{"it stays", func(time.Duration) (string, error) { return "rabbit1", nil }, nil, nil, leaderTime},
		{"it comes late", func(after time.Duration) (string, error) {
			if after < 20*time.Second {
				return "", nil
			}
			return "rabbit1", nil
		}, nil, nil, 20*time.Second + leaderTime},
		{"it ends and nobody follows", func(after time.Duration) (string, error) {
			if after < 3*time.Second {
				return "rabbit1", nil
			}
			return "", nil
		}, []string{"audit.1"}, nil, electionLimit},
		{"it comes and goes", func(after time.Duration) (string, error) {
			if after/time.Second%5 == 4 {
				return "", nil
			}
			return "rabbit1", nil
		}, []string{"audit.1"}, nil, electionLimit},
		{"nobody can tell", func(time.Duration) (string, error) { return "", down }, nil, down, electionLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				led, leaderless, err := awaitLeaders(t.Context(), func(context.Context) (map[string]string, error) {
					node, err := c.look(time.Since(began))
					if err != nil {
						return nil, err
					}
					return map[string]string{"audit.0": "rabbit2", "audit.1": node}, nil
				})
				if !slices.Equal(leaderless, c.leaderless) || !errors.Is(err, c.err) {
					t.Errorf("%v have no leader, error %v; want %v and %v", leaderless, err, c.leaderless, c.err)
				}
				if c.leaderless == nil && c.err == nil && led["audit.1"] != "rabbit1" {
					t.Errorf("led by %v", led)
				}
				if took := time.Since(began); took < c.took || took > c.took+5*time.Second {
					t.Errorf("it took %v, not %v", took, c.took)
				}
			})
		})
	}
}
