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
		force  bool
	)
	cmd := &cobra.Command{
		Use:   "pause GROUP",
		Short: "Stop a group's consumers from starting messages, until resume",
		Long: `Pause stops every instance of a group from handling messages; what it has in hand
it finishes. Messages go on collecting in the group's queues. The group notices
within a few seconds. A group that the database does not know is refused, unless
--force is given: it then waits for resume when it starts for the first time.`,
		Example: "  outlast pause billing --reason \"card service is down\"",
		Args:    args("GROUP"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return p.setPaused(cmd.Context(), cmd.CommandPath(), given[0], true, force, reason)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why you do this, for the record and for status")
	cmd.Flags().BoolVar(&force, "force", false, "also a group that the database does not know, before its first start")
	return cmd
}

func (p *program) resumeCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "resume GROUP",
		Short:   "Let a paused group go on",
		Example: "  outlast resume billing",
		Args:    args("GROUP"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return p.setPaused(cmd.Context(), cmd.CommandPath(), given[0], false, force, "")
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also a group that the database does not know")
	return cmd
}

func (p *program) setPaused(ctx context.Context, op, group string, paused, force bool, reason string) error {
	return p.withDatabase(ctx, func(ctx context.Context, db *database) error {
		ctx, cancel := p.brief(ctx)
		defer cancel()
		if !force {
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
		p.printf("%s %s\n", printable(group), map[bool]string{true: "is paused", false: "goes on"}[paused])
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
