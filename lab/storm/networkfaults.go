package storm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/lab/network"
)

// noNetwork is why there are no faults of the network on loopback.
const noNetwork = "everything is on loopback"

// networkKinds are the faults that need namespaces. Nothing tells either side: packets are
// gone.
func (s *stage) networkKinds() []fault.Kind {
	lacks := ""
	if s.net == nil {
		lacks = noNetwork
	}
	kind := func(name string, weight int, shortest, longest time.Duration, draw func(*rand.Rand) fault.Fault) fault.Kind {
		return fault.Kind{Name: name, Weight: weight, Shortest: shortest, Longest: longest, Lacks: lacks, Draw: draw}
	}
	return []fault.Kind{
		kind("partition", 4, 2*time.Second, 30*time.Second, func(r *rand.Rand) fault.Fault {
			a, b := s.sides(r)
			return fault.Fault{Name: fmt.Sprintf("partition %s from %s", a, b), Hits: []string{"network of " + a},
				On:  plain(func() error { return s.net.Partition(s.hostsOf(a), s.hostsOf(b)) }),
				Off: plain(func() error { return s.net.Join(s.hostsOf(a), s.hostsOf(b)) })}
		}),
		kind("silence", 3, 2*time.Second, 30*time.Second, func(r *rand.Rand) fault.Fault {
			a, b := s.sides(r)
			if r.IntN(2) == 0 {
				a, b = b, a
			}
			return fault.Fault{Name: fmt.Sprintf("silence %s before %s", a, b), Hits: []string{"network of " + a},
				On:  plain(func() error { return s.hosts[b].Ignore(s.hosts[a]) }),
				Off: plain(func() error { return s.hosts[b].Hear(s.hosts[a]) })}
		}),
		kind("isolate", 2, 2*time.Second, 25*time.Second, func(r *rand.Rand) fault.Fault {
			a := oneOf(r, s.allHosts())
			rest := slices.DeleteFunc(s.allHosts(), func(name string) bool { return name == a })
			return fault.Fault{Name: "partition " + a + " from all", Hits: []string{"network of " + a},
				On:  plain(func() error { return s.net.Partition(s.hostsOf(a), s.hostsOf(rest...)) }),
				Off: plain(func() error { return s.net.Join(s.hostsOf(a), s.hostsOf(rest...)) })}
		}),
		kind("lose packets", 3, 3*time.Second, 15*time.Second, func(r *rand.Rand) fault.Fault {
			a, percent := oneOf(r, s.allHosts()), 2+r.IntN(30)
			return fault.Fault{Name: fmt.Sprintf("lose %d%% to %s", percent, a), Hits: []string{"packets to " + a},
				On:  plain(func() error { return s.hosts[a].Lose(percent) }),
				Off: plain(func() error { return s.hosts[a].Lose(0) })}
		}),
	}
}

// sides draws two hosts that speak to each other: a process without proxies and a server,
// two nodes, or the pair of databases.
func (s *stage) sides(r *rand.Rand) (a, b string) {
	servers := []string{postgresName(0), postgresName(1)}
	var nodes, processes []string
	for i := range s.config.Nodes {
		nodes = append(nodes, nodeName(i))
	}
	for _, name := range s.names {
		if s.direct(name) {
			processes = append(processes, name)
		}
	}
	switch n := r.IntN(6); {
	case n == 0:
		return servers[0], servers[1]
	case n <= 2 && len(nodes) > 1:
		i := r.IntN(len(nodes))
		return nodes[i], nodes[(i+1)%len(nodes)]
	default:
		return oneOf(r, processes), oneOf(r, append(servers, nodes...))
	}
}

func (s *stage) hostsOf(names ...string) []*network.Host {
	var hosts []*network.Host
	for _, name := range names {
		hosts = append(hosts, s.hosts[name])
	}
	return hosts
}

// allHosts are in an order that is always the same.
func (s *stage) allHosts() []string {
	var names []string
	for name := range s.hosts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
