package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/outlastmq/outlast"
)

// riverArgs is a message as a job of River.
type riverArgs struct {
	ID   string `json:"id"`
	Key  string `json:"key,omitempty"`
	Body string `json:"body"`
}

func (riverArgs) Kind() string { return "publish" }

// riverWorker publishes a job's message and waits for the confirm.
type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	channels []*amqp.Channel
	next     atomic.Uint64
	wait     func(ctx context.Context, ch *amqp.Channel, a *riverArgs) error
}

func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverArgs]) error {
	ch := w.channels[w.next.Add(1)%uint64(len(w.channels))]
	return w.wait(ctx, ch, &job.Args)
}

func migrateRiver(ctx context.Context, url string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	m, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return err
	}
	_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// seedRiver inserts jobs as River does, by COPY.
func seedRiver(ctx context.Context, conn *pgx.Conn, w workload) error {
	pool, err := pgxpool.New(ctx, conn.Config().ConnString())
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: warnings})
	if err != nil {
		return err
	}
	for from := 0; from < w.rows; from += 5000 {
		var jobs []river.InsertManyParams
		for i := from; i < min(from+5000, w.rows); i++ {
			jobs = append(jobs, river.InsertManyParams{Args: riverArgs{ID: outlast.NewID(), Key: keyOf(i, w.keys), Body: bodyOf(i, w.size)}})
		}
		if _, err := client.InsertManyFast(ctx, jobs); err != nil {
			return err
		}
	}
	return nil
}

const (
	riverWorkers  = 500
	riverChannels = 4
)

// relayRiver works the jobs with River's fastest settings found here: many workers, the
// shortest pause between fetches.
func relayRiver(ctx context.Context, t *task, done func(int)) error {
	config, err := pgxpool.ParseConfig(t.Database)
	if err != nil {
		return err
	}
	config.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	broker, err := amqp.Dial(t.Broker)
	if err != nil {
		return err
	}
	defer broker.Close()
	worker := &riverWorker{wait: func(ctx context.Context, ch *amqp.Channel, a *riverArgs) error {
		return publishAndWait(ctx, ch, a.ID, a.Key, a.Body)
	}}
	for range riverChannels {
		ch, err := confirmChannel(broker)
		if err != nil {
			return err
		}
		worker.channels = append(worker.channels, ch)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: warnings, Workers: workers,
		FetchCooldown: time.Millisecond, FetchPollInterval: 10 * time.Millisecond,
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}}})
	if err != nil {
		return err
	}
	return runRiver(ctx, client, done)
}

// runRiver counts jobs when River has recorded them as completed.
func runRiver(ctx context.Context, client *river.Client[pgx.Tx], done func(int)) error {
	// An event that finds the channel full is dropped, and the run would never end.
	completed, cancel := client.SubscribeConfig(&river.SubscribeConfig{Kinds: []river.EventKind{river.EventKindJobCompleted}, ChanSize: 100_000})
	defer cancel()
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	for {
		select {
		case <-completed:
			done(1)
		case <-ctx.Done():
			return client.Stop(context.WithoutCancel(ctx))
		}
	}
}
