package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/embedded"
	"github.com/outlastmq/outlast/examples/shop"
	"github.com/outlastmq/outlast/nats"
	"github.com/outlastmq/outlast/rabbitmq"
	"github.com/spf13/cobra"
)

const (
	demoRoleName = "demo-process"
	readyWord    = "ready"
	// Addresses may hold passwords, so children get them by the environment.
	demoDatabaseEnv = "OUTLAST_DEMO_DATABASE"
	demoBrokerEnv   = "OUTLAST_DEMO_BROKER"
	demoMendedEnv   = "OUTLAST_DEMO_MENDED" // not empty: payments takes any card

	roleBroker = "broker"
	roleRelay  = "relay"
)

// demoRoleCommand is one process of the demo. It ends when its standard input does.
func (p *program) demoRoleCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:    demoRoleName + " ROLE",
		Short:  "One process of the demo",
		Hidden: true,
		Args:   args("ROLE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			go func() {
				_, _ = io.Copy(io.Discard, p.in)
				stop()
			}()
			return p.demoRole(ctx, given[0], listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address of the API of orders")
	return cmd
}

func (p *program) demoRole(ctx context.Context, role, listen string) error {
	logger := slog.New(slog.NewTextHandler(p.errs, nil))
	logger.Info("starts", "role", role)
	defer logger.Info("has ended", "role", role)
	if role == roleBroker {
		return p.demoBroker(ctx, logger)
	}
	conf := shop.Config{Service: role, Listen: listen, Logger: logger, WithoutRelay: role == "orders", AnyCard: p.getenv(demoMendedEnv) != ""}
	conf.Ready = func(api string) { p.printf("%s %s\n", readyWord, api) }
	if role == roleRelay {
		conf.Service = "orders"
	}
	var err error
	if conf.Database, err = shop.Open(ctx, p.getenv(demoDatabaseEnv), conf.Service); err != nil {
		return err
	}
	defer conf.Database.Close()
	if conf.Broker, err = demoBrokerAt(p.getenv(demoBrokerEnv), logger); err != nil {
		return err
	}
	if role == roleRelay {
		return shop.RunRelay(ctx, conf)
	}
	return shop.Run(ctx, conf)
}

// demoBroker runs the embedded broker.
func (p *program) demoBroker(ctx context.Context, logger *slog.Logger) error {
	dir, _ := strings.CutPrefix(p.getenv(demoBrokerEnv), "embedded:")
	server, err := embedded.Start(dir, embedded.Logger(logger))
	if err != nil {
		return err
	}
	p.printf("%s\n", readyWord)
	return server.Run(ctx)
}

// demoBrokerAt returns the broker that the services use. The embedded one keeps the
// messages of a killed process from others for as short as it can.
func demoBrokerAt(address string, logger *slog.Logger) (outlast.Broker, error) {
	const ackWait = 5 * time.Second
	if dir, ok := strings.CutPrefix(address, "embedded:"); ok {
		url, err := embedded.Connect(dir)
		if err != nil {
			return nil, err
		}
		return nats.Broker(url, nats.AckWait(ackWait), nats.MaxBackoff(time.Second)), nil
	}
	switch scheme, _, _ := strings.Cut(address, ":"); scheme {
	case "amqp", "amqps":
		return rabbitmq.Broker(address, rabbitmq.Logger(logger), rabbitmq.MaxBackoff(time.Second)), nil
	case "nats", "tls":
		return nats.Broker(address, nats.AckWait(ackWait), nats.MaxBackoff(time.Second)), nil
	}
	return nil, fmt.Errorf("%s is not set", demoBrokerEnv)
}
