package console

import (
	"slices"
	"strings"
)

// Permission is something that a person may do.
type Permission string

const (
	// View: see messages without their bodies.
	View Permission = "view"
	// ViewBody: see bodies. Every look is recorded.
	ViewBody Permission = "view_body"
	// Retry: try messages again that wait or are dead.
	Retry Permission = "retry"
	// Edit: put a new message with another body into the place of a dead letter; only
	// where Config.AllowEdit is set.
	Edit Permission = "edit"
	// Discard: throw away dead letters, and withdraw messages of an outbox.
	Discard Permission = "discard"
	// Operate: pause and resume groups, release held messages, stop operations.
	Operate Permission = "operate"
	// Audit: read the record of actions, send missing messages again.
	Audit Permission = "audit"
	// Configure: declare queues, exchanges and bindings that a group should have and the
	// broker lacks.
	Configure Permission = "configure"
)

// Permissions are all that there are.
var Permissions = []Permission{View, ViewBody, Retry, Edit, Discard, Operate, Audit, Configure}

// Grant gives permissions within services and types of messages. A pattern is a whole
// name, "*" for all, or "order.*" for all that begin with "order.". On the sender's side
// the service is the owner of the outbox, on the receiver's side it is the group. An
// empty list grants nothing.
type Grant struct {
	Permissions []Permission `json:"permissions"`
	Services    []string     `json:"services"`
	Types       []string     `json:"types"`
}

// All grants everything.
func All() []Grant {
	return []Grant{{Permissions: Permissions, Services: []string{"*"}, Types: []string{"*"}}}
}

// Identity is who makes a request, with what that person may do.
type Identity struct {
	Name   string
	Grants []Grant
	// LogOut is where a form of the console is posted to end the session, as a path below
	// the console; the authenticator answers it. Empty: there is nothing to end.
	LogOut string
}

// May reports whether the identity has a permission for a type of a service. A service
// or a type that is not known (empty) is covered by "*" alone.
func (i *Identity) May(p Permission, service, typ string) bool {
	return i != nil && slices.ContainsFunc(i.Grants, func(g Grant) bool {
		return slices.Contains(g.Permissions, p) && covers(g.Services, service) && covers(g.Types, typ)
	})
}

// maySome reports whether the identity has a permission for some type of a service.
func (i *Identity) maySome(p Permission, service string) bool {
	return i != nil && slices.ContainsFunc(i.Grants, func(g Grant) bool {
		return slices.Contains(g.Permissions, p) && covers(g.Services, service) && len(g.Types) > 0
	})
}

// Somewhere reports whether the identity has a permission for anything at all.
func (i *Identity) Somewhere(p Permission) bool {
	return i != nil && slices.ContainsFunc(i.Grants, func(g Grant) bool {
		return slices.Contains(g.Permissions, p) && len(g.Services) > 0 && len(g.Types) > 0
	})
}

func covers(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == "*" || p == name && name != "" {
			return true
		}
		before, ok := strings.CutSuffix(p, ".*")
		return ok && strings.HasPrefix(name, before+".")
	})
}
