package devstack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// Process is a child process that does not outlive the process that started it, however that one ends (on Linux;
// elsewhere only an orderly Stop ends it).
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; set before done is closed
}

// Start starts cmd in a process group of its own, so that an interrupt typed at a terminal reaches only its parent.
// The kernel sends orphaned to it when this process dies.
func Start(cmd *exec.Cmd, orphaned syscall.Signal) (*Process, error) {
	return startAs(cmd, nil, orphaned)
}

func startAs(cmd *exec.Cmd, as *account, orphaned syscall.Signal) (*Process, error) {
	cmd.SysProcAttr = attributes(as, orphaned)
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel takes the end of the forking thread, not of the process, for the parent's death:
		// the thread is kept until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	return p, nil
}

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends sig to the child; a child that has ended already is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("sending %s to process %d: %w", sig, p.PID(), err)
	}
	return nil
}

// Kill ends the child at once, also when it is stopped, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop sends sig, waits up to grace for the child to end, then kills it. The error says that it had to be killed.
func (p *Process) Stop(sig syscall.Signal, grace time.Duration) error {
	if err := p.Signal(sig); err != nil {
		p.Kill()
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
		p.Kill()
		return fmt.Errorf("process %d ignored %s for %s and was killed", p.PID(), sig, grace)
	}
}

// FreePort returns a TCP port of 127.0.0.1 on which nothing listens. It is below the ranges from which Linux and macOS
// take the local ports of outgoing connections: a server that stops and starts again on it finds it free.
func FreePort() (int, error) {
	const lowest, count, tries = 20000, 12000, 100
	var last error
	for range tries {
		port := lowest + rand.IntN(count)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // returns at once
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("looking for a free port: %w", last)
}

// ExitCode is that of a child that has ended; -1 while it runs, and when a signal has ended it.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}
