package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/journey"
	"github.com/spf13/cobra"
)

// drawFlags say how an answer is drawn.
type drawFlags struct {
	places placeFlags
	format string
	limit  int
	grace  time.Duration
	memory string
}

func (f *drawFlags) flags(cmd *cobra.Command) {
	f.places.flags(cmd)
	cmd.Flags().StringVar(&f.format, "format", "text", "text, json, mermaid or svg")
	cmd.Flags().IntVar(&f.limit, "limit", 1000, "messages at most, 1 to 1000")
	cmd.Flags().StringVar(&f.memory, "collector", "", "a collector's database, to show what it remembers of a database that does not answer; a URL or env:NAME")
	cmd.Flags().DurationVar(&f.grace, "grace", 5*time.Minute, "how long what should happen may take before it is a verdict")
}

func (p *program) asker(op string, f *drawFlags, places []journey.Place) (*journey.Asker, error) {
	switch {
	case f.format != "text" && f.format != "json" && f.format != "mermaid" && f.format != "svg":
		return nil, usage(op, "--format", "text, json, mermaid or svg", "another text", "")
	case f.limit < 1 || f.limit > 1000:
		return nil, usage(op, "--limit", "1 to 1000", fmt.Sprint(f.limit), "")
	case f.grace <= 0:
		return nil, usage(op, "--grace", "positive", f.grace.String(), "")
	}
	if p.json {
		f.format = "json"
	}
	return &journey.Asker{Places: places, Patience: p.timeout, Limit: f.limit, Grace: f.grace}, nil
}

// withAsker opens the databases, and the collector's when one is named.
func (p *program) withAsker(cmd *cobra.Command, f *drawFlags, do func(ctx context.Context, a *journey.Asker) error) error {
	return p.withPlaces(cmd.Context(), &f.places, func(ctx context.Context, places []journey.Place) error {
		a, err := p.asker(cmd.CommandPath(), f, places)
		if err != nil {
			return err
		}
		return p.withMemory(ctx, f.memory, func(ctx context.Context, m *collector.Store) error {
			if m != nil {
				a.Memory = m
			}
			return do(ctx, a)
		})
	})
}

func (p *program) findCommand() *cobra.Command {
	var f drawFlags
	cmd := &cobra.Command{
		Use:   "find KEY|ID|FLOW",
		Short: "Find messages by id, flow or business key, wherever they are",
		Long: `Find asks the databases of all services at once for the messages that have this id,
belong to this flow, or carry this business key (a field tagged "find") or ordering
key: pending, held, sent, waiting for a retry, handled and dead ones. Of more messages
than --limit the newest are shown, each with all that is known of it.

A database that cannot be reached is shown as unknown: what it knows is missing from
the answer, and the exit code is 1. So it is when nothing is found. A message whose
sender has its database elsewhere is "not asked" on the sender's side: name that
database with --in.

With --collector, what a collector remembers of a database that does not answer is shown
with its time. It is a copy: the gap stays a gap, and the exit code is 1.`,
		Example: `  outlast find order-7 --in env:ORDERS_DB --in env:BILLING_DB
  outlast find 0198c0de-0000-7000-8000-000000000001 --format svg > message.svg`,
		Args: args("KEY|ID|FLOW"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return p.withAsker(cmd, &f, func(ctx context.Context, a *journey.Asker) error {
				found, err := a.Find(ctx, given[0])
				if err != nil {
					return err
				}
				p.hidePlaces(found.Places)
				if f.format == "json" {
					err = p.printJSON(found)
				} else {
					err = p.draw(found.AsFlow(), f.format, false)
				}
				if err != nil {
					return err
				}
				if err := gapsIn(cmd.CommandPath(), found.Places); err != nil || len(found.Stories) > 0 {
					return err
				}
				return nothingHas("id, flow or key", cmd.CommandPath(), "name other databases with --in; what was not written by a Go contract has only the business keys that its writer gave it")
			})
		},
	}
	f.flags(cmd)
	return cmd
}

// draw prints a flow in a format that is not JSON.
func (p *program) draw(flow *journey.Flow, format string, asTree bool) error {
	switch format {
	case "mermaid":
		return flow.WriteMermaid(p.out)
	case "svg":
		return flow.WriteSVG(p.out)
	}
	for _, place := range flow.Places {
		switch {
		case place.Unknown != "":
			p.printf("? %s: unknown, it could not be asked: %s\n", printable(place.Name), printable(oneLine(place.Unknown)))
			if !place.AsOf.IsZero() {
				p.printf("  what is shown of it is the collector's copy of %s, %s old\n", timeText(place.AsOf), durationText(time.Since(place.AsOf)))
			}
		case place.Untracked:
			p.printf("! %s has no sent log: what it has sent is not known here (outlast migrate up)\n", printable(place.Name))
		}
	}
	flow.Walk(func(n *journey.Node, depth int) {
		indent := ""
		if asTree {
			indent = strings.Repeat("   ", depth)
		}
		typ := n.Type()
		if typ == "" {
			typ = "unknown message"
		}
		p.printf("%s%s  %s  %s%s\n", indent, printable(typ), printable(n.ID), timeText(n.EnqueuedAt()), businessKeys(n.Envelope))
		for _, line := range n.Lines() {
			p.printf("%s   %s\n", indent, printable(line))
		}
		if n.Send.State == journey.Sent && len(n.Groups)+len(n.Awaited) == 0 {
			p.printf("%s   no database that was asked knows a group that hears it: name those of its receivers with --in\n", indent)
		}
	})
	if flow.More {
		p.printf("%s (raise --limit, or ask for less)\n", flow.RestText())
	}
	return nil
}

func businessKeys(e *outlast.Envelope) string {
	if e == nil {
		return ""
	}
	text := ""
	if e.Key != "" {
		text += "  key " + printable(e.Key)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Find)) {
		text += "  " + printable(name) + "=" + printable(e.Find[name])
	}
	return text
}

// gapsIn is nil when all databases were asked.
func gapsIn(op string, places []journey.PlaceState) error {
	var gaps []string
	for _, place := range places {
		if place.Unknown != "" {
			gaps = append(gaps, place.Name)
		}
	}
	if len(gaps) == 0 {
		return nil
	}
	return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: fmt.Errorf("the answer has gaps: %s could not be asked", strings.Join(gaps, ", "))}
}

// nothingHas is the whole answer when no message was found.
func nothingHas(what, op, hint string) error {
	return &outlast.Error{Op: op, Code: outlast.CodeNotFound, Err: fmt.Errorf("no message has this %s in the databases that were asked", what), Hint: hint}
}
