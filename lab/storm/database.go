package storm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// pair is a PostgreSQL primary and its synchronous standby. Either may be the primary.
type pair struct {
	mu      sync.Mutex
	servers [2]*servers.PostgresServer
	primary int
}

// now returns the present primary and the present standby.
func (p *pair) now() (primary, standby *servers.PostgresServer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.servers[p.primary], p.servers[1-p.primary]
}

// startServer starts a server that may run already.
func startServer(ctx context.Context, s *servers.PostgresServer) error {
	if s.Running() {
		return s.Continue()
	}
	return s.Start(ctx)
}

// start makes sure that both run.
func (p *pair) start(ctx context.Context) error {
	primary, standby := p.now()
	return errors.Join(startServer(ctx, primary), startServer(ctx, standby))
}

// revive makes sure that both answer, as an operator would who finds one in whatever state.
func (p *pair) revive(ctx context.Context) error {
	for _, s := range p.servers {
		err := s.Ping(ctx)
		if err == nil {
			continue
		}
		if err := errors.Join(s.Kill(), s.Start(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// promote kills the primary, as two primaries must never run, and promotes the standby.
func (p *pair) promote(ctx context.Context) error {
	primary, standby := p.now()
	if err := primary.Kill(); err != nil {
		return err
	}
	if err := standby.Promote(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.primary = 1 - p.primary
	return nil
}

// follow brings the server that was killed back as the standby. Called after a promotion that
// failed, it starts what was there before.
func (p *pair) follow(ctx context.Context) error {
	primary, standby := p.now()
	if !primary.Running() {
		return p.start(ctx)
	}
	if !standby.Running() {
		if err := standby.Follow(ctx, primary); err != nil {
			return errors.Join(err, standby.Kill())
		}
	}
	return primary.Synchronous(ctx, true)
}

// roll restarts the standby and then the primary: an upgrade of the databases. The primary waits
// for its standby, which would not find the log any more that it lacks.
func (p *pair) roll(ctx context.Context) error {
	primary, standby := p.now()
	if err := errors.Join(standby.Stop(ctx), startServer(ctx, standby)); err != nil {
		return err
	}
	if err := primary.Synchronous(ctx, true); err != nil {
		return err
	}
	return errors.Join(primary.Stop(ctx), startServer(ctx, primary))
}

func (p *pair) close() error {
	var errs []error
	for _, s := range p.servers {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *stage) databaseKinds() []fault.Kind {
	// The pair is one thing: a promotion while the standby is down would lose what was
	// acknowledged, and nobody promotes like that.
	hits := []string{"postgres"}
	server := func(what, which string, weight int, shortest, longest time.Duration, on func(context.Context, *servers.PostgresServer) error) fault.Kind {
		name := what + " " + which
		return fault.Kind{Name: name, Weight: weight, Shortest: shortest, Longest: longest, Draw: func(*rand.Rand) fault.Fault {
			return fault.Fault{Name: name, Hits: hits, Off: s.postgres.start, On: func(ctx context.Context) error {
				primary, standby := s.postgres.now()
				if which == "standby" {
					return on(ctx, standby)
				}
				return on(ctx, primary)
			}}
		}}
	}
	lacksDisk := ""
	if s.net == nil {
		lacksDisk = "a small disk needs mounts of its own"
	}
	kill := func(_ context.Context, s *servers.PostgresServer) error { return s.Kill() }
	freeze := func(_ context.Context, s *servers.PostgresServer) error { return s.Pause() }
	stop := func(ctx context.Context, s *servers.PostgresServer) error { return s.Stop(ctx) }
	bouncer := func(name string, weight int, on, off func(context.Context, *servers.Bouncer) error) fault.Kind {
		return fault.Kind{Name: name + " pgbouncer", Weight: weight, Shortest: 500 * time.Millisecond, Longest: 8 * time.Second, Lacks: servers.LacksBouncer(), Draw: func(r *rand.Rand) fault.Fault {
			i := r.IntN(2)
			return fault.Fault{Name: name + " " + bouncerName(i), Hits: []string{bouncerName(i)},
				On:  func(ctx context.Context) error { return on(ctx, s.bouncers[i]) },
				Off: func(ctx context.Context) error { return off(ctx, s.bouncers[i]) }}
		}}
	}
	return []fault.Kind{
		{Name: "clock", Weight: 2, Shortest: time.Second, Longest: 10 * time.Second, Lacks: servers.LacksClock(), Draw: func(r *rand.Rand) fault.Fault {
			jump := time.Duration(r.IntN(360)-180) * time.Second
			set := func(d time.Duration) func(context.Context) error {
				return func(context.Context) error {
					return errors.Join(s.postgres.servers[0].SetClock(d), s.postgres.servers[1].SetClock(d))
				}
			}
			return fault.Fault{Name: fmt.Sprintf("clock of the databases %+.0f s", jump.Seconds()), Hits: []string{"clock of the databases"}, On: set(jump), Off: set(0)}
		}},
		bouncer("kill", 1, func(_ context.Context, b *servers.Bouncer) error {
			s.away.Store(b, true)
			return b.Kill()
		}, func(ctx context.Context, b *servers.Bouncer) error {
			s.away.Delete(b)
			return startBouncer(ctx, b)
		}),
		bouncer("freeze", 1, func(_ context.Context, b *servers.Bouncer) error { return b.Pause() }, func(_ context.Context, b *servers.Bouncer) error { return b.Continue() }),
		{Name: "fill the disk", Weight: 2, Shortest: time.Second, Longest: 10 * time.Second, Lacks: lacksDisk, Draw: func(r *rand.Rand) fault.Fault {
			i := r.IntN(2)
			return fault.Fault{Name: "fill the disk of " + postgresName(i), Hits: hits, On: plain(s.postgres.servers[i].FillDisk), Off: func(ctx context.Context) error {
				if err := s.postgres.servers[i].FreeDisk(); err != nil {
					return err
				}
				return s.postgres.revive(ctx)
			}}
		}},
		server("kill", "postgres", 2, 500*time.Millisecond, 8*time.Second, kill),
		server("restart", "postgres", 1, 500*time.Millisecond, 4*time.Second, stop),
		server("freeze", "postgres", 2, time.Second, 12*time.Second, freeze),
		server("kill", "standby", 1, time.Second, 8*time.Second, kill),
		server("freeze", "standby", 1, time.Second, 12*time.Second, freeze),
		{Name: "restart every database", Weight: 1, Shortest: 100 * time.Millisecond, Longest: time.Second, Draw: func(*rand.Rand) fault.Fault {
			return fault.Fault{Name: "restart every database in turn", Hits: hits, On: s.postgres.roll, Off: s.postgres.start}
		}},
		{Name: "promote the standby", Weight: 2, Shortest: time.Second, Longest: 5 * time.Second, Draw: func(*rand.Rand) fault.Fault {
			return fault.Fault{Name: "promote the standby", Hits: hits, On: s.postgres.promote, Off: s.postgres.follow}
		}},
		{Name: "end sessions", Weight: 4, Shortest: time.Second, Longest: 3 * time.Second, Draw: func(r *rand.Rand) fault.Fault {
			name, share := oneOf(r, databaseNames), 0.1+0.9*r.Float64()
			end := func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				_, err := s.databases[name].ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND application_name <> 'lab' AND random() < $1`, share)
				return err
			}
			return fault.Fault{Name: fmt.Sprintf("end sessions of %s", name), Hits: []string{"sessions of " + name}, On: end, Off: nothing}
		}},
	}
}

// migrate is a step that brings the tables up to date in the middle of the run.
func (s *stage) migrate() fault.Step {
	up := func(ctx context.Context) error {
		for _, name := range databaseNames {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if err := postgres.Store(s.databases[name]).Migrations().Up(ctx, 0); err != nil {
				return err
			}
		}
		return nil
	}
	return fault.Step{At: s.config.Length / 2, For: time.Second, Fault: fault.Fault{Name: "migrate the tables", Hits: []string{"tables"}, On: up, Off: up}}
}

// startBouncers starts those that have ended by themselves, as any supervisor would: PgBouncer 1.18
// does, when a client disconnects in a bad moment.
func (s *stage) startBouncers(ctx context.Context) error {
	for _, b := range s.bouncers {
		if _, away := s.away.Load(b); away {
			continue
		}
		if err := startBouncer(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func startBouncer(ctx context.Context, b *servers.Bouncer) error {
	if b.Running() {
		return nil
	}
	return b.Start(ctx)
}
