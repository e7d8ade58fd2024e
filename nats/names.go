package nats

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outlastmq/outlast"
)

// StreamName returns the stream of an exchange: OUTLAST_EVENTS and
// OUTLAST_COMMANDS for the conventional ones, else the exchange's name with "_"
// for each dot and "=" for each underscore, which NATS allows and Outlast's names
// never hold, so that no two exchanges share a stream.
func StreamName(exchange string) string {
	switch exchange {
	case outlast.EventExchange:
		return "OUTLAST_EVENTS"
	case outlast.CommandExchange:
		return "OUTLAST_COMMANDS"
	}
	return flatName(exchange)
}

// DurableName returns the durable consumer of a queue. NATS allows no dots in it:
// "billing.0" is "billing_0", "billing.g2.0" is "billing_g2_0", and an underscore
// of the group's name becomes "=", so that no two queues share a durable.
func DurableName(queue string) string { return flatName(queue) }

func flatName(s string) string {
	return strings.NewReplacer(".", "_", "_", "=").Replace(s)
}

// streamSubject is all that a stream takes.
func streamSubject(exchange string) string { return exchange + ".>" }

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// checkExchange accepts names that can be the beginning of a subject.
func checkExchange(exchange string) error {
	if exchange == "" {
		return &outlast.Error{Op: `use exchange ""`, Code: outlast.CodeInvalid,
			Hint: "AMQP's default exchange has no counterpart on NATS; name an exchange"}
	}
	if strings.Trim(exchange, nameChars) != "" || !subjectTokens(exchange) {
		return &outlast.Error{Op: fmt.Sprintf("use exchange %q", exchange), Code: outlast.CodeInvalid,
			Hint: "on NATS an exchange is letters, digits, '-', '_' in parts joined by '.'"}
	}
	return nil
}

// checkRoutingKey accepts what can be the end of a literal subject.
func checkRoutingKey(key string) error {
	if key == "" || strings.ContainsAny(key, "*>") || !subjectTokens(key) {
		return &outlast.Error{Op: fmt.Sprintf("publish with routing key %.80q", key), Code: outlast.CodeInvalid,
			Hint: "a NATS subject has no spaces, no wildcards and no empty parts"}
	}
	return nil
}

func subjectTokens(s string) bool {
	for _, r := range s {
		if r <= ' ' || r == 0x7f {
			return false
		}
	}
	return s != "" && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

// filtersOf returns the filter subjects of one partition by exchange.
func filtersOf(g outlast.GroupTopology, partition int) map[string][]string {
	m := map[string][]string{}
	for _, b := range g.Bindings {
		for _, key := range g.RoutingKeys(b, partition) {
			m[b.Exchange] = append(m[b.Exchange], b.Exchange+"."+key)
		}
	}
	for ex, fs := range m {
		m[ex] = mergeFilters(nil, fs)
	}
	return m
}

// covers reports whether every subject that matches sub matches filter.
func covers(filter, sub string) bool {
	f, s := strings.Split(filter, "."), strings.Split(sub, ".")
	for i, t := range f {
		switch {
		case t == ">" && i == len(f)-1:
			return len(s) > i
		case i >= len(s) || s[i] == ">":
			return false
		case t != "*" && t != s[i]:
			return false
		}
	}
	return len(f) == len(s)
}

// mergeFilters returns the filters that match what have or want match, sorted and
// with none that another one covers: the server refuses overlapping filters.
func mergeFilters(have, want []string) []string {
	all := append(slices.Clone(have), want...)
	slices.Sort(all)
	all = slices.Compact(all)
	literal := !slices.ContainsFunc(all, func(s string) bool { return strings.ContainsAny(s, "*>") })
	if literal {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool {
		return slices.ContainsFunc(all, func(f string) bool { return f != s && covers(f, s) })
	})
}

// missingFilters returns those of want that no filter of have covers.
func missingFilters(have, want []string) []string {
	var missing []string
	for _, w := range want {
		if !slices.ContainsFunc(have, func(f string) bool { return covers(f, w) }) {
			missing = append(missing, w)
		}
	}
	return missing
}
