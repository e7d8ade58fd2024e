package storm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outlastmq/outlast/lab/fault"
)

const (
	// netTick is how long Erlang's nodes bear a silent peer.
	netTick = 12 * time.Second
	// offLimit bounds the ending of one fault, and healLimit that of all together.
	offLimit  = 5 * time.Minute
	healLimit = 5 * time.Minute
)

type storm struct {
	Config
	stage    *stage
	timeline *fault.Timeline
	used     map[string]Usage
}

func (s *storm) run(ctx context.Context, report *Report) error {
	if err := s.startAll(ctx); err != nil {
		return err
	}
	s.timeline.Mark("load")
	kinds := s.stage.kinds(s.Only)
	for _, k := range kinds {
		if k.Lacks != "" {
			report.NotExercised = append(report.NotExercised, k.Name+": "+k.Lacks)
		} else {
			report.Possible = append(report.Possible, k.Name)
		}
	}
	plan := append(fault.Plan(s.Seed, kinds, fault.Storm{Length: s.Length, Pause: s.Pause, Most: s.Most}), s.stage.repairLate()...)
	plan = append(plan, s.stage.migrate())
	if err := s.underLoad(ctx, plan); err != nil {
		return err
	}
	return s.judge(ctx, report)
}

// startAll starts the producers when all groups are bound: what is sent before is not
// promised.
func (s *storm) startAll(ctx context.Context) error {
	if err := s.stage.spoil(ctx); err != nil {
		return err
	}
	for _, producers := range []bool{false, true} {
		for _, name := range s.stage.names {
			if m := s.stage.cast[name]; (m.spec.Role == "producer") == producers {
				if err := m.start(); err != nil {
					return err
				}
			}
		}
		if err := s.awaitSubscribed(ctx); err != nil {
			return err
		}
	}
	return s.stage.noteLeaders(ctx)
}

// judge heals what the faults have left, waits for rest, and asks what became of everything.
func (s *storm) judge(ctx context.Context, report *Report) error {
	if err := s.heal(ctx); err != nil {
		return err
	}
	s.timeline.Mark("healed")
	var err error
	if report.Rest, err = s.stage.rest(ctx, s.Patience); err != nil {
		return err
	}
	s.timeline.Mark("at rest")
	for _, name := range s.stage.names {
		if err := s.stage.cast[name].stop(ctx); err != nil {
			return err
		}
		report.Deaths = append(report.Deaths, s.stage.cast[name].ends()...)
	}
	report.Faults, report.Gaps, report.Used = s.timeline.Lines(), s.stage.gapsSoFar(), s.used
	if err := s.stage.closeHistory(ctx, report.Rest); err != nil {
		return err
	}
	if err := s.stage.checkHistory(ctx, report); err != nil {
		return err
	}
	return s.stage.check(ctx, report)
}

// underLoad runs the faults, and returns when the load and the faults have ended.
func (s *storm) underLoad(ctx context.Context, plan []fault.Step) error {
	// The load goes on a little after the last fault, so that the recovery is under load.
	load, cancel := context.WithTimeout(ctx, s.Length+5*time.Second)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch(load)
	}()
	err := fault.Run(ctx, plan, s.timeline, offLimit)
	<-load.Done()
	<-watched
	return errors.Join(err, ctx.Err())
}

// watch restarts what has ended by itself, as any supervisor would, and tells of the
// progress.
func (s *storm) watch(ctx context.Context) {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	begin := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		_ = s.stage.startBouncers(ctx) // tried again in 5 seconds
		for _, name := range s.stage.names {
			m := s.stage.cast[name]
			if m.died() {
				_ = m.start() // tried again in 5 seconds
			}
			if pid := m.program.PID(); pid != 0 {
				used := s.used[name]
				used.Raise(usageOf(pid))
				s.used[name] = used
			}
		}
		if s.Progress != nil {
			p := s.stage.progress(ctx)
			p.Seconds = int(time.Since(begin).Seconds())
			s.Progress(p)
		}
	}
}

// heal ends the load and makes sure that everything runs, whatever the faults have left.
func (s *storm) heal(ctx context.Context) error {
	if err := s.stage.restoreLinks(); err != nil {
		return err
	}
	if err := s.finishLoad(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	for _, name := range s.stage.names {
		m := s.stage.cast[name]
		if m.spec.Role == "producer" {
			continue
		}
		if err := m.start(); err != nil {
			return err
		}
	}
	mend := s.stage.insisting(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return errors.Join(s.stage.startBouncers(ctx), s.stage.applyTopology(ctx))
	})
	for {
		err := mend(ctx)
		if err == nil {
			return s.stage.replaceLeaderless(ctx)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("heal: %w", err)
		}
		time.Sleep(time.Second)
	}
}

// finishLoad ends the producers; with a number of messages to write, when they have: a slow
// machine may need as long again.
func (s *storm) finishLoad(ctx context.Context) error {
	patient, cancel := context.WithTimeout(ctx, healLimit+s.Length)
	defer cancel()
	for _, name := range s.stage.names {
		m := s.stage.cast[name]
		if m.spec.Role != "producer" {
			continue
		}
		if m.spec.Last > 0 {
			if err := m.start(); err != nil {
				return err
			}
			select {
			case <-m.program.Ended():
			case <-patient.Done():
				s.timeline.Mark(name + " has not written all of its messages: too slow a machine")
			}
		}
		if err := m.stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// awaitSubscribed waits until every queue is there and served.
func (s *storm) awaitSubscribed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	for {
		for _, name := range s.stage.names {
			if m := s.stage.cast[name]; m.died() {
				return fmt.Errorf("%s has ended before anything went wrong:\n%s", name, m.program.LogTail())
			}
		}
		ready := true
		for _, group := range s.stage.bound() {
			g := groupTopology(group)
			for p := range g.Partitions {
				depth, err := s.stage.broker().Topology().Depth(ctx, g.Queue(p))
				ready = ready && err == nil && depth.Consumers > 0
			}
		}
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the groups did not subscribe in time")
		case <-time.After(500 * time.Millisecond):
		}
	}
}
