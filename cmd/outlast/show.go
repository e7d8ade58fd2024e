package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

// lister lists rows, as the stores' operators do.
type lister = func(context.Context, outlast.Filter) ([]outlast.Item, error)

// inboxRows is a store's role that lists and shows what a group has received.
type inboxRows interface {
	List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error)
	Show(ctx context.Context, group, id string) (*outlast.Item, error)
}

// showInbox makes the show subcommand for messages that a group has received.
func (p *program) showInbox(what, example string, of func(outlast.OperatorStore) inboxRows) *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use:   "show [GROUP] ID",
		Short: "Show all about one " + what + ", with its body",
		Long: "Show prints all about one " + what + ", with its body. The group is only needed\n" +
			"when several groups have a message with the id.",
		Example: example,
		RunE: func(cmd *cobra.Command, given []string) error {
			op := cmd.CommandPath()
			switch {
			case len(given) == 2 && group == "":
				group = given[0]
			case len(given) == 2:
				return usage(op, "group", "given once", "given twice", "")
			case len(given) != 1:
				return usage(op, "arguments", "ID, or GROUP and ID", fmt.Sprint(len(given)), "see "+op+" --help")
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				s := search{op: op, what: what, id: given[len(given)-1], listed: cmd.Parent().CommandPath() + " list", rows: of(db.Operator())}
				item, err := s.show(ctx, group)
				if err != nil {
					return err
				}
				return p.printItem(item)
			})
		},
	}
	cmd.Flags().StringVar(&group, "group", "", "the group, when several have a message with this id")
	return cmd
}

// search finds the row of an id.
type search struct {
	op, what, id string
	listed       string // the command that lists such rows
	rows         inboxRows
}

// show looks in one group, or in all when group is empty.
func (s search) show(ctx context.Context, group string) (*outlast.Item, error) {
	items, err := s.rows.List(ctx, outlast.Filter{IDs: []string{s.id}, Limit: maxPage})
	if err != nil {
		return nil, err
	}
	var groups []string
	for _, item := range items {
		groups = append(groups, item.Group)
	}
	slices.Sort(groups)
	groups = slices.Compact(groups)
	switch {
	case slices.Contains(groups, group):
	case group != "":
		return nil, s.notIn(ctx, group, groups)
	case len(groups) == 0:
		return nil, &outlast.Error{Op: s.op, Code: outlast.CodeNotFound, Err: fmt.Errorf("no group has a %s with the id %q", s.what, s.id),
			Hint: s.listed + " shows what there is"}
	case len(groups) > 1:
		return nil, usage(s.op, "--group", "one of the groups that have this id: "+strings.Join(groups, ", "), "not given", "")
	default:
		group = groups[0]
	}
	return s.rows.Show(ctx, group, s.id)
}

// notIn says why a group does not have the id, and who does.
func (s search) notIn(ctx context.Context, group string, groups []string) error {
	e := &outlast.Error{Op: s.op, Code: outlast.CodeNotFound,
		Err: fmt.Errorf("group %q has no %s with the id %q", group, s.what, s.id), Hint: s.listed + " --group " + group + " shows what it has"}
	if len(groups) > 0 {
		e.Hint = "the id is one of group " + strings.Join(groups, ", ")
		return e
	}
	any, err := s.rows.List(ctx, outlast.Filter{Group: group, Limit: 1})
	if err == nil && len(any) == 0 {
		e.Err = fmt.Errorf("group %q is unknown here, or has no %s", group, s.what)
		e.Hint = s.listed + " shows the groups that have some"
	}
	return e
}

const (
	fingerprintDigits    = 12
	minFingerprintDigits = 4
)

// wholeFingerprint completes a fingerprint of which only the first digits were given.
// One that nothing has stays as it is, and selects nothing.
func wholeFingerprint(ctx context.Context, op string, list lister, f outlast.Filter) (outlast.Filter, error) {
	given := strings.ToLower(f.Fingerprint)
	if given == "" || len(given) >= fingerprintDigits {
		return f, nil
	}
	if len(given) < minFingerprintDigits {
		return f, usage(op, "--fingerprint", fmt.Sprintf("%d hexadecimal digits, or at least the first %d", fingerprintDigits, minFingerprintDigits), fmt.Sprintf("%q", given), "")
	}
	scan := f
	scan.Fingerprint, scan.After, scan.Limit = "", 0, maxPage
	var found []string
	for {
		page, err := list(ctx, scan)
		if err != nil {
			return f, err
		}
		for _, item := range page {
			if strings.HasPrefix(item.Fingerprint, given) && !slices.Contains(found, item.Fingerprint) {
				found = append(found, item.Fingerprint)
			}
			scan.After = max(scan.After, item.Seq)
		}
		if len(page) < scan.Limit {
			break
		}
	}
	switch {
	case len(found) == 0 || slices.Contains(found, f.Fingerprint):
	case len(found) == 1:
		f.Fingerprint = found[0]
	default:
		slices.Sort(found)
		return f, usage(op, "--fingerprint", "the beginning of one fingerprint", "that of "+strings.Join(found, ", "), "give more digits")
	}
	return f, nil
}
