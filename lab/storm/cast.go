package storm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/lab/storm/role"
)

// member is one process of the cast, through all its lives.
type member struct {
	spec    role.Spec
	program *servers.Program
	watches sync.WaitGroup

	// versions are program files: the present one and, if there is one, the earlier.
	versions []string

	mu       sync.Mutex
	version  int    // of the next start, and of this life unless it is about to be changed
	clock    string // of the next start: see clockSetting
	expected bool   // its end is of our making
	deaths   []string
}

func (s *stage) addMember(spec role.Spec) error {
	var err error
	if spec.Database, spec.Broker, err = s.through(spec.Name, s.addresses[spec.Service]); err != nil {
		return err
	}
	if s.history != nil {
		spec.History = s.historyFolder()
	}
	program := s.config.Skewed
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return err
		}
	}
	s.names = append(s.names, spec.Name)
	m := &member{spec: spec, clock: clockSetting(0, 0), versions: []string{program}, program: servers.NewProgram(servers.ProgramConfig{
		Name: spec.Name, Path: program, Env: []string{spec.Environment()}, Log: filepath.Join(s.config.Folder, spec.Name+".log"), Host: s.host(spec.Name),
	})}
	s.cast[spec.Name] = m
	if s.config.Earlier != "" && spec.Role != "producer" {
		m.versions = append(m.versions, s.config.Earlier)
		if strings.HasSuffix(spec.Name, "-2") {
			m.version = 1
		}
	}
	return nil
}

// change has the next start use the other version.
func (m *member) change() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version = (m.version + 1) % len(m.versions)
}

// isEarlier reports whether the member runs the earlier commit.
func (m *member) isEarlier() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version > 0
}

// start begins a life; a member that lives is left alone.
func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.program.Running() {
		return nil
	}
	m.program.Use(m.versions[m.version], m.clock)
	if err := m.program.Start(); err != nil {
		return err
	}
	m.expected = false
	ended := m.program.Ended()
	m.watches.Go(func() {
		<-ended
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.expected && !m.finished() {
			m.deaths = append(m.deaths, fmt.Sprintf("%s ended by itself with %d at %s:\n%s", m.spec.Name, m.program.ExitCode(), time.Now().Format(time.TimeOnly), m.program.LogTail()))
		}
	})
	return nil
}

// finished reports whether the member may have ended in good order: a producer that has
// written all. It needs an ended program.
func (m *member) finished() bool { return m.spec.Last > 0 && m.program.ExitCode() == 0 }

// setClock has the next lives begin with a clock that jumps after a while.
func (m *member) setClock(jump, after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock = clockSetting(jump, after)
}

func (m *member) expect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expected = true
}

// kill ends a life as a power cut would.
func (m *member) kill() error {
	m.expect()
	err := m.program.Kill()
	m.watches.Wait()
	return err
}

// stop ends a life in good order. One that takes too long is killed, and that is a fault of
// what is under test.
func (m *member) stop(ctx context.Context) error {
	m.expect()
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if err := m.program.Stop(ctx); err != nil {
		m.mu.Lock()
		m.deaths = append(m.deaths, fmt.Sprintf("%s did not end within %s of SIGTERM: %v", m.spec.Name, stopLimit, err))
		m.mu.Unlock()
		return m.kill()
	}
	m.watches.Wait()
	return nil
}

// stopLimit is above the grace of every part, with room for a busy machine.
const stopLimit = 90 * time.Second

func (m *member) ends() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.deaths...)
}

// died reports whether the member has ended by itself.
func (m *member) died() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.program.Ended() != nil && !m.program.Running() && !m.expected && !m.finished()
}
