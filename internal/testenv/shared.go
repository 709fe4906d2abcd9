package testenv

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/devstack"
)

const (
	kafkaKind    = "kafka"
	postgresKind = "postgres"
	keeperPath   = "github.com/leat-io/leat/internal/testenv/keeper"
)

// server is what a keeper tells about the server that it keeps.
type server struct {
	Addresses []string `json:"addresses,omitempty"` // brokers, or the one URL of a database
	Origin    string   `json:"origin,omitempty"`
	Notices   []string `json:"notices,omitempty"` // why a better way of getting it was not taken
	Error     string   `json:"error,omitempty"`
	Keeper    process  `json:"keeper"`
}

// sharedServer returns the server of a kind that all packages of this `go test` command share, and has it started when
// this is the first to ask. A server that could not be started is reported to all alike, without trying again.
func sharedServer(tb testing.TB, kind string) server {
	tb.Helper()
	owner := owner()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("leat-testenv-%d-%d-%s", os.Getuid(), owner.PID, owner.Started))
	require.NoError(tb, os.MkdirAll(dir, 0o700))
	unlock, err := devstack.LockFile(filepath.Join(dir, kind+".lock"))
	require.NoError(tb, err)
	defer unlock()

	name := filepath.Join(dir, kind+".json")
	var s server
	if b, err := os.ReadFile(name); err == nil && json.Unmarshal(b, &s) == nil && (s.Error != "" || s.Keeper.alive()) {
		return s
	}
	s, err = startKeeper(dir, kind, owner)
	require.NoError(tb, err)
	for _, notice := range s.Notices {
		tb.Logf("NOTICE: %s", notice)
	}
	b, err := json.Marshal(s)
	require.NoError(tb, err)
	require.NoError(tb, os.WriteFile(name, b, 0o600))
	return s
}

// startKeeper starts the keeper of a kind of server and waits for its report. The keeper outlives this process.
func startKeeper(dir, kind string, owner process) (s server, err error) {
	program, err := buildKeeper(dir)
	if err != nil {
		return s, err
	}
	logFile, err := os.Create(filepath.Join(dir, kind+".log"))
	if err != nil {
		return s, fmt.Errorf("opening the log of the keeper: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	cmd := exec.CommandContext(context.Background(), program, kind, strconv.Itoa(owner.PID), owner.Started, dir)
	// A session of its own: an interrupt at the terminal ends the tests, and the keeper notices that.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = logFile
	report, err := cmd.StdoutPipe()
	if err != nil {
		return s, err
	}
	defer func() { _ = report.Close() }()
	if err := cmd.Start(); err != nil {
		return s, fmt.Errorf("starting the keeper of test servers: %w", err)
	}
	line, err := bufio.NewReader(report).ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("waiting for the keeper of test servers: %w: %s", err, tail(logFile.Name()))
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return s, fmt.Errorf("reading the keeper's report: %w", err)
	}
	s.Keeper = processOf(cmd.Process.Pid)
	return s, cmd.Process.Release()
}

func buildKeeper(dir string) (program string, err error) {
	program = filepath.Join(dir, "keeper")
	unlock, err := devstack.LockFile(program + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	args := slices.Concat([]string{"build", "-o", program}, raceFlag(), []string{keeperPath})
	if out, err := exec.CommandContext(context.Background(), "go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the keeper of test servers: %w: %s", err, out)
	}
	return program, nil
}

// raceFlag builds the keeper as this test was built: its packages are then in the build cache already.
func raceFlag() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			return []string{"-race"}
		}
	}
	return nil
}

// process is one process, told from later ones of the same id by the time it started.
type process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"`
}

// owner is the process whose end is the end of the shared servers: the `go test` command that runs this test, else
// (a test started by a debugger or by hand) this process.
func owner() process {
	parent := os.Getppid()
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(parent), "comm"))
	if err == nil && strings.TrimSpace(string(name)) == "go" {
		return processOf(parent)
	}
	return processOf(os.Getpid())
}

func processOf(pid int) process { return process{PID: pid, Started: startTime(pid)} }

// alive is false for a process that has ended but has not been waited for.
func (p process) alive() bool {
	if p.PID == 0 || errors.Is(syscall.Kill(p.PID, 0), syscall.ESRCH) {
		return false
	}
	return startTime(p.PID) == p.Started
}

// startTime is the time a process started, in ticks since boot; empty for a zombie, and "-" where /proc does not tell.
func startTime(pid int) string {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return "-"
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	// The name in parentheses may hold anything; the state is the first field after it, the start the twentieth.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

func tail(name string) string {
	const limit = 3000
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-limit):]))
}
