package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	envPostgres = "OUTLAST_TEST_POSTGRES_URL"
	envAMQP     = "OUTLAST_TEST_AMQP_URL"
	envAPI      = "OUTLAST_TEST_AMQP_API"
)

// shared is one server for the whole test binary, started by the first test that asks.
type shared[S interface{ Close() error }] struct {
	open   func(context.Context) (S, error)
	once   sync.Once
	server S
	err    error
}

var (
	mainRuns       atomic.Bool
	sharedPostgres = shared[*PostgresServer]{open: openSharedPostgres}
	sharedRabbitMQ = shared[*RabbitCluster]{open: openSharedRabbitMQ}
)

func (s *shared[S]) get(tb testing.TB) S {
	tb.Helper()
	if !mainRuns.Load() {
		tb.Fatal("shared servers are stopped by servers.Main: add func TestMain(m *testing.M) { servers.Main(m) }")
	}
	// Not the context of the first test: the server outlives it.
	s.once.Do(func() { s.server, s.err = s.open(context.Background()) })
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return s.server
}

// close keeps a server from being started from now on, and ends one that was.
func (s *shared[S]) close() error {
	started := true
	s.once.Do(func() { started, s.err = false, errors.New("the test binary is ending") })
	if !started || s.err != nil {
		return nil
	}
	return s.server.Close()
}

// Main runs the tests, stops the shared servers, checks that no goroutine is left, and
// exits. It is the whole body of a TestMain.
func Main(m *testing.M, options ...goleak.Option) {
	mainRuns.Store(true)
	code := m.Run()
	if err := errors.Join(sharedRabbitMQ.close(), sharedPostgres.close()); err != nil {
		fmt.Fprintln(os.Stderr, "stop the shared servers:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// SharedPostgres returns the PostgreSQL server that all tests of the binary share, with
// fsync off. It is not to be stopped, killed or frozen: see [Postgres] for that.
func SharedPostgres(tb testing.TB) *PostgresServer {
	tb.Helper()
	return sharedPostgres.get(tb)
}

// SharedRabbitMQ returns the single RabbitMQ node that all tests of the binary share. It is
// not to be stopped, killed or frozen: see [RabbitMQ] for that.
func SharedRabbitMQ(tb testing.TB) *RabbitCluster {
	tb.Helper()
	return sharedRabbitMQ.get(tb)
}

// Database returns the URL of a fresh database on the shared PostgreSQL server. It is
// dropped when the test ends.
func Database(tb testing.TB) string {
	tb.Helper()
	server := SharedPostgres(tb)
	database, err := server.NewDatabase(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.DropDatabase(ctx, database); err != nil {
			tb.Error(err)
		}
	})
	return database
}

// NewVHost returns a fresh virtual host on the shared broker. One of ours is left to the
// end of the binary, as removing it costs a second; on another broker it is removed when
// the test ends.
func NewVHost(tb testing.TB) *VHost {
	tb.Helper()
	cluster := SharedRabbitMQ(tb)
	vhost, err := cluster.NewVHost(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	if len(cluster.epmds) > 0 {
		return vhost
	}
	tb.Cleanup(func() {
		if err := vhost.Delete(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return vhost
}

func openSharedPostgres(ctx context.Context) (*PostgresServer, error) {
	address := os.Getenv(envPostgres)
	if address == "" {
		return Postgres(ctx, PostgresConfig{NoSync: true})
	}
	return externalPostgres(ctx, address)
}

func externalPostgres(ctx context.Context, address string) (*PostgresServer, error) {
	s := &PostgresServer{url: address}
	if err := s.ping(ctx); err != nil {
		return nil, fmt.Errorf("reach the server of %s: %w", envPostgres, err)
	}
	return s, nil
}

func openSharedRabbitMQ(ctx context.Context) (*RabbitCluster, error) {
	address := os.Getenv(envAMQP)
	if address == "" {
		return RabbitMQ(ctx, RabbitConfig{})
	}
	return externalRabbitMQ(ctx, address, os.Getenv(envAPI))
}

func externalRabbitMQ(ctx context.Context, address, api string) (*RabbitCluster, error) {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" {
		return nil, fmt.Errorf("%s: must be a URL such as amqp://guest:guest@127.0.0.1:5672/", envAMQP)
	}
	c := &RabbitCluster{}
	c.nodes = []*RabbitNode{{cluster: c, name: parsed.Host, url: address}}
	if api != "" {
		if c.api, err = newManagementAPI(api, parsed.User.Username()); err != nil {
			return nil, err
		}
	}
	if err := c.nodes[0].ping(ctx); err != nil {
		return nil, fmt.Errorf("reach the broker of %s: %w", envAMQP, err)
	}
	return c, nil
}
