package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/report"
)

// stage is one step of a message's path.
type stage struct {
	name string
	work task
	// before brings the stage its messages.
	before func(ctx context.Context, s *stack, work *task) error
}

const costRows = 10_000

func costStages(scale float64) []stage {
	rows := max(int(costRows*scale), 500)
	base := task{Size: 256, Keys: 1000, Rows: rows, Batch: 1}
	with := func(f func(t *task)) task { t := base; f(&t); return t }
	nothing := func(context.Context, *stack, *task) error { return nil }
	return []stage{
		{"enqueue, one in a transaction", with(func(t *task) { t.Actor, t.Clients = "publish", 16 }), nothing},
		{"enqueue, 100 in a transaction", with(func(t *task) { t.Actor, t.Clients, t.Batch, t.Rows = "publish", 16, 100, rows/100 }), nothing},
		{"relay", with(func(t *task) { t.Actor = "outlast" }), fillOutbox},
		{"consume, one in a transaction", with(func(t *task) { t.Actor, t.Clients, t.Keys = "consume", 48, 0; t.Linger = time.Second }), fillQueue},
		{"consume, 200 in a transaction", with(func(t *task) { t.Actor, t.Clients, t.Batch, t.Keys = "consume", 4, 200, 0; t.Linger = time.Second }), fillQueue},
	}
}

func fillOutbox(ctx context.Context, _ *stack, t *task) error {
	return withConn(ctx, t.Database, func(conn *pgx.Conn) error {
		return seedOutlast(ctx, conn, workload{rows: t.Rows, size: t.Size, keys: t.Keys})
	})
}

func fillQueue(ctx context.Context, _ *stack, t *task) error {
	fill := *t
	fill.Actor, fill.Linger = "adapter", 0
	_, err := perform(ctx, fill)
	return err
}

// costPart shows what a message costs each server and Outlast, stage by stage.
func costPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	t := &report.Table{Name: "cost", Title: "What one message costs, stage by stage", Notes: []string{
		"Right after a checkpoint: the log holds whole-page images that a longer run spreads over more messages. " +
			"System calls are counted in one more run, under strace, where it is installed."}}
	for range o.rounds {
		for _, st := range costStages(o.scale) {
			if !o.wants(st.name) {
				continue
			}
			if err := s.costRun(ctx, t, &st); err != nil {
				return []*report.Table{t}, fmt.Errorf("%s: %w", st.name, err)
			}
		}
	}
	return []*report.Table{t}, nil
}

func (s *stack) costRun(ctx context.Context, t *report.Table, st *stage) error {
	var used reading
	r, err := s.stageRun(ctx, st, false, &used)
	if err != nil {
		return err
	}
	n := float64(r.Rows * st.work.Batch)
	if st.work.Actor != "publish" {
		n = float64(r.Rows)
	}
	per := func(name string, v float64) report.Value { return report.Value{Name: name, Value: v / n} }
	values := []report.Value{
		per("WAL B", used.WAL), per("WAL records", used.Records), per("page images", used.Images), per("buffers", used.Hits+used.Reads),
		per("dead rows", used.Dead), per("commits", used.Transactions), per("database CPU us", used.DatabaseCPU*1e6),
		per("broker CPU us", used.BrokerCPU*1e6), per("reductions", used.Reductions),
		per("own CPU us", r.Usage.CPU*1e6), per("allocs", r.Usage.Allocs), per("heap B", r.Usage.Bytes)}
	if _, err := exec.LookPath("strace"); err == nil {
		traced, err := s.stageRun(ctx, st, true, nil)
		if err != nil {
			return err
		}
		values = append(values, per("system calls", traced.Usage.Calls))
	}
	t.Add(st.name, values...)
	return nil
}

// stageRun runs one stage on fresh tables and a fresh queue.
func (s *stack) stageRun(ctx context.Context, st *stage, traced bool, used *reading) (r outcome, err error) {
	url, drop, err := s.freshDatabase(ctx, "postgres")
	if err != nil {
		return r, err
	}
	defer drop()
	group := outlast.GroupTopology{Group: groupName, Partitions: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: messageType}}}
	if err := brokerAt(s.vhost.URL()).Topology().Apply(ctx, outlast.Topology{Groups: []outlast.GroupTopology{group}}); err != nil {
		return r, err
	}
	work := st.work
	work.Database, work.Broker, work.Queue = url, s.vhost.URL(), group.Queue(0)
	if err := st.before(ctx, s, &work); err != nil {
		return r, err
	}
	if err := execAll(ctx, url, "CHECKPOINT"); err != nil {
		return r, err
	}
	var before, after reading
	if used != nil {
		if before, err = s.read(ctx, url); err != nil {
			return r, err
		}
	}
	if traced {
		r, err = performTraced(ctx, work)
	} else {
		r, err = perform(ctx, work)
	}
	if err != nil {
		return r, err
	}
	if used != nil {
		if after, err = s.read(ctx, url); err != nil {
			return r, err
		}
		*used = after.minus(before)
	}
	return r, s.deleteQueue(work.Queue)
}

// performTraced performs under strace, which counts the system calls and slows the rest
// so much that nothing else of the outcome is of use.
func performTraced(ctx context.Context, t task) (outcome, error) {
	dir, err := os.MkdirTemp("", "outlast-bench-")
	if err != nil {
		return outcome{}, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "calls")
	r, err := startAs(ctx, t, "strace", "-f", "-c", "-U", "calls,name", "-o", file)
	if err != nil {
		return outcome{}, err
	}
	result, err := r.wait()
	if err != nil {
		return result, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return result, err
	}
	result.Usage.Calls, err = tracedCalls(string(data))
	return result, err
}

// tracedCalls reads the sum of strace's table.
func tracedCalls(table string) (float64, error) {
	for line := range strings.Lines(table) {
		if words := strings.Fields(line); len(words) == 2 && words[1] == "total" {
			return strconv.ParseFloat(words[0], 64)
		}
	}
	return 0, fmt.Errorf("strace printed no total:\n%s", table)
}
