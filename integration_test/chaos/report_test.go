package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/devstack"
)

// run is the result of one seed, as it stands in docs/chaos.json.
type run struct {
	Seed             uint64         `json:"seed"`
	Faults           int            `json:"faults"`
	Events           int            `json:"events"`
	Lost             int            `json:"lost"`
	Duplicated       int            `json:"duplicated"`
	Inverted         int            `json:"inverted"`
	Unexpected       int            `json:"unexpected"`         // anything else that should not be: dead letters, totals, foreign records, races
	Seconds          float64        `json:"seconds_to_recover"` // the longest, from the end of a step's faults to its probe in the tables
	Median           float64        `json:"seconds_to_recover_p50"`
	Duration         float64        `json:"duration_seconds"` // of load and faults
	Tried            int64          `json:"transactions_tried"`
	Doubtful         int            `json:"commits_in_doubt"` // events whose commit had no answer, and which were found to be committed
	Ends             int            `json:"processes_ended"`  // by themselves
	FaultsByKind     map[string]int `json:"faults_by_kind"`
	Notes            []string       `json:"notes,omitempty"`
	recoveries       []time.Duration
	unexpectedThings []string
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*10) / 10 }

func (r *run) count(s step) {
	for _, f := range s.Faults {
		r.Faults++
		r.FaultsByKind[f.Kind]++
	}
}

func (r *run) take(a *account, w *world) {
	r.Events, r.Lost, r.Duplicated, r.Inverted, r.Doubtful = a.Events, a.Lost, a.Duplicated, a.Inverted, a.Doubtful
	r.Unexpected, r.unexpectedThings = len(a.Unexpected), a.Unexpected
	r.Tried, r.Notes = w.ledger.tried.Load(), w.notes
	for _, m := range w.members {
		r.Ends += m.ends
	}
	slices.Sort(r.recoveries)
	if n := len(r.recoveries); n > 0 {
		r.Seconds, r.Median = seconds(r.recoveries[n-1]), seconds(r.recoveries[n/2])
	}
}

// demand fails the test unless every event is where it should be.
func (r *run) demand(t *testing.T) {
	t.Helper()
	t.Logf("seed %d: %d faults, %d events, %d in doubt, lost %d, duplicated %d, inverted %d; recovered in %.1f s at most, in %.1f s at the median; %d ends; %v",
		r.Seed, r.Faults, r.Events, r.Doubtful, r.Lost, r.Duplicated, r.Inverted, r.Seconds, r.Median, r.Ends, r.Notes)
	require.NotZero(t, r.Events)
	require.Empty(t, r.unexpectedThings)
	require.Zero(t, r.Lost, "lost")
	require.Zero(t, r.Duplicated, "duplicated")
	require.Zero(t, r.Inverted, "inverted")
}

type report struct {
	Runs []run `json:"runs"`
}

// publish adds a run to docs/chaos.json, in place of an earlier one of its seed, and writes docs/chaos.md.
func publish(r *run) error {
	docs := filepath.Join("..", "..", "docs")
	name := filepath.Join(docs, "chaos.json")
	unlock, err := devstack.LockFile(filepath.Join(os.TempDir(), "leat-chaos-report.lock")) // two seeds may run side by side
	if err != nil {
		return err
	}
	defer unlock()
	var all report
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the report: %w", err)
	}
	all.Runs = slices.DeleteFunc(all.Runs, func(old run) bool { return old.Seed == r.Seed })
	all.Runs = append(all.Runs, *r)
	slices.SortFunc(all.Runs, func(a, b run) int { return int(a.Seed) - int(b.Seed) })
	text, err = json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "chaos.md"), []byte(all.page()), 0o644)
}

func (all report) page() string {
	var b strings.Builder
	var sum run
	kindCounts := map[string]int{}
	for _, r := range all.Runs {
		sum.Faults += r.Faults
		sum.Events += r.Events
		sum.Doubtful += r.Doubtful
		sum.Lost += r.Lost
		sum.Duplicated += r.Duplicated
		sum.Inverted += r.Inverted
		sum.Duration += r.Duration
		for k, n := range r.FaultsByKind {
			kindCounts[k] += n
		}
	}
	fmt.Fprintf(&b, pageTop, len(all.Runs), sum.Faults, sum.Duration/60, sum.Events, sum.Doubtful, sum.Lost, sum.Duplicated, sum.Inverted)
	for _, r := range all.Runs {
		fmt.Fprintf(&b, "| %d | %d | %d | %d | %d | %d | %d | %d | %.1f | %.1f | %.0f |\n", r.Seed, r.Faults, r.Events, r.Doubtful, r.Lost,
			r.Duplicated, r.Inverted, r.Unexpected, r.Median, r.Seconds, r.Duration)
	}
	b.WriteString(pageKinds)
	for _, k := range kinds(true) {
		fmt.Fprintf(&b, "| `%s` | %d | %s |\n", k.name, kindCounts[k.name], k.about)
	}
	notes := map[string]int{}
	for _, r := range all.Runs {
		for _, n := range r.Notes {
			notes[n]++
		}
	}
	if len(notes) > 0 {
		b.WriteString("\nNoted during the runs:\n\n")
		for _, n := range slices.Sorted(maps.Keys(notes)) {
			fmt.Fprintf(&b, "- %s (%d times)\n", n, notes[n])
		}
	}
	b.WriteString(pageEnd)
	return b.String()
}

