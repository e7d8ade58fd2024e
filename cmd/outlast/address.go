package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
)

// address is where a database or a broker is, as the user gave it. The URL may
// hold a password, so an address renders only its safe form, and nothing in this
// program passes the URL on but to the adapter that dials it.
type address struct {
	setting string // what a message names: "--database", "OUTLAST_DATABASE_URL"
	scheme  string
	url     string
	path    string // of sqlite: and embedded:
	safe    string
}

func (a address) String() string   { return a.safe }
func (a address) GoString() string { return a.safe }

// server is one of the two things an address can be of.
type server struct {
	noun    string
	flag    string
	env     string
	schemes []string
	example string
}

var (
	databaseServer = server{
		noun: "database", flag: "--database", env: "OUTLAST_DATABASE_URL",
		schemes: []string{"postgres", "postgresql", "sqlite"},
		example: "postgres://app@db.example:5432/orders or sqlite:FILE",
	}
	brokerServer = server{
		noun: "broker", flag: "--broker", env: "OUTLAST_BROKER_URL",
		schemes: []string{"amqp", "amqps", "nats", "tls", "embedded"},
		example: "amqps://app@mq.example, nats://mq.example or embedded:DIR",
	}
)

var (
	envName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	schemeWord = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]{0,15})://`)
	nextInList = regexp.MustCompile(`,\s*([A-Za-z][A-Za-z0-9+.-]{0,15}://)`)
)

// resolve finds the address of a server: the flag, or else the environment. The
// value, or "env:NAME" in its place, is taken apart without ever being echoed:
// what looks malformed may be a password with an unescaped character.
func (s server) resolve(flag string, getenv func(string) string) (address, error) {
	a := address{setting: s.flag, url: strings.TrimSpace(flag)}
	if a.url == "" {
		a.setting, a.url = s.env, strings.TrimSpace(getenv(s.env))
	}
	if a.url == "" {
		return a, usage("connect to the "+s.noun, s.flag, "a URL like "+s.example, "not given",
			"or set "+s.env)
	}
	if name, ok := strings.CutPrefix(a.url, "env:"); ok {
		if !envName.MatchString(name) {
			return a, s.bad(a, "env:NAME with the name of an environment variable", "another text after env:")
		}
		a.setting, a.url = name, strings.TrimSpace(getenv(name))
		if a.url == "" {
			return a, s.bad(a, "set in the environment", "empty")
		}
	}
	return s.parse(a)
}

func (s server) parse(a address) (address, error) {
	scheme, rest, ok := strings.Cut(a.url, ":")
	a.scheme = strings.ToLower(scheme)
	if !ok || !s.knows(a.scheme) {
		return a, s.unknownScheme(a)
	}
	if a.scheme == "sqlite" || a.scheme == "embedded" {
		return s.parsePath(a, rest)
	}
	if !strings.HasPrefix(rest, "//") {
		return a, s.bad(a, fmt.Sprintf("a URL that begins with %s://", a.scheme), "a value without \"//\" after the scheme")
	}
	var safe []string
	for _, part := range splitList(a.url) {
		text, err := safeURL(part)
		if err != nil {
			return a, s.bad(a, "a URL like "+s.example, err.Error())
		}
		safe = append(safe, text)
	}
	a.safe = strings.Join(safe, ",")
	return a, nil
}

// parsePath takes sqlite:FILE and embedded:DIR, also written with "//".
func (s server) parsePath(a address, rest string) (address, error) {
	a.path = strings.TrimPrefix(rest, "//")
	want := "sqlite:FILE, the name of a plain file"
	if a.scheme == "embedded" {
		want = "embedded:DIR, the name of a directory"
	}
	switch {
	case a.path == "":
		return a, s.bad(a, want, "nothing after the scheme")
	case strings.ContainsAny(a.path, "@?#\x00\n\r"):
		return a, s.bad(a, want, "a name with one of the characters @ ? # or a control character")
	case strings.Contains(a.path, ":memory:"):
		return a, s.bad(a, want, "a database in memory, which no other process can see")
	}
	a.safe = a.scheme + ":" + a.path
	return a, nil
}

func (s server) knows(scheme string) bool {
	for _, known := range s.schemes {
		if scheme == known {
			return true
		}
	}
	return false
}

func (s server) unknownScheme(a address) error {
	given := fmt.Sprintf("a value of %d characters without a known scheme", len(a.url))
	if m := schemeWord.FindStringSubmatch(a.url); m != nil {
		given = m[1] + "://..."
	}
	err := s.bad(a, "a URL with one of the schemes "+strings.Join(s.schemes, ", "), given)
	other := databaseServer
	if s.noun == "database" {
		other = brokerServer
	}
	info, statErr := os.Stat(a.url)
	switch {
	case statErr != nil:
	case s.noun == "database" && !info.IsDir():
		return withHint(err, "there is a file of this name: sqlite:"+a.url)
	case s.noun == "broker" && info.IsDir():
		return withHint(err, "there is a directory of this name: embedded:"+a.url)
	}
	if other.knows(a.scheme) {
		return withHint(err, fmt.Sprintf("%s is the scheme of a %s: give it to %s", a.scheme, other.noun, other.flag))
	}
	return err
}

func (s server) bad(a address, limit, given string) error {
	return usage("connect to the "+s.noun, a.setting, limit, given, "")
}

// splitList splits "amqp://a,amqp://b" where a comma is followed by a scheme: a
// comma inside a password does not split.
func splitList(list string) []string {
	var parts []string
	for {
		at := nextInList.FindStringSubmatchIndex(list)
		if at == nil {
			return append(parts, list)
		}
		parts = append(parts, list[:at[0]])
		list = list[at[2]:]
	}
}

// safeURL returns a URL without its password and its query. Its error never quotes
// the input, as the errors of net/url do.
func safeURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		var escape url.EscapeError
		if errors.As(err, &escape) {
			return "", errors.New("a URL with a '%' that no two hex digits follow (a '%' in a password is written %25)")
		}
		return "", errors.New("a URL that cannot be read (in a password, characters like @ : / ? # and blanks are percent-encoded)")
	}
	// An unescaped '/', '?' or '#' in a password ends the authority early, and the
	// rest of the password is then taken for a path.
	if strings.Contains(u.EscapedPath()+u.RawQuery+u.EscapedFragment(), "@") {
		return "", errors.New("a URL with an '@' after its host (in a password, characters like / ? # are percent-encoded)")
	}
	for host := range strings.SplitSeq(u.Host, ",") { // PostgreSQL takes several
		if strings.Count(host, ":") < 2 || strings.HasPrefix(host, "[") {
			continue
		}
		return "", errors.New("a URL with two ':' in its host (in a password, characters like : / @ are percent-encoded)")
	}
	safe := url.URL{Scheme: strings.ToLower(u.Scheme), Host: u.Host, Path: u.Path}
	// A user with an '@' may be a token and the next server of a list.
	name := u.User.Username()
	if _, hasPassword := u.User.Password(); u.User != nil && (!tokenUser(safe.Scheme) || hasPassword && !strings.Contains(name, "@")) {
		safe.User = url.User(name)
	}
	return safe.String(), nil
}

// tokenUser reports whether a user name alone is a secret: NATS takes it as a token.
func tokenUser(scheme string) bool { return scheme == "nats" || scheme == "tls" }
