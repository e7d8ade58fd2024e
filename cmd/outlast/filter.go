package main

import (
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

// selection is the flags and arguments that select rows, the same in every group of
// commands.
type selection struct {
	all    bool
	filter outlast.Filter
}

// Groups of selection flags that not every command has.
type selectionField int

const (
	selectGroup selectionField = 1 << iota
	selectFingerprint
)

// flags registers what selects.
func (s *selection) flags(cmd *cobra.Command, fields selectionField) {
	f := cmd.Flags()
	f.StringVar(&s.filter.Type, "type", "", "only this type: order.placed.v1")
	f.StringVar(&s.filter.Key, "key", "", "only this ordering key")
	f.StringVar(&s.filter.Reason, "why", "", "only what waits for this reason, as the list shows it")
	f.DurationVar(&s.filter.OlderThan, "older-than", 0, "only what is older than this: 10m, 48h")
	f.DurationVar(&s.filter.NewerThan, "newer-than", 0, "only what is newer than this")
	if fields&selectGroup != 0 {
		f.StringVar(&s.filter.Group, "group", "", "only this group")
	}
	if fields&selectFingerprint != 0 {
		f.StringVar(&s.filter.Fingerprint, "fingerprint", "", "only failures of one cause: the FINGERPRINT of the list, or its first 4 digits or more")
	}
}

// pageFlags registers paging, for lists.
func (s *selection) pageFlags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&s.filter.Limit, "limit", 100, "at most so many rows, 1 to 10000")
	cmd.Flags().Int64Var(&s.filter.After, "after", 0, "continue a list after this SEQ")
}

// bulkFlags registers what an action on many rows asks for.
func (s *selection) bulkFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.all, "all", false, "everything, when neither ids nor a filter are given")
	cmd.Flags().IntVar(&s.filter.Limit, "limit", 0, "at most so many rows, the oldest first (default no limit)")
}

// page returns the filter of a list, or what is wrong with it.
func (s *selection) page(cmd *cobra.Command, ids []string) (outlast.Filter, error) {
	s.setIDs(ids)
	if s.filter.Limit < 1 || s.filter.Limit > maxPage {
		return s.filter, usage(cmd.CommandPath(), "--limit", "1 to 10000", fmt.Sprint(s.filter.Limit), "")
	}
	return s.filter, s.checkAges(cmd)
}

const maxPage = 10_000

// bulk returns the filter of an action. An action on everything must say so.
func (s *selection) bulk(cmd *cobra.Command, ids []string) (outlast.Filter, error) {
	s.setIDs(ids)
	f := s.filter
	selects := s.selects()
	switch {
	case !selects && !s.all:
		return f, usage(cmd.CommandPath(), "selection", "ids, a filter, or --all for everything", "none",
			"--dry-run shows what would be selected")
	case selects && s.all:
		return f, usage(cmd.CommandPath(), "--all", "given alone", "given with ids or a filter", "")
	case f.Limit < 0:
		return f, usage(cmd.CommandPath(), "--limit", "positive, or 0 for no limit", fmt.Sprint(f.Limit), "")
	}
	return f, s.checkAges(cmd)
}

// selects reports whether ids or a filter were given.
func (s *selection) selects() bool {
	f := s.filter
	return len(f.IDs) > 0 || f.Type != "" || f.Key != "" || f.Group != "" || f.Reason != "" ||
		f.Fingerprint != "" || f.OlderThan != 0 || f.NewerThan != 0
}

// setIDs leaves the ids nil when there are none: only nil selects all.
func (s *selection) setIDs(ids []string) {
	if len(ids) > 0 {
		s.filter.IDs = ids
	}
}

func (s *selection) checkAges(cmd *cobra.Command) error {
	for name, d := range map[string]time.Duration{"--older-than": s.filter.OlderThan, "--newer-than": s.filter.NewerThan} {
		if d < 0 {
			return usage(cmd.CommandPath(), name, "positive", d.String(), "")
		}
	}
	return nil
}
