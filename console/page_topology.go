package console

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

// hearers returns what the groups of each database hear, and the databases that did not
// answer.
func (x *Console) hearers(ctx context.Context) (list [][]outlast.Hearer, gaps []gap) {
	list = make([][]outlast.Hearer, len(x.places))
	x.each(ctx, func(ctx context.Context, i int, p *place) (err error) {
		list[i], err = p.Store.Journal().Hearers(ctx)
		return err
	}, func(i int, err error) {
		gaps = append(gaps, gap{x.places[i].Name, x.c.Redact(err.Error())})
	})
	return list, gaps
}

// topologyData is who hears what, as the groups themselves have recorded it, and what the
// broker has of what is declared.
type topologyData struct {
	Edges    []edge
	Gaps     []gap
	Compared *comparison
}

type edge struct {
	outlast.Hearer
	Place string
}

func (x *Console) topology(ctx context.Context, who *Identity, _ *http.Request) (*view, error) {
	var data topologyData
	lists, gaps := x.hearers(ctx)
	data.Gaps = gaps
	for i, list := range lists {
		for _, h := range list {
			if who.May(View, h.Group, h.Type) {
				data.Edges = append(data.Edges, edge{h, x.places[i].Name})
			}
		}
	}
	if x.c.Broker != nil {
		data.Compared = x.compare(ctx, who)
	}
	return &view{Title: "Topology", Template: "topology", Data: data}, nil
}

// comparison is what is declared against what the broker has.
type comparison struct {
	Broker  string
	At      time.Time
	Unknown string // why the broker could not be asked for anything
	Groups  []comparedGroup
	// Differences of the exchanges, which belong to no group; ExchangesUnknown: why there
	// is no comparison.
	Differences      []difference
	ExchangesUnknown string
	Declared         bool // something is
	AMQP             bool // which shows no bindings
}

// comparedGroup is a group with what differs, in words.
type comparedGroup struct {
	Name        string
	Declared    bool
	Declare     bool // the person may have what is missing declared
	Unknown     string
	Differences []difference
	Fine        string // what is as it should be, when nothing differs
}

// difference is one thing that is not as it should be, and what repairs it.
type difference struct{ Text, Repair string }

func (x *Console) compare(ctx context.Context, who *Identity) *comparison {
	known, _ := x.knownGroups(ctx)
	o := x.observe(ctx, slices.Sorted(maps.Keys(known)))
	c := &comparison{Broker: x.c.Redact(x.c.Broker.Address()), At: o.At, Declared: len(x.c.Declared.Groups) > 0, AMQP: x.c.Broker.Name() == "rabbitmq"}
	unknown := 0
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if !who.May(View, name, "") {
			continue
		}
		g := x.compareGroup(name, o.Groups[name], known[name])
		g.Declare = g.Unknown == "" && lacks(o, name) && x.acts() && who.May(Configure, name, "")
		if g.Unknown != "" {
			unknown++
			c.Unknown = g.Unknown
		}
		c.Groups = append(c.Groups, g)
	}
	if o.ExchangesUnknown != nil {
		c.ExchangesUnknown = x.c.Redact(o.ExchangesUnknown.Error())
	}
	c.Differences = inTopologyWords(o.Exchanges)
	if unknown < len(c.Groups) || len(c.Groups) == 0 {
		c.Unknown = ""
	}
	return c
}

// lacks reports whether something that is declared for the group is missing or differs, the
// exchanges that it is bound to among it.
func lacks(o *observed, group string) bool {
	g := o.Groups[group]
	return g.Declared != nil && (len(g.Differences) > 0 || slices.ContainsFunc(g.Declared.Bindings, func(b outlast.Binding) bool {
		return slices.ContainsFunc(o.Exchanges, func(d outlast.TopologyDifference) bool {
			return strings.Contains(d.Object, fmt.Sprintf("%q", b.Exchange))
		})
	}))
}

func (x *Console) compareGroup(name string, o observedGroup, known *knownGroup) comparedGroup {
	g := comparedGroup{Name: name, Declared: o.Declared != nil, Differences: inTopologyWords(o.Differences)}
	if o.Unknown != nil {
		g.Unknown = x.c.Redact(o.Unknown.Error())
		return g
	}
	if g.Declared {
		if len(known.Places) == 0 {
			g.Differences = append(g.Differences, difference{Text: "No database that was asked knows the group " + name + ".", Repair: "It is there when its consumers have run once; or the console is not given its database."})
		}
		for _, typ := range known.Hears {
			if !slices.ContainsFunc(o.Declared.Bindings, func(b outlast.Binding) bool { return b.Type == typ }) {
				g.Differences = append(g.Differences, difference{Text: name + " says that it hears " + typ + ", which is not declared.",
					Repair: "What is declared is older than the group, or the group hears it from a queue of somebody else, or not any more: outlast books unhear ends that."})
			}
		}
		if len(g.Differences) == 0 {
			g.Fine = plural(len(o.Queues), "queue") + " as declared."
		}
		return g
	}
	for _, q := range o.Queues {
		switch {
		case q.Unknown != nil:
			g.Unknown = x.c.Redact(q.Unknown.Error())
		case q.Missing:
			g.Differences = append(g.Differences, difference{Text: "There is no queue " + q.Queue + ".",
				Repair: "A consumer of the group makes it when it starts. If the group has another generation, its queues have other names: declare them."})
		}
	}
	if g.Unknown == "" && len(g.Differences) == 0 {
		g.Fine = plural(len(o.Queues), "queue") + ". Nobody has declared what they should be, so nothing was compared."
	}
	return g
}

// inTopologyWords says what differs, and what repairs it.
func inTopologyWords(list []outlast.TopologyDifference) (all []difference) {
	for _, d := range list {
		w := difference{Text: fmt.Sprintf("%s %s is %s, and should be %s.", upperFirst(d.Object), d.Property, d.Have, d.Want), Repair: d.Hint}
		if d.Property == "" && slices.Contains([]string{"nothing", "none", "missing"}, d.Have) {
			w.Text = fmt.Sprintf("%s is missing.", upperFirst(d.Object))
		}
		if w.Repair == "" || w.Repair == "outlast topology apply" {
			w.Repair = "outlast topology apply declares what is missing, and so does a consumer of the group when it starts; neither removes anything."
		}
		all = append(all, w)
	}
	return all
}

func upperFirst(s string) string {
	return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):]
}
