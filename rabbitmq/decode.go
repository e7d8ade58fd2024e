package rabbitmq

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// decode makes a message of a delivery. What breaks a limit is the returned problem;
// the message then holds what is safe.
func decode(d *amqp.Delivery, foreign *outlast.ForeignQueue) (*outlast.Message, error) {
	m := &outlast.Message{Body: d.Body}
	headers := make([]outlast.WireHeader, 0, len(d.Headers)+5)
	for name, value := range d.Headers {
		if name == "x-delivery-count" || name == "x-acquired-count" {
			continue // the quorum queue's own, and not the producer's
		}
		headers = append(headers, outlast.WireHeader{Name: name, Value: outlast.WireText(value)})
	}
	// The broker's own properties stand in for headers that a foreign producer does
	// not know.
	fill := func(name, value string) {
		if value == "" {
			return
		}
		if _, ok := d.Headers[name]; !ok {
			headers = append(headers, outlast.WireHeader{Name: name, Value: value})
		}
	}
	if foreign != nil {
		headers = take(headers, "ce-id", foreign.IDHeader, d)
		headers = take(headers, "ce-partitionkey", foreign.KeyHeader, d)
	}
	if foreign == nil || foreign.IDHeader == "" {
		fill("ce-id", d.MessageId)
	}
	fill("ce-type", d.Type)
	fill("ce-correlationid", d.CorrelationId)
	fill("ce-source", d.AppId)
	if !d.Timestamp.IsZero() {
		fill("ce-time", d.Timestamp.UTC().Format(time.RFC3339))
	}
	problem := outlast.DecodeHeaders(m, headers)
	if text, ok := d.Headers[badTableHeader]; ok {
		problem = errors.Join(problem, &outlast.Error{
			Op: "receive", Code: outlast.CodeInvalid, Err: errors.New(outlast.CleanErrorText(outlast.WireText(text))),
		})
	}
	if clean(d.ContentType) {
		m.ContentType = d.ContentType
	} else {
		problem = errors.Join(problem, &outlast.Error{Op: "receive", Code: outlast.CodeInvalid, Fields: []outlast.FieldError{{
			Field: "content_type", Limit: "valid UTF-8 without control characters", Given: fmt.Sprintf("%q", d.ContentType),
		}}})
	}
	if foreign != nil {
		complete(m, foreign)
	}
	return m, problem
}

// take puts the value of a foreign header, or property, under our name, and wins
// over one that is there.
func take(headers []outlast.WireHeader, ours, theirs string, d *amqp.Delivery) []outlast.WireHeader {
	value := ""
	switch strings.ToLower(theirs) {
	case "":
		return headers
	case "message-id":
		value = d.MessageId
	case "correlation-id":
		value = d.CorrelationId
	default:
		value = outlast.WireText(d.Headers[theirs])
	}
	if value == "" {
		return headers
	}
	return append(headers, outlast.WireHeader{Name: ours, Value: value})
}

// complete gives a foreign message what it lacks. A derived id is the same for the
// same content, so that a redelivery is known.
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

// checkSender returns what is wrong with the user that the broker vouches for, if any.
func (b *broker) checkSender(source, user string) error {
	users, ok := b.senders[source]
	if !ok || slices.Contains(users, user) {
		return nil
	}
	given := "none"
	if user != "" {
		given = strconv.Quote(user)
	}
	return &outlast.Error{Op: "receive", Code: outlast.CodeDenied, Fields: []outlast.FieldError{{
		Field: "user_id", Limit: fmt.Sprintf("one of the users of %q", source), Given: given,
	}}}
}

func clean(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}
