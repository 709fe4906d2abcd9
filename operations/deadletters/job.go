package deadletters

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/operations/audit"
)

// Request asks for a redrive.
type Request struct {
	Selection Selection
	Rate      int   // records a second; default 1000
	Max       int   // of records; 0: all that are selected
	Force     bool  // also those that were redriven too often; an edited one that would fail; on, when most fails again
	Edit      *Edit // changes the one letter that is selected; optional
}

// Job is a redrive, and how far it has come. Letters are counted by what has become of them.
type Job struct {
	ID         string     `json:"id"`
	At         time.Time  `json:"at"`
	Actor      string     `json:"actor"`
	Reason     string     `json:"reason"`
	Selection  Selection  `json:"selection"`
	State      string     `json:"state"`             // running (also if its process was killed), stopped, done, cancelled
	Problem    string     `json:"problem,omitempty"` // why it stopped
	Rate       int        `json:"rate"`
	Records    int64      `json:"records"` // to be moved; letters of one original record share one
	Letters    int64      `json:"letters"`
	Waiting    int64      `json:"waiting"`  // not moved yet
	Moved      int64      `json:"moved"`    // handed to their groups, whatever became of them then
	Resolved   int64      `json:"resolved"` // of those moved: their group has handled them
	Failed     int64      `json:"failed"`   // of those moved: they failed again
	Refused    int64      `json:"refused"`  // could not be moved, and are open again
	Released   int64      `json:"released"` // given back, open again, by a cancel
	FinishedAt *time.Time `json:"finished_at,omitempty"`

	NotRedriven []Refusal `json:"not_redriven,omitempty"` // of a new job: selected, but not part of it

	cursorFrom int64
}

const selectJobs = `select r.id::text, r.at, r.actor, r.reason, r.selection, r.state, r.problem, r.rate, r.records, r.finished_at, r.cursor_from,
	count(i.job), count(i.job) filter (where i.state = 'claimed'), count(i.job) filter (where i.state in ('moved', 'settled')),
	count(i.job) filter (where d.state = 'resolved' and d.job = r.id), count(i.job) filter (where d.state = 'failed_again' and d.job = r.id),
	count(i.job) filter (where i.state = 'refused'), count(i.job) filter (where i.state = 'released')
  from (select * from leat_control.redrives where $1 = '' or id::text = $1 order by at desc limit $2) r
  left join leat_control.redrive_items i on i.job = r.id
  left join leat_control.dead_letters d on d.topic = i.topic and d.partition = i.partition and d."offset" = i."offset" and d.at = i.at
 group by r.id, r.at, r.actor, r.reason, r.selection, r.state, r.problem, r.rate, r.records, r.finished_at, r.cursor_from
 order by r.at desc`

// Jobs returns the newest redrives, at most limit (default 20).
func (o *Office) Jobs(ctx context.Context, limit int) ([]Job, error) {
	return o.jobs(ctx, "", cmp.Or(limit, 20))
}

// Job returns one redrive.
func (o *Office) Job(ctx context.Context, id string) (Job, error) {
	jobs, err := o.jobs(ctx, id, 1)
	if err == nil && len(jobs) == 0 {
		err = fmt.Errorf("there is no redrive %.80q: `leat dlq jobs` lists them", id)
	}
	if err != nil {
		return Job{}, err
	}
	return jobs[0], nil
}

func (o *Office) jobs(ctx context.Context, id string, limit int) ([]Job, error) {
	rows, err := o.DB.Query(ctx, selectJobs, id, limit)
	if err != nil {
		return nil, fmt.Errorf("reading redrives: %w", err)
	}
	jobs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (j Job, err error) {
		var selection []byte
		err = row.Scan(&j.ID, &j.At, &j.Actor, &j.Reason, &selection, &j.State, &j.Problem, &j.Rate, &j.Records, &j.FinishedAt, &j.cursorFrom,
			&j.Letters, &j.Waiting, &j.Moved, &j.Resolved, &j.Failed, &j.Refused, &j.Released)
		if err == nil {
			err = json.Unmarshal(selection, &j.Selection)
		}
		return j, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading redrives: %w", err)
	}
	return jobs, nil
}

const (
	insertJob = `insert into leat_control.redrives (id, actor, reason, selection, state, rate, records, cursor_from)
values ($1, $2, $3, $4, 'running', $5, 0, $6)`

	// The lock keeps everybody else from deciding about a letter while it is claimed; whoever waited for it then finds it no longer
	// open. All of one original record have one seq.
	claimHead = `with picked as materialized (
	select d.topic, d.partition, d."offset", d.at, d.bytes, g.retry_topic, d.original_partition, d.original_offset`
	claimTail = ` order by d.topic, d.partition, d."offset" for update of d),
numbered as (select *, dense_rank() over (order by retry_topic, original_partition, original_offset) as seq from picked)
insert into leat_control.redrive_items (job, seq, topic, partition, "offset", at, bytes, retry_topic, original_partition, original_offset)
select %s, seq, topic, partition, "offset", at, bytes, retry_topic, original_partition, original_offset from numbered
 where %[2]d = 0 or seq <= %[2]d
returning topic, partition, "offset"`

	countJob = `update leat_control.redrives set records = (select count(distinct seq) from leat_control.redrive_items where job = id)
 where id = $1 returning records`
)

