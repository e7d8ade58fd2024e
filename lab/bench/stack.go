package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/embedded"
	"github.com/outlastmq/outlast/lab/servers"
)

// stack is one PostgreSQL server and one RabbitMQ node, as production would run them on
// a machine of this size: everything is synced.
type stack struct {
	postgres *servers.PostgresServer
	rabbit   *servers.RabbitCluster
	vhost    *servers.VHost
	amqp     *amqp.Connection
	queues   atomic.Int64

	postgresPID, rabbitPID int

	nats    *embedded.Server // started when first asked for
	natsDir string
}

// brokerURL returns the address of a broker: "rabbitmq" or "nats".
func (s *stack) brokerURL(name string) (_ string, err error) {
	if name == "rabbitmq" {
		return s.vhost.URL(), nil
	}
	if s.nats == nil {
		if s.natsDir, err = os.MkdirTemp("", "outlast-bench-nats-"); err != nil {
			return "", err
		}
		if s.nats, err = embedded.Start(s.natsDir); err != nil {
			return "", err
		}
	}
	return s.nats.URL(), nil
}

func newStack(ctx context.Context) (_ *stack, err error) {
	s := &stack{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	// Checkpoints come between runs and not within them; the rest is the server's default.
	s.postgres, err = servers.Postgres(ctx, servers.PostgresConfig{Settings: map[string]string{
		"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}})
	if err != nil {
		return s, err
	}
	if s.rabbit, err = servers.RabbitMQ(ctx, servers.RabbitConfig{}); err != nil {
		return s, err
	}
	if s.vhost, err = s.rabbit.NewVHost(ctx); err != nil {
		return s, err
	}
	if s.amqp, err = amqp.Dial(s.vhost.URL()); err != nil {
		return s, err
	}
	if err := s.declareExchange(); err != nil {
		return s, err
	}
	return s, s.findProcesses(ctx)
}

func (s *stack) close() error {
	var errs []error
	if s.nats != nil {
		errs = append(errs, s.nats.Close(), os.RemoveAll(s.natsDir))
	}
	if s.amqp != nil {
		_ = s.amqp.Close() // the node is going anyway
	}
	if s.rabbit != nil {
		errs = append(errs, s.rabbit.Close())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
	}
	return errors.Join(errs...)
}

// findProcesses learns the servers' process ids from themselves.
func (s *stack) findProcesses(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.postgres.URL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var file string
	if err := conn.QueryRow(ctx, `SELECT pg_read_file('postmaster.pid')`).Scan(&file); err != nil {
		return err
	}
	first, _, _ := strings.Cut(file, "\n")
	if s.postgresPID, err = strconv.Atoi(first); err != nil {
		return fmt.Errorf("read postmaster.pid: %w", err)
	}
	out, err := s.rabbit.Ctl(ctx, "eval", "list_to_integer(os:getpid()).")
	if err != nil {
		return err
	}
	s.rabbitPID, err = strconv.Atoi(strings.TrimSpace(out))
	return err
}

func (s *stack) channel(f func(ch *amqp.Channel) error) error {
	ch, err := s.amqp.Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	return f(ch)
}

func (s *stack) declareExchange() error {
	return s.channel(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(outlast.EventExchange, "topic", true, false, false, false, nil)
	})
}

// newQueue makes a durable queue of a type and binds it to the messages of the benchmarks.
func (s *stack) newQueue(kind string) (string, error) {
	name := fmt.Sprintf("bench.%d", s.queues.Add(1))
	args := amqp.Table{"x-queue-type": kind}
	if kind == "quorum" {
		args["x-delivery-limit"] = int64(outlast.DeliveryLimit)
	}
	return name, s.channel(func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
			return err
		}
		return ch.QueueBind(name, messageType+".*", outlast.EventExchange, false, nil)
	})
}

func (s *stack) depth(queue string) (n int, err error) {
	err = s.channel(func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		n = q.Messages
		return err
	})
	return n, err
}

func (s *stack) deleteQueue(queue string) error {
	return s.channel(func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	})
}
