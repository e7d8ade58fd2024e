//go:build !outlast_earlier

package role

import "github.com/outlastmq/outlast"

// woken has a relay listen for wake-ups, and waking has an outbox send them. The earlier
// commit has neither.
func woken(c outlast.RelayConfig) outlast.RelayConfig {
	c.WakeUps = true
	return c
}

func waking(c outlast.OutboxConfig) outlast.OutboxConfig {
	c.WakeUps = true
	return c
}
