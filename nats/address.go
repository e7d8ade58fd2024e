package nats

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/tlsfile"
)

func (b *broker) validate(address string) error {
	var bad []outlast.FieldError
	add := func(field, limit, given string) {
		bad = append(bad, outlast.FieldError{Field: field, Limit: limit, Given: given})
	}
	if b.replicas < 0 || b.replicas > 5 {
		add("Replicas", "0 to 5", fmt.Sprint(b.replicas))
	}
	if b.ackWait < 2*time.Second || b.ackWait > 10*time.Minute {
		add("AckWait", "2s to 10m", b.ackWait.String())
	}
	if b.refresh < 100*time.Millisecond || b.refresh > 5*time.Minute {
		add("Refresh", "100ms to 5m", b.refresh.String())
	}
	if b.maxBackoff < backoffFirst || b.maxBackoff > 5*time.Minute {
		add("MaxBackoff", "100ms to 5m", b.maxBackoff.String())
	}
	for _, s := range []string{b.password, b.token} {
		if s != "" {
			b.secrets = append(b.secrets, s)
		}
	}
	if b.tls != nil && b.tls.InsecureSkipVerify {
		add("TLS", "verifying; give the authority by CACertificate", "InsecureSkipVerify")
	}
	b.secure = b.tls != nil
	var shown []string
	parts := strings.Split(address, ",")
	if cutPassword(parts) {
		add("address", `with a scheme before every user, and "%2C" for a comma in a password`, unreadable)
		parts, shown = nil, []string{unreadable}
	}
	for _, part := range parts {
		show, limit := b.addServer(strings.TrimSpace(part))
		shown = append(shown, show)
		if limit != "" {
			add("address", limit, show)
		}
	}
	b.address = strings.Join(shown, ",")
	if (b.files.Cert == "") != (b.files.Key == "") {
		add("certfile and keyfile", "given together", "one alone")
	}
	if b.files != (tlsfile.Files{}) && !b.secure {
		add("address", "tls:// with certificate files", "nats://")
	}
	if len(bad) > 0 {
		return &outlast.Error{Op: "open nats", Code: outlast.CodeInvalid, Fields: bad}
	}
	return nil
}

// cutPassword reports whether a comma may have cut a password in two: the part behind it
// then has a user and no scheme, and the part before it would be shown as a host.
func cutPassword(parts []string) bool {
	return slices.ContainsFunc(parts[1:], func(part string) bool {
		scheme, _, _ := strings.Cut(part, "://") // all of part when it has none
		return strings.Contains(scheme, "@")
	})
}

const unreadable = "(unreadable)"

// addServer takes one address. It returns it without secrets, and the rule that
// it breaks.
func (b *broker) addServer(s string) (show, limit string) {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	// The parser's error would repeat the password, and so would a host that an unescaped
	// '/', '?' or '#' in the password ends early, or one with two colons.
	if err != nil || u.Hostname() == "" || strings.Contains(u.Hostname(), ":") && !strings.HasPrefix(u.Host, "[") || strings.Contains(u.EscapedPath()+u.RawQuery+u.EscapedFragment(), "@") {
		return unreadable, `like "nats://host:4222"`
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "4222")
	}
	if u.User != nil {
		if p, ok := u.User.Password(); ok {
			b.secrets = append(b.secrets, p, url.QueryEscape(p), url.PathEscape(p))
		} else {
			b.secrets = append(b.secrets, u.User.Username(), url.PathEscape(u.User.Username()))
		}
	}
	show = u.Scheme + "://" + u.Host
	if limit = b.parameters(u.RawQuery); limit != "" {
		return show, limit
	}
	switch u.Scheme {
	case "tls":
		b.secure = true
	case "nats":
		if !b.allowPlain && b.tls == nil && !loopback(u.Hostname()) {
			return show, `"tls://" beyond this machine, unless AllowPlain or allow_plain=true is given`
		}
	default:
		return show, `"nats://" or "tls://"`
	}
	b.servers = append(b.servers, (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host}).String())
	return show, ""
}

// parameters takes what stands behind the "?" of an address.
func (b *broker) parameters(raw string) (limit string) {
	const names = "parameters cacertfile, certfile, keyfile and allow_plain=true only"
	values, err := url.ParseQuery(raw)
	if err != nil {
		return names
	}
	for name, all := range values {
		value := all[len(all)-1]
		switch name {
		case "cacertfile":
			b.files.CA = value
		case "certfile":
			b.files.Cert = value
		case "keyfile":
			b.files.Key = value
		case "allow_plain":
			allow, err := strconv.ParseBool(value)
			if err != nil {
				return names
			}
			b.allowPlain = b.allowPlain || allow
		default:
			return names
		}
	}
	return ""
}

// plainTo is the first address that is reached without TLS on another machine.
func (b *broker) plainTo() string {
	for _, s := range b.servers {
		if u, err := url.Parse(s); err == nil && !b.secure && u.Scheme == "nats" && !loopback(u.Hostname()) {
			return u.Host
		}
	}
	return ""
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
