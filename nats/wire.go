package nats

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	client "github.com/nats-io/nats.go"

	"github.com/outlastmq/outlast"
)

const (
	headerContentType = "Content-Type"
	// headerEscaped names the headers whose values are percent-encoded, because the
	// client library would trim the spaces at their ends.
	headerEscaped = "outlast-escaped"
)

// encode makes the NATS message of a publishing.
func encode(m *outlast.Message, subject, reply string) (*client.Msg, error) {
	h := client.Header{}
	var escaped []string
	for _, w := range outlast.EncodeHeaders(m) {
		// The server acts on such headers: one of them can purge a subject.
		if strings.HasPrefix(strings.ToLower(w.Name), "nats-") || strings.EqualFold(w.Name, headerEscaped) {
			return nil, fmt.Errorf("header %.80q: the name is NATS's own", w.Name)
		}
		value := w.Value
		if strings.TrimSpace(value) != value {
			value = url.PathEscape(value)
			escaped = append(escaped, w.Name)
		}
		h[w.Name] = []string{value}
	}
	if m.ContentType != "" {
		h[headerContentType] = []string{m.ContentType}
	}
	if len(escaped) > 0 {
		h[headerEscaped] = []string{strings.Join(escaped, ",")}
	}
	return &client.Msg{Subject: subject, Reply: reply, Header: h, Data: m.Body}, nil
}

// decode returns the message and what is wrong with its headers. For a foreign
// message the id that NATS knows it by is shown as "message-id".
func decode(h client.Header, body []byte, foreign bool) (*outlast.Message, error) {
	m := &outlast.Message{Body: body}
	var escaped []string
	if v := h[headerEscaped]; len(v) == 1 && len(v[0]) <= outlast.MaxHeaders*outlast.MaxHeaderName {
		escaped = strings.Split(v[0], ",")
	}
	headers := make([]outlast.WireHeader, 0, len(h))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			switch {
			case strings.EqualFold(name, headerContentType):
				if len(value) <= outlast.MaxAttribute {
					m.ContentType = outlast.CleanErrorText(value)
				}
				continue
			case foreign && strings.EqualFold(name, "Nats-Msg-Id"):
				name = "message-id"
			case strings.EqualFold(name, headerEscaped), strings.HasPrefix(strings.ToLower(name), "nats-"):
				continue
			}
			if slices.Contains(escaped, name) {
				if plain, err := url.PathUnescape(value); err == nil {
					value = plain
				}
			}
			headers = append(headers, outlast.WireHeader{Name: name, Value: value})
		}
	}
	return m, outlast.DecodeHeaders(m, headers)
}
