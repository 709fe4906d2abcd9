package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/leat-io/leat/internal/broker"
	"github.com/leat-io/leat/internal/devstack"
)

// kept is a server that a keeper has started.
type kept struct {
	addresses []string
	origin    string
	stop      func(context.Context) error
	ended     <-chan struct{} // closed when the server ended by itself; nil where that is not known
}

// Keep is the keeper's program: it starts a server of the kind args[0], reports it to report as one line of JSON, and
// stops it when the process of id args[1], started at args[2], has ended. args[3] is the directory the tests of that
// process share; it is removed with the last keeper.
func Keep(ctx context.Context, args []string, report io.Writer) error {
	if len(args) != 4 {
		return errors.New("usage: keeper kafka|postgres pid started dir; it is started by tests")
	}
	pid, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("reading the process id: %w", err)
	}
	owner, dir := process{PID: pid, Started: args[2]}, args[3]

	k, notices, err := obtain(ctx, args[0])
	message := server{Addresses: k.addresses, Origin: k.origin, Notices: notices}
	if err != nil {
		message.Error = err.Error()
	}
	if err := json.NewEncoder(report).Encode(message); err != nil {
		return errors.Join(fmt.Errorf("reporting: %w", err), k.close())
	}
	waitFor(ctx, owner, k.ended)
	return errors.Join(err, k.close(), cleanUp(owner, dir, args[0]))
}

// obtain starts a server in the best way that this machine allows.
func obtain(ctx context.Context, kind string) (kept, []string, error) {
	inDocker, native := dockerKafka, nativeKafka
	if kind == postgresKind {
		inDocker, native = dockerPostgres, nativePostgres
	}
	var notices []string
	if dockerAnswers(ctx) {
		k, err := inDocker(ctx)
		if err == nil {
			return k, nil, nil
		}
		notices = append(notices, fmt.Sprintf("Docker answers but does not run %s: %v", kind, errors.Join(err, withoutReaper())))
	}
	k, err := native(ctx)
	return k, notices, err
}

func nativeKafka(ctx context.Context) (kept, error) {
	libs, err := broker.Libs(ctx)
	if err != nil {
		return kept{}, err
	}
	scratch, err := devstack.NewScratch()
	if err != nil {
		return kept{}, err
	}
	b := broker.New(broker.Options{Libs: libs, Dir: scratch.Dir(), Settings: brokerSettings()})
	stop := func(context.Context) error {
		b.Kill() // its data is thrown away: no need for good order
		return scratch.Remove()
	}
	if err := b.Start(ctx); err != nil {
		return kept{}, errors.Join(err, stop(ctx))
	}
	return kept{addresses: b.Addresses(), origin: "Apache Kafka, a process of this machine", stop: stop, ended: b.Process().Done()}, nil
}

func nativePostgres(ctx context.Context) (kept, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	p, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Settings: postgresSettings(), Logger: log})
	if err != nil {
		return kept{}, err
	}
	return kept{addresses: []string{p.URL()}, origin: p.Origin(), stop: p.Stop}, nil
}

func (k kept) close() error {
	if k.stop == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return k.stop(ctx)
}

func waitFor(ctx context.Context, p process, ended <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for p.alive() {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// cleanUp removes the shared directory, unless tests that may still ask for its reports, or another keeper, need it.
func cleanUp(owner process, dir, kind string) error {
	if owner.alive() {
		return nil
	}
	_ = os.Remove(filepath.Join(dir, kind+".json"))
	left, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(left) > 0 {
		return err
	}
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("removing %s: %w", dir, err)
	}
	return nil
}
