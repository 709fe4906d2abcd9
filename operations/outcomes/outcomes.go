// Package outcomes keeps what became of records as a business sees it: how many of which tenant and entity were normalized, published,
// unchanged, or refused and why, by the hour.
//
// It counts what transactions of the stages have committed, in memory, and writes it to the control database every few seconds; one
// line of the log for each tenant says the same. It is no proof: a process that is killed loses what it has counted since
// the last write, and a write whose answer is lost may be made twice. The truth is on the topics.
package outcomes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/processors"
)

// Config describes a Counter.
type Config struct {
	Logger *slog.Logger  // default: discards
	Every  time.Duration // between two writes; default 10 s
}

// Others is in the place of the tenants that are too many to be counted one by one between two writes: whoever writes to a topic makes tenants
// up, and neither memory nor log may grow with them.
const Others = "(others)"

const maxKeys = 20_000

// Counter counts the outcomes of the stages of one process.
type Counter struct {
	cfg Config

	mu     sync.Mutex
	counts map[key]int64

	dropped time.Time // when old rows were removed last
	failing bool
}

type key struct{ tenant, stage, entity, outcome, detail string }

func (k key) String() string {
	return strings.TrimSpace(k.entity + " " + k.outcome + " " + k.detail)
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.tenant, o.tenant), cmp.Compare(k.stage, o.stage), cmp.Compare(k.entity, o.entity),
		cmp.Compare(k.outcome, o.outcome), cmp.Compare(k.detail, o.detail))
}

// New makes a Counter. Run writes what it counts.
func New(c Config) *Counter {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Every = cmp.Or(c.Every, 10*time.Second)
	return &Counter{cfg: c, counts: map[key]int64{}}
}

// Observe returns what a stage's processors.Config.Observe is to be. It does not block.
func (c *Counter) Observe(stage string) func([]processors.Outcome) {
	return func(list []processors.Outcome) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, o := range list {
			k := key{o.Tenant, stage, o.Entity, o.Outcome, o.Detail}
			if _, known := c.counts[k]; !known && len(c.counts) >= maxKeys {
				k.tenant = Others
			}
			c.counts[k] += o.Count
		}
	}
}

// Run writes to the control database until ctx ends, and what is left then; it returns nil. Without a database outcomes are logged only.
func (c *Counter) Run(ctx context.Context, db *pgxpool.Pool) error {
	tick := time.NewTicker(c.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.flush(ctx, db)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			c.flush(last, db)
			return nil
		}
	}
}

// flush writes and logs what was counted. What cannot be written is kept for the next time: keys are few, and counts do not grow
// in size.
func (c *Counter) flush(ctx context.Context, db *pgxpool.Pool) {
	c.mu.Lock()
	counts := c.counts
	c.counts = map[key]int64{}
	c.mu.Unlock()
	if len(counts) == 0 {
		return
	}
	if err := c.write(ctx, db, counts); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		for k, n := range counts {
			c.counts[k] += n
		}
		if !c.failing {
			c.cfg.Logger.WarnContext(ctx, "writing business outcomes; they are kept until it succeeds", "error", err)
		}
		c.failing = true
		return
	}
	c.failing = false
	c.log(ctx, counts)
}

// log writes a line for each tenant and stage.
func (c *Counter) log(ctx context.Context, counts map[key]int64) {
	type line struct{ tenant, stage string }
	lines := map[line][]any{}
	var order []line
	for _, k := range slices.SortedFunc(maps.Keys(counts), key.compare) {
		l := line{k.tenant, k.stage}
		if lines[l] == nil {
			order = append(order, l)
		}
		lines[l] = append(lines[l], slog.Int64(k.String(), counts[k]))
	}
	for _, l := range order {
		c.cfg.Logger.InfoContext(ctx, "business outcome", "tenant", l.tenant, "stage", l.stage, slog.Group("records", lines[l]...))
	}
}

const (
	// The rows come in one order, so that two processes that write the same ones wait and do not deadlock.
	addOutcomes = `insert into leat_control.outcomes as o (hour, tenant, stage, entity, outcome, detail, count)
select date_trunc('hour', now()), c.* from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
  as c (tenant, stage, entity, outcome, detail, count)
on conflict (hour, tenant, stage, entity, outcome, detail) do update set count = o.count + excluded.count`

	dropOutcomes = `delete from leat_control.outcomes where hour < now() - interval '400 days'`
)

func (c *Counter) write(ctx context.Context, db *pgxpool.Pool, counts map[key]int64) error {
	if db == nil {
		return nil
	}
	var cols [5][]string
	var ns []int64
	for _, k := range slices.SortedFunc(maps.Keys(counts), key.compare) {
		for i, text := range []string{k.tenant, k.stage, k.entity, k.outcome, k.detail} {
			cols[i] = append(cols[i], strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD"))
		}
		ns = append(ns, counts[k])
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := db.Exec(ctx, addOutcomes, cols[0], cols[1], cols[2], cols[3], cols[4], ns); err != nil {
		return err
	}
	if time.Since(c.dropped) > time.Hour {
		c.dropped = time.Now()
		if _, err := db.Exec(ctx, dropOutcomes); err != nil {
			c.cfg.Logger.WarnContext(ctx, "removing old business outcomes", "error", err)
		}
	}
	return nil
}

// Row is how many records came to one outcome.
type Row struct {
	Tenant  string    `json:"tenant"`
	Stage   string    `json:"stage"`
	Entity  string    `json:"entity"`
	Outcome string    `json:"outcome"`
	Detail  string    `json:"detail,omitempty"`
	Count   int64     `json:"count"`
	Last    time.Time `json:"last_hour"` // the last hour that has any
}

// Filter selects outcomes. Its zero value selects those of the last 24 hours.
type Filter struct {
	Tenant  string
	Stage   string
	Outcome string
	Since   time.Time // whole hours
	Until   time.Time
}

// Queryer is a pgx.Tx, a pgx.Conn or a pgxpool.Pool.
type Queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

const selectOutcomes = `select tenant, stage, entity, outcome, detail, sum(count)::bigint, max(hour) from leat_control.outcomes
where hour >= date_trunc('hour', $1::timestamptz) and ($2::timestamptz is null or hour < $2)
  and ($3 = '' or tenant = $3) and ($4 = '' or stage = $4) and ($5 = '' or outcome = $5)
group by tenant, stage, entity, outcome, detail order by tenant, stage, entity, sum(count) desc, outcome, detail`

// List sums up the outcomes that f selects, by tenant, stage and entity, most first.
func List(ctx context.Context, db Queryer, f Filter) ([]Row, error) {
	if f.Since.IsZero() {
		f.Since = time.Now().Add(-24 * time.Hour)
	}
	var until *time.Time
	if !f.Until.IsZero() {
		until = &f.Until
		if !f.Until.After(f.Since) {
			return nil, errors.New("the end is not after the beginning")
		}
	}
	rows, err := db.Query(ctx, selectOutcomes, f.Since, until, f.Tenant, f.Stage, f.Outcome)
	if err != nil {
		return nil, fmt.Errorf("reading business outcomes: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Row])
	if err != nil {
		return nil, fmt.Errorf("reading business outcomes: %w", err)
	}
	return list, nil
}
