package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/leat-io/leat/internal/devstack"
	"github.com/leat-io/leat/internal/testenv"
)

// member is one leat process of a stage: started again under its name whenever it has ended, as every service manager does.
type member struct {
	stage, instance string
	binary, config  string
	clock           *clock
	log             *testenv.Log

	mu      sync.Mutex
	process *devstack.Process
	wanted  bool // false while it is down on purpose
	ends    int  // by itself
	closed  chan struct{}
	watched chan struct{}
}

// startMember starts the process and keeps it running until close.
func startMember(binary, stage, instance, config string, c *clock) (*member, error) {
	m := &member{
		stage: stage, instance: instance, binary: binary, config: config, clock: c,
		log: &testenv.Log{}, closed: make(chan struct{}), watched: make(chan struct{}),
	}
	if err := m.start(); err != nil {
		return nil, err
	}
	go m.watch()
	return m, nil
}

func (m *member) name() string { return m.stage + "-" + m.instance }

func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	cmd := exec.Command(m.binary, m.stage, "run", "--config", m.config)
	cmd.Env = append(os.Environ(), "LEAT_INSTANCE="+m.instance, clockVariable+"="+m.clock.name)
	cmd.Stdout, cmd.Stderr = m.log, m.log
	p, err := devstack.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	m.process, m.wanted = p, true
	return nil
}

func (m *member) watch() {
	defer close(m.watched)
	for {
		m.mu.Lock()
		p := m.process
		m.mu.Unlock()
		select {
		case <-m.closed:
			return
		case <-p.Done():
		}
		m.mu.Lock()
		lost := m.wanted && m.process == p
		if lost {
			m.ends++
		}
		m.mu.Unlock()
		select {
		case <-m.closed:
			return
		case <-time.After(200 * time.Millisecond):
		}
		if lost {
			_ = m.start()
		}
	}
}

// down ends the process: SIGKILL as a crash, SIGTERM in good order. An end in good order that is none is an error.
func (m *member) down(sig syscall.Signal) error {
	m.mu.Lock()
	p := m.process
	m.wanted = false
	m.mu.Unlock()
	if sig == syscall.SIGKILL {
		p.Kill()
		return nil
	}
	if err := p.Stop(sig, patience); err != nil {
		return fmt.Errorf("ending %s in good order: %w", m.name(), err)
	}
	if code := p.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with exit code %d after %s; its log ends with:\n%s", m.name(), code, sig, m.log.Tail(2000))
	}
	return nil
}

func (m *member) signal(sig syscall.Signal) error {
	m.mu.Lock()
	p := m.process
	m.mu.Unlock()
	return p.Signal(sig)
}

func (m *member) close() {
	close(m.closed)
	<-m.watched
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process.Kill()
}

// complaints are what no fault excuses.
func (m *member) complaints() []string {
	log := m.log.String()
	var found []string
	for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: ", "cursor refused"} {
		if i := strings.Index(log, bad); i >= 0 {
			found = append(found, fmt.Sprintf("%s says: %s", m.name(), log[i:min(len(log), i+3000)]))
		}
	}
	return found
}

// clock is the clock of leat processes that were built to follow it: a file with the nanoseconds to add.
type clock struct{ name string }

const clockVariable = "LEAT_CHAOS_CLOCK"

// built is one build of the program under test, for all runs of this process.
type built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// get builds leat: with the race detector, or with a clock that jumps, as the runs need it.
func (b *built) get(race, jumps bool) (string, error) {
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "leat-chaos"); b.err != nil {
			return
		}
		b.path = filepath.Join(b.dir, "leat")
		args := []string{"build", "-o", b.path}
		if race {
			args = append(args, "-race")
		}
		if jumps {
			var overlay string
			if overlay, b.err = writeOverlay(b.dir); b.err != nil {
				return
			}
			args = append(args, "-overlay", overlay)
		}
		cmd := exec.Command("go", append(args, "./cmd/leat")...)
		cmd.Dir = filepath.Join("..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("building leat: %w: %s", err, out)
		}
	})
	return b.path, b.err
}

func (b *built) remove() {
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}
