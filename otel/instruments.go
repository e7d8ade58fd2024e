package otel

import "strings"

// Instrument describes one metric of this package.
type Instrument struct {
	// Name is OpenTelemetry's.
	Name string
	// Kind is "counter", "gauge" or "histogram".
	Kind string
	// Unit is UCUM's: "s", or a word in braces.
	Unit string
	// Labels besides service; those of the messaging conventions are written with dots.
	Labels []string
	// Description says what it counts.
	Description string
}

// Prometheus is the name that the metric has in Prometheus: dots become underscores,
// seconds and, for counters, "total" are appended.
func (i Instrument) Prometheus() string {
	name := strings.ReplaceAll(i.Name, ".", "_")
	if i.Unit == "s" {
		name += "_seconds"
	}
	if i.Kind == "counter" {
		name += "_total"
	}
	return name
}

// Buckets of the histograms, in seconds: the first are those of the messaging
// conventions, the others reach from a commit to what may be days later.
var (
	operationBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	journeyBuckets   = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400}
)

const (
	counter   = "counter"
	gauge     = "gauge"
	histogram = "histogram"
)

// What hooks tell. Names end as Prometheus shows them, with its unit left out.
var (
	enqueued = Instrument{"outlast.enqueued", counter, "{message}", []string{"type"},
		"Messages written into the outbox. Their transactions may still roll back."}
	outcomes = Instrument{"outlast.relay.outcomes", counter, "{publish}", []string{"type", "outcome"},
		"Publishes by what became of them: confirmed, returned, nacked, refused, not_sent, unknown, lane_error."}
	settledRows = Instrument{"outlast.relay.settled", counter, "{message}", []string{"type", "result"},
		"Rows that left their place in a committed settlement: sent (deleted after a confirm), expired, held (moved to outlast_held, or kept there), released (moved back to the outbox)."}
	commitToConfirm = Instrument{"outlast.commit_to_confirm", histogram, "s", []string{"type"},
		"From the enqueue to the broker's confirm, by the clocks of the producer's database and of the relay."}
	progress = Instrument{"outlast.relay.last_progress_timestamp", gauge, "s", nil,
		"When this relay last settled a sent message, in Unix time; its start before."}
	lapsed = Instrument{"outlast.relay.lease_lapsed", counter, "{lease}", nil,
		"Leases that ended before they were renewed or given back: the rows of these slots went to another relay, or came anew."}
	slots = Instrument{"outlast.relay.slots", gauge, "{slot}", nil,
		"Slots that this relay holds."}
	closedRoutes = Instrument{"outlast.relay.closed_routes", gauge, "{route}", nil,
		"Routes that take nothing now: no queue is bound, or it refuses."}
	linkUp = Instrument{"outlast.link.up", gauge, "{connection}", []string{"link"},
		"1 while a connection works: link is relay, the name of a queue that this process is to serve, or wake-ups (of a relay that is to listen; without it, it sweeps)."}
	linkBlocked = Instrument{"outlast.link.blocked", gauge, "{connection}", []string{"link"},
		"1 while the broker is connected and takes no messages."}
	certificateExpiry = Instrument{"outlast.link.certificate.expiry.timestamp", gauge, "s", []string{"link"},
		"When the first certificate of a connection by TLS ends, the broker's or this side's own, in seconds since 1970."}
	handled = Instrument{"outlast.handled", counter, "{message}", []string{"group", "type", "outcome"},
		"Ends of messages and of tries, each counted after its commit: ok, duplicate, deferred (waits for a retry), behind (waits for an earlier one of its key), ignored (waits for a build that knows its type), dead, expired."}
	commitToHandled = Instrument{"outlast.commit_to_handled", histogram, "s", []string{"group", "type"},
		"From the enqueue to the commit of the effects, by the clocks of the producer's database and of the consumer."}
	handlingDeadline = Instrument{"outlast.handling_deadline", gauge, "s", []string{"group", "type"},
		"How soon after its enqueue the contract promises that a message is handled (Within), by the last one of the type that came to the group. Not there without such a promise."}
	replayed = Instrument{"outlast.replayed", counter, "{message}", []string{"group", "result"},
		"Ends of dead letters that a person replayed: ok, dead, deferred, expired."}
	failures = Instrument{"outlast.handler_failures", counter, "{try}", []string{"group", "type", "error_type"},
		"Tries that did not end well, by class of error: dead_letter, snoozed, unavailable, panic, deadline, canceled, a code of outlast.Error, or error."}
)

