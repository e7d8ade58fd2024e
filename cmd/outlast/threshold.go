package main

import (
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

// thresholds warn of an outbox that grows in a long outage, before the disk is
// full. 0 turns one off.
type thresholds struct {
	pending int
	bytes   size
	age     time.Duration
}

func defaultThresholds() thresholds {
	return thresholds{pending: 100_000, bytes: 1 << 30, age: 10 * time.Minute}
}

func (t *thresholds) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&t.pending, "warn-pending", t.pending, "warn above so many messages to send; 0 for never")
	cmd.Flags().Var(&t.bytes, "warn-bytes", "warn above this room of the outbox on disk; 0 for never")
	cmd.Flags().DurationVar(&t.age, "warn-age", t.age, "warn when the oldest message to send is older; 0 for never")
}

func (t *thresholds) check(op string) error {
	switch {
	case t.pending < 0:
		return usage(op, "--warn-pending", "positive, or 0 for never", fmt.Sprint(t.pending), "")
	case t.age < 0:
		return usage(op, "--warn-age", "positive, or 0 for never", t.age.String(), "")
	}
	return nil
}

// warnings returns what is above its threshold, in words.
func (t *thresholds) warnings(s *outlast.StoreStatus, bytes int64) []string {
	out := []string{}
	if n, exact := toSend(s); t.pending > 0 && n > t.pending {
		text := grouped(n)
		if !exact {
			text = "more than " + text
		}
		out = append(out, fmt.Sprintf("%s messages wait to be sent, above %s", text, grouped(t.pending)))
	}
	if oldest := oldestToSend(s); t.age > 0 && oldest > t.age {
		out = append(out, fmt.Sprintf("the oldest message to send waits for %s, above %s", durationText(oldest), durationText(t.age)))
	}
	if t.bytes > 0 && bytes > int64(t.bytes) {
		out = append(out, fmt.Sprintf("the outbox takes %s on disk, above %s", sizeText(bytes), t.bytes.String()))
	}
	return out
}
