package nats

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
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
	set := func(name, value string) {
		if strings.TrimSpace(value) != value {
			value = url.PathEscape(value)
			escaped = append(escaped, name)
		}
		h[name] = []string{value}
	}
	for _, w := range outlast.EncodeHeaders(m) {
		// The server acts on such headers: one of them can purge a subject.
		if strings.HasPrefix(strings.ToLower(w.Name), "nats-") || strings.EqualFold(w.Name, headerEscaped) {
			return nil, fmt.Errorf("header %.80q: the name is NATS's own", w.Name)
		}
		set(w.Name, w.Value)
	}
	if m.ContentType != "" {
		set(headerContentType, m.ContentType)
	}
	if len(escaped) > 0 {
		h[headerEscaped] = []string{strings.Join(escaped, ",")}
	}
	return &client.Msg{Subject: subject, Reply: reply, Header: h, Data: m.Body}, nil
}

// decode returns the message and what is wrong with its headers. For a foreign
// queue, foreign says where to find what the message lacks; the id that NATS knows
// a message by counts as "message-id".
func decode(h client.Header, body []byte, foreign *outlast.ForeignQueue) (*outlast.Message, error) {
	m := &outlast.Message{Body: body}
	var problem error
	var escaped []string
	if v := h[headerEscaped]; len(v) == 1 && len(v[0]) <= outlast.MaxHeaders*outlast.MaxHeaderName {
		escaped = strings.Split(v[0], ",")
	}
	headers := make([]outlast.WireHeader, 0, len(h))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			if slices.Contains(escaped, name) {
				if plain, err := url.PathUnescape(value); err == nil {
					value = plain
				}
			}
			switch {
			case strings.EqualFold(name, headerContentType):
				if len(value) <= outlast.MaxAttribute && clean(value) {
					m.ContentType = value
				} else {
					problem = badContentType(value)
				}
				continue
			case foreign != nil && strings.EqualFold(name, client.MsgIdHdr):
				name = "message-id"
			case strings.EqualFold(name, headerEscaped), strings.HasPrefix(strings.ToLower(name), "nats-"):
				continue
			}
			headers = append(headers, outlast.WireHeader{Name: name, Value: value})
		}
	}
	if foreign != nil {
		headers = adopt(headers, foreign)
	}
	problem = errors.Join(outlast.DecodeHeaders(m, headers), problem)
	if foreign != nil {
		complete(m, foreign)
	}
	return m, problem
}

func clean(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

func badContentType(given string) error {
	return &outlast.Error{Op: "receive", Code: outlast.CodeInvalid, Fields: []outlast.FieldError{{
		Field: "content_type", Limit: fmt.Sprintf("at most %d bytes of valid UTF-8 without control characters", outlast.MaxAttribute),
		Given: fmt.Sprintf("%.80q", given),
	}}}
}

// adopt adds the envelope's id and key from the headers that stand for them. They
// then pass the same limits as everybody's.
func adopt(headers []outlast.WireHeader, f *outlast.ForeignQueue) []outlast.WireHeader {
	for ours, theirs := range map[string]string{"ce-id": f.IDHeader, "ce-partitionkey": f.KeyHeader} {
		if theirs == "" || slices.ContainsFunc(headers, func(h outlast.WireHeader) bool { return strings.EqualFold(h.Name, ours) }) {
			continue
		}
		i := slices.IndexFunc(headers, func(h outlast.WireHeader) bool { return strings.EqualFold(h.Name, theirs) })
		if i >= 0 && headers[i].Value != "" {
			headers = append(headers, outlast.WireHeader{Name: ours, Value: headers[i].Value})
		}
	}
	return headers
}

// complete gives a foreign message what it lacks still. A derived id is the same
// for the same content, so that a redelivery is known.
func complete(m *outlast.Message, f *outlast.ForeignQueue) {
	if m.Type == "" {
		m.Type = f.Type
	}
	if f.Source != "" {
		m.Source = f.Source
	} else if m.Source == "" {
		m.Source = f.Queue
	}
	if m.ID == "" && f.DeriveID {
		m.ID = uuid.NewHash(sha256.New(), uuid.NameSpaceOID, append([]byte(m.Type+"\x00"), m.Body...), 8).String()
	}
}
