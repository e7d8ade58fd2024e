package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// buildVersion is the module's version, or what the linker was told.
var buildVersion = ""

// versionReport is what version prints.
type versionReport struct {
	Version string         `json:"version"`
	Commit  string         `json:"commit,omitempty"`
	Go      string         `json:"go"`
	System  string         `json:"system"`
	Tables  map[string]int `json:"tables"`
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this program and of the tables that it knows",
		Example: "  outlast version --json",
		Args:    args(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.showVersion(cmd.CommandPath()) },
	}
}

// versionFlag makes --version alone work as the command does.
func (p *program) versionFlag(root *cobra.Command) {
	asked := root.Flags().Bool("version", false, "show the version, as outlast version does")
	run := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *asked && len(args) == 0 {
			return p.showVersion(cmd.CommandPath())
		}
		return run(cmd, args)
	}
}

func (p *program) showVersion(op string) error {
	r := readVersion()
	for _, engine := range engines {
		m, err := p.migrator(op, engine)
		if err != nil {
			return err
		}
		r.Tables[engine] = m.Latest()
	}
	if p.json {
		return p.printJSON(r)
	}
	p.printf("outlast %s (%s, %s)\n", r.Version, r.Go, r.System)
	for _, engine := range engines {
		p.printf("tables for %s: version %d\n", engine, r.Tables[engine])
	}
	return nil
}

func readVersion() versionReport {
	r := versionReport{Version: buildVersion, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Tables: map[string]int{}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return r
	}
	if r.Version == "" {
		r.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			r.Commit = s.Value
		}
	}
	return r
}
