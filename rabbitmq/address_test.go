package rabbitmq

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
)

func TestS25_S28_Validate(t *testing.T) {
	t.Parallel()
	good := map[string][]Option{
		"amqp://localhost":                                   nil,
		"amqp://guest:guest@127.0.0.1:5672/":                 nil,
		"amqp://[::1]/v%2Fhost":                              nil,
		"amqps://app:pw@rabbit.example:5671/orders":          nil,
		"amqps://app:p%40ss@a.example,amqps://app:pw@b.test": nil,
		"amqps://app:p,w@a.example , amqp://localhost":       nil,
		"amqp://app:pw@rabbit.example?allow_plain=true":      nil,
		"amqp://app:pw@rabbit.example":                       {AllowPlain()},
		"amqps://guest:pw@rabbit.example":                    {AllowGuest()},
		"amqps://rabbit.example?allow_guest=true&user_id=0":  nil,
		"amqps://rabbit.example?auth_mechanism=external&certfile=/c.pem&keyfile=/k.pem&heartbeat=5": nil,
	}
	for url, opts := range good {
		if err := Validate(url, opts...); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	bad := map[string]string{ // URL: what the error must speak of
		"":                                                      "url",
		"rabbit.example:5672":                                   "url",
		"http://app:hunter2@localhost":                          "amqps://",
		"amqp://app:hunter2@rabbit.example":                     "AllowPlain",
		"amqps://guest:hunter2@rabbit.example":                  "guest",
		"amqps://rabbit.example/v":                              "AllowGuest",
		"amqp://app:hunter2@localhost.rabbit.example":           "AllowPlain",
		"amqp://app:hunter2@127.0.0.1.rabbit.example":           "AllowPlain",
		"amqp://app:hunter2@0.0.0.0":                            "AllowPlain",
		"amqps://app:hunter2@rabbit.example?allow_plain=hunter": "allow_plain",
		"amqps://app:hunter2@rabbit.example?user_id=hunter":     "user_id",
		"amqp://app:hunter2@localhost:99999":                    "port",
		"amqp://app:hunter2%zz@localhost":                       "url",
		"amqp://app:hunter2@local host":                         "url",
		"amqp://app:hunter2@localhost?heartbeat=0":              "heartbeat",
		"amqp://app:hunter2@localhost?hunter2=1":                "parameter",
		"amqp://app:hunter2@localhost?auth_mechanism=external":  "external",
		"amqps://app:hunter2@localhost?certfile=/c.pem":         "certfile and keyfile",
		"amqps://app:1/hunter2@a.example":                       "'@' behind its host",
		"amqps://app:1?hunter2@a.example":                       "'@' behind its host",
		"amqps://app:hunter2:/v":                                "two ':'",
		"amqps://app:hunter2@a.example,amqp://app:hunter2@b.example,amqp://a\x7f:hunter2@c": "url[1]",
	}
	for url, part := range bad {
		err := Validate(url)
		var e *outlast.Error
		if !errors.As(err, &e) || e.Code != outlast.CodeInvalid || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v; want a word about %q", url, err, part)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", err, e, e), "hunter2") {
			t.Errorf("%s: the error holds the password: %v", url, err)
		}
	}
}

// TestS23_BrokerHidesSecrets: no way of printing a broker shows its passwords.
func TestS23_BrokerHidesSecrets(t *testing.T) {
	t.Parallel()
	b := Broker("amqps://app:hunter2@a.example/v,amqps://app:hunter2@b.example:1/v")
	if text := fmt.Sprintf("%s %v %+v %#v %s", b, b, b, b, b.Address()); strings.Contains(text, "hunter2") {
		t.Errorf("%s", text)
	}
	if want := "amqps://a.example:5671/v,amqps://b.example:1/v"; b.Address() != want {
		t.Errorf("address %q, want %q", b.Address(), want)
	}
}

// TestInvalidIsReported: a bad URL is no panic, and every way in reports it.
func TestInvalidIsReported(t *testing.T) {
	t.Parallel()
	b := Broker("nonsense")
	_, depthErr := b.Topology().Depth(t.Context(), "q")
	_, checkErr := b.Topology().Check(t.Context(), outlast.Topology{})
	_, peekErr := b.Topology().Peek(t.Context(), "q", 1)
	_, examineErr := b.Topology().Examine(t.Context())
	for i, err := range []error{
		b.(interface{ Validate() error }).Validate(),
		b.Publisher(outlast.PublisherConfig{}).Run(t.Context()),
		b.Subscriber(outlast.SubscriberConfig{}).Run(t.Context()),
		b.Topology().Apply(t.Context(), outlast.Topology{}),
		depthErr, checkErr, peekErr, examineErr,
	} {
		if outlast.CodeOf(err) != outlast.CodeInvalid {
			t.Errorf("%d: %v", i, err)
		}
	}
}
