package main

import (
	"context"
	"fmt"
	"io"

	"github.com/outlastmq/outlast/internal/report"
)

// part is a group of measurements that can be asked for by name.
type part struct {
	name, about string
	rounds      int // unless --rounds says otherwise; 0: one, and not when no part is named
	run         func(ctx context.Context, s *stack, o *options) ([]*report.Table, error)
}

func parts() []part {
	return []part{
		{"relay", "outbox to broker: Outlast, the broker alone, River, and relays by hand", 5, relayPart},
		{"keys", "Outlast with fewer and fewer ordering keys", 3, keysPart},
		{"tracking", "a whole busy system with the sent log and without", 3, trackingPart},
		{"sizes", "messages of 256 B, 4 KiB and 64 KiB", 2, sizesPart},
		{"producer", "publishing in a transaction, against INSERTs by hand", 2, producerPart},
		{"latency", "from COMMIT to the committed effect", 1, latencyPart},
		{"cost", "what one message costs each server and Outlast", 1, costPart},
		{"flat", "does it stay as fast with a large backlog, an old snapshot, more relays, more queues", 0, flatPart},
		{"steady", "a load for a long time (--for 45m), period by period", 0, steadyPart},
		{"held", "the same under a transaction that stays open (--for 10m)", 0, heldPart},
		{"idle", "what services cost that have nothing to do", 0, idlePart},
		{"recovery", "a broker that comes back, and messages that fail, as others feel them", 0, recoveryPart},
		{"consumer", "queue to committed effect, against the best by hand", 3, consumerPart},
	}
}

func listParts(w io.Writer) {
	for _, p := range parts() {
		usual := " "
		if p.rounds > 0 {
			usual = "*"
		}
		fmt.Fprintf(w, "  %s %-9s %s\n", usual, p.name, p.about)
	}
	fmt.Fprintln(w, "  * runs when no part is named")
}

// choose returns the named parts, or the usual ones.
func choose(names []string) ([]part, error) {
	var chosen []part
	for _, p := range parts() {
		if len(names) == 0 && p.rounds > 0 {
			chosen = append(chosen, p)
		}
	}
	for _, name := range names {
		p, err := find(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

func find(name string) (part, error) {
	for _, p := range parts() {
		if p.name == name {
			return p, nil
		}
	}
	return part{}, fmt.Errorf("there is no part %q; `bench list` shows them", name)
}
