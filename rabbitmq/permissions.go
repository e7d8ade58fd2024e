package rabbitmq

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/outlastmq/outlast"
)

// Account is what one user of the broker does: a relay publishes, a group subscribes, a
// service does both.
type Account struct {
	User, VHost string
	// Publishes are the types that it publishes, and where.
	Publishes []outlast.Binding
	// Groups are those whose queues it declares, binds and consumes from.
	Groups []outlast.GroupTopology
}

// Permissions are the least rights of an account, in the words of RabbitMQ's definition
// files, so that `rabbitmqctl import_definitions` takes their JSON.
type Permissions struct {
	Permissions []Permission      `json:"permissions"`
	Topics      []TopicPermission `json:"topic_permissions"`
}

// Permission holds the patterns of names that a user may configure, write to and read
// from in a virtual host.
type Permission struct {
	User      string `json:"user"`
	VHost     string `json:"vhost"`
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

// TopicPermission holds the patterns of routing keys that a user may publish with to an
// exchange, and bind with.
type TopicPermission struct {
	User     string `json:"user"`
	VHost    string `json:"vhost"`
	Exchange string `json:"exchange"`
	Write    string `json:"write"`
	Read     string `json:"read"`
}

const nothingAtAll = "^$"

// Permissions returns the least rights with which the account can do its work, once the
// exchanges are there. A type that it does not publish is refused by the broker, and so
// is a binding to a type that its groups do not handle.
func (a Account) Permissions() Permissions {
	var queues, sources, targets []string
	for _, g := range a.Groups {
		queues = append(queues, regexp.QuoteMeta(g.Group)+`\.(g[0-9]+\.)?[0-9]+`)
		for _, b := range g.Bindings {
			sources = append(sources, regexp.QuoteMeta(b.Exchange))
		}
	}
	for _, b := range a.Publishes {
		targets = append(targets, regexp.QuoteMeta(b.Exchange))
	}
	p := Permissions{
		Permissions: []Permission{{User: a.User, VHost: a.VHost,
			Configure: oneOf(queues, ""),
			Write:     oneOf(slices.Concat(queues, targets), ""),
			Read:      oneOf(slices.Concat(queues, sources), "")}},
		Topics: []TopicPermission{},
	}
	for _, exchange := range a.exchanges() {
		var published, bound []string
		for _, b := range a.Publishes {
			if b.Exchange == exchange {
				published = append(published, regexp.QuoteMeta(b.Type))
			}
		}
		for _, g := range a.Groups {
			for _, b := range g.Bindings {
				if b.Exchange == exchange {
					bound = append(bound, regexp.QuoteMeta(b.Type))
				}
			}
		}
		p.Topics = append(p.Topics, TopicPermission{User: a.User, VHost: a.VHost, Exchange: exchange,
			Write: oneOf(published, `\.[0-9]+`), Read: oneOf(bound, `\.([0-9]+|\*)`)})
	}
	return p
}

// exchanges are all that the account has to do with: one without topic permissions would
// be open to every routing key.
func (a Account) exchanges() []string {
	var all []string
	for _, b := range a.Publishes {
		all = append(all, b.Exchange)
	}
	for _, g := range a.Groups {
		for _, b := range g.Bindings {
			all = append(all, b.Exchange)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// oneOf is a pattern for any of the patterns, each with the end behind it.
func oneOf(patterns []string, end string) string {
	if len(patterns) == 0 {
		return nothingAtAll
	}
	slices.Sort(patterns)
	return "^(" + strings.Join(slices.Compact(patterns), "|") + ")" + end + "$"
}

// WriteCommands writes the rabbitmqctl commands that give the permissions, one a line.
func (p Permissions) WriteCommands(w io.Writer) error {
	for _, x := range p.Permissions {
		if _, err := fmt.Fprintln(w, shell("rabbitmqctl", "set_permissions", "--vhost", x.VHost, x.User, x.Configure, x.Write, x.Read)); err != nil {
			return err
		}
	}
	for _, x := range p.Topics {
		if _, err := fmt.Fprintln(w, shell("rabbitmqctl", "set_topic_permissions", "--vhost", x.VHost, x.User, x.Exchange, x.Write, x.Read)); err != nil {
			return err
		}
	}
	return nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func shell(words ...string) string {
	for i, w := range words {
		if !plainWord.MatchString(w) {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
