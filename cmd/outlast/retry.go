package main

import (
	"context"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

func (p *program) retryCommand() *cobra.Command {
	cmd := asGroup(&cobra.Command{
		Use:   "retry",
		Short: "Look at and hurry received messages that wait to be tried again",
		Long: `A received message waits in the receiver's own database when its handler failed,
asked for a later time, or when an earlier message of its key waits. The group's
scheduler tries it again when it is due.`,
	})
	list := func(o outlast.OperatorStore, ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
		return o.Retries().List(ctx, f)
	}
	cmd.AddCommand(
		p.listCommand("messages that wait for a retry", "nothing waits for a retry",
			"  outlast retry list --group billing", selectGroup,
			func(o outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error) {
				return o.Retries().List
			}),
		p.showInbox("message that waits for a retry", "  outlast retry show 018f4e9a-0000-7000-8000-000000000000\n  outlast retry show billing 018f4e9a-0000-7000-8000-000000000000",
			func(o outlast.OperatorStore) inboxRows { return o.Retries() }),
		p.bulkCommand(bulkCommand{
			use: "now [ID...]", short: "Try waiting messages at once instead of when they are due",
			long:    "Now makes waiting messages due at once. Within a key the order stays.",
			example: "  outlast retry now --group billing --type order.placed.v1",
			deed:    "made due", fields: selectGroup, list: list,
			act: func(o outlast.OperatorStore, ctx context.Context, f outlast.Filter, by outlast.Action) (int, []string, error) {
				n, err := o.Retries().Now(ctx, f, by)
				return n, nil, err
			},
		}))
	return cmd
}
