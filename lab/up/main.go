// Command up starts private PostgreSQL and RabbitMQ servers on free loopback ports,
// prints how to reach them, and ends them, with their data, on Ctrl-C:
//
//	go run ./up            a PostgreSQL server and a RabbitMQ node
//	go run ./up --nodes 3  a RabbitMQ cluster of three
//
// It prints lines for a shell to evaluate.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/outlastmq/outlast/lab/servers"
)

func main() {
	nodes := flag.Int("nodes", 1, "RabbitMQ nodes, 1 to 5")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *nodes); err != nil {
		fmt.Fprintln(os.Stderr, "up:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, nodes int) (err error) {
	database, err := servers.Postgres(ctx, servers.PostgresConfig{})
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, database.Close()) }()
	cluster, err := servers.RabbitMQ(ctx, servers.RabbitConfig{Nodes: nodes})
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, cluster.Close()) }()
	url, err := database.NewDatabase(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("export OUTLAST_DATABASE_URL='%s'\nexport OUTLAST_BROKER_URL='%s'\n", url, strings.Join(cluster.URLs(), ","))
	fmt.Fprintln(os.Stderr, "Servers run until Ctrl-C; then their data is removed.")
	<-ctx.Done()
	return nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
