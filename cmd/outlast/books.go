package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/otel"
	"github.com/outlastmq/outlast/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func (p *program) booksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "books",
		Short: "Whether every group has seen what was sent, minute by minute, and which ids are missing",
		Long: `The books compare what a service has sent with what the groups that hear it have seen,
for every minute in which messages were enqueued. The service's database is that of
--database; the databases of those who receive are named with --in.`,
	}
	cmd.AddCommand(p.booksCloseCommand(), p.booksListCommand(), p.booksShowCommand(), p.booksResendCommand(), p.booksSignOffCommand(),
		p.booksReopenCommand(), p.booksHearersCommand(), p.booksUnhearCommand())
	return asGroup(cmd)
}

func (p *program) booksCloseCommand() *cobra.Command {
	var f placeFlags
	var grace, every time.Duration
	var elsewhere []string
	var metrics string
	cmd := &cobra.Command{
		Use:   "close",
		Short: "Balance every minute that is over, and name what is missing",
		Long: `Close looks at every minute that is over and not yet balanced or signed off, asks the
databases of the receivers what they have seen, and writes down how it stands. With
--every it goes on until it is ended, and keeps the sent log: run one for each outbox.
--metrics shows how the books stand to Prometheus.

A type that was sent and that none of these databases knows a group for leaves its
minutes open: name the database of its receivers with --in or, when those do not use
Outlast, the type with --elsewhere.

Exit code 1: a minute is unbalanced, or somebody could not be or was not asked.`,
		Example: `  outlast books close --database env:ORDERS_DB --in env:BILLING_DB --in env:STOCK_DB
  outlast books close --every 1m --in env:BILLING_DB --metrics 127.0.0.1:9466`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every != 0 && every < time.Second || grace <= 0 {
				return usage(cmd.CommandPath(), "--every and --grace", "at least 1s, and positive", every.String()+" and "+grace.String(), "")
			}
			if metrics != "" && every == 0 {
				return usage(cmd.CommandPath(), "--every", "given with --metrics", "not given", "")
			}
			return p.withBooks(cmd.Context(), &f, func(ctx context.Context, b *journey.Books) error {
				b.Grace, b.Elsewhere = grace, elsewhere
				if every > 0 {
					return p.runBooks(ctx, b, every, metrics)
				}
				closing, err := b.Close(ctx)
				if err != nil {
					return err
				}
				p.reportClosing(closing, outlast.Kept{}, nil)
				return closingFailed(cmd.CommandPath(), closing)
			})
		},
	}
	f.flags(cmd)
	cmd.Flags().DurationVar(&grace, "grace", 5*time.Minute, "how long after its minute a message counts as on its way")
	cmd.Flags().DurationVar(&every, "every", 0, "go on, with this pause between two looks")
	cmd.Flags().StringVar(&metrics, "metrics", "", "with --every: address of the metrics for Prometheus, 127.0.0.1:9466 (default none)")
	cmd.Flags().StringArrayVar(&elsewhere, "elsewhere", nil, "type whose receivers keep no books, may be repeated")
	return cmd
}

// runBooks closes the books until ctx ends, and shows how they stand at an address, if
// there is one.
func (p *program) runBooks(ctx context.Context, b *journey.Books, every time.Duration, metrics string) error {
	if metrics == "" {
		return b.Run(ctx, every, outlast.Retention{}, p.reportClosing)
	}
	listener, err := net.Listen("tcp", metrics)
	if err != nil {
		return usageError{&outlast.Error{Op: "books close --metrics", Code: outlast.CodeInvalid, Err: err}}
	}
	fmt.Fprintf(p.errs, "metrics at %s\n", listener.Addr())
	exporter, err := prometheus.New(b.Service)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { _ = exporter.Shutdown(context.Background()) }()
	measure, err := otel.NewBooks(b.Service, exporter.MeterProvider())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveUntil(ctx, listener, exporter) })
	g.Go(func() error {
		return b.Run(ctx, every, outlast.Retention{}, func(c *journey.Closing, kept outlast.Kept, err error) {
			measure.Report(c, kept, err)
			p.reportClosing(c, kept, err)
		})
	})
	return g.Wait()
}

