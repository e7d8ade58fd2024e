// Command cmd runs storms: see package storm. It is what make chaos and make soak call.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/outlastmq/outlast/lab/network"
	"github.com/outlastmq/outlast/lab/storm"
	"github.com/outlastmq/outlast/lab/storm/role"
)

// options are what to do around the storms themselves.
type options struct {
	runs, legs int
	earlier    string // program; empty: none
	state      string // folder
	append     string // Markdown file that gets a row for each run
	soak       string // Markdown file that tells of the whole series
}

func main() {
	role.Main()
	var c storm.Config
	var o options
	flag.Uint64Var(&c.Seed, "seed", rand.Uint64N(1_000_000_000), "decides the faults; the runs of a series count up from it")
	flag.DurationVar(&c.Length, "for", 3*time.Minute, "how long messages are written and faults come")
	flag.Float64Var(&c.Rate, "rate", 0, "messages a second (default 60)")
	flag.IntVar(&c.Messages, "messages", 0, "how many messages are written in all; the rate follows")
	flag.IntVar(&c.Nodes, "nodes", 3, "RabbitMQ nodes: 1 or 3")
	flag.IntVar(&c.Batch, "batch", 1, "messages in one transaction of a consumer")
	flag.DurationVar(&c.Pause, "pause", 0, "mean time between two faults (default 3s)")
	flag.IntVar(&c.Most, "most", 0, "faults at once (default 4)")
	flag.StringVar(&c.Folder, "folder", "", "keep logs, histories and timelines here, in a folder for each seed")
	flag.IntVar(&o.runs, "runs", 1, "runs in a row; a series that was interrupted goes on")
	flag.IntVar(&o.legs, "legs", 0, "cut -for and -messages into so many runs: a soak")
	flag.StringVar(&o.state, "state", "../.storm", "folder that remembers an unfinished series and the progress")
	flag.StringVar(&o.append, "append", "", "Markdown file that gets a row for each run")
	flag.StringVar(&o.soak, "soak", "", "Markdown file that tells of the whole series")
	flag.BoolVar(&c.WithoutHistory, "without-history", false, "record no history: the ledgers alone judge")
	loopback := flag.Bool("loopback", false, "do not make network namespaces")
	earlier := flag.Bool("earlier", true, "in runs with an odd seed, run relays and consumers of an earlier commit beside the present ones")
	skew := flag.Bool("skew", false, "let the clocks of the processes jump; there is no history then")
	only := flag.String("only", "", "kinds of faults, separated by commas (default all)")
	flag.Parse()
	if *only != "" {
		c.Only = strings.Split(*only, ",")
	}
	if !*loopback {
		if err := network.Isolate(); err != nil {
			fmt.Println("everything runs on loopback, as", err)
			*loopback = true
		}
	}
	c.Namespaces = !*loopback
	if o.legs > 0 {
		o.runs, c.Length, c.Messages = o.legs, c.Length/time.Duration(o.legs), c.Messages/o.legs
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	good, err := false, error(nil)
	if *earlier {
		o.earlier, err = build(o.state, func(folder string) (string, error) { return storm.BuildEarlier(ctx, folder) })
		if errors.Is(err, storm.ErrNoHistory) {
			fmt.Println("no earlier commit beside the present one:", err)
			err = nil
		}
	}
	if *skew && err == nil {
		c.WithoutHistory = true
		c.Skewed, err = build(o.state, func(folder string) (string, error) { return storm.BuildSkewed(ctx, "./storm/cmd", folder) })
	}
	if err == nil {
		good, err = run(ctx, c, o)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(2)
	}
	if !good {
		os.Exit(1)
	}
}

// build makes a program in folder, and the folder.
func build(folder string, f func(folder string) (string, error)) (string, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	return f(folder)
}

func run(ctx context.Context, c storm.Config, o options) (good bool, err error) {
	name := "chaos"
	if o.soak != "" {
		name = "soak"
	}
	s, err := openSeries(filepath.Join(o.state, name+".json"), o.runs, c.Seed)
	if err != nil {
		return false, err
	}
	folder, svg := c.Folder, ""
	for s.unfinished() {
		c.Seed = s.seed()
		c.Earlier = ""
		if c.Seed%2 == 1 {
			c.Earlier = o.earlier
		}
		if folder != "" {
			c.Folder = filepath.Join(folder, fmt.Sprint(c.Seed))
		}
		fmt.Printf("\nrun %d of %d\n", len(s.Done)+1, s.Runs)
		c.Progress = progressTo(filepath.Join(o.state, name+".progress"), len(s.Done)+1, s.Runs)
		report, err := storm.Run(ctx, c)
		if err != nil {
			return false, err
		}
		report.Print(os.Stdout)
		svg = report.SVG
		done, err := s.add(report)
		if err != nil {
			return false, err
		}
		if err := keep(o, report, done); err != nil {
			return false, err
		}
	}
	if missing := s.absent(); len(s.Done) >= enough && len(missing) > 0 {
		fmt.Printf("\nTHE SERIES DOES NOT COUNT: in none of its %d runs occurred: %s\n", len(s.Done), strings.Join(missing, ", "))
	}
	if o.soak != "" {
		return s.good(), writeSoak(o.soak, s, svg)
	}
	if o.append != "" {
		return s.good(), writeKinds(o.append, s)
	}
	return s.good(), nil
}

// keep writes what outlives a run.
func keep(o options, report *storm.Report, done record) error {
	if _, err := os.Stat(report.Folder); err == nil {
		if err := os.WriteFile(filepath.Join(report.Folder, "timeline.svg"), []byte(report.SVG), 0o644); err != nil {
			return err
		}
	}
	if o.soak != "" {
		return os.WriteFile(picture(o.soak, done.Seed), []byte(report.SVG), 0o644)
	}
	if o.append == "" {
		return nil
	}
	return appendRow(o.append, done, report.SVG)
}

// progressTo replaces a file by one line with the state of a run, for whoever looks.
func progressTo(path string, n, of int) func(storm.Progress) {
	return func(p storm.Progress) {
		line := fmt.Sprintf("run %d of %d, %d s of load: %d committed, %d ended, %d on their way\n", n, of, p.Seconds, p.Committed, p.Effects, p.Waiting)
		if os.MkdirAll(filepath.Dir(path), 0o755) == nil {
			_ = os.WriteFile(path, []byte(line), 0o644) // only for looking at
		}
	}
}
