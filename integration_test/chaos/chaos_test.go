// Package chaos lets whole pipelines run while everything around them breaks: processes, brokers, databases, disks, the network, clocks. The
// faults come from a schedule that a seed decides, and in the end every event that was committed is accounted for.
//
// It is no benchmark, and no proof that a fault is survived that it does not know.
//
//	go test ./integration_test/chaos                                                    # the short form
//	go test ./integration_test/chaos -run '^TestChaos$' -chaos.long -chaos.seed 7 -chaos.faults 27 -timeout 1h
//	go test ./integration_test/chaos -run '^TestChaos$' -chaos.long -chaos.seeds 20 -timeout 3h   # seeds 1 to 20
//
// A long run adds itself to docs/chaos.json and writes docs/chaos.md.
package chaos

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	long      = flag.Bool("chaos.long", false, "the long form: every kind of fault, a fresh pipeline for each seed, and its result added to docs/chaos.json")
	firstSeed = flag.Uint64("chaos.seed", 1, "the seed, or the first of chaos.seeds")
	seeds     = flag.Uint64("chaos.seeds", 1, "how many seeds of the long form, one after the other")
	faults    = flag.Int("chaos.faults", 27, "faults of each seed of the long form")
	logs      = flag.String("chaos.logs", "", "directory that keeps the logs of all leat processes, by seed")

	program built
)

func TestMain(m *testing.M) {
	code := m.Run()
	program.remove()
	os.Exit(code)
}

// TestChaos is the short form, without flags: few faults, of three seeds, on one pipeline with the race detector.
func TestChaos(t *testing.T) {
	if *long {
		for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				path, err := program.get(false, true)
				require.NoError(t, err)
				r := chaos(t, newWorld(t, path), seed, schedule(seed, *faults, kinds(true)))
				require.NoError(t, publish(r))
				r.demand(t)
			})
		}
		return
	}
	path, err := program.get(true, false)
	require.NoError(t, err)
	var steps []step
	for seed := range uint64(3) {
		steps = append(steps, schedule(seed+1, 4, kinds(false))...)
	}
	chaos(t, newWorld(t, path), 1, steps).demand(t)
}

// chaos runs a schedule under load, and accounts.
func chaos(t *testing.T, w *world, seed uint64, steps []step) *run {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, w.recovered(ctx), "before any fault")
	loadCtx, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var load sync.WaitGroup
	load.Go(func() { _ = w.ledger.write(loadCtx, seed, w.writerURL()) })

	r := &run{Seed: seed, FaultsByKind: map[string]int{}}
	begun := time.Now()
	for i, s := range steps {
		r.count(s)
		healed := w.inject(ctx, i, s)
		require.False(t, t.Failed(), "step %d", i+1)
		if err := w.recovered(ctx); err != nil {
			w.explain()
			require.NoError(t, err, "step %d: %s", i+1, describe(s))
		}
		took := time.Since(healed)
		r.recoveries = append(r.recoveries, took)
		t.Logf("%s step %d: %s: recovered in %.1f s; %d events", clockTime(), i+1, describe(s), took.Seconds(), w.ledger.count())
		<-time.After(s.Pause)
	}
	stopLoad()
	load.Wait()
	r.Duration = seconds(time.Since(begun))
	if err := w.settled(ctx); err != nil {
		w.explain()
		t.Errorf("waiting for the last events: %v", err) // the account says which
	}
	var a account
	if err := w.stop(&a); err != nil {
		a.unexpected("%v", err)
	}
	require.NoError(t, w.keepLogs(*logs, seed))
	require.NoError(t, w.account(ctx, &a))
	r.take(&a, w)
	return r
}

// inject brings about the faults of a step at once, each for its own time, and returns when all have ended.
func (w *world) inject(ctx context.Context, number int, s step) (healed time.Time) {
	w.t.Helper()
	all := kinds(true)
	var wg sync.WaitGroup
	errs := make([]error, len(s.Faults))
	for i, f := range s.Faults {
		k := all[slices.IndexFunc(all, func(k kind) bool { return k.name == f.Kind })]
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			end, err := k.begin(ctx, w, f)
			if err != nil {
				errs[i] = fmt.Errorf("beginning %s: %w", k.name, err)
				return
			}
			<-time.After(f.Hold)
			if err := end(ctx); err != nil {
				errs[i] = fmt.Errorf("ending %s: %w", k.name, err)
			}
		})
	}
	wg.Wait()
	healed = time.Now()
	for _, err := range errs {
		if err != nil {
			w.explain()
			w.t.Errorf("step %d: %v", number+1, err)
		}
	}
	return healed
}

// explain shows what the processes say, for a fault that was not recovered from.
func (w *world) explain() {
	w.t.Helper()
	for _, m := range w.members {
		w.t.Logf("log of %s, which ended %d times by itself:\n%s", m.name(), m.ends, m.log.Tail(4000))
	}
}

// keepLogs writes the logs of all leat processes to a directory, if there is one.
func (w *world) keepLogs(dir string, seed uint64) error {
	if dir == "" {
		return nil
	}
	for _, m := range w.members {
		name := filepath.Join(dir, fmt.Sprintf("%d-%s.log", seed, m.name()))
		if err := os.WriteFile(name, []byte(m.log.String()), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func describe(s step) string {
	var all []string
	for _, f := range s.Faults {
		all = append(all, fmt.Sprintf("%s(%d, %d) for %.1f s", f.Kind, f.Target, f.Amount, f.Hold.Seconds()))
	}
	return strings.Join(all, " + ")
}

func clockTime() string { return time.Now().Format(time.TimeOnly) }
