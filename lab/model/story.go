package model

import (
	"fmt"
	"strings"
)

// Tell writes a schedule as a story, one line for each step.
func (m *Model) Tell(path []Step) string {
	var b strings.Builder
	fmt.Fprintf(&b, "keys: %s\n", m.keysText())
	s := m.Init()
	relay, instance := names{0, 1}, names{0, 1}
	for n, step := range path {
		act := &m.actions[step.Action]
		fmt.Fprintf(&b, "%3d  %s\n", n+1, act.line(m.person(act.args, step, relay, instance), int(step.B)))
		m.apply(act, &s, int(step.A), int(step.B))
		rs, is := m.canonical(&s)
		relay.swap(rs)
		instance.swap(is)
	}
	return b.String()
}

// names are what the first and the second of two are called: states are stored with
// the two in either order, stories keep the names.
type names [2]int

func (n *names) swap(yes bool) {
	if yes {
		n[0], n[1] = n[1], n[0]
	}
}

// person is the first argument of a step, by its name.
func (m *Model) person(d domain, step Step, relay, instance names) int {
	switch d {
	case ofRelay, ofRelayMessage, ofRelayKey:
		return relay[step.A] + 1
	case ofInstance, ofInstanceMessage:
		return instance[step.A] + 1
	}
	return int(step.A)
}

func (a *action) line(first, second int) string {
	switch {
	case strings.Contains(a.story, "%[2]"):
		return fmt.Sprintf(a.story, first, second)
	case strings.Contains(a.story, "%[1]"):
		return fmt.Sprintf(a.story, first)
	}
	return a.story
}

func (m *Model) keysText() string {
	var parts []string
	for i := range m.Messages {
		parts = append(parts, fmt.Sprintf("m%d %c", i, 'A'+m.Keys[i]))
	}
	return strings.Join(parts, ", ")
}
