package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

// topologyFlags say what a broker must have: a file, or one group by flags.
type topologyFlags struct {
	file       string
	group      string
	events     []string
	commands   []string
	exchange   string
	partitions int
	generation int
	ordered    bool
}

func (f *topologyFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.file, "file", "", "JSON file, as show --json prints it; - for stdin")
	fl.StringVar(&f.group, "group", "", "one group by flags instead of a file")
	fl.StringSliceVar(&f.events, "handles", nil, "events that the group handles: order.placed.v1,order.paid.v1")
	fl.StringSliceVar(&f.commands, "handles-command", nil, "commands that the group handles")
	fl.StringVar(&f.exchange, "exchange", "", "exchange of the handled types (default outlast.events, outlast.commands)")
	fl.IntVar(&f.partitions, "partitions", 1, "number of the group's queues, 1 to 64")
	fl.IntVar(&f.generation, "generation", 1, "generation of the group's queues")
	fl.BoolVar(&f.ordered, "ordered", false, "the group keeps order: its queues have a single active consumer")
}

func (p *program) topologyCommand() *cobra.Command {
	cmd := asGroup(&cobra.Command{
		Use:   "topology",
		Short: "Show, apply or check exchanges, queues and bindings",
		Long: `Topology follows from what groups handle: exchanges, a queue set for each group,
and the bindings. It is read from a JSON file, which a service can print, or comes
from flags for one group. Apply declares what is missing and never changes or
deletes anything; check changes nothing and exits 1 when something differs.`,
	})
	cmd.AddCommand(p.topologyShow(), p.topologyApply(), p.topologyCheck(), p.topologyPermissions())
	return cmd
}

func (p *program) topologyShow() *cobra.Command {
	var f topologyFlags
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show the names that a topology has at the broker; connects to nothing",
		Example: "  outlast topology show --group billing --handles order.placed.v1 --ordered\n  outlast topology show --group billing --handles order.placed.v1 --json > topology.json",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := p.topology(cmd.CommandPath(), &f)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(allLists(t))
			}
			p.printTopology(t)
			return nil
		},
	}
	f.register(cmd)
	return cmd
}

// allLists is a topology without nil lists.
func allLists(t outlast.Topology) outlast.Topology {
	t.Exchanges, t.Groups = notNil(t.Exchanges), append([]outlast.GroupTopology{}, t.Groups...)
	for i := range t.Groups {
		t.Groups[i].Bindings = notNil(t.Groups[i].Bindings)
	}
	return t
}

func (p *program) topologyApply() *cobra.Command {
	var f topologyFlags
	cmd := &cobra.Command{
		Use:     "apply",
		Short:   "Declare what the broker lacks; changes and deletes nothing",
		Example: "  outlast topology apply --file topology.json\n  outlast topology apply --group billing --handles order.placed.v1",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := p.topology(cmd.CommandPath(), &f)
			if err != nil {
				return err
			}
			return p.withBroker(cmd.Context(), func(ctx context.Context, b *broker) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				if err := b.Topology().Apply(ctx, t); err != nil {
					return err
				}
				if p.json {
					return p.printJSON(allLists(t))
				}
				p.printTopology(t)
				p.printf("applied at %s\n", b.Address())
				return nil
			})
		},
	}
	f.register(cmd)
	return cmd
}

