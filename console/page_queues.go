package console

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

// queuesData are the queues of the broker, by the groups that they belong to.
type queuesData struct {
	Broker string
	At     time.Time
	Words  []string
	Rows   []queueRow
	Gaps   []gap
}

// queueRow is a queue as a page shows it.
type queueRow struct {
	Group, Queue        string
	Messages, Consumers int
	// State is "there", "missing" or "unknown"; the numbers count only when it is there.
	State  string
	Why    string // it is unknown
	Paused *outlast.PausedGroup
	Guess  bool // nobody has declared how many queues the group has
}

func (x *Console) queues(ctx context.Context, who *Identity, _ *http.Request) (*view, error) {
	if x.c.Broker == nil {
		return nil, notFound("broker")
	}
	known, gaps := x.knownGroups(ctx)
	o := x.observe(ctx, slices.Sorted(maps.Keys(known)))
	d := &queuesData{Broker: x.c.Redact(x.c.Broker.Address()), At: o.At, Gaps: gaps}
	failed, why := 0, ""
	for _, group := range slices.Sorted(maps.Keys(known)) {
		if !who.May(View, group, "") {
			continue
		}
		g := o.Groups[group]
		for _, q := range g.Queues {
			r := queueRow{Group: group, Queue: q.Queue, Messages: q.Messages, Consumers: q.Consumers, State: "there", Paused: known[group].Paused, Guess: g.Declared == nil}
			switch {
			case q.Missing:
				r.State = "missing"
			case q.Unknown != nil:
				r.State, r.Why = "unknown", x.c.Redact(q.Unknown.Error())
				failed, why = failed+1, r.Why
			}
			d.Rows = append(d.Rows, r)
		}
	}
	if failed > 0 && failed == len(d.Rows) {
		d.Words = append(d.Words, fmt.Sprintf("The broker does not say anything of its queues: %s. What lies in them is not known; what waits to be sent is safe in the databases.", strings.TrimSuffix(why, ".")))
	} else {
		for _, r := range d.Rows {
			d.Words = append(d.Words, r.words()...)
		}
	}
	return &view{Title: "Queues", Template: "queues", Data: d, JSON: d.forProgram()}, nil
}

// words says what needs a person.
func (r queueRow) words() []string {
	switch {
	case r.State == "unknown":
		return []string{"What lies in " + r.Queue + " is not known: " + r.Why + "."}
	case r.State == "missing" && r.Guess:
		return []string{r.Group + " has no queue " + r.Queue + ": has it ever run with this broker? If its generation is another one, its queues have other names."}
	case r.State == "missing":
		return []string{r.Queue + " is missing: messages for " + r.Group + " cannot get there. A consumer of the group makes it when it starts, or outlast topology apply."}
	case r.Messages > 0 && r.Consumers == 0 && r.Paused != nil:
		return []string{plural(r.Messages, "message") + " in " + r.Queue + ", while " + r.Group + " is paused by " + r.Paused.Who + "."}
	case r.Messages > 0 && r.Consumers == 0:
		return []string{plural(r.Messages, "message") + " in " + r.Queue + ", and nobody consumes it: is " + r.Group + " up?"}
	}
	return nil
}