// claim makes a job of what can be redriven, in one transaction with its entry in the audit log.
func (o *Office) claim(ctx context.Context, op audit.Operator, r Request, c claimable, cursorFrom int64, edit *edited) (id string, err error) {
	id = uuid.Must(uuid.NewV7()).String()
	selection, err := json.Marshal(r.Selection)
	if err != nil {
		return "", fmt.Errorf("writing down the selection: %w", err)
	}
	err = pgx.BeginFunc(ctx, o.DB, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertJob, id, op.Name, op.Reason, selection, r.Rate, cursorFrom); err != nil {
			return err
		}
		args := append(append([]any{}, c.args...), id)
		tail := fmt.Sprintf(claimTail, fmt.Sprintf("$%d::uuid", len(args)), r.Max)
		letters, err := ids(tx.Query(ctx, claimHead+fromOrigins+c.where+tail, args...))
		if err != nil {
			return err
		}
		if len(letters) == 0 {
			return c.nothing()
		}
		if edit != nil {
			if err := edit.store(ctx, tx, id, letters); err != nil {
				return err
			}
		}
		var records int64
		if err := tx.QueryRow(ctx, countJob, id).Scan(&records); err != nil {
			return err
		}
		if err := refresh(ctx, tx, letters); err != nil {
			return err
		}
		after := map[string]any{"outcome": "started", "letters": len(letters), "records": records, "rate": r.Rate, "force": r.Force}
		if edit != nil {
			after["edit"] = edit.summary()
		}
		return audit.Record(ctx, tx, audit.Entry{
			Actor: op.Name, Reason: op.Reason, Action: "dlq redrive", Object: "redrive " + id, Before: map[string]any{"selection": r.Selection}, After: after,
		})
	})
	if err != nil {
		return "", fmt.Errorf("claiming dead letters: %w", err)
	}
	return id, nil
}

const endJob = `update leat_control.redrives set state = $2, problem = $3, finished_at = case when $2 = 'stopped' then null else now() end where id = $1`

// finish writes down how a run of the job ended.
func (o *Office) finish(ctx context.Context, op audit.Operator, id, state, problem string, change func(pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	err := pgx.BeginFunc(ctx, o.DB, func(tx pgx.Tx) error {
		if change != nil {
			if err := change(tx); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, endJob, id, state, problem); err != nil {
			return err
		}
		var n struct{ Moved, Waiting, Refused, Released int64 }
		err := tx.QueryRow(ctx, `select count(*) filter (where state in ('moved', 'settled')), count(*) filter (where state = 'claimed'),
	count(*) filter (where state = 'refused'), count(*) filter (where state = 'released') from leat_control.redrive_items where job = $1`, id).
			Scan(&n.Moved, &n.Waiting, &n.Refused, &n.Released)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Entry{
			Actor: op.Name, Reason: op.Reason, Action: "dlq redrive", Object: "redrive " + id, After: map[string]any{
				"outcome": state, "problem": problem, "moved": n.Moved, "waiting": n.Waiting, "refused": n.Refused, "released": n.Released,
			},
		})
	})
	if err != nil {
		return fmt.Errorf("writing down the end of redrive %s: %w", id, err)
	}
	return nil
}

// lock keeps a job to one process. The lock is the connection's: it ends with the process, however that ends. The connection is none of
// the pool's: as many jobs at once as the pool has connections would wait for another one for ever.
func (o *Office) lock(ctx context.Context, id string) (unlock func(), err error) {
	conn, err := pgx.ConnectConfig(ctx, o.DB.Config().ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("connecting to the control database: %w", err)
	}
	unlock = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		// Postgres ends a session a moment after its connection is closed: whoever cancels the job next must not meet its lock.
		_, _ = conn.Exec(ctx, "select pg_advisory_unlock_all()")
		_ = conn.Close(ctx)
	}
	const try = `select pg_try_advisory_lock(hashtextextended('leat redrive ' || $1, 0))`
	var mine bool
	if err := conn.QueryRow(ctx, try, id).Scan(&mine); err != nil {
		unlock()
		return nil, fmt.Errorf("locking redrive %s: %w", id, err)
	}
	if !mine {
		unlock()
		return nil, fmt.Errorf("redrive %s is running in another process", id)
	}
	return unlock, nil
}
