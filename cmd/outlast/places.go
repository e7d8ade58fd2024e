package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"

	"github.com/outlastmq/outlast/journey"
	"github.com/spf13/cobra"
)

// placesEnv lists the databases of several services, separated by spaces.
const placesEnv = "OUTLAST_DATABASES"

// placeFlags say which databases a question goes to.
type placeFlags struct {
	in []string
	// lazy is for programs that go on for long: a server that is down is connected to when
	// it is there.
	lazy bool
}

func (f *placeFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.in, "in", nil,
		"another database to ask, a URL or env:NAME, with #SCHEMA behind it when its tables are in a schema of their own; may be repeated\n(default $"+placesEnv+", URLs separated by spaces)")
}

// withPlaces opens every database, all at once, and closes them behind fn. One that
// cannot be opened is a place that cannot be asked; a bad setting is an error.
func (p *program) withPlaces(ctx context.Context, f *placeFlags, fn func(ctx context.Context, places []journey.Place) error) error {
	urls, named := f.in, databaseServer
	if named.flag = "--in"; len(urls) == 0 {
		urls, named.flag = strings.Fields(p.getenv(placesEnv)), placesEnv
	}
	if len(urls) == 0 && p.databaseURL == "" && p.getenv(databaseServer.env) == "" {
		return usage("name the databases", "--in", "a URL or env:NAME for each database", "not given", "or set "+placesEnv+" to their URLs, separated by spaces")
	}
	if p.databaseURL != "" || p.getenv(databaseServer.env) != "" || len(urls) == 0 {
		urls = append([]string{""}, urls...)
	}
	places := make([]journey.Place, len(urls))
	addresses, schemas := make([]address, len(urls)), make([]string, len(urls))
	for i, url := range urls {
		if url != "" {
			p.guardFlag("--in", placesEnv, url)
		}
		url, schema := cutSchema(url)
		if schema == "" {
			schema = p.schema
		}
		server := named
		if url == "" {
			url, server = p.databaseURL, databaseServer
		}
		a, err := server.resolve(url, p.getenv)
		p.secrets.learn(a.url)
		if err != nil {
			return err
		}
		places[i].Name = a.safe
		if schema != "" && schema != p.schema {
			places[i].Name += "#" + schema
		}
		addresses[i], schemas[i] = a, schema
	}
	errs := make([]error, len(urls))
	opened := make([]*database, len(urls))
	var all sync.WaitGroup
	for i, a := range addresses {
		all.Go(func() {
			if a.scheme == "sqlite" {
				opened[i], errs[i] = p.openSQLite(ctx, a)
				return
			}
			if opened[i], errs[i] = p.openPostgres(ctx, a, f.lazy); errs[i] == nil && schemas[i] != p.schema {
				opened[i].Store = p.postgresStoreIn(opened[i].sql, schemas[i])
			}
		})
	}
	all.Wait()
	for i, d := range opened {
		if d == nil {
			places[i].Err = errs[i]
			continue
		}
		defer d.close()
		places[i].Store = d.Store
	}
	for _, err := range errs {
		var u usageError
		if errors.As(err, &u) {
			return err
		}
	}
	return fn(ctx, places)
}

// schemaBehind is what may stand behind the # of an address, and no part of a password.
var schemaBehind = regexp.MustCompile(`^(.*)#([a-z_][a-z0-9_]*)$`)

func cutSchema(url string) (address, schema string) {
	if m := schemaBehind.FindStringSubmatch(url); m != nil {
		return m[1], m[2]
	}
	return url, ""
}

// hidePlaces takes secrets out of what drivers said.
func (p *program) hidePlaces(states []journey.PlaceState) {
	for i := range states {
		states[i].Unknown = p.secrets.hide(states[i].Unknown)
	}
}
