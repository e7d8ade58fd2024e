//go:build outlast_earlier

package role

import "github.com/outlastmq/outlast"

func woken(c outlast.RelayConfig) outlast.RelayConfig { return c }

func waking(c outlast.OutboxConfig) outlast.OutboxConfig { return c }
