package console

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// observed is what the broker said at a time. Its lists are not changed any more.
type observed struct {
	At     time.Time
	Groups map[string]observedGroup
	// Exchanges are the differences of what belongs to no group, ExchangesUnknown why
	// nobody knows whether there are any.
	Exchanges        []outlast.TopologyDifference
	ExchangesUnknown error
}

// observedFor is how long an answer of the broker is shown again: each takes connections.
const observedFor = 5 * time.Second

// observedGroup is a group with its queues as the broker has them. Declared is nil when
// only the group's name is known.
type observedGroup struct {
	Declared *outlast.GroupTopology
	Queues   []observedQueue
	// Differences are to what is declared, Unknown why nobody knows whether there are any.
	Differences []outlast.TopologyDifference
	Unknown     error
}

// observedQueue is one queue. Missing: the broker said that there is none. Unknown: why
// it said nothing; the numbers are then nothing either.
type observedQueue struct {
	outlast.QueueDepth
	Missing bool
	Unknown error
}

// mostAsked bounds how many groups the broker is asked about at once.
const mostAsked = 4

// observe returns what the broker says of the groups, at most five seconds old: however
// many people look, it is asked once.
func (x *Console) observe(ctx context.Context, groups []string) *observed {
	x.broker.Lock()
	defer x.broker.Unlock()
	if o := x.observed; o != nil && time.Since(o.At) < observedFor && slices.Equal(groups, slices.Sorted(maps.Keys(o.Groups))) {
		return o
	}
	ctx, cancel := x.brief(ctx)
	defer cancel()
	found := make([]observedGroup, len(groups))
	room := make(chan struct{}, mostAsked)
	var all sync.WaitGroup
	for i, g := range groups {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			found[i] = x.observeGroup(ctx, g)
		})
	}
	o := &observed{Groups: map[string]observedGroup{}}
	if len(x.c.Declared.Exchanges) > 0 {
		o.Exchanges, o.ExchangesUnknown = x.c.Broker.Topology().Check(ctx, outlast.Topology{Exchanges: x.c.Declared.Exchanges})
	}
	all.Wait()
	for i, g := range groups {
		o.Groups[g] = found[i]
	}
	o.At = time.Now()
	x.observed = o
	return o
}

// observeGroup asks for the queues of a group and, when it is declared, for what differs.
// How many queues a group has that is only known by name, nobody has written down: they
// are looked at in order until there is none.
func (x *Console) observeGroup(ctx context.Context, group string) observedGroup {
	broker := x.c.Broker.Topology()
	look := func(g outlast.GroupTopology, partition int) observedQueue {
		q := observedQueue{QueueDepth: outlast.QueueDepth{Queue: g.Queue(partition)}}
		depth, err := broker.Depth(ctx, q.Queue)
		switch {
		case outlast.CodeOf(err) == outlast.CodeNotFound:
			q.Missing = true
		case err != nil:
			q.Unknown = err
		default:
			q.QueueDepth = depth
		}
		return q
	}
	var o observedGroup
	if o.Declared = x.declared(group); o.Declared == nil {
		for p := range outlast.Buckets {
			q := look(outlast.GroupTopology{Group: group}, p)
			if p > 0 && q.Missing {
				break
			}
			if o.Queues = append(o.Queues, q); q.Missing || q.Unknown != nil {
				break
			}
		}
		return o
	}
	for p := range max(o.Declared.Partitions, 1) {
		o.Queues = append(o.Queues, look(*o.Declared, p))
	}
	o.Differences, o.Unknown = broker.Check(ctx, outlast.Topology{Groups: []outlast.GroupTopology{*o.Declared}})
	return o
}

// declared returns the declared queues of a group, or nil.
func (x *Console) declared(group string) *outlast.GroupTopology {
	for i := range x.c.Declared.Groups {
		if g := &x.c.Declared.Groups[i]; g.Group == group {
			return g
		}
	}
	return nil
}

// declare makes the queues and bindings that are declared for a group and missing at the
// broker, with the exchanges that they need. It removes nothing, and refuses what is there with other arguments.
func (x *Console) declare(_ context.Context, _ *Identity, r *http.Request) (*deed, error) {
	if err := needsGroup(r); err != nil {
		return nil, err
	}
	group := r.PostFormValue("group")
	d := &deed{permission: Configure, what: "declare", group: group, service: group, target: "queues of " + group, back: "topology", notice: "declare"}
	d.do = func(ctx context.Context, _ outlast.Action) (string, error) {
		g := x.declared(group)
		if x.c.Broker == nil || g == nil {
			return "", &outlast.Error{Op: d.what, Code: outlast.CodeNotFound, Err: fmt.Errorf("nobody has told this console what is declared for %q", group)}
		}
		err := x.c.Broker.Topology().Apply(ctx, outlast.Topology{Groups: []outlast.GroupTopology{*g}})
		x.broker.Lock()
		defer x.broker.Unlock()
		x.observed = nil // what was seen before
		return "declared", err
	}
	return d, nil
}

// knownGroup is a group with what the databases and the declared topology say of it.
type knownGroup struct {
	Places []string // the databases that know it; none: it is only declared
	Hears  []string // the types that it hears
	Paused *outlast.PausedGroup
}

// knownGroups returns the groups that the databases know or that are declared, as far as
// a person may know them, and the databases that did not answer.
func (x *Console) knownGroups(ctx context.Context) (map[string]*knownGroup, []gap) {
	known := map[string]*knownGroup{}
	add := func(group, place string) *knownGroup {
		g := known[group]
		if g == nil {
			g = &knownGroup{}
			known[group] = g
		}
		if place != "" && !slices.Contains(g.Places, place) {
			g.Places = append(g.Places, place)
		}
		return g
	}
	for _, g := range x.c.Declared.Groups {
		add(g.Group, "")
	}
	hears, gaps := x.hearers(ctx)
	for i, s := range x.status(ctx) {
		if s.Status == nil {
			if !slices.ContainsFunc(gaps, func(g gap) bool { return g.Name == s.Name }) {
				gaps = append(gaps, gap{s.Name, s.Unknown})
			}
			continue
		}
		for _, h := range hears[i] {
			if h.Until.IsZero() {
				g := add(h.Group, s.Name)
				g.Hears = append(g.Hears, h.Type)
			}
		}
		for _, g := range slices.Concat(s.Status.Retry, s.Status.Dead) {
			add(g.Group, s.Name)
		}
		for _, p := range s.Status.Groups {
			add(p.Group, s.Name).Paused = &p
		}
	}
	return known, gaps
}
