package main

import (
	"context"
	"fmt"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

func (p *program) pauseCommand() *cobra.Command {
	var (
		reason string
		relays bool
		force  bool
	)
	cmd := &cobra.Command{
		Use:   "pause GROUP|--relays",
		Short: "Stop a group's consumers from starting messages, or the relays from sending, until resume",
		Long: `Pause stops every instance of a group from handling messages; what it has in hand
it finishes. Messages go on collecting in the group's queues. The group notices
within a few seconds. A group that the database does not know is refused, unless
--force is given: it then waits for resume when it starts for the first time.

With --relays it stops every relay of the database's outbox from sending, also those
that start later. A relay notices within a third of its leases' time (3.3 s unless it
is set otherwise), settles what it has sent and gives its slots back. Messages go on
collecting in the outbox. Relays of builds that do not know this switch go on with
their share: see docs/operations.md.`,
		Example: "  outlast pause billing --reason \"card service is down\"\n  outlast pause --relays --reason \"the broker moves\"",
		RunE: func(cmd *cobra.Command, given []string) error {
			return p.setPaused(cmd, given, relays, true, force, reason)
		},
	}
	cmd.Flags().BoolVar(&relays, "relays", false, "the relays of the outbox instead of a group")
	cmd.Flags().StringVar(&reason, "reason", "", "why you do this, for the record and for status")
	cmd.Flags().BoolVar(&force, "force", false, "also a group that the database does not know, before its first start")
	return cmd
}

func (p *program) resumeCommand() *cobra.Command {
	var relays, force bool
	cmd := &cobra.Command{
		Use:     "resume GROUP|--relays",
		Short:   "Let a paused group, or paused relays, go on",
		Example: "  outlast resume billing\n  outlast resume --relays",
		RunE: func(cmd *cobra.Command, given []string) error {
			return p.setPaused(cmd, given, relays, false, force, "")
		},
	}
	cmd.Flags().BoolVar(&relays, "relays", false, "the relays of the outbox instead of a group")
	cmd.Flags().BoolVar(&force, "force", false, "also a group that the database does not know")
	return cmd
}

func (p *program) setPaused(cmd *cobra.Command, given []string, relays, paused, force bool, reason string) error {
	op, group := cmd.CommandPath(), outlast.RelaySwitch
	if !relays {
		if err := args("GROUP")(cmd, given); err != nil {
			return err
		}
		group = given[0]
	} else if len(given) > 0 {
		return usage(op, "GROUP", "not given with --relays", "given", "")
	}
	return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
		ctx, cancel := p.brief(ctx)
		defer cancel()
		if !force && !relays {
			if err := db.checkGroup(ctx, op, group); err != nil {
				return err
			}
		}
		if err := db.Operator().SetPaused(ctx, group, paused, p.action(reason)); err != nil {
			return err
		}
		if p.json {
			return p.printJSON(struct {
				Group  string `json:"group"`
				Paused bool   `json:"paused"`
			}{group, paused})
		}
		switch {
		case !relays:
			p.printf("%s %s\n", printable(group), map[bool]string{true: "is paused", false: "goes on"}[paused])
		case paused:
			p.printf("the relays of %s pause: each when it renews its leases\n", db.at)
		default:
			p.printf("the relays of %s go on\n", db.at)
		}
		return nil
	})
}

func (p *program) actionsCommand() *cobra.Command {
	limit := 50
	cmd := &cobra.Command{
		Use:     "actions",
		Short:   "List what people did: who, when, to what, and why",
		Example: "  outlast actions --limit 20",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > maxPage {
				return usage(cmd.CommandPath(), "--limit", "1 to 10000", fmt.Sprint(limit), "")
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				actions, err := db.Operator().Actions(ctx, outlast.ActionQuery{Limit: limit})
				if err != nil {
					return err
				}
				return p.printActions(actions)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many, the newest first")
	return cmd
}

func (p *program) printActions(actions []outlast.ActionRecord) error {
	if p.json {
		if actions == nil {
			actions = []outlast.ActionRecord{}
		}
		return p.printJSON(actions)
	}
	if len(actions) == 0 {
		p.printf("nobody has done anything yet\n")
		return nil
	}
	t := newTable("AT", "WHO", "WHAT", "COUNT>", "TARGET", "REASON")
	for _, a := range actions {
		t.add(timeText(a.At), a.Who, a.What, grouped(a.Count), cut(a.Target, 60), dash(a.Reason))
	}
	t.write(p.out)
	return nil
}
