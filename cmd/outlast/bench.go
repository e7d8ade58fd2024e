package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/report"
	"github.com/spf13/cobra"
)

// benchFlags say what the messages of a benchmark look like.
type benchFlags struct {
	rows int
	size size
	keys int
	time time.Duration
	svg  string
}

func (p *program) benchCommand() *cobra.Command {
	f := benchFlags{size: 256}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure your database and your broker, and what Outlast makes of them",
		Long: `Bench finds out what your database and your broker can do from this machine, what
Outlast reaches with them, and how long a message takes from its COMMIT to its
effect; and it says which settings would help.

It works in a schema (PostgreSQL) or a file (SQLite) named outlast_bench_... and in
queues named outlast-bench-..., all of its own, and removes them at the end, also
after Ctrl-C. What a killed run has left in PostgreSQL and its broker, the next run
removes. Outlast's two exchanges stay, where they were missing. It needs the right to
create a schema and queues. It takes about half a minute, and what else uses the
servers meanwhile gets slower: not for busy hours.

The broker's own ceiling is that of one connection with 1,024 unconfirmed messages;
the database's is that of 16 clients who each INSERT one row in a transaction.`,
		Example: `  outlast bench --database postgres://app@db.example:5432/orders --broker amqps://app@mq.example/shop
  outlast bench --size 4KiB --keys 100 --svg bench.svg
  outlast bench --json > bench.json`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.bench(cmd, &f) },
	}
	fl := cmd.Flags()
	fl.IntVar(&f.rows, "messages", 20_000, "messages of each step, 100 to 1,000,000")
	fl.Var(&f.size, "size", "bytes of a body, 64 to 1MiB")
	fl.IntVar(&f.keys, "keys", 1000, "different ordering keys; 0: messages without a key")
	fl.DurationVar(&f.time, "for", 4*time.Second, "longest time of each step, 100ms to 5m")
	fl.StringVar(&f.svg, "svg", "", "file for a plot")
	return cmd
}

func (f *benchFlags) check(op string) error {
	switch {
	case f.rows < 100 || f.rows > 1_000_000:
		return usage(op, "--messages", "100 to 1000000", fmt.Sprint(f.rows), "")
	case f.size < 64 || f.size > outlast.DefaultMaxBody:
		return usage(op, "--size", "64 to 1MiB", f.size.String(), "")
	case f.keys < 0:
		return usage(op, "--keys", "0 or more", fmt.Sprint(f.keys), "")
	case f.time < 100*time.Millisecond || f.time > 5*time.Minute:
		return usage(op, "--for", "100ms to 5m", f.time.String(), "")
	}
	if f.svg != "" {
		if folder, err := os.Stat(filepath.Dir(f.svg)); err != nil || !folder.IsDir() {
			return usage(op, "--svg", "a file in a folder that exists", f.svg, "")
		}
	}
	return nil
}

// benchResult is what bench prints.
type benchResult struct {
	Database string        `json:"database"`
	Broker   string        `json:"broker"`
	Messages int           `json:"messages"`
	Size     int64         `json:"size"`
	Keys     int           `json:"keys"`
	Rates    *report.Table `json:"rates"`
	Latency  *report.Table `json:"latency"`
	Advice   []string      `json:"advice"`
}

func (p *program) bench(cmd *cobra.Command, f *benchFlags) error {
	if err := f.check(cmd.CommandPath()); err != nil {
		return err
	}
	p.brokerLog = slog.New(slog.DiscardHandler) // what fails is in the error
	return p.withBroker(cmd.Context(), func(ctx context.Context, b *broker) (err error) {
		place, err := p.newBenchPlace(ctx, b)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, place.remove()) }()
		result := &benchResult{Database: place.db.at, Broker: b.Address(), Messages: f.rows, Size: int64(f.size), Keys: f.keys}
		m := &benchRun{f: f, place: place, broker: b, result: result, say: func(text string) {
			if p.terminal || p.progress {
				fmt.Fprintln(p.errs, text)
			}
		}}
		if err := m.run(ctx); err != nil {
			return err
		}
		write := result.print
		if p.json {
			write = func(io.Writer) error { return p.printJSON(result) }
		}
		return errors.Join(write(p.out), result.plot(f.svg))
	})
}

func (r *benchResult) plot(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return &outlast.Error{Op: "write the plot", Code: outlast.CodeDenied, Err: err}
	}
	return errors.Join(report.SVG(f, []*report.Table{r.Rates, r.Latency}), f.Close())
}

func (r *benchResult) print(w io.Writer) error {
	fmt.Fprintf(w, "database %s, broker %s\n%d messages of %d bytes, %d ordering keys\n\n", printable(r.Database), printable(r.Broker), r.Messages, r.Size, r.Keys)
	for _, t := range []*report.Table{r.Rates, r.Latency} {
		fmt.Fprintln(w, t.Title)
		if err := t.Bars(w); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for _, a := range r.Advice {
		fmt.Fprintln(w, "- "+a)
	}
	return nil
}
