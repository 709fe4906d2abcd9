// Package status says in one look what runs, how far everything has come, and what holds it up: processes, sources, consumer groups
// with each partition, open transactions and dead letters.
//
// It only reads, and needs no running process of Leat. What cannot be reached is told as a problem; the rest is shown all the
// same, because a status is asked for when something is broken. It decides nothing and changes nothing.
package status

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/outbox/relay"
	"github.com/leat-io/leat/processors"
)

// Config says where to look. A nil function has nothing to look at.
type Config struct {
	Kafka  []kgo.Opt
	Groups []Reader
	Topics []string // of the installation: where open transactions are looked for

	Sources     func(ctx context.Context) ([]relay.Status, error)
	Processes   func(ctx context.Context) ([]control.Process, error)
	Pauses      func(ctx context.Context) ([]control.Pause, error)
	DeadLetters func(ctx context.Context) ([]DeadLetters, error)
}

// Reader is a consumer group of this installation and what it reads.
type Reader struct {
	Stage  string
	Group  string
	Topics []string
}

// Report is one moment. Counts are exact as of their reading; the parts are read one after the other, not in one instant.
type Report struct {
	At           time.Time         `json:"at"`
	Processes    []control.Process `json:"processes"`
	Pauses       []control.Pause   `json:"pauses"`
	Sources      []relay.Status    `json:"sources"`
	Groups       []Group           `json:"groups"`
	Transactions []Transaction     `json:"transactions"` // open ones that hold readers up
	Problems     []string          `json:"problems"`     // what could not be seen, and what is wrong
}

// Group is one consumer group. Lag is counted up to the last stable offset: what is behind it no reader under read_committed can see.
type Group struct {
	Stage       string                  `json:"stage"`
	Group       string                  `json:"group"`
	State       string                  `json:"state"` // Kafka's: Stable, Empty, PreparingRebalance, …
	Members     int                     `json:"members"`
	Breaker     processors.BreakerState `json:"breaker"`     // the worst of its processes
	Lag         int64                   `json:"lag"`         // in offsets: commit markers count
	LagSeconds  float64                 `json:"lag_seconds"` // age of the oldest record that is not settled
	ParkedKeys  int                     `json:"parked_keys"` // by what the processes say; those of partitions without an owner are not seen
	ParkedSince *time.Time              `json:"parked_since,omitempty"`
	Dead        int64                   `json:"dead_letters"` // open ones
	DeadOldest  *time.Time              `json:"dead_letters_oldest,omitempty"`
	Partitions  []Partition             `json:"partitions"`
}

// Partition is one partition that a group reads.
type Partition struct {
	Topic      string  `json:"topic"`
	Partition  int32   `json:"partition"`
	Owner      string  `json:"owner,omitempty"` // client id and host of the member
	State      string  `json:"state"`           // of the process that owns it: running, folding, full; "no owner"; "owned" if no process tells
	Committed  *int64  `json:"committed"`       // nil: the group has never committed
	LogStart   int64   `json:"log_start"`
	Stable     int64   `json:"last_stable_offset"`
	End        int64   `json:"end"` // high watermark; beyond Stable only while a transaction is open
	Lag        int64   `json:"lag"`
	LagSeconds float64 `json:"lag_seconds"`
	// Margin is how many offsets the log's start may still move before the group loses records; nil without a commit.
	Margin      *int64     `json:"retention_margin"`
	ParkedKeys  int        `json:"parked_keys"`
	ParkedSince *time.Time `json:"parked_since,omitempty"`
}

// DeadLetters are the open dead letters of a group.
type DeadLetters struct {
	Group  string     `json:"group"`
	Open   int64      `json:"open"`
	Oldest *time.Time `json:"oldest"`
}

// Read looks at everything once.
func Read(ctx context.Context, c Config) (*Report, error) {
	cl, err := kgo.NewClient(c.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	defer cl.Close()
	r := &Report{
		At: time.Now().UTC(), Processes: []control.Process{}, Pauses: []control.Pause{}, Sources: []relay.Status{},
		Groups: []Group{}, Transactions: []Transaction{}, Problems: []string{},
	}
	l := &look{c: c, report: r, cl: cl, adm: kadm.NewClient(cl)}
	var wg sync.WaitGroup
	for _, part := range []func(context.Context){l.kafka, l.sources, l.control} {
		wg.Go(func() { part(ctx) })
	}
	wg.Wait()
	l.join()
	slices.Sort(r.Problems)
	return r, nil
}

// look is one reading.
type look struct {
	c    Config
	cl   *kgo.Client
	adm  *kadm.Client
	dead []DeadLetters

	mu     sync.Mutex // guards Problems
	report *Report
}

func (l *look) problem(doing string, err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report.Problems = append(l.report.Problems, doing+": "+err.Error())
}

// timeout bounds each part, so that a server that does not answer costs a few seconds and not the whole status.
const timeout = 10 * time.Second

func (l *look) sources(ctx context.Context) {
	if l.c.Sources == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	found, err := l.c.Sources(ctx)
	l.problem("sources", err)
	l.report.Sources = append(l.report.Sources, found...)
}

func (l *look) control(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	if l.c.Processes != nil {
		var found []control.Process
		found, err = l.c.Processes(ctx)
		l.problem("processes", err)
		l.report.Processes = append(l.report.Processes, found...)
	}
	if l.c.Pauses != nil && err == nil {
		found, err := l.c.Pauses(ctx)
		l.problem("pauses", err)
		l.report.Pauses = append(l.report.Pauses, found...)
	}
	if l.c.DeadLetters != nil && err == nil {
		l.dead, err = l.c.DeadLetters(ctx)
		l.problem("dead letters", err)
	}
}

func (l *look) kafka(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var topicNames []string
	for _, g := range l.c.Groups {
		topicNames = append(topicNames, g.Topics...)
	}
	m, err := l.marks(ctx, append(topicNames, l.c.Topics...))
	if err != nil {
		l.problem("kafka", err)
		return
	}
	for _, g := range l.c.Groups {
		group, err := l.group(ctx, g, m)
		l.problem("group "+g.Group, err)
		l.report.Groups = append(l.report.Groups, group)
	}
	l.problem("kafka", l.ages(ctx))
	open, err := l.transactions(ctx, m)
	l.problem("transactions", err)
	l.report.Transactions = append(l.report.Transactions, open...)
}
