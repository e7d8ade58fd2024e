package main

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

// printItems prints a list of rows. full is whether the page was full, so that
// there may be more.
func (p *program) printItems(items []outlast.Item, limit int, nothing string) error {
	if p.json {
		if items == nil {
			items = []outlast.Item{}
		}
		return p.printJSON(items)
	}
	if len(items) == 0 {
		p.printf("%s\n", nothing)
		return nil
	}
	inbox := items[0].Group != ""
	t := newTable("SEQ>", "WHERE", "ID", "TYPE", "KEY", "TRIES>", "ENQUEUED", "NEXT", "WHY", "ERROR")
	if inbox {
		t = newTable("SEQ>", "GROUP", "ID", "TYPE", "KEY", "TRIES>", "LAST", "NEXT", "WHY", "FINGERPRINT", "ERROR")
	}
	for _, it := range items {
		e := it.Envelope
		seq, tries := strconv.FormatInt(it.Seq, 10), strconv.Itoa(it.Attempts)
		reason, problem := dash(it.Reason), cut(firstLine(it.Error), 60)
		if inbox {
			t.add(seq, it.Group, e.ID, e.Type, dash(cut(e.Key, 24)), tries, timeText(it.LastAt), timeText(it.NextAt), reason, dash(it.Fingerprint), problem)
		} else {
			t.add(seq, it.Where, e.ID, e.Type, dash(cut(e.Key, 24)), tries, timeText(e.EnqueuedAt), timeText(it.NextAt), reason, problem)
		}
	}
	t.write(p.out)
	if len(items) == limit {
		p.printf("there may be more: continue with --after %d\n", items[len(items)-1].Seq)
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// printItem prints all about one row, its body last.
func (p *program) printItem(it *outlast.Item) error {
	if p.json {
		return p.printJSON(it)
	}
	e := it.Envelope
	line := func(name, value string) {
		if value != "" && value != "-" {
			p.printf("%-15s%s\n", name, printable(value))
		}
	}
	line("id", e.ID)
	line("where", it.Where)
	line("group", it.Group)
	line("seq", strconv.FormatInt(it.Seq, 10))
	line("type", e.Type)
	line("kind", string(e.Kind))
	line("source", e.Source)
	line("key", e.Key)
	line("subject", e.Subject)
	line("reason", it.Reason)
	line("attempts", strconv.Itoa(it.Attempts))
	if it.Replays > 0 {
		line("replays", strconv.Itoa(it.Replays))
	}
	line("fingerprint", it.Fingerprint)
	line("enqueued", timeText(e.EnqueuedAt))
	line("first seen", timeText(it.FirstAt))
	line("last try", timeText(it.LastAt))
	line("next try", timeText(it.NextAt))
	line("expires", timeText(e.ExpiresAt))
	line("correlation", e.CorrelationID)
	line("causation", e.CausationID)
	line("trace", e.TraceParent)
	for _, name := range sortedNames(e.Headers) {
		line("header", name+": "+e.Headers[name])
	}
	for i, text := range strings.Split(strings.TrimRight(it.Error, "\n"), "\n") {
		line([]string{"error", ""}[min(i, 1)], text)
	}
	line("content type", e.ContentType)
	p.printBody(it.BodySize, it.Body, it.BodyBytes)
	return nil
}

// printBody prints JSON as it is, text escaped, and only the size of other bytes.
func (p *program) printBody(bodySize int, body json.RawMessage, other []byte) {
	switch {
	case len(body) > 0:
		p.printf("%-15s%s\n", "body", printable(string(body)))
	case len(other) > 0:
		p.printf("%-15s%s\n", "body", cut(strconv.QuoteToASCII(string(other)), 4096))
	default:
		p.printf("%-15s%s\n", "body", plural(bodySize, "byte"))
	}
}

// listCommand makes the list subcommand of a group of commands.
func (p *program) listCommand(what, nothing, example string, fields selectionField,
	list func(outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error)) *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:     "list [ID...]",
		Short:   "List " + what + ", the oldest first, without bodies",
		Example: example,
		RunE: func(cmd *cobra.Command, ids []string) error {
			f, err := s.page(cmd, ids)
			if err != nil {
				return err
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				rows := list(db.Operator())
				if f, err = wholeFingerprint(ctx, cmd.CommandPath(), rows, f); err != nil {
					return err
				}
				items, err := rows(ctx, f)
				if err != nil {
					return err
				}
				if s.selects() || f.After != 0 {
					return p.printItems(items, f.Limit, nothing+" with these filters in "+db.at)
				}
				return p.printItems(items, f.Limit, nothing+" in "+db.at)
			})
		},
	}
	s.flags(cmd, fields)
	s.pageFlags(cmd)
	return cmd
}

// withDatabase opens the database for one command and closes it after.
func (p *program) withDatabase(ctx context.Context, do func(context.Context, *database) error) error {
	db, err := p.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer db.close()
	return db.named(do(ctx, db))
}

// withBroker opens the broker for one command and closes it after.
func (p *program) withBroker(ctx context.Context, do func(context.Context, *broker) error) error {
	b, err := p.openBroker(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	return do(ctx, b)
}
