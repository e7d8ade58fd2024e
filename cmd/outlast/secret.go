package main

import (
	"net/url"
	"regexp"
	"strings"
)

// secrets are texts that must never be printed. Adapters keep secrets out of
// their errors; this is the second lock on the same door, for the errors of
// drivers that quote what they could not parse.
type secrets []string

// userinfo matches "name:password@" after "://" or as a word of its own.
var userinfo = regexp.MustCompile(`://[^\s"'/@]*:[^\s"']*@|\b[\w.-]+:[^\s"':@/]+@`)

var secretParameter = regexp.MustCompile(`(?i)\b([a-z_]*(?:password|passwd|secret|token))=[^\s&"']*`)

// minSecret is the shortest text that is replaced: shorter ones would blank out
// ordinary words.
const minSecret = 4

// plainWords are passwords of toy set-ups that stand in every second message.
var plainWords = map[string]bool{"outlast": true, "postgres": true, "sqlite": true, "rabbitmq": true, "nats": true, "amqp": true}

// learn remembers what may be secret in a URL, well-formed or not.
func (s *secrets) learn(raw string) {
	for _, part := range splitList(raw) {
		s.learnOne(part)
	}
}

func (s *secrets) learnOne(raw string) {
	_, rest, ok := strings.Cut(raw, "://")
	if !ok {
		rest = raw
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		scheme, _, _ := strings.Cut(raw, ":")
		s.learnUser(strings.ToLower(scheme), rest[:at])
	}
	if _, query, ok := strings.Cut(raw, "?"); ok {
		for pair := range strings.SplitSeq(query, "&") {
			if name, value, _ := strings.Cut(pair, "="); secretParameter.MatchString(name + "=") {
				s.add(value)
			}
		}
	}
}

// learnUser takes what stands before the host: "name:password", or a token.
func (s *secrets) learnUser(scheme, info string) {
	user, password, hasPassword := strings.Cut(info, ":")
	switch {
	case !hasPassword && (databaseServer.knows(scheme) || brokerServer.knows(scheme)) && !tokenUser(scheme):
		return // a name alone
	case !hasPassword:
		password = user
	case password == user:
		return // it is shown as the name anyway
	}
	s.add(password)
	for _, piece := range strings.FieldsFunc(password, func(r rune) bool { return strings.ContainsRune(":/?#@[]%", r) }) {
		s.add(piece)
	}
}

func (s *secrets) add(text string) {
	if len(text) < minSecret || plainWords[text] {
		return
	}
	*s = append(*s, text)
	if plain, err := url.PathUnescape(text); err == nil && plain != text {
		*s = append(*s, plain)
	}
}

// hide returns text for people with everything that may be secret replaced.
func (s secrets) hide(text string) string {
	for _, secret := range s {
		text = strings.ReplaceAll(text, secret, "***")
	}
	text = userinfo.ReplaceAllStringFunc(text, func(match string) string {
		if strings.HasPrefix(match, "://") {
			return "://***@"
		}
		return "***@"
	})
	return secretParameter.ReplaceAllString(text, "$1=***")
}

// holdsPassword reports whether a URL has a password in it, to warn about one that
// stands in the process list.
func holdsPassword(raw string) bool {
	for _, part := range splitList(raw) {
		_, rest, ok := strings.Cut(part, "://")
		if at := strings.LastIndex(rest, "@"); ok && at >= 0 {
			scheme, _, _ := strings.Cut(part, ":")
			if strings.Contains(rest[:at], ":") || tokenUser(strings.ToLower(scheme)) {
				return true
			}
		}
		if secretParameter.MatchString(part) {
			return true
		}
	}
	return false
}
