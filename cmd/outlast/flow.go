package main

import (
	"context"

	"github.com/outlastmq/outlast/journey"
	"github.com/spf13/cobra"
)

func (p *program) flowCommand() *cobra.Command {
	var f drawFlags
	cmd := &cobra.Command{
		Use:   "flow ID",
		Short: "Show a business flow as a tree: which message caused which, and what became of each",
		Long: `Flow shows the flow with this id, or the one that the message with this id belongs to,
as a tree of causes with times, states and services. It asks the databases of all
services at once; one that cannot be reached is drawn as unknown, and so is a message
that only others speak of. The exit code is 1 then.`,
		Example: `  outlast flow 0198c0de-0000-7000-8000-000000000001 --in env:ORDERS_DB --in env:BILLING_DB
  outlast flow 0198c0de-0000-7000-8000-000000000001 --format mermaid`,
		Args: args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return p.withAsker(cmd, &f, func(ctx context.Context, a *journey.Asker) error {
				flow, err := a.Flow(ctx, given[0])
				if err != nil {
					return err
				}
				p.hidePlaces(flow.Places)
				if f.format == "json" {
					err = p.printJSON(flow)
				} else {
					err = p.draw(flow, f.format, true)
				}
				if err != nil {
					return err
				}
				if err := gapsIn(cmd.CommandPath(), flow.Places); err != nil || flow.Count > 0 {
					return err
				}
				return nothingHas("id", cmd.CommandPath(), "a key leads to an id by outlast find; name other databases with --in")
			})
		},
	}
	f.flags(cmd)
	return cmd
}
