package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/leat-io/leat/processors"
)

// Orders are what holds for one stage of a process.
type Orders struct {
	processors.Orders
	Sources map[string]string // sources that the relay leaves alone, and why
}

// Member is one stage of this process, as the Agent deals with it.
type Member struct {
	Stage    string
	Group    string
	Instance string
	Sources  []string // that it may relay
	Targets  []string // that it writes to

	Obey   func(Orders) // called when orders are known first, and when they change; nil: it takes none
	Ready  func() error // why nothing can flow; nil: it has no opinion
	Status func() any   // becomes JSON; nil: nothing to tell

	// Settle is processors.Runner's; nil: it parks nothing.
	Settle func(context.Context, processors.ParkedOrder) (processors.Settled, error)
}

// AgentConfig describes an Agent.
type AgentConfig struct {
	DB      DB
	Members []Member
	Version string       // of the program
	Logger  *slog.Logger // default: discards

	Hide func(string) string // takes secrets out of what is written down; default: leaves it as it is
}

// Agent brings orders to the stages of this process, and word of them to the operators.
//
// Stages that await their orders take up no work before the Agent has read the control database for the first time, so that a
// pause survives a restart of everything. Once they run, the loss of the control database stops nobody: the last orders hold, those with an
// end end in time, and a warning is logged once.
type Agent struct {
	AgentConfig
	started time.Time

	mu      sync.Mutex
	known   bool  // orders were read at least once
	problem error // why they cannot be read now
	now     view
	paused  []string // of each member: what it obeys
}

// NewAgent makes an Agent. It opens no connection.
func NewAgent(c AgentConfig) *Agent {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Hide == nil {
		c.Hide = func(s string) string { return s }
	}
	return &Agent{AgentConfig: c, started: time.Now(), problem: errors.New("not asked yet"), paused: make([]string, len(c.Members))}
}

const (
	readEvery = time.Second
	beatEvery = 2 * time.Second
	askLimit  = 5 * time.Second // for an answer of the database
)

// Run works until ctx has ended, and returns nil.
func (a *Agent) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { every(ctx, readEvery, a.read) })
	loops.Go(func() { every(ctx, beatEvery, a.beat) })
	loops.Go(func() { every(ctx, readEvery, a.settle) })
	loops.Wait()
	a.sayGoodbye(context.WithoutCancel(ctx))
	return nil
}

func every(ctx context.Context, d time.Duration, f func(context.Context)) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for ctx.Err() == nil {
		f(ctx)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// Ready returns an error as long as orders were never known. Later the work goes on without the control database.
func (a *Agent) Ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known {
		return nil
	}
	return fmt.Errorf("no work is taken up before the control database has been asked for pauses: %w", a.problem)
}

// read asks for orders and hands them to the members. If they cannot be read, the last ones hold.
func (a *Agent) read(ctx context.Context) {
	askCtx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	v, err := readView(askCtx, a.DB)
	if ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil && (a.problem == nil || !a.known && a.problem.Error() != err.Error()):
		a.Logger.Warn("the control database does not answer; the last orders hold", "orders_known", a.known, "error", err)
	case err == nil && a.problem != nil && a.known:
		a.Logger.Info("the control database answers again")
	}
	if a.problem = err; err == nil {
		a.now, a.known = v, true
	}
	if !a.known {
		return
	}
	for i, m := range a.Members {
		if m.Obey == nil {
			continue
		}
		o := a.now.orders(&m, time.Now())
		a.paused[i] = describe(o)
		m.Obey(o)
	}
}

// beat writes a row for each member.
func (a *Agent) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	a.mu.Lock()
	paused := append([]string(nil), a.paused...)
	a.mu.Unlock()
	for i, m := range a.Members {
		var problem string
		if m.Ready != nil {
			if err := m.Ready(); err != nil {
				problem = a.Hide(err.Error())
			}
		}
		status := []byte("{}")
		if m.Status != nil {
			text, err := json.Marshal(m.Status())
			if err != nil {
				a.Logger.Error("making JSON of a status", "stage", m.Stage, "error", err)
				continue
			}
			status = []byte(a.Hide(string(text)))
		}
		_, err := a.DB.Exec(ctx, upsertProcess, m.Stage, m.Instance, m.Group, a.Version, notNull(m.Sources), notNull(m.Targets), a.started,
			problem == "", problem, paused[i], status)
		if err != nil {
			return // the reader warns of it
		}
	}
	_, _ = a.DB.Exec(ctx, forgetDead) // as above
}

func notNull(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func (a *Agent) sayGoodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, m := range a.Members {
		if _, err := a.DB.Exec(ctx, deleteProcess, m.Stage, m.Group, m.Instance, a.started); err != nil {
			a.Logger.Debug("taking the heartbeat away", "stage", m.Stage, "error", err)
			return
		}
	}
}
