package main

import (
	"fmt"
	"time"
)

// Fewer messages, or shorter steps, say nothing about what the servers can do.
const (
	benchFewMessages = 1000
	benchShortStep   = time.Second
)

// advice says what the numbers mean and which settings would help.
func (m *benchRun) advice() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	r := m.rates
	ratio := func(a, b string) float64 { return r[a] / max(r[b], 1e-9) }

	if m.f.rows < benchFewMessages || m.f.time < benchShortStep {
		say("%d messages and %v for each step are a try, not a measurement: take %d and %v at least (--messages, --for).", m.f.rows, m.f.time, benchFewMessages, benchShortStep)
		return out
	}
	say("Your ceiling is %.0f msg/s: the lower one of what the broker confirms and of what producers commit here with %d clients.",
		min(r[rateCeiling], r[rateBare]), benchClients)
	if r[oneCommit] > 5 {
		say("A transaction takes %.1f ms, mostly the disk or the network of the database. Several messages in one Publish cost hardly more than one.", r[oneCommit])
	}
	switch q := ratio(ratePublish, rateBare); {
	case q < 0.5:
		say("Publish reaches %.0f %% of a bare INSERT, less than the checks of the outbox explain: is a trigger on it, or is the database short of CPU?", 100*q)
	case q < 0.8:
		say("Publish reaches %.0f %% of a bare INSERT, as the outbox checks each row. Several messages in one Publish share the rest of a transaction.", 100*q)
	}
	switch q := ratio(rateRelay, rateCeiling); {
	case q < 0.5 && m.f.keys > 0 && m.f.keys < 200:
		say("The relay reaches %.0f %% of the broker's ceiling. One unconfirmed message of each ordering key is allowed: %d keys pass at most %.0f msg/s here. More keys, or none where order does not matter, are faster.",
			100*q, m.f.keys, float64(m.f.keys)*1000/r[oneConfirm])
	case q < 0.5:
		say("The relay reaches %.0f %% of the broker's ceiling: the database limits it. Run it near the database, and look at the database's disk and CPU.", 100*q)
	default:
		say("The relay reaches %.0f %% of the broker's ceiling; a second relay helps only on other cores.", 100*min(q, 1))
	}
	if m.f.keys > 0 {
		say("A confirm takes %.2f ms, so one ordering key passes at most %.0f msg/s.", r[oneConfirm], 1000/r[oneConfirm])
	}
	if int64(m.f.size)*benchInFlight > 8<<20 {
		say("1,024 messages of this size are more than RelayConfig.InFlightBytes (8 MiB) allows: raise it (--in-flight-bytes) where the broker is far away.")
	}
	if q := ratio(rateBatches, rateConsume); q > 1.5 {
		say("ConsumerConfig.Batch: 100 handles %.1f times as many messages, for handlers whose effects are all in the transaction.", q)
	}
	if r[rateConsume] < r[rateRelay]/2 {
		say("Consumers that handle one message in a transaction are the slowest step: more Workers help while the database has CPU, then Batch, then Partitions on other machines.")
	}
	return out
}
