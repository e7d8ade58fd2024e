package main

import (
	"context"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

func (p *program) peekCommand() *cobra.Command {
	var (
		n     = 10
		part  int
		gen   int
		queue string
		body  bool
	)
	cmd := &cobra.Command{
		Use:   "peek GROUP",
		Short: "Look into a group's queue at the broker without taking anything",
		Long: `Peek shows the first messages of a group's queue and leaves them there. A message
that a consumer has in hand is not in the queue and is not shown. Bodies are shown
only with --body.`,
		Example: "  outlast peek billing\n  outlast peek billing --partition 2 -n 3 --body",
		Args:    args("GROUP"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if n < 1 || n > 1000 {
				return usage(cmd.CommandPath(), "-n", "1 to 1000", fmt.Sprint(n), "")
			}
			if part < 0 || gen < 1 {
				return usage(cmd.CommandPath(), "--partition and --generation", "from 0 and from 1", fmt.Sprintf("%d and %d", part, gen), "")
			}
			name := queue
			if name == "" {
				name = outlast.GroupTopology{Group: given[0], Generation: gen}.Queue(part)
			}
			return p.withBroker(cmd.Context(), func(ctx context.Context, b *broker) error {
				return p.peek(ctx, b, given[0], name, n, body)
			})
		},
	}
	cmd.Flags().IntVarP(&n, "count", "n", n, "at most so many messages, 1 to 1000")
	cmd.Flags().IntVar(&part, "partition", 0, "the group's queue number")
	cmd.Flags().IntVar(&gen, "generation", 1, "the group's queue generation")
	cmd.Flags().StringVar(&queue, "queue", "", "a queue by its full name instead")
	cmd.Flags().BoolVar(&body, "body", false, "show bodies too")
	return cmd
}

// peeked is one message of a queue.
type peeked struct {
	Envelope    outlast.Envelope `json:"envelope"`
	Redelivered bool             `json:"redelivered"`
	Problem     string           `json:"problem,omitempty"`
	BodySize    int              `json:"body_size"`
	Body        *string          `json:"body,omitempty"`
	BodyBytes   []byte           `json:"body_bytes,omitempty"`
}

// partOf is how the name of a queue ends, which is no group's.
var partOf = regexp.MustCompile(`\.\d+$`)

func (p *program) peek(ctx context.Context, b *broker, group, queue string, n int, body bool) error {
	ctx, cancel := p.brief(ctx)
	defer cancel()
	depth, err := b.Topology().Depth(ctx, queue)
	if outlast.CodeOf(err) == outlast.CodeNotFound {
		if at := partOf.FindStringIndex(group); at != nil {
			return withHint(err, "name the group alone: outlast peek "+group[:at[0]]+" --partition "+group[at[0]+1:])
		}
		return withHint(err, "a group's queues are there once its service has run: outlast topology show lists names, --queue takes any")
	}
	if err != nil {
		return err
	}
	deliveries, err := b.Topology().Peek(ctx, queue, n)
	if err != nil {
		return err
	}
	out := make([]peeked, len(deliveries))
	for i, d := range deliveries {
		out[i] = peeked{Envelope: d.Message.Envelope, Redelivered: d.Redelivered, BodySize: len(d.Message.Body)}
		if d.Problem != nil {
			out[i].Problem = outlast.CleanErrorText(d.Problem.Error())
		}
		if !body {
			continue
		}
		if text := string(d.Message.Body); utf8.ValidString(text) {
			out[i].Body = &text
		} else {
			out[i].BodyBytes = d.Message.Body
		}
	}
	if p.json {
		return p.printJSON(struct {
			outlast.QueueDepth
			Peeked []peeked `json:"peeked"`
		}{depth, out})
	}
	p.printf("queue %q: %s ready, %s\n", depth.Queue, plural(depth.Messages, "message"), plural(depth.Consumers, "consumer"))
	if len(out) > 0 {
		p.printPeeked(out)
	}
	return nil
}

func (p *program) printPeeked(messages []peeked) {
	t := newTable("ID", "TYPE", "KEY", "SOURCE", "ENQUEUED", "BYTES>", "AGAIN", "PROBLEM")
	for _, m := range messages {
		e := m.Envelope
		again := ""
		if m.Redelivered {
			again = "yes"
		}
		t.add(dash(cut(e.ID, 40)), dash(e.Type), dash(cut(e.Key, 24)), dash(cut(e.Source, 24)), timeText(e.EnqueuedAt), grouped(m.BodySize), dash(again), cut(m.Problem, 60))
	}
	t.write(p.out)
	for _, m := range messages {
		switch {
		case m.Body != nil:
			p.printf("%s %s\n", printable(dash(m.Envelope.ID)), printable(*m.Body))
		case m.BodyBytes != nil:
			p.printf("%s %s\n", printable(dash(m.Envelope.ID)), cut(strconv.QuoteToASCII(string(m.BodyBytes)), 4096))
		}
	}
}

func sortedNames(h outlast.Headers) []string {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
