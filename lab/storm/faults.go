package storm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/lab/proxy"
)

// kinds are all faults that this stage knows; only, when set, chooses among them by name.
func (s *stage) kinds(only []string) []fault.Kind {
	all := slices.Concat(s.processKinds(), s.linkKinds(), s.nodeKinds(), s.databaseKinds(), s.topologyKinds(), s.networkKinds(), s.operatorKinds())
	if len(only) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(k fault.Kind) bool { return !slices.Contains(only, k.Name) })
}

func oneOf[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// nothing is an Off of what ends by itself.
func nothing(context.Context) error { return nil }

func plain(f func() error) func(context.Context) error {
	return func(context.Context) error { return f() }
}

func (s *stage) processKinds() []fault.Kind {
	each := func(name string, weight int, shortest, longest time.Duration, on, off func(*member) func(context.Context) error) fault.Kind {
		return fault.Kind{Name: name + " process", Weight: weight, Shortest: shortest, Longest: longest, Draw: func(r *rand.Rand) fault.Fault {
			m := s.cast[oneOf(r, s.names)]
			return fault.Fault{Name: name + " " + m.spec.Name, Hits: []string{m.spec.Name}, On: on(m), Off: off(m)}
		}}
	}
	start := func(m *member) func(context.Context) error { return plain(m.start) }
	lacksClock := ""
	if s.config.Skewed == "" {
		lacksClock = "this build has no clock of its own (-skew)"
	}
	lacks := ""
	if s.config.Earlier == "" {
		lacks = "there is no build of the earlier commit"
	}
	return []fault.Kind{
		{Name: "restart every process", Weight: 1, Shortest: 100 * time.Millisecond, Longest: time.Second, Draw: func(*rand.Rand) fault.Fault {
			return fault.Fault{Name: "restart every process in turn", Hits: s.names, On: s.roll, Off: s.startCast}
		}},
		{Name: "own clock", Weight: 2, Shortest: 100 * time.Millisecond, Longest: time.Second, Lacks: lacksClock, Draw: func(r *rand.Rand) fault.Fault {
			m, jump, after := s.cast[oneOf(r, s.names)], time.Duration(r.IntN(7200)-3600)*time.Second, time.Duration(r.IntN(20))*time.Second
			return fault.Fault{Name: fmt.Sprintf("clock of %s jumps %+.0f s in %s", m.spec.Name, jump.Seconds(), after), Hits: []string{m.spec.Name}, Off: start(m),
				On: func(ctx context.Context) error {
					m.setClock(jump, after)
					return m.kill()
				}}
		}},
		{Name: "change of version", Weight: 2, Shortest: 100 * time.Millisecond, Longest: 2 * time.Second, Lacks: lacks, Draw: func(r *rand.Rand) fault.Fault {
			m := s.cast[oneOf(r, s.names)]
			return fault.Fault{Name: "restart " + m.spec.Name + " with another version", Hits: []string{m.spec.Name}, Off: start(m),
				On: func(ctx context.Context) error {
					if err := m.stop(ctx); err != nil {
						return err
					}
					m.change()
					return nil
				}}
		}},
		each("kill", 6, 100*time.Millisecond, 6*time.Second, func(m *member) func(context.Context) error { return plain(m.kill) }, start),
		each("restart", 3, 100*time.Millisecond, 2*time.Second, func(m *member) func(context.Context) error { return m.stop }, start),
		// Longer than a lease, often.
		each("freeze", 4, time.Second, 12*time.Second,
			func(m *member) func(context.Context) error { return plain(m.program.Pause) },
			func(m *member) func(context.Context) error { return plain(m.program.Continue) }),
	}
}

// roll restarts every process in turn, each with its other version if it has one: a rolling
// deployment.
func (s *stage) roll(ctx context.Context) error {
	for _, name := range s.names {
		m := s.cast[name]
		if err := m.stop(ctx); err != nil {
			return err
		}
		m.change()
		if err := m.start(); err != nil {
			return err
		}
	}
	return nil
}

// startCast makes sure that every process runs.
func (s *stage) startCast(context.Context) error {
	for _, name := range s.names {
		if err := s.cast[name].start(); err != nil {
			return err
		}
	}
	return nil
}

// Bytes on the wire by which a cut finds its moment.
var (
	commitStatement = []byte("commit")
	// amqpAck is class basic, method ack: a confirm from the broker, or a consumer's ack.
	amqpAck = []byte{0, 60, 0, 80}
)

func (s *stage) linkKinds() []fault.Kind {
	on := func(name string, weight int, shortest, longest time.Duration, strike func(*rand.Rand) func(*proxy.Proxy)) fault.Kind {
		return fault.Kind{Name: name, Weight: weight, Shortest: shortest, Longest: longest, Draw: func(r *rand.Rand) fault.Fault {
			return s.linkFault(name, oneOf(r, s.allLinks()), strike(r))
		}}
	}
	at := func(name string, weight int, server string, roles []string, strike func(*rand.Rand) func(*proxy.Proxy)) fault.Kind {
		return fault.Kind{Name: name, Weight: weight, Shortest: 500 * time.Millisecond, Longest: 5 * time.Second, Draw: func(r *rand.Rand) fault.Fault {
			l := link{oneOf(r, s.proxied(roles...)), server}
			if server == "" {
				l.server = nodeName(r.IntN(s.config.Nodes))
			}
			f := s.linkFault(name, l, strike(r))
			f.Struck = func() bool { return slices.ContainsFunc(s.proxies(l), (*proxy.Proxy).IsCut) }
			return f
		}}
	}
	always := func(f func(*proxy.Proxy)) func(*rand.Rand) func(*proxy.Proxy) {
		return func(*rand.Rand) func(*proxy.Proxy) { return f }
	}
	return []fault.Kind{
		on("cut", 4, 100*time.Millisecond, 8*time.Second, always((*proxy.Proxy).Cut)),
		on("stall", 3, time.Second, 20*time.Second, always((*proxy.Proxy).Stall)),
		on("deafen", 2, time.Second, 10*time.Second, always((*proxy.Proxy).Deafen)),
		on("delay", 2, time.Second, 10*time.Second, func(r *rand.Rand) func(*proxy.Proxy) {
			d := time.Duration(5+r.IntN(150)) * time.Millisecond
			return func(p *proxy.Proxy) { p.Delay(d) }
		}),
		// Longer than a lease: what the relay has said arrives when another has its slots.
		{Name: "stall a relay's marks", Weight: 2, Shortest: 4 * time.Second, Longest: 9 * time.Second, Draw: func(r *rand.Rand) fault.Fault {
			return s.linkFault("stall", link{oneOf(r, s.proxied("relay")), "postgres"}, (*proxy.Proxy).Stall)
		}},
		at("cut the reply to COMMIT", 4, "postgres", []string{"producer", "relay", "billing", "audit", "orders"}, func(r *rand.Rand) func(*proxy.Proxy) {
			n := r.Int64N(12)
			return func(p *proxy.Proxy) { p.CutOn(proxy.Up, commitStatement, proxy.Down, n) }
		}),
		at("cut on a confirm", 3, "", []string{"relay", "billing"}, func(r *rand.Rand) func(*proxy.Proxy) {
			n := r.Int64N(10)
			return func(p *proxy.Proxy) { p.CutOn(proxy.Down, amqpAck, proxy.Down, n) }
		}),
		at("cut on an ack", 3, "", []string{"billing", "audit", "orders"}, func(r *rand.Rand) func(*proxy.Proxy) {
			n := r.Int64N(10)
			return func(p *proxy.Proxy) { p.CutOn(proxy.Up, amqpAck, proxy.Up, n) }
		}),
	}
}

func (s *stage) linkFault(what string, l link, strike func(*proxy.Proxy)) fault.Fault {
	return fault.Fault{Name: what + " " + l.String(), Hits: []string{l.String()},
		On: func(context.Context) error {
			for _, p := range s.proxies(l) {
				strike(p)
			}
			return nil
		},
		Off: func(context.Context) error {
			for _, p := range s.proxies(l) {
				if err := p.Restore(); err != nil {
					return err
				}
			}
			return nil
		}}
}

func (s *stage) proxies(l link) []*proxy.Proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.links[l])
}