// withBooks opens the service's database and those of the receivers.
func (p *program) withBooks(ctx context.Context, f *placeFlags, fn func(ctx context.Context, b *journey.Books) error) error {
	return p.withDatabase(ctx, func(ctx context.Context, db *database) error {
		brief, cancel := p.brief(ctx)
		defer cancel()
		page, err := db.Journal().Facts(brief, outlast.FactQuery{})
		if err != nil {
			return err
		}
		if page.Service == "" {
			return &outlast.Error{Op: "open the books", Code: outlast.CodeNotFound, Err: fmt.Errorf("this outbox belongs to no service yet"),
				Hint: "outlast migrate up --service NAME, or run its relay"}
		}
		return p.withPlaces(ctx, f, func(ctx context.Context, places []journey.Place) error {
			return fn(ctx, &journey.Books{Service: page.Service, Store: db, Others: places})
		})
	})
}

func (p *program) reportClosing(c *journey.Closing, _ outlast.Kept, err error) {
	switch {
	case err != nil:
		p.warn("%v", err)
	case c == nil:
	case p.json:
		p.hidePlaces(c.Places)
		_ = p.printJSONLine(c)
	default:
		for _, place := range c.Places {
			if place.Unknown != "" {
				p.printf("? %s: unknown, it could not be asked: %s\n", printable(place.Name), printable(oneLine(p.secrets.hide(place.Unknown))))
			}
		}
		for _, m := range c.Minutes {
			if m.State == outlast.MinuteUnbalanced {
				p.printf("%s is unbalanced: outlast books show %s\n", minuteText(m.Minute), minuteText(m.Minute))
			}
		}
		for _, typ := range c.Unasked {
			p.printf("? %s was sent, and none of these databases knows a group that hears it\n", printable(typ))
		}
		p.printf("up to %s: %s\n", timeText(c.Before), c)
	}
}

func closingFailed(op string, c *journey.Closing) error {
	if err := gapsIn(op, c.Places); err != nil {
		return err
	}
	if c.Unbalanced > 0 {
		return &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: fmt.Errorf("%s: messages are missing", plural(c.Unbalanced, "unbalanced minute")),
			Hint: "outlast books list --state unbalanced"}
	}
	if len(c.Unasked) > 0 {
		return &outlast.Error{Op: op, Code: outlast.CodeNotFound, Err: fmt.Errorf("receivers of %s were not asked", plural(len(c.Unasked), "type")),
			Hint: "--in DATABASE of each receiver, or --elsewhere TYPE when its receivers do not use Outlast"}
	}
	return nil
}

func minuteText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04Z") }

// parseMinute takes 2026-01-02T15:04Z, and RFC 3339.
func parseMinute(op, text string) (time.Time, error) {
	for _, layout := range []string{"2006-01-02T15:04Z", time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC().Truncate(time.Minute), nil
		}
	}
	return time.Time{}, usage(op, "MINUTE", "a minute like 2026-01-02T15:04Z", "another text", "outlast books list shows them")
}