// What is read from the store.
var (
	pending = Instrument{"outlast.outbox.pending_messages", gauge, "{message}", []string{"type"},
		"Messages in the outbox, to be sent now. Counting stops at a million."}
	oldestPending = Instrument{"outlast.outbox.oldest_pending_age", gauge, "s", nil,
		"Age of the oldest of them; 0 when there is none."}
	neverAttempted = Instrument{"outlast.outbox.never_attempted_messages", gauge, "{message}", nil,
		"Pending messages in slots that no live relay holds: nobody even tries to send them."}
	parked = Instrument{"outlast.outbox.parked_messages", gauge, "{message}", []string{"type", "reason"},
		"Messages in outlast_held by reason: due (until its time), backoff, refused, behind, unroutable, route."}
	oldestParked = Instrument{"outlast.outbox.oldest_parked_age", gauge, "s", []string{"reason"},
		"How long the longest of them is held."}
	drainETA = Instrument{"outlast.outbox.drain_eta", gauge, "s", nil,
		"Time until the outbox is empty at the pace of the last five minutes; not there while the backlog does not shrink."}
	relays = Instrument{"outlast.relay.alive", gauge, "{relay}", nil,
		"Relays alive on this outbox, by their records."}
	relaysPaused = Instrument{"outlast.relay.paused", gauge, "{outbox}", nil,
		"1 while an operator has paused the relays of this outbox."}
	retrying = Instrument{"outlast.retry.messages", gauge, "{message}", []string{"group", "type"},
		"Messages that wait for a retry, or behind an earlier one of their key."}
	retryOldest = Instrument{"outlast.retry.oldest_age", gauge, "s", []string{"group"},
		"Time since the first sight of the oldest of them."}
	retryOverdue = Instrument{"outlast.retry.overdue_messages", gauge, "{message}", []string{"group"},
		"Those whose time came more than a minute ago and that nobody has tried."}
	dead = Instrument{"outlast.dead_letter.messages", gauge, "{message}", []string{"group", "type"},
		"Dead letters that wait for a person."}
	deadOldest = Instrument{"outlast.dead_letter.oldest_age", gauge, "s", []string{"group"},
		"Age of the oldest dead letter."}
	paused = Instrument{"outlast.consumer.paused", gauge, "{group}", []string{"group"},
		"1 while an operator has paused the group."}
	sampledAt = Instrument{"outlast.sample_timestamp", gauge, "s", nil,
		"When the gauges of the store were read, in Unix time. When it grows old, they are too; after Config.StaleAfter they are withheld."}
	sampleFailures = Instrument{"outlast.sample_failures", counter, "{read}", nil,
		"Reads of the gauges that failed."}
	operatorActions = Instrument{"outlast.operator_actions", counter, "{action}", []string{"action", "result"},
		"Actions of people by the record that the database keeps of them, as outlast actions lists it: pause, resume, outbox release, outbox withdraw, retry now, dead replay, dead discard, dead edit, books resend, books sign-off, books unhear. result is done, or nothing when it found nothing to do."}
)

// What the messaging conventions name. Their labels are the conventions' own.
var (
	sent = Instrument{"messaging.client.sent.messages", counter, "{message}",
		[]string{"messaging.system", "messaging.operation.name", "messaging.destination.name", "error.type"},
		"Messages that the relay tried to send; error.type is the outcome when it is not a confirm."}
	consumed = Instrument{"messaging.client.consumed.messages", counter, "{message}",
		[]string{"messaging.system", "messaging.operation.name", "messaging.destination.name", "messaging.consumer.group.name"},
		"Deliveries that were taken from the broker, each redelivery anew."}
	operationDuration = Instrument{"messaging.client.operation.duration", histogram, "s",
		[]string{"messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name", "error.type"},
		"From a publish to the broker's answer."}
	processDuration = Instrument{"messaging.process.duration", histogram, "s",
		[]string{"messaging.system", "messaging.operation.name", "messaging.destination.name", "messaging.consumer.group.name", "error.type"},
		"From the call of a handler to the commit or the roll-back of its transaction."}
)

// Instruments lists every metric of this package.
func Instruments() []Instrument {
	return []Instrument{
		enqueued, outcomes, settledRows, commitToConfirm, progress, lapsed, slots, closedRoutes, linkUp, linkBlocked, certificateExpiry,
		handled, commitToHandled, handlingDeadline, replayed, failures,
		pending, oldestPending, neverAttempted, parked, oldestParked, drainETA, relays,
		relaysPaused, retrying, retryOldest, retryOverdue, dead, deadOldest, paused, sampledAt, sampleFailures,
		operatorActions,
		booksMissing, booksUnbalanced, booksOpen, booksLag, booksFailures,
		sent, consumed, operationDuration, processDuration,
	}
}
