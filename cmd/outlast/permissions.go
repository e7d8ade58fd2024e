package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/rabbitmq"
)

type permissionFlags struct {
	topology topologyFlags
	service  string
	user     string
	vhost    string
	events   []string
	commands []string
}

func (p *program) topologyPermissions() *cobra.Command {
	var f permissionFlags
	cmd := &cobra.Command{
		Use:   "permissions",
		Short: "Print the least rights of a service at RabbitMQ; connects to nothing",
		Long: `Permissions prints the rabbitmqctl commands that give a service's account the rights
that it needs and no others: to publish its own types, and to declare, bind and read the
queues of its groups. With --json they are RabbitMQ's definitions, as "rabbitmqctl
import_definitions" takes them. For a relay and a group with an account each, print each
on its own.`,
		Example: `  outlast topology permissions --service orders --vhost shop --publishes order.placed.v1,order.paid.v1
  outlast topology permissions --service billing --vhost shop --group billing --handles order.placed.v1 --publishes invoice.sent.v1`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			account, err := p.account(cmd.CommandPath(), &f)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(account.Permissions())
			}
			return account.Permissions().WriteCommands(p.out)
		},
	}
	f.topology.register(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.service, "service", "", "the service whose account it is: orders")
	fl.StringVar(&f.user, "user", "", "name of the account (default the service's)")
	fl.StringVar(&f.vhost, "vhost", "/", "virtual host")
	fl.StringSliceVar(&f.events, "publishes", nil, "events that the service publishes: order.placed.v1")
	fl.StringSliceVar(&f.commands, "publishes-command", nil, "commands that the service sends")
	return cmd
}

// account is what the flags say that a service does.
func (p *program) account(op string, f *permissionFlags) (rabbitmq.Account, error) {
	a := rabbitmq.Account{User: f.user, VHost: f.vhost}
	if !plainName(f.service, 100) {
		return a, usage(op, "--service", "1 to 100 letters, digits, '-', '_' and '.'", fmt.Sprintf("%q", cut(f.service, 80)), "")
	}
	if a.User == "" {
		a.User = f.service
	}
	for flag, name := range map[string]string{"--user": a.User, "--vhost": a.VHost} {
		if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f }) || name[0] == '-' {
			return a, usage(op, flag, "1 to 255 bytes without control characters, not starting with '-'", fmt.Sprintf("%q", cut(name, 80)), "")
		}
	}
	for kind, types := range map[outlast.Kind][]string{outlast.KindEvent: f.events, outlast.KindCommand: f.commands} {
		exchange := f.topology.exchange
		if exchange == "" {
			exchange = outlast.ExchangeOf(kind)
		}
		for _, typ := range types {
			if typ = strings.TrimSpace(typ); !plainName(typ, outlast.MaxType) {
				return a, usage(op, "--publishes", "letters, digits, '-', '_', in parts joined by '.'", fmt.Sprintf("%q", cut(typ, 80)), "")
			}
			a.Publishes = append(a.Publishes, outlast.Binding{Exchange: exchange, Type: typ})
		}
	}
	if f.topology.file != "" || f.topology.group != "" {
		t, err := p.topology(op, &f.topology)
		if err != nil {
			return a, err
		}
		a.Groups = t.Groups
	}
	if len(a.Publishes) == 0 && len(a.Groups) == 0 {
		return a, usage(op, "--publishes, --group or --file", "given: what the service does", "none", "")
	}
	return a, nil
}