func (p *program) topologyCheck() *cobra.Command {
	var f topologyFlags
	cmd := &cobra.Command{
		Use:     "check",
		Short:   "Compare the broker with a topology; exit code 1 when something differs",
		Example: "  outlast topology check --file topology.json --json",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := p.topology(cmd.CommandPath(), &f)
			if err != nil {
				return err
			}
			return p.withBroker(cmd.Context(), func(ctx context.Context, b *broker) error {
				ctx, cancel := p.brief(ctx)
				defer cancel()
				differences, err := b.Topology().Check(ctx, t)
				if err != nil {
					return err
				}
				return p.reportDifferences(b, differences)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func (p *program) reportDifferences(b *broker, differences []outlast.TopologyDifference) error {
	if p.json {
		if differences == nil {
			differences = []outlast.TopologyDifference{}
		}
		if err := p.printJSON(differences); err != nil {
			return err
		}
	} else if len(differences) == 0 {
		p.printf("%s has all of it%s\n", b.Address(), b.unchecked())
	} else {
		t := newTable("OBJECT", "PROPERTY", "WANT", "HAVE", "HINT")
		for _, d := range differences {
			t.add(d.Object, dash(d.Property), d.Want, d.Have, d.Hint)
		}
		t.write(p.out)
	}
	if len(differences) == 0 {
		return nil
	}
	hint := ""
	if slices.ContainsFunc(differences, func(d outlast.TopologyDifference) bool { return strings.Contains(d.Hint, "topology apply") }) {
		hint = "outlast topology apply declares what is missing"
	}
	return &outlast.Error{Op: "topology check", Code: outlast.CodeConflict, Err: errors.New(plural(len(differences), "difference")), Hint: hint}
}

// topology reads and checks a topology.
func (p *program) topology(op string, f *topologyFlags) (outlast.Topology, error) {
	switch {
	case f.file != "" && f.group != "":
		return outlast.Topology{}, usage(op, "--file and --group", "one of the two", "both", "")
	case f.group != "":
		t := f.topology()
		return t, checkTopology(op, t)
	case f.file == "":
		return outlast.Topology{}, usage(op, "--file or --group", "given", "not given", "")
	}
	t, err := p.readTopology(op, f.file)
	if err != nil {
		return t, err
	}
	return t, checkTopology(op+" --file", t)
}

func (p *program) readTopology(op, name string) (outlast.Topology, error) {
	var t outlast.Topology
	r, done, err := p.openInput(op, "--file", name)
	if err != nil {
		return t, err
	}
	defer done()
	d := json.NewDecoder(io.LimitReader(r, 4<<20))
	d.DisallowUnknownFields()
	err = d.Decode(&t)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more follows the topology, which would not be read")
		}
	}
	if err != nil {
		return t, usageError{&outlast.Error{Op: op + ": read the topology", Code: outlast.CodeInvalid, Err: jsonProblem(err), Hint: "outlast topology show --json prints one"}}
	}
	for i := range t.Groups {
		t.Groups[i].Partitions = max(t.Groups[i].Partitions, 1)
		t.Groups[i].Generation = max(t.Groups[i].Generation, 1)
	}
	return t, nil
}

// topology makes the topology of one group from flags.
func (f *topologyFlags) topology() outlast.Topology {
	g := outlast.GroupTopology{Group: f.group, Partitions: f.partitions, Generation: f.generation, Ordered: f.ordered}
	t := outlast.Topology{}
	seen := map[string]bool{}
	bind := func(kind outlast.Kind, types []string) {
		exchange := f.exchange
		if exchange == "" {
			exchange = outlast.ExchangeOf(kind)
		}
		for _, typ := range types {
			g.Bindings = append(g.Bindings, outlast.Binding{Exchange: exchange, Type: strings.TrimSpace(typ)})
			if !seen[exchange] {
				seen[exchange] = true
				t.Exchanges = append(t.Exchanges, outlast.Exchange{Name: exchange})
			}
		}
	}
	bind(outlast.KindEvent, f.events)
	bind(outlast.KindCommand, f.commands)
	t.Groups = []outlast.GroupTopology{g}
	return t
}

// checkTopology names everything that no broker would take, before one is asked.
func checkTopology(op string, t outlast.Topology) error {
	e := &outlast.Error{Op: op, Code: outlast.CodeInvalid}
	add := func(field, limit, given string) {
		e.Fields = append(e.Fields, outlast.FieldError{Field: field, Limit: limit, Given: given})
	}
	groups := map[string]bool{}
	for _, g := range t.Groups {
		name := fmt.Sprintf("group %q", cut(g.Group, 80))
		if !plainName(g.Group, 100) || strings.Contains(g.Group, ".") {
			add("group", "1 to 100 letters, digits, '-' and '_'", fmt.Sprintf("%q", cut(g.Group, 80)))
		}
		if groups[g.Group] {
			add(name, "named once", "twice")
		}
		groups[g.Group] = true
		if g.Partitions < 1 || g.Partitions > outlast.Buckets {
			add(name+" partitions", fmt.Sprintf("1 to %d", outlast.Buckets), fmt.Sprint(g.Partitions))
		}
		if g.Generation < 1 || g.Generation > 9999 {
			add(name+" generation", "1 to 9999", fmt.Sprint(g.Generation))
		}
		if len(g.Bindings) == 0 {
			add(name+" bindings", "at least one type that it handles", "none")
		}
		for _, b := range g.Bindings {
			if !plainName(b.Type, outlast.MaxType) {
				add(name+" type", "letters, digits, '-', '_', in parts joined by '.'", fmt.Sprintf("%q", cut(b.Type, 80)))
			}
		}
	}
	if len(e.Fields) == 0 {
		return nil
	}
	return usageError{e}
}

func plainName(s string, limit int) bool {
	const chars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return s != "" && len(s) <= limit && strings.Trim(s, chars) == "" &&
		s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

func (p *program) printTopology(t outlast.Topology) {
	for _, e := range t.Exchanges {
		p.printf("exchange %s: topic, durable\n", printable(e.Name))
	}
	for _, g := range t.Groups {
		order := "any number of active consumers"
		if g.Ordered {
			order = "single active consumer"
		}
		for part := range g.Partitions {
			p.printf("queue %s: quorum, %s\n", printable(g.Queue(part)), order)
			for _, b := range g.Bindings {
				p.printf("  bound to %s by %s\n", printable(b.Exchange), printable(keysText(g.RoutingKeys(b, part))))
			}
		}
	}
}

func keysText(keys []string) string {
	if len(keys) <= 3 {
		return strings.Join(keys, ", ")
	}
	return fmt.Sprintf("%s, %s, ... (%d keys)", keys[0], keys[1], len(keys))
}
