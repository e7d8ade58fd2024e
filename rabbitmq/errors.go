package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// AMQP reply codes that mean something to us.
const (
	replyAccessRefused = 403
	replyNotFound      = 404
	replyPrecondition  = 406
	replyNotAllowed    = 530
	replyInternalError = 541
)

// errorOf makes an *outlast.Error of what the library or the network says. Texts of
// the broker name its objects, never a password.
func errorOf(op string, err error) error {
	var known *outlast.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	e := &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err}
	var reply *amqp.Error
	if !errors.As(err, &reply) {
		return e
	}
	e.Err = replyError(reply.Code, reply.Reason)
	switch {
	case errors.Is(err, amqp.ErrCredentials):
		e.Code, e.Hint = outlast.CodeDenied, "check user and password; the broker ended the connection during the login"
	case errors.Is(err, amqp.ErrSASL):
		e.Code, e.Hint = outlast.CodeDenied, "the broker does not offer this authentication mechanism"
	case errors.Is(err, amqp.ErrVhost):
		e.Code, e.Hint = outlast.CodeDenied, "check that the virtual host exists and that the user may use it"
	case reply.Code == replyAccessRefused:
		e.Code, e.Hint = outlast.CodeDenied, "rabbitmqctl set_permissions grants what is missing: configure to declare, write to publish and bind, read to consume"
	case reply.Code == replyNotAllowed:
		e.Code, e.Hint = outlast.CodeDenied, "check that the virtual host exists and that the user may use it"
	case reply.Code == replyNotFound:
		e.Code = outlast.CodeNotFound
	case reply.Code == replyPrecondition:
		e.Code = outlast.CodeConflict
	case reply.Code == replyInternalError:
		e.Hint = "the broker failed within itself, as it does when its disk or a node is too slow: its log says more; try again"
	}
	return e
}

// replyError is what the broker said, without the library's words.
func replyError(code int, text string) error {
	return &brokerReply{code, outlast.CleanErrorText(text)}
}

type brokerReply struct {
	code int
	text string
}

func (r *brokerReply) Error() string { return fmt.Sprintf("%s (reply code %d)", r.text, r.code) }

// replyCode is 0 when err is not an answer of the broker.
func replyCode(err error) int {
	var reply *amqp.Error
	if errors.As(err, &reply) {
		return reply.Code
	}
	var said *brokerReply
	if errors.As(err, &said) {
		return said.code
	}
	return 0
}

// inequivalent is how RabbitMQ says that something exists in another shape:
// inequivalent arg 'x-queue-type' for queue 'billing.0' in vhost '/': received the
// value 'quorum' of type 'longstr' but current is none
var inequivalent = regexp.MustCompile(`inequivalent arg '([^']*)' for (\w+) '(.*?)' in vhost '.*?': received (.*?) but current is (.*)$`)

// conflictOf turns a 406 into the difference that it tells of; ok is false when the
// text is another one.
func conflictOf(err error) (d outlast.TopologyDifference, ok bool) {
	var reply *amqp.Error
	if !errors.As(err, &reply) || reply.Code != replyPrecondition {
		return d, false
	}
	m := inequivalent.FindStringSubmatch(outlast.CleanErrorText(reply.Reason))
	if m == nil {
		return d, false
	}
	d = outlast.TopologyDifference{
		Object:   fmt.Sprintf("%s %q", m[2], m[3]),
		Property: m[1],
		Want:     plainValue(m[4]),
		Have:     plainValue(m[5]),
		Hint:     conflictHint(m[2], m[1]),
	}
	if d.Have == delayedExchange {
		d.Hint = "an exchange of the delayed-message plugin returns what it routes later: use a topic exchange, and give messages a due time instead"
	}
	return d, true
}

// delayedExchange is the exchange type of the delayed-message plugin.
const delayedExchange = "x-delayed-message"

var quotedValue = regexp.MustCompile(`(?:the )?value '(.*?)'(?: of type '\w+')?`)

func plainValue(s string) string {
	if m := quotedValue.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return strings.Trim(s, "' ")
}

func conflictHint(kind, property string) string {
	if kind == "exchange" {
		return "delete the exchange if nobody needs it in that shape, or use another one"
	}
	if property == "x-single-active-consumer" {
		return "one of the two keeps order and the other does not: a group whose contracts have keys does, and outlast topology is told by --ordered; to change a queue, raise the group's generation, which gives it new ones"
	}
	return "a queue's arguments cannot change: drain and delete it, or raise the group's generation, which gives it new queues"
}

// declareError is errorOf for declarations: a conflict names object, argument and
// both values.
func declareError(op string, err error) error {
	d, ok := conflictOf(err)
	if !ok {
		return errorOf(op, err)
	}
	return conflictError(op, d)
}

func conflictError(op string, d outlast.TopologyDifference) error {
	return &outlast.Error{
		Op: op, Code: outlast.CodeConflict, Hint: d.Hint,
		Err: fmt.Errorf("%s exists with another %s: want %s, have %s", d.Object, d.Property, d.Want, d.Have),
	}
}

func ended(op string, ctx context.Context) error {
	return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: context.Cause(ctx)}
}
