package main

import (
	"context"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

func (p *program) outboxCommand() *cobra.Command {
	cmd := asGroup(&cobra.Command{
		Use:   "outbox",
		Short: "Look at and act on what waits to be sent: pending and held",
		Long: `A message is pending in the outbox until the relay has sent it, and held when it
cannot be sent now. The reasons of held messages:
  due         waits for its due time
  backoff     failed by itself and is tried again; later messages of its key wait behind
  refused     cannot be sent as it is; it waits for you, later messages of its key behind it
  behind      waits for an earlier message of its key
  unroutable  no queue is bound to its route; sent when one is
  route       its route refuses or does not answer: a full queue, a missing exchange or right`,
	})
	cmd.AddCommand(
		p.listCommand("what is pending and held", "nothing waits to be sent",
			"  outlast outbox list\n  outlast outbox list --why refused --type order.placed.v1", 0,
			func(o outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error) {
				return o.Outbox().List
			}),
		p.outboxShow(), p.outboxRelease(), p.outboxWithdraw())
	return cmd
}

func (p *program) outboxShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show all about one message, with its body",
		Example: "  outlast outbox show 018f4e9a-0000-7000-8000-000000000000",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				item, err := db.Operator().Outbox().Show(ctx, given[0])
				if err != nil {
					return err
				}
				return p.printItem(item)
			})
		},
	}
}

func (p *program) outboxRelease() *cobra.Command {
	return p.bulkCommand(bulkCommand{
		use: "release [ID...]", short: "Send held messages now, whatever they wait for",
		long: `Release makes held messages eligible at once: after the cause of a refusal was
mended, or to try a route without waiting for its probe. Messages that wait for
their due time, or behind an earlier message of their key, stay.`,
		example: "  outlast outbox release 018f4e9a-0000-7000-8000-000000000000\n  outlast outbox release --why refused --type order.placed.v1 --dry-run",
		deed:    "released",
		list: func(o outlast.OperatorStore, ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
			return o.Outbox().List(ctx, f)
		},
		act: func(o outlast.OperatorStore, ctx context.Context, f outlast.Filter, by outlast.Action) (int, []string, error) {
			n, err := o.Outbox().Release(ctx, f, by)
			return n, nil, err
		},
	})
}

func (p *program) outboxWithdraw() *cobra.Command {
	return p.bulkCommand(bulkCommand{
		use: "withdraw [ID...]", short: "Delete messages before they are sent",
		long: `Withdraw deletes messages from the outbox for good; nobody will hear of them. A
pending message of a running relay may be on its way already, and so may one that is
held because its answer stayed away: such ids are named.`,
		example: "  outlast outbox withdraw 018f4e9a-0000-7000-8000-000000000000 --reason \"wrong tenant\"",
		deed:    "withdrawn", needsReason: true,
		list: func(o outlast.OperatorStore, ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
			return o.Outbox().List(ctx, f)
		},
		act: func(o outlast.OperatorStore, ctx context.Context, f outlast.Filter, by outlast.Action) (int, []string, error) {
			return o.Outbox().Withdraw(ctx, f, by)
		},
	})
}

// bulkCommand describes a command that acts on selected rows.
type bulkCommand struct {
	use, short, long, example, deed string
	fields                          selectionField
	needsReason                     bool

	list func(outlast.OperatorStore, context.Context, outlast.Filter) ([]outlast.Item, error)
	act  func(outlast.OperatorStore, context.Context, outlast.Filter, outlast.Action) (int, []string, error)
}

func (p *program) bulkCommand(c bulkCommand) *cobra.Command {
	var (
		s      selection
		reason string
		rate   float64
		dryRun bool
	)
	cmd := &cobra.Command{
		Use: c.use, Short: c.short, Long: c.long, Example: c.example,
		RunE: func(cmd *cobra.Command, ids []string) error {
			f, err := s.bulk(cmd, ids)
			if err != nil {
				return err
			}
			if c.needsReason && reason == "" && !dryRun {
				return usage(cmd.CommandPath(), "--reason", "given: it is recorded with the action", "empty", "")
			}
			if err := checkRate(cmd.CommandPath(), rate); err != nil {
				return err
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				list := func(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
					return c.list(db.Operator(), ctx, f)
				}
				if f, err = wholeFingerprint(ctx, cmd.CommandPath(), list, f); err != nil {
					return err
				}
				return p.runBulk(ctx, bulk{
					deed: c.deed, filter: f, rate: rate, dryRun: dryRun, list: list, listed: cmd.Parent().CommandPath() + " list",
					act: func(ctx context.Context, f outlast.Filter) (int, []string, error) {
						return c.act(db.Operator(), ctx, f, p.action(reason))
					},
				})
			})
		},
	}
	s.flags(cmd, c.fields)
	s.bulkFlags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why you do this, for the record")
	cmd.Flags().Float64Var(&rate, "rate", 0, "at most so many messages a second (default no limit)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count what is selected")
	return cmd
}
