package main

import (
	"context"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

func (p *program) deadCommand() *cobra.Command {
	cmd := asGroup(&cobra.Command{
		Use:   "dead",
		Short: "Look at, replay and discard dead letters",
		Long: `A dead letter is a received message that cannot succeed: its attempts are spent,
or its handler said so. It waits in the receiver's own database until a person
replays or discards it. Dead letters of one cause share a fingerprint.`,
	})
	list := func(o outlast.OperatorStore, ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
		return o.Dead().List(ctx, f)
	}
	const fields = selectGroup | selectFingerprint
	cmd.AddCommand(
		p.listCommand("dead letters", "there are no dead letters",
			"  outlast dead list --group billing\n  outlast dead list --fingerprint 5f3a9c01d2e4 --newer-than 24h", fields,
			func(o outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error) {
				return o.Dead().List
			}),
		p.showInbox("dead letter", "  outlast dead show 018f4e9a-0000-7000-8000-000000000000\n  outlast dead show billing 018f4e9a-0000-7000-8000-000000000000",
			func(o outlast.OperatorStore) inboxRows { return o.Dead() }),
		p.bulkCommand(bulkCommand{
			use: "replay [ID...]", short: "Handle dead letters again, after their cause was mended",
			long: `Replay moves dead letters back to waiting, due at once, with their ids and with
attempts counted anew. What is selected when the command begins is replayed once:
a message that dies again meanwhile stays dead. --rate spares a receiver that has
just recovered.`,
			example: "  outlast dead replay --group billing 018f4e9a-0000-7000-8000-000000000000\n  outlast dead replay --fingerprint 5f3a9c01d2e4 --dry-run\n  outlast dead replay --group billing --rate 50 --reason \"card service is back\"",
			deed:    "replayed", fields: fields, list: list,
			act: func(o outlast.OperatorStore, ctx context.Context, f outlast.Filter, by outlast.Action) (int, []string, error) {
				n, err := o.Dead().Replay(ctx, f, by)
				return n, nil, err
			},
		}),
		p.bulkCommand(bulkCommand{
			use: "discard [ID...]", short: "Delete dead letters for good",
			long:    "Discard deletes dead letters. The inbox remembers their ids, so a late duplicate is not handled.",
			example: "  outlast dead discard --group billing --older-than 720h --reason \"test orders of March\"",
			deed:    "discarded", needsReason: true, fields: fields, list: list,
			act: func(o outlast.OperatorStore, ctx context.Context, f outlast.Filter, by outlast.Action) (int, []string, error) {
				n, err := o.Dead().Discard(ctx, f, by)
				return n, nil, err
			},
		}))
	return cmd
}
