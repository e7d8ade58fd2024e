// Package network gives each server and each process of a test a network namespace of its
// own on one bridge, and breaks what is between them: partitions, one-way drops and random
// loss, by nftables in the namespaces. It needs Linux, root, iproute2 and nftables; see
// [Lacks].
//
// The bridge is in a network namespace of the test process itself, which [Isolate] makes:
// nothing that happens here touches the machine's own network, and everything is gone when
// the process ends, however that is.
package network

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// subnet holds all hosts; the bridge, where the test process is, has .1.
const subnet = "10.77.0."

// Net is a bridge with its hosts. Its methods may be called concurrently.
type Net struct {
	mu    sync.Mutex
	hosts []*Host
}

// Host is one network namespace with one address. Its methods may be called concurrently.
type Host struct {
	name string
	ip   string
	net  *Net
	ns   namespace

	// Under net.mu, what the firewall drops.
	deafTo []string // addresses
	loss   int      // percent of all that comes
}

// IP is the host's address.
func (h *Host) IP() string { return h.ip }

func (h *Host) String() string { return h.name }

// Hub is the address of the test process.
func (n *Net) Hub() string { return subnet + "1" }

// Host makes a host with that name and the next free address.
func (n *Net) Host(name string) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	number := len(n.hosts) + 2
	if number > 250 {
		return nil, errors.New("make a host: the network is full")
	}
	h := &Host{name: name, ip: fmt.Sprint(subnet, number), net: n}
	var err error
	if h.ns, err = newNamespace(); err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	n.hosts = append(n.hosts, h)
	if err := h.plug(number); err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return h, h.apply()
}

// plug connects a new host with the bridge.
func (h *Host) plug(number int) error {
	link := fmt.Sprintf("host%d", number)
	err := run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", h.ns.path())
	if err != nil {
		return err
	}
	if err := run("ip", "link", "set", link, "master", "bridge", "up"); err != nil {
		return err
	}
	return h.Enter(func() error {
		for _, args := range []string{"link set lo up", "addr add " + h.ip + "/24 dev eth0", "link set eth0 up"} {
			if err := run("ip", strings.Fields(args)...); err != nil {
				return err
			}
		}
		return nil
	})
}

// Enter calls f in the host's namespace. A process that f starts lives there; connections
// that f makes are made from there. f must do so on the goroutine that it is called on.
func (h *Host) Enter(f func() error) error { return h.ns.enter(f) }

// Partition keeps all packets between the two sides from passing, in both directions.
func (n *Net) Partition(a, b []*Host) error {
	for _, h := range a {
		for _, other := range b {
			if err := errors.Join(h.Ignore(other), other.Ignore(h)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Join ends what Partition and Ignore did between the two sides.
func (n *Net) Join(a, b []*Host) error {
	for _, h := range a {
		for _, other := range b {
			if err := errors.Join(h.Hear(other), other.Hear(h)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Ignore drops all packets that come from other: a one-way drop. Two calls need two of Hear.
func (h *Host) Ignore(other *Host) error {
	return h.change(func() { h.deafTo = append(h.deafTo, other.ip) })
}

// Hear ends one Ignore.
func (h *Host) Hear(other *Host) error {
	return h.change(func() {
		if i := slices.Index(h.deafTo, other.ip); i >= 0 {
			h.deafTo = slices.Delete(h.deafTo, i, i+1)
		}
	})
}

// Lose drops that percentage of all packets that come, at random; 0 ends it.
func (h *Host) Lose(percent int) error { return h.change(func() { h.loss = percent }) }

// Heal ends every fault of the network.
func (n *Net) Heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, h := range n.hosts {
		h.deafTo, h.loss = nil, 0
		errs = append(errs, h.apply())
	}
	return errors.Join(errs...)
}

func (h *Host) change(f func()) error {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	f()
	return h.apply()
}

// apply replaces the host's firewall in one step; it needs net.mu.
func (h *Host) apply() error {
	var rules strings.Builder
	rules.WriteString("table inet fault {}\ndelete table inet fault\ntable inet fault {\n chain in {\n  type filter hook input priority 0; policy accept;\n")
	for _, ip := range h.deafTo {
		fmt.Fprintf(&rules, "  ip saddr %s drop\n", ip)
	}
	switch {
	case h.loss >= 100:
		rules.WriteString("  iifname eth0 drop\n")
	case h.loss > 0:
		fmt.Fprintf(&rules, "  iifname eth0 numgen random mod 100 < %d drop\n", h.loss)
	}
	rules.WriteString(" }\n}\n")
	err := h.Enter(func() error { return runWith(rules.String(), "nft", "-f", "-") })
	if err != nil {
		return fmt.Errorf("set the firewall of %s: %w", h.name, err)
	}
	return nil
}

// Close lets the hosts go. What runs in them must have ended.
func (n *Net) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for i, h := range n.hosts {
		// A namespace ends some time after its last user; its link goes at once.
		errs = append(errs, run("ip", "link", "del", fmt.Sprintf("host%d", i+2)), h.ns.close())
	}
	n.hosts = nil
	return errors.Join(append(errs, run("ip", "link", "del", "bridge"))...)
}
