// Command bench measures Outlast against what it could reach and what others reach, on
// servers that it starts itself, with fsync on.
//
//	go run ./bench                       the usual parts, about fifteen minutes
//	go run ./bench relay keys            single parts by name
//	go run ./bench relay --rounds 1 --scale 0.2 --only outlast
//	go run ./bench list                  what there is
//
// Contenders take turns within each round, so that a slow minute of the machine meets
// all of them. Each works in a process of its own, so that its CPU and memory are its
// own. A run counts only when what came out is exactly what went in.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/outlastmq/outlast/internal/report"
)

// options are what the command line says.
type options struct {
	rounds  int
	scale   float64
	only    string
	queues  string
	profile string
	json    string
	svg     string
	md      string
	period  time.Duration
	rows    int
	parts   []string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == actorCommand {
		os.Exit(actorMain(os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 0, "rounds of each part (default: five of relay, fewer of others)")
	flags.Float64Var(&o.scale, "scale", 1, "share of the usual number of messages")
	flags.StringVar(&o.only, "only", "", "run only cases whose name contains this; several by commas without a space behind, as names have them")
	flags.StringVar(&o.queues, "queues", "quorum,classic", "queue types")
	flags.StringVar(&o.profile, "profile", "", "folder for CPU profiles of the contenders")
	flags.StringVar(&o.json, "json", "", "file for the results as JSON")
	flags.StringVar(&o.svg, "svg", "", "file for a plot")
	flags.StringVar(&o.md, "markdown", "", "file for the tables as Markdown")
	flags.DurationVar(&o.period, "for", 0, "how long the parts that watch for a time take (steady: 45m, held: 10m, idle: 20s)")
	flags.IntVar(&o.rows, "rows", 0, "rows of the large backlog in part flat (default 1,000,000)")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "bench [flags] [part...]")
		listParts(flags.Output())
		flags.PrintDefaults()
	}
	var rest []string // parts may stand before, after and between flags
	for len(args) > 0 {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if args = flags.Args(); len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	if o.rounds < 0 || o.scale <= 0 {
		return nil, fmt.Errorf("--rounds %d and --scale %v: must be positive", o.rounds, o.scale)
	}
	o.parts = rest
	return o, nil
}

// forPart fills in the part's own number of rounds.
func (o *options) forPart(p part) *options {
	own := *o
	if own.rounds == 0 {
		own.rounds = max(p.rounds, 1)
	}
	return &own
}

// wants reports whether a case was asked for.
func (o *options) wants(name string) bool {
	return o.only == "" || slices.ContainsFunc(namesIn(o.only), func(s string) bool { return strings.Contains(name, s) })
}

// namesIn splits at commas, but for those with a space behind: "outlast, 48 workers" is one name.
func namesIn(list string) (names []string) {
	for i, s := range strings.Split(list, ",") {
		switch {
		case i > 0 && strings.HasPrefix(s, " ") && len(names) > 0:
			names[len(names)-1] += "," + s
		case s != "":
			names = append(names, s)
		}
	}
	return names
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if slices.Contains(o.parts, "list") {
		listParts(os.Stdout)
		return nil
	}
	chosen, err := choose(o.parts)
	if err != nil {
		return err
	}
	results := &results{Began: time.Now(), Command: "go run ./bench " + strings.Join(args, " "), Go: runtime.Version(), CPUs: runtime.NumCPU()}
	if results.Around, err = lookAround(); err != nil {
		return err
	}
	fmt.Println(results.Around)
	s, err := newStack(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, p := range chosen {
		began := time.Now()
		tables, err := p.run(ctx, s, o.forPart(p))
		for _, t := range tables {
			if err := t.Text(os.Stdout); err != nil {
				return err
			}
		}
		results.Tables = append(results.Tables, tables...)
		if err := results.save(o); err != nil {
			return err
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %s\n", p.name, time.Since(began).Round(time.Second))
	}
	if o.only != "" && !slices.ContainsFunc(results.Tables, func(t *report.Table) bool { return len(t.Lines) > 0 }) {
		return fmt.Errorf("--only %q: no case of the parts that ran has such a name", o.only)
	}
	return nil
}

// results are what is kept of a run of the program.
type results struct {
	Began   time.Time       `json:"began"`
	Command string          `json:"command"`
	Go      string          `json:"go"`
	CPUs    int             `json:"cpus"`
	Around  surroundings    `json:"around"`
	Tables  []*report.Table `json:"tables"`
}