// allLinks are in an order that is always the same, so that a seed means something.
func (s *stage) allLinks() []link {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []link
	for l := range s.links {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b link) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// proxied are the names of the processes of some roles that have proxies.
func (s *stage) proxied(roles ...string) []string {
	var names []string
	for _, name := range s.names {
		if slices.Contains(roles, s.cast[name].spec.Role) && !s.direct(name) {
			names = append(names, name)
		}
	}
	return names
}

func (s *stage) nodeKinds() []fault.Kind {
	node := func(name string, weight int, shortest, longest time.Duration, on, off func(i int) func(context.Context) error) fault.Kind {
		return fault.Kind{Name: name + " node", Weight: weight, Shortest: shortest, Longest: longest, Draw: func(r *rand.Rand) fault.Fault {
			i := r.IntN(s.config.Nodes)
			return fault.Fault{Name: name + " " + nodeName(i), Hits: []string{nodeName(i)}, On: on(i), Off: off(i)}
		}}
	}
	alarm := func(what, set, clear string, command string) fault.Kind {
		return fault.Kind{Name: what + " alarm", Weight: 2, Shortest: 2 * time.Second, Longest: 15 * time.Second, Draw: func(r *rand.Rand) fault.Fault {
			i := r.IntN(s.config.Nodes)
			ctl := func(value string) func(context.Context) error {
				return func(ctx context.Context) error { return s.ctl(ctx, i, command, value) }
			}
			return fault.Fault{Name: "alarm: " + what + " of " + nodeName(i), Hits: []string{nodeName(i) + " " + what}, On: ctl(set), Off: ctl(clear)}
		}}
	}
	var all []string
	for i := range s.config.Nodes {
		all = append(all, nodeName(i))
	}
	startNode := func(i int) func(context.Context) error {
		return func(ctx context.Context) error { return s.startNode(ctx, i) }
	}
	return []fault.Kind{
		node("kill", 3, time.Second, 12*time.Second, func(i int) func(context.Context) error { return plain(s.rabbit.Node(i).Kill) }, startNode),
		node("restart", 2, 500*time.Millisecond, 5*time.Second, func(i int) func(context.Context) error { return s.rabbit.Node(i).Stop }, startNode),
		// Longer than the nodes' patience with each other, sometimes.
		node("freeze", 2, 2*time.Second, 25*time.Second, func(i int) func(context.Context) error { return plain(s.rabbit.Node(i).Pause) },
			func(i int) func(context.Context) error { return plain(s.rabbit.Node(i).Continue) }),
		{Name: "kill all nodes", Weight: 1, Shortest: 5 * time.Second, Longest: 30 * time.Second, Draw: func(*rand.Rand) fault.Fault {
			return fault.Fault{Name: "kill all nodes", Hits: all, On: plain(s.rabbit.Kill), Off: s.rabbit.Start}
		}},
		{Name: "restart every node", Weight: 1, Shortest: 100 * time.Millisecond, Longest: time.Second, Draw: func(*rand.Rand) fault.Fault {
			return fault.Fault{Name: "restart every node in turn", Hits: all, On: s.rollNodes, Off: s.startNodes}
		}},
		alarm("memory", "0.00000001", "0.4", "set_vm_memory_high_watermark"),
		alarm("disk", "100000GB", "50MB", "set_disk_free_limit"),
	}
}

// rollNodes restarts every node in turn, the next one when the one before answers: an upgrade
// of the broker.
func (s *stage) rollNodes(ctx context.Context) error {
	for i := range s.config.Nodes {
		if err := errors.Join(s.rabbit.Node(i).Stop(ctx), s.startNode(ctx, i)); err != nil {
			return err
		}
	}
	return nil
}

// startNodes makes sure that every node runs.
func (s *stage) startNodes(ctx context.Context) error {
	for i := range s.config.Nodes {
		if err := s.startNode(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// startNode starts a node that may run already.
func (s *stage) startNode(ctx context.Context, i int) error {
	if s.rabbit.Node(i).Running() {
		return nil
	}
	return s.rabbit.Node(i).Start(ctx)
}

func (s *stage) ctl(ctx context.Context, i int, args ...string) error {
	_, err := s.rabbit.Node(i).Ctl(ctx, args...)
	return err
}
