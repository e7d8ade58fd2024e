package rabbitmq

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

// address is one node, or a name that stands for several, with its credentials.
type address struct {
	host       string
	port       int
	tls        bool
	user       string
	password   secret
	vhost      string
	external   bool // authentication by the client's certificate
	serverName string
	caFile     string
	certFile   string
	keyFile    string
	allowPlain bool
	allowGuest bool
	userID     bool // the messages carry the user's name
	management string
	heartbeat  time.Duration
	timeout    time.Duration
}

// secret cannot be printed: fmt shows the fields of a struct without asking their
// methods, but not what a function would return.
type secret func() string

func newSecret(s string) secret { return func() string { return s } }

func (a address) hostPort() string { return net.JoinHostPort(a.host, strconv.Itoa(a.port)) }

// String is the address without user and password.
func (a address) String() string {
	scheme := "amqp"
	if a.tls {
		scheme = "amqps"
	}
	return scheme + "://" + a.hostPort() + "/" + url.PathEscape(a.vhost)
}

func (a address) loopback() bool {
	if strings.EqualFold(a.host, "localhost") {
		return true
	}
	ip := net.ParseIP(a.host)
	return ip != nil && ip.IsLoopback()
}

// splitURLs splits a list of URLs at the commas that begin a new URL, so that a
// comma within a password does no harm.
func splitURLs(list string) []string {
	var urls []string
	rest := strings.TrimSpace(list)
	for {
		i := nextURL(rest)
		if i < 0 {
			return append(urls, strings.TrimSpace(rest))
		}
		urls = append(urls, strings.TrimSpace(rest[:i]))
		rest = strings.TrimSpace(rest[i+1:])
	}
}

func nextURL(s string) int {
	for i := range len(s) {
		if s[i] != ',' {
			continue
		}
		after := strings.TrimSpace(s[i+1:])
		if strings.HasPrefix(after, "amqp://") || strings.HasPrefix(after, "amqps://") {
			return i
		}
	}
	return -1
}

// Validate reports everything that is wrong with a URL or a comma-separated list of
// URLs as [Broker] takes it, in one *outlast.Error with CodeInvalid. No part of a
// URL that may be a secret is in the error.
func Validate(list string, opts ...Option) error { return newBroker(list, opts).Validate() }

// problems collects what is wrong with the settings.
type problems []outlast.FieldError

func (p *problems) add(field, limit, given string) {
	*p = append(*p, outlast.FieldError{Field: field, Limit: limit, Given: given})
}

const urlForm = "a URL such as amqps://user:password@host:5671/vhost, with special characters percent-encoded"

// parseAddress reads one URL. It never repeats the URL: any part of a malformed one
// may be a password.
func parseAddress(field, raw string, bad *problems) (address, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Opaque != "" || u.Fragment != "" {
		bad.add(field, urlForm, fmt.Sprintf("(%d characters, not shown)", len(raw)))
		return address{}, false
	}
	// Two colons, and no IPv6 address: what stands before the second is no host.
	if strings.Contains(u.Hostname(), ":") && !strings.HasPrefix(u.Host, "[") {
		bad.add(field, urlForm, "(with two ':' in its host, not shown)")
		return address{}, false
	}
	// An unescaped '/' or '?' in a password ends the host early, and the rest of the
	// password is then taken for a virtual host or a parameter, and shown.
	if strings.Contains(u.EscapedPath()+u.RawQuery, "@") {
		bad.add(field, urlForm, "(with an '@' behind its host, not shown)")
		return address{}, false
	}
	a := address{host: u.Hostname(), vhost: "/", user: "guest", password: newSecret("guest")}
	a.heartbeat, a.timeout, a.userID = defaultHeartbeat, defaultDialTimeout, true
	before := len(*bad)
	switch u.Scheme {
	case "amqps":
		a.tls, a.port = true, 5671
	case "amqp":
		a.port = 5672
	default:
		bad.add(field, "a URL that begins with amqp:// or amqps://", "another scheme")
	}
	if a.host == "" {
		bad.add(field, "a URL with a host", "none")
	}
	if port := u.Port(); port != "" {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			bad.add(field+" port", "1..65535", strconv.Quote(port))
		}
		a.port = n
	}
	if u.User != nil {
		password, _ := u.User.Password()
		a.user, a.password = u.User.Username(), newSecret(password)
	}
	if path := strings.TrimPrefix(u.Path, "/"); path != "" {
		a.vhost = path
	}
	if len(a.vhost) > 255 {
		bad.add(field+" vhost", "at most 255 bytes", fmt.Sprintf("%d bytes", len(a.vhost)))
	}
	a.parameters(field, u.RawQuery, bad)
	return a, len(*bad) == before
}

func (a *address) parameters(field, raw string, bad *problems) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		bad.add(field+" parameters", "name=value pairs joined by '&'", "not shown")
		return
	}
	for name, all := range values {
		value := all[len(all)-1]
		switch name {
		case "cacertfile":
			a.caFile = value
		case "certfile":
			a.certFile = value
		case "keyfile":
			a.keyFile = value
		case "server_name_indication":
			a.serverName = value
		case "management":
			a.management = value
		case "auth_mechanism":
			a.external = strings.EqualFold(value, "external")
			if !a.external && !strings.EqualFold(value, "plain") {
				bad.add(field+" auth_mechanism", "plain or external", strconv.Quote(value))
			}
		case "allow_plain":
			a.allowPlain = boolean(field+" allow_plain", value, bad)
		case "allow_guest":
			a.allowGuest = boolean(field+" allow_guest", value, bad)
		case "user_id":
			a.userID = boolean(field+" user_id", value, bad)
		case "heartbeat":
			a.heartbeat = number(field+" heartbeat", value, 2, 300, bad) * time.Second
		case "connection_timeout":
			a.timeout = number(field+" connection_timeout", value, 100, 300_000, bad) * time.Millisecond
		default:
			bad.add(field+" parameter", "cacertfile, certfile, keyfile, server_name_indication, auth_mechanism, "+
				"allow_plain, allow_guest, user_id, management, heartbeat (seconds) or connection_timeout (milliseconds)", "another name")
		}
	}
}

func boolean(field, value string, bad *problems) bool {
	b, err := strconv.ParseBool(value)
	if err != nil {
		bad.add(field, "true or false", strconv.Quote(value))
	}
	return b
}

func number(field, value string, low, high int, bad *problems) time.Duration {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		bad.add(field, fmt.Sprintf("%d..%d", low, high), strconv.Quote(value))
		return time.Duration(low)
	}
	return time.Duration(n)
}
