// Command cmd runs one service of the shop: the shop's one binary.
//
//	go run ./shop/cmd orders --listen 127.0.0.1:8080 --database sqlite:DIR --broker nats://...
//
// The database is sqlite:DIR or a PostgreSQL URL, and comes from
// OUTLAST_DATABASE_URL by default; the broker is an amqp:// or nats:// URL, from
// OUTLAST_BROKER_URL. `outlast demo` runs the whole shop.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop"
	"github.com/outlastmq/outlast/nats"
	"github.com/outlastmq/outlast/rabbitmq"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("shop SERVICE", flag.ContinueOnError)
	database := flags.String("database", os.Getenv("OUTLAST_DATABASE_URL"), "sqlite:DIR or a PostgreSQL URL")
	broker := flags.String("broker", os.Getenv("OUTLAST_BROKER_URL"), "amqp:// or nats:// URL")
	listen := flags.String("listen", "127.0.0.1:8080", "address of the HTTP API of orders")
	if len(args) == 0 {
		return fmt.Errorf("name a service: %s", strings.Join(shop.Services, ", "))
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	db, err := shop.Open(ctx, *database, args[0])
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Prepare(ctx); err != nil {
		return err
	}
	return shop.Run(ctx, shop.Config{
		Service: args[0], Database: db, Broker: brokerAt(*broker, logger), Listen: *listen, Logger: logger,
		Ready: func(api string) { logger.Info("ready", "service", args[0], "api", api) },
	})
}

func brokerAt(address string, logger *slog.Logger) outlast.Broker {
	if strings.HasPrefix(address, "amqp") {
		return rabbitmq.Broker(address, rabbitmq.Logger(logger))
	}
	return nats.Broker(address)
}