func (p *program) booksListCommand() *cobra.Command {
	var q outlast.MinuteQuery
	var state, before string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the minutes, the newest first",
		Example: "  outlast books list --state unbalanced",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch q.State = outlast.MinuteState(state); q.State {
			case "", outlast.MinuteOpen, outlast.MinuteBalanced, outlast.MinuteUnbalanced, outlast.MinuteSigned:
			default:
				return usage(cmd.CommandPath(), "--state", "open, balanced, unbalanced or signed", "another text", "")
			}
			if before != "" {
				var err error
				if q.Before, err = parseMinute(cmd.CommandPath(), before); err != nil {
					return err
				}
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				list, err := db.Books().Minutes(ctx, q)
				if err != nil {
					return err
				}
				if p.json {
					return p.printJSON(notNil(list))
				}
				t := newTable("minute", "state", "sent>", "looked at", "who", "reason")
				for _, m := range list {
					t.add(minuteText(m.Minute), string(m.State), grouped(m.Sent), timeText(m.At), dash(m.Who), dash(m.Reason))
				}
				t.write(p.out)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only open, balanced, unbalanced or signed ones")
	cmd.Flags().StringVar(&before, "before", "", "only minutes before this one, to go on with a long list")
	cmd.Flags().IntVar(&q.Limit, "limit", 100, "minutes at most, 1 to 10000")
	return cmd
}

func (p *program) booksShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show MINUTE",
		Short:   "Show a minute: what each group has seen, and the ids that it has not",
		Example: "  outlast books show 2026-01-02T15:04Z",
		Args:    args("MINUTE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			minute, err := parseMinute(cmd.CommandPath(), given[0])
			if err != nil {
				return err
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				lines, err := db.Books().Lines(ctx, minute)
				if err != nil {
					return err
				}
				if p.json {
					return p.printJSON(notNil(lines))
				}
				if len(lines) == 0 {
					return p.showEmptyMinute(ctx, db, minute)
				}
				t := newTable("type", "group", "sent>", "received>", "missing>")
				for _, l := range lines {
					received, missing := grouped(l.Received), grouped(len(l.Missing))
					if l.Received < 0 {
						received, missing = "unknown", "unknown"
					}
					if l.More {
						missing = "more than " + missing
					}
					t.add(l.Type, l.Group, grouped(l.Sent), received, missing)
				}
				t.write(p.out)
				for _, l := range lines {
					for _, id := range l.Missing {
						p.printf("missing in %s: %s\n", printable(l.Group), printable(id))
					}
				}
				return nil
			})
		},
	}
}

// showEmptyMinute says why a minute has no lines.
func (p *program) showEmptyMinute(ctx context.Context, db *database, minute time.Time) error {
	list, err := db.Books().Minutes(ctx, outlast.MinuteQuery{Before: minute.Add(time.Minute), Limit: 1})
	switch {
	case err != nil:
		return err
	case len(list) == 0 || !list[0].Minute.Equal(minute):
		p.printf("nobody has looked at this minute: outlast books close does, when it is over\n")
	case list[0].Sent == 0:
		p.printf("nothing was sent\n")
	default:
		p.printf("%s was sent, and compared with nobody: no group that was asked had said that it hears these types for the whole of this minute\n", plural(list[0].Sent, "message"))
	}
	return nil
}

