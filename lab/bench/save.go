package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/outlastmq/outlast/internal/report"
)

// save writes what was measured so far, so that an interrupted run leaves its results.
func (r *results) save(o *options) error {
	if err := writeFile(o.json, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(r)
	}); err != nil {
		return err
	}
	if err := writeFile(o.md, func(w io.Writer) error {
		if _, err := fmt.Fprintf(w, "%s, `%s`, %s, %d cores; %s.\n", r.Began.UTC().Format("2006-01-02 15:04"), r.Command, r.Go, r.CPUs, r.Around); err != nil {
			return err
		}
		for _, t := range r.Tables {
			if _, err := io.WriteString(w, "\n### "+t.Title+"\n\n"); err != nil {
				return err
			}
			if err := t.Markdown(w); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return writeFile(o.svg, func(w io.Writer) error { return report.SVG(w, r.Tables) })
}

func writeFile(path string, write func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		_ = f.Close() // the write's error says more
		return err
	}
	return f.Close()
}
