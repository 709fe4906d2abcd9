package main

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/leat-io/leat/internal/devstack"
)

// process is a program under measurement. It dies with bench, however that ends.
type process struct{ *devstack.Process }

// startProcess starts a program; its standard error goes to log. Give cmd a context that lives as long as the program shall.
func startProcess(cmd *exec.Cmd, log io.Writer) (*process, error) {
	cmd.Stderr = log
	p, err := devstack.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	return &process{p}, nil
}

// stop ends the program in good order and waits for it, 30 seconds at most. It may have ended already.
func (p *process) stop() error {
	const grace = 30 * time.Second
	return p.Stop(syscall.SIGTERM, grace)
}

// failed is an error once the program has ended, for loops that wait for its work.
func (p *process) failed() error {
	select {
	case <-p.Done():
		return fmt.Errorf("process %d ended while it was measured", p.PID())
	default:
		return nil
	}
}