const pageTop = `# Chaos

Written by the long form of ` + "`integration_test/chaos`" + `; ` + "`chaos.json`" + ` has the same numbers.

%d runs, %d faults in %.0f minutes of load; %d committed events, %d of them by commits whose answer was lost: **%d lost, %d duplicated, %d inverted**.

A run is a pipeline of its own: three nodes of Apache Kafka (three replicas, two in step), a source with a synchronous standby, a reporting
database on a small file system, two processes of each stage, and a proxy between any two of them. Four writers change records of three
tenants in transactions with row locks, savepoints, rollbacks and early transaction ids, whatever happens. Up to four faults, of different
kinds of things, happen at once; then probe events are written, and the time until they are in the reporting tables is the time to recover.

In the end each event is looked for: commits without an answer are looked up in the database, never guessed; every record of the source and the
finance topic is read as a committed reader sees it; dead-letter topics must be empty, nothing may be parked, and the rows and totals of the
reporting tables must equal the source's own.

- *lost*: a committed event that a topic or the tables miss
- *duplicated*: an event more than once on a topic
- *inverted*: an event behind a later one of its record
- *unexpected*: anything else that should not be

| seed | faults | events | in doubt | lost | duplicated | inverted | unexpected | recovered in s (median) | (longest) | load in s |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`

const pageKinds = `
## What was injected

| fault | times | what it is |
| --- | ---: | --- |
`

const pageEnd = `
## What it has found

- A ` + "`leat topics apply`" + ` on three brokers ended with ` + "`UNKNOWN_TOPIC_OR_PARTITION`" + ` now and then: one of them had not heard yet of a topic that another one had
  listed. It is asked again now (` + "`TestApply_WaitsForABrokerThatHasNotHeardOfATopic`" + `).
- A normalize that was stopped past its session (` + "`normalize_freeze_long`" + `) woke up waiting for itself, and held its partitions and an open transaction
  until Kafka timed that out: 27 to 52 seconds to recover, in seeds 1, 3, 8, 9, 12, 16 and 17. All seeds but 10 ran before that was corrected
  (` + "`TestRunner_ThrownOutOfItsGroupInABatchComesBack`" + `). Nothing was lost by it. The same step of
  seed 3 took 41.1 seconds before and 10.6 after.
- Not explained: once, after such a stop, a goroutine dump showed a normalize that waited for the client to flush records while the client had no
  request under way. The watchdog ends that after twice the transaction timeout; it was seen before the correction only, and not again.

The first try at seed 10 ended at its fifth step by a mistake of the test (it gave up on a source that another fault had just stopped), and was made anew.

The runs shared two cores with each other, two at a time, and with builds and other tests, at a load average of 20 to 50: times to recover are upper bounds.

## Repeat it

` + "```sh" + `
go test ./integration_test/chaos -run '^TestChaos$' -chaos.long -chaos.seed 7 -chaos.faults 27 -timeout 1h -v
` + "```" + `

The same seed and number of faults give the same faults, in the same order, on the same targets, with the same durations and pauses. What does not
repeat is where the pipeline stands at such a moment: that is up to the machine. Disks can be filled only by root; elsewhere that
fault is replaced by another one, and the run says so.

## Not covered

- **A fail-over to an asynchronous standby.** It loses commits that the source had acknowledged, in the source itself. Leat notices if it had
  delivered one of them, refuses to guess, and waits for ` + "`leat relay adopt`" + `; ` + "`TestRestoredSource_IsRefused`" + ` proves that. So the standby here is synchronous, and a
  fail-over begins only when it has caught up: statements that are cancelled while they wait for it (` + "`statement_timeout`" + `, a crash) become visible
  on the primary before the standby has them.
- **A fail-over of the target**, two brokers down at once, a disk of the source or of Kafka that is full, power cuts (what the kernel
  has not written yet).
- **Clocks of Kafka and PostgreSQL.** Only those of Leat's processes jump, running, by a package ` + "`time`" + ` that is built for it.
- **Lost packets** below TCP: they are stalls here, as what TCP makes of them.
- **The control database**: these pipelines have none.
`
