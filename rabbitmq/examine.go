package rabbitmq

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

// Examine connects to every address and tells what it finds. That the broker cannot
// be reached is a finding, not an error.
func (t *topology) Examine(ctx context.Context) ([]outlast.Finding, error) {
	if t.b.invalid != nil {
		return nil, t.b.invalid
	}
	var all []outlast.Finding
	var last *session
	for _, a := range t.b.addresses {
		s, err := t.b.dialOne(ctx, a, "doctor")
		if err != nil {
			all = append(all, finding(outlast.FindingFail, "rabbitmq "+a.String(), err.Error(), "",
				"Self-healing: messages wait in the outbox until the broker can be reached"))
			continue
		}
		all = append(all, s.examine()...)
		if last != nil {
			last.close()
		}
		last = s
	}
	if last != nil {
		defer last.close()
		all = append(all, last.rights()...)
		if t.b.management != nil {
			all = append(all, t.b.management.findings(ctx)...)
		} else {
			all = append(all, finding(outlast.FindingOK, "rabbitmq bindings and policies",
				"not checked: AMQP cannot list them; every subscription asserts its own bindings", "give the management API's address to check them", ""))
		}
	}
	return all, ctx.Err()
}

func finding(level outlast.FindingLevel, subject, text, hint, promise string) outlast.Finding {
	return outlast.Finding{Subject: subject, Level: level, Text: text, Hint: hint, Promise: promise}
}

// examine tells about one connection.
func (s *session) examine() []outlast.Finding {
	subject := "rabbitmq " + s.address.String()
	all := []outlast.Finding{s.product(subject)}
	beat := s.conn.Config.Heartbeat
	if beat < 2*time.Second || beat > time.Minute {
		all = append(all, finding(outlast.FindingWarn, subject, fmt.Sprintf("heartbeat of %v", beat),
			"5 to 20 seconds find a dead peer soon without false alarms", ""))
	} else {
		all = append(all, finding(outlast.FindingOK, subject, fmt.Sprintf("heartbeat of %v, frames of %d bytes", beat, s.maxSize), "", ""))
	}
	switch {
	case s.address.tls:
		all = append(all, finding(outlast.FindingOK, subject, "encrypted and verified by TLS", "", ""))
		all = append(all, s.certificates...)
	case s.address.loopback():
		all = append(all, finding(outlast.FindingOK, subject, "not encrypted, on loopback", "", ""))
	default:
		all = append(all, finding(outlast.FindingWarn, subject, "password and messages travel readable", "use amqps://", ""))
	}
	if s.address.user == "guest" && !s.address.external && !s.address.loopback() {
		all = append(all, finding(outlast.FindingWarn, subject, "the account guest may do everything, and everybody knows it", "give the service an account of its own: outlast topology permissions", ""))
	}
	if s.wire.blocked.Load() {
		all = append(all, finding(outlast.FindingFail, subject, "the broker blocks publishers (a resource alarm)",
			"free memory or disk on the broker's nodes", "Self-healing: messages wait in the outbox"))
	}
	return all
}

func (s *session) product(subject string) outlast.Finding {
	product, version := outlast.WireText(s.conn.Properties["product"]), outlast.WireText(s.conn.Properties["version"])
	text := outlast.CleanErrorText(product + " " + version)
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); product != "RabbitMQ" || err != nil {
		return finding(outlast.FindingWarn, subject, "an unknown server: "+text, "RabbitMQ 3.10 to 4.x is what Outlast is tested with", "")
	}
	if major < 3 || major == 3 && minor < 10 {
		return finding(outlast.FindingFail, subject, text+" is too old", "RabbitMQ 3.10 or later, for quorum queues", "No loss")
	}
	return finding(outlast.FindingOK, subject, text, "", "")
}

// rights tries what a service does, by ways that change nothing that others see.
func (s *session) rights() []outlast.Finding {
	var all []outlast.Finding
	for _, name := range []string{outlast.EventExchange, outlast.CommandExchange} {
		all = append(all, s.exchangeFinding(name))
	}
	return append(all, s.quorumFinding())
}

func (s *session) exchangeFinding(name string) outlast.Finding {
	subject := fmt.Sprintf("exchange %q", name)
	o := exchangeObject(name)
	err := s.aside("look for "+subject, o.passive)
	switch replyCode(err) {
	case replyNotFound:
		return finding(outlast.FindingWarn, subject, "is missing", "the first publisher or `outlast topology apply` makes it", "")
	case 0:
		if err != nil {
			return finding(outlast.FindingFail, subject, errorOf("look for it", err).Error(), "", "")
		}
	default:
		return finding(outlast.FindingFail, subject, errorOf("look for it", err).Error(), "", "")
	}
	err = s.aside("compare "+subject, o.active)
	if d, ok := conflictOf(err); ok {
		return finding(outlast.FindingFail, subject, d.String(), d.Hint, "No loss")
	}
	if replyCode(err) == replyAccessRefused {
		return finding(outlast.FindingOK, subject, "is there; its type cannot be checked without the configure right", "", "")
	}
	if err != nil {
		return finding(outlast.FindingFail, subject, errorOf("compare it", err).Error(), "", "")
	}
	return finding(outlast.FindingOK, subject, "is there and a durable topic exchange", "", "")
}

// quorumFinding makes a queue of Outlast's kind, for a moment: quorum queues must be
// possible, with our delivery limit, and the right to configure must be there.
func (s *session) quorumFinding() outlast.Finding {
	const subject = "rabbitmq quorum queues"
	name := "outlast.doctor." + fmt.Sprint(time.Now().UnixNano())
	err := s.aside("declare a queue", func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare(name, true, false, false, false, queueArguments(outlast.GroupTopology{})); err != nil {
			return err
		}
		_, err := ch.QueueDelete(name, false, false, false)
		return err
	})
	switch {
	case err == nil:
		return finding(outlast.FindingOK, subject, "can be declared with a delivery limit of "+fmt.Sprint(outlast.DeliveryLimit), "", "")
	case replyCode(err) == replyAccessRefused:
		return finding(outlast.FindingWarn, subject, "the user may not declare a queue for a trial", "let `outlast topology apply` run with a user who may configure", "")
	}
	return finding(outlast.FindingFail, subject, errorOf("declare one for a trial", err).Error(), "", "No loss")
}
