package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/outlastmq/outlast"
)

// bulk is one action of a person on many rows. It first notes which rows are
// selected and then acts on those only: a dead letter that is replayed and dies
// again meanwhile is not replayed twice, so the action always ends.
type bulk struct {
	deed   string // "replayed"
	filter outlast.Filter
	list   func(context.Context, outlast.Filter) ([]outlast.Item, error)
	act    func(context.Context, outlast.Filter) (done int, uncertain []string, err error)
	rate   float64 // rows per second; 0 is as fast as it goes
	dryRun bool
	listed string // the command that lists such rows
}

// bulkResult is what an action prints.
type bulkResult struct {
	Deed      string   `json:"deed"`
	Selected  int      `json:"selected"`
	Done      int      `json:"done"`
	DryRun    bool     `json:"dry_run,omitempty"`
	Missing   []string `json:"missing,omitempty"`
	Uncertain []string `json:"uncertain,omitempty"`
}

// rowName is all that must be kept of a selected row.
type rowName struct{ group, id string }

// chunkSize bounds the rows of one transaction of an action.
const chunkSize = 500

func (p *program) runBulk(ctx context.Context, b bulk) error {
	rows, err := b.collect(ctx, p.timeout)
	if err != nil {
		return err
	}
	result := bulkResult{Deed: b.deed, Selected: len(rows), DryRun: b.dryRun, Missing: missing(b.filter.IDs, rows)}
	if !b.dryRun {
		err = p.actOnAll(ctx, b, rows, &result)
	}
	if printErr := p.printBulk(result); printErr != nil {
		return printErr
	}
	if result.Selected == 0 && len(b.filter.IDs) == 0 {
		fmt.Fprintf(p.errs, "nothing was selected\n  hint: %s shows what there is; with the same flags, what they select\n", b.listed)
	}
	if err == nil && len(result.Missing) > 0 {
		err = &outlast.Error{Op: b.deed, Code: outlast.CodeNotFound, Err: fmt.Errorf("%s not found: %q", plural(len(result.Missing), "id"), result.Missing),
			Hint: b.listed + " shows what there is in this database; outlast find ID says where a message is"}
	}
	return err
}

func (b *bulk) collect(ctx context.Context, timeout time.Duration) ([]rowName, error) {
	var rows []rowName
	f := b.filter
	limit := f.Limit
	if limit == 0 {
		limit = math.MaxInt
	}
	for len(rows) < limit {
		f.Limit = min(1000, limit-len(rows))
		page, err := b.page(ctx, f, timeout)
		if err != nil {
			return nil, err
		}
		for _, item := range page {
			rows = append(rows, rowName{item.Group, item.Envelope.ID})
			f.After = max(f.After, item.Seq)
		}
		if len(page) < f.Limit {
			break
		}
	}
	return rows, nil
}

func (b *bulk) page(ctx context.Context, f outlast.Filter, timeout time.Duration) ([]outlast.Item, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return b.list(ctx, f)
}

// actOnAll works in chunks of rows of one group, at the set rate.
func (p *program) actOnAll(ctx context.Context, b bulk, rows []rowName, result *bulkResult) error {
	size := chunkSize
	if b.rate > 0 {
		size = max(1, min(chunkSize, int(b.rate)))
	}
	line := p.newProgress(b.deed, len(rows))
	defer func() { line.end(result.Done) }()
	for seen := 0; seen < len(rows); {
		chunk, group := nextChunk(rows[seen:], size)
		if seen > 0 && b.rate > 0 && !pause(ctx, time.Duration(float64(size)/b.rate*float64(time.Second))) || ctx.Err() != nil {
			return interrupted(b.deed, fmt.Sprintf("%s of %s done", grouped(result.Done), grouped(len(rows))))
		}
		if err := b.actOn(ctx, chunk, group, p.timeout, result); err != nil {
			return err
		}
		seen += len(chunk)
		line.update(result.Done)
	}
	return nil
}

func nextChunk(rows []rowName, size int) (ids []string, group string) {
	group = rows[0].group
	for _, r := range rows[:min(size, len(rows))] {
		if r.group != group {
			break
		}
		ids = append(ids, r.id)
	}
	return ids, group
}

// actOn finishes its chunk even when ctx ends meanwhile: what was done so far is
// then known.
func (b *bulk) actOn(ctx context.Context, ids []string, group string, timeout time.Duration, result *bulkResult) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	f := b.filter
	f.IDs, f.Group, f.Limit, f.After = ids, group, len(ids), 0
	done, uncertain, err := b.act(ctx, f)
	result.Done += done
	result.Uncertain = append(result.Uncertain, uncertain...)
	if err == nil {
		return nil
	}
	said := fmt.Sprintf("%s of %s %s", grouped(result.Done), grouped(result.Selected), b.deed)
	if outlast.CodeOf(err) == outlast.CodeUnknown {
		said += fmt.Sprintf(", and %s more perhaps", grouped(len(ids)-done))
	}
	return &outlast.Error{Op: said, Code: outlast.CodeOf(err), Err: err, Hint: "the same command continues with what is left"}
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// missing returns the ids asked for that were not found.
func missing(ids []string, rows []rowName) []string {
	found := make(map[string]bool, len(rows))
	for _, r := range rows {
		found[r.id] = true
	}
	var out []string
	for _, id := range ids {
		if !found[id] {
			out = append(out, id)
		}
	}
	return out
}

func (p *program) printBulk(r bulkResult) error {
	if p.json {
		return p.printJSON(r)
	}
	switch {
	case r.DryRun:
		p.printf("would be %s: %s\n", r.Deed, grouped(r.Selected))
	case r.Done == r.Selected:
		p.printf("%s: %s\n", r.Deed, grouped(r.Done))
	default:
		p.printf("%s: %s of %s selected\n", r.Deed, grouped(r.Done), grouped(r.Selected))
	}
	for _, id := range r.Uncertain {
		p.printf("%s may have been published already: a relay was running\n", printable(id))
	}
	return nil
}

func checkRate(op string, rate float64) error {
	if rate < 0 || math.IsNaN(rate) || math.IsInf(rate, 0) {
		return usage(op, "--rate", "a positive number of messages a second, or 0 for no limit", fmt.Sprint(rate), "")
	}
	return nil
}