func (p *program) booksResendCommand() *cobra.Command {
	var reason, minute string
	cmd := &cobra.Command{
		Use:   "resend [ID...]",
		Short: "Send messages of the sent log once more, with their ids",
		Long: `Resend enqueues messages once more: those of the ids, or with --minute all that are
missing in a minute. Groups that have seen them find duplicates, and do nothing.
A message whose body is gone, or that is older than six days, is named and not sent.`,
		Example: "  outlast books resend --minute 2026-01-02T15:04Z --reason \"queue was deleted\"",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if (len(ids) == 0) == (minute == "") {
				return usage(cmd.CommandPath(), "arguments", "ids, or --minute", fmt.Sprintf("%d ids", len(ids)), "")
			}
			var at time.Time
			if minute != "" {
				var err error
				if at, err = parseMinute(cmd.CommandPath(), minute); err != nil {
					return err
				}
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				if minute != "" {
					var err error
					if ids, err = (&journey.Books{Store: db}).Missing(ctx, at); err != nil {
						return err
					}
				}
				r, err := db.Books().Resend(ctx, ids, p.action(reason))
				if err != nil {
					return err
				}
				return p.reportResent(cmd.CommandPath(), r)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why you do this, for the record")
	cmd.Flags().StringVar(&minute, "minute", "", "all that are missing in this minute")
	return cmd
}

func (p *program) reportResent(op string, r outlast.Resent) error {
	if p.json {
		if err := p.printJSON(r); err != nil {
			return err
		}
	} else {
		p.printf("sent again: %s\n", plural(len(r.Sent), "message"))
		for _, x := range []struct {
			ids  []string
			what string
		}{{r.Bodiless, "named, not resendable: its body is gone"}, {r.TooOld, "not sent: too old, a group may have forgotten that it handled it"}, {r.Unknown, "not in the sent log"}} {
			for _, id := range x.ids {
				p.printf("%s: %s\n", printable(id), x.what)
			}
		}
	}
	if n := len(r.Bodiless) + len(r.TooOld) + len(r.Unknown); n > 0 {
		return &outlast.Error{Op: op, Code: outlast.CodeNotFound, Err: fmt.Errorf("%s not sent", plural(n, "message"))}
	}
	return nil
}

func (p *program) booksSignOffCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "sign-off MINUTE...",
		Short:   "Take minutes as they are: what is missing in them is not looked for any more",
		Example: "  outlast books sign-off 2026-01-02T15:04Z --reason \"test messages\"",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 || strings.TrimSpace(reason) == "" {
				return usage(cmd.CommandPath(), "arguments", "at least one MINUTE, and --reason", fmt.Sprintf("%d minutes", len(given)), "")
			}
			var minutes []time.Time
			for _, text := range given {
				m, err := parseMinute(cmd.CommandPath(), text)
				if err != nil {
					return err
				}
				minutes = append(minutes, m)
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				n, err := db.Books().SignOff(ctx, minutes, p.action(reason))
				if err != nil {
					return err
				}
				if p.json {
					return p.printJSON(map[string]int{"signed": n})
				}
				p.printf("signed off: %s\n", plural(n, "minute"))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record (needed)")
	return cmd
}

func (p *program) booksReopenCommand() *cobra.Command {
	var since, until, reason string
	cmd := &cobra.Command{
		Use:   "reopen --since MINUTE [--until MINUTE]",
		Short: "Have balanced minutes looked at again, after a database of a receiver was set back",
		Long: `Reopen opens the balanced minutes from --since on, up to but without --until, so that the
next outlast books close compares them again: do so when the database of a receiver was
restored from a backup, and name a time from before the backup. What the receiver has
lost is then missing, and can be sent again while its body is kept.

Minutes that were signed off stay so, and those of which the sent log has dropped
something. Of what an inbox may have forgotten by its age the books have no word: such
minutes stay open until they are signed off.`,
		Example: `  outlast books reopen --since 2026-01-02T15:00Z --reason "billing was restored from its backup"
  outlast books reopen --since 2026-01-02T15:00Z --until 2026-01-02T18:00Z --database env:ORDERS_DB`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since == "" {
				return usage(cmd.CommandPath(), "--since", "given", "not given", "outlast books list shows the minutes")
			}
			from, err := parseMinute(cmd.CommandPath(), since)
			if err != nil {
				return err
			}
			var to time.Time
			if until != "" {
				if to, err = parseMinute(cmd.CommandPath(), until); err != nil {
					return err
				}
				if !from.Before(to) {
					return usage(cmd.CommandPath(), "--until", "a minute after --since", "one that is not", "")
				}
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				n, err := db.Books().Reopen(ctx, from, to, p.action(reason))
				if err != nil {
					return err
				}
				if p.json {
					return p.printJSON(map[string]int{"reopened": n})
				}
				p.printf("opened again: %s\n", plural(n, "minute"))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "the first minute (needed)")
	cmd.Flags().StringVar(&until, "until", "", "the first minute that stays as it is (default none)")
	cmd.Flags().StringVar(&reason, "reason", "", "why you do this, for the record")
	return cmd
}

func (p *program) booksHearersCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "hearers",
		Short:   "List the groups of this database with the types that they hear",
		Example: "  outlast books hearers --database env:BILLING_DB",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				list, err := db.Journal().Hearers(ctx)
				if err != nil {
					return err
				}
				if p.json {
					return p.printJSON(notNil(list))
				}
				t := newTable("group", "type", "since", "until")
				for _, h := range list {
					t.add(h.Group, h.Type, timeText(h.Since), timeText(h.Until))
				}
				t.write(p.out)
				return nil
			})
		},
	}
}

func (p *program) booksUnhearCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "unhear GROUP TYPE",
		Short:   "Say that a group does not hear a type any more, so that the books do not expect it",
		Example: "  outlast books unhear billing order.placed.v1 --database env:BILLING_DB",
		Args:    args("GROUP", "TYPE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				return db.Journal().Unhear(ctx, given[0], given[1], p.action(reason))
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why you do this, for the record")
	return cmd
}
