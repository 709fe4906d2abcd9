package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/operations/audit"
)

// Process is what one stage of a running process says of itself.
type Process struct {
	Stage      string          `json:"stage"`
	Instance   string          `json:"instance"`
	Group      string          `json:"group,omitempty"`
	Version    string          `json:"version"`
	Sources    []string        `json:"sources,omitempty"`
	Targets    []string        `json:"targets,omitempty"`
	StartedAt  time.Time       `json:"started_at"`
	SeenAt     time.Time       `json:"seen_at"`
	AgeSeconds float64         `json:"age_seconds"` // of its heartbeat, by the clock of the database
	Ready      bool            `json:"ready"`
	Problem    string          `json:"problem,omitempty"`   // why it is not ready
	PausedBy   string          `json:"paused_by,omitempty"` // the order that it obeys
	Status     json.RawMessage `json:"status"`              // processors.Status of a stage, relay.Process of a relay
}

// Alive is how old the heartbeat of a living process is at most: it writes one every two seconds.
const Alive = 15 * time.Second

// Alive reports whether the process has been heard of lately.
func (p Process) Alive() bool { return p.AgeSeconds < Alive.Seconds() }

const selectProcesses = `select stage, instance, group_name, version, sources, targets, started_at, seen_at,
  extract(epoch from now() - seen_at)::float8, ready, problem, paused_by, status
from leat_control.processes order by stage, group_name, instance`

// Processes returns the processes that were seen, by stage, group and instance: those that run, and for a week those that died
// without a word.
func Processes(ctx context.Context, db audit.Queryer) ([]Process, error) {
	rows, err := db.Query(ctx, selectProcesses)
	if err != nil {
		return nil, fmt.Errorf("reading heartbeats: %w", hint(err))
	}
	ps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Process])
	if err != nil {
		return nil, fmt.Errorf("reading heartbeats: %w", hint(err))
	}
	return ps, nil
}

const (
	upsertProcess = `insert into leat_control.processes
  (stage, instance, group_name, version, sources, targets, started_at, seen_at, ready, problem, paused_by, status)
values ($1, $2, $3, $4, $5, $6, $7, now(), $8, $9, $10, $11)
on conflict (stage, group_name, instance) do update set version = excluded.version, sources = excluded.sources, targets = excluded.targets,
  started_at = excluded.started_at, seen_at = excluded.seen_at, ready = excluded.ready, problem = excluded.problem,
  paused_by = excluded.paused_by, status = excluded.status`
	// A process that ends well takes its row along, unless a new one of the same name has written it since.
	deleteProcess = `delete from leat_control.processes where stage = $1 and group_name = $2 and instance = $3 and started_at = $4`
	forgetDead    = `delete from leat_control.processes where seen_at < now() - interval '7 days'`
)
