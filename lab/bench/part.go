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
	usual       bool // when no part is named
	run         func(ctx context.Context, s *stack, o *options) ([]*report.Table, error)
}

func parts() []part {
	return []part{
		{"relay", "outbox to broker: Outlast, the broker alone, River, and relays by hand", true, relayPart},
		{"keys", "Outlast with fewer and fewer ordering keys", true, keysPart},
		{"sizes", "messages of 256 B, 4 KiB and 64 KiB", true, sizesPart},
		{"producer", "publishing in a transaction, against a bare INSERT", true, producerPart},
		{"latency", "from COMMIT to the committed effect", true, latencyPart},
		{"cost", "what one message costs each server and Outlast", true, costPart},
		{"flat", "does it stay as fast with a large backlog, an old snapshot, more relays, more queues", false, flatPart},
		{"steady", "a load for a long time (--for 45m), minute by minute", false, steadyPart},
		{"idle", "what services cost that have nothing to do", true, idlePart},
		{"consumer", "queue to committed effect, against the best by hand", true, consumerPart},
	}
}

func listParts(w io.Writer) {
	for _, p := range parts() {
		usual := " "
		if p.usual {
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
		if len(names) == 0 && p.usual {
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
