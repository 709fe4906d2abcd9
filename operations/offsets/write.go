package offsets

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/operations/audit"
)

// Session locks: the lock is gone with the process that holds it, and a change may take longer than a transaction should.
const (
	lockSQL   = `select pg_try_advisory_lock(hashtextextended('leat offsets ' || $1, 0))`
	unlockSQL = `select pg_advisory_unlock(hashtextextended('leat offsets ' || $1, 0))`
)

// lock makes this the only change of a group's offsets through Leat, for as long as the connection that it returns lives.
func (o *Offsets) lock(ctx context.Context, group string) (conn *pgxpool.Conn, unlock func(), err error) {
	if conn, err = o.cfg.DB.Acquire(ctx); err != nil {
		return nil, nil, fmt.Errorf("connecting to the control database: %w", err)
	}
	var got bool
	if err := conn.QueryRow(ctx, lockSQL, group).Scan(&got); err != nil {
		conn.Release()
		return nil, nil, fmt.Errorf("locking the offsets of group %s: %w", group, err)
	}
	if !got {
		conn.Release()
		return nil, nil, refuse("another change of the offsets of group " + group + " is under way")
	}
	return conn, func() {
		if _, err := conn.Exec(context.WithoutCancel(ctx), unlockSQL, group); err != nil {
			_ = conn.Conn().Close(context.WithoutCancel(ctx)) // which gives up the lock as well
		}
		conn.Release()
	}, nil
}

// record writes an entry of the audit log about the change.
func (c *change) record(ctx context.Context, outcome string, problem error) error {
	return audit.Record(ctx, c.o.cfg.DB, c.entry(outcome, problem))
}

func (c *change) entry(outcome string, problem error) audit.Entry {
	after := map[string]any{
		"outcome": outcome, "plan": c.plan.ID, "hash": c.plan.Hash, "target": c.plan.Target, "drain": c.opt.Drain, "parked": c.plan.Parked,
	}
	if problem != nil {
		after["problem"] = c.o.cfg.Hide(problem.Error())
	}
	if outcome != "started" {
		after["partitions"], after["cancelled"] = c.report.Partitions, c.report.Cancelled
	}
	return audit.Entry{
		Actor: c.op.Name, Action: c.action, Object: "group " + c.plan.Group, Reason: c.op.Reason, Before: c.before, After: after,
	}
}

// Written before the first offset: should the process die, the plan does not look as if nothing had happened.
const beganSQL = `update leat_control.plans set state = 'failed', problem = $2, before = coalesce(before, $3) where id = $1`

const failedSQL = `update leat_control.plans set problem = $2 where id = $1`

const undecidedSQL = `update leat_control.plans set state = $2, problem = '', before = $3 where id = $1`

const appliedSQL = `update leat_control.plans set state = 'applied', problem = '', applied_by = $2, applied_at = now(), before = $3, after = $4,
  cancelled = $5 where id = $1`

const undoneSQL = `update leat_control.plans set state = 'undone', problem = '', undone_by = $2, undone_at = now() where id = $1`

// write commits the offsets, reads them back, and says in the database what became of the plan.
func (c *change) write(ctx context.Context) error {
	was := c.plan.State
	began := c.action + " began to write and was cut off"
	// Over the connection that has the lock: if it broke on the way, somebody else may be at work, and nothing must be written.
	if _, err := c.locked.Exec(ctx, beganSQL, c.plan.ID, began, c.before); err != nil {
		return fmt.Errorf("marking plan %s, before anything is written: %w", c.plan.ID, err)
	}
	// From here on it is finished, whatever becomes of ctx: all that follows is bounded by the client's own timeouts.
	ctx = context.WithoutCancel(ctx)
	problems, err := c.commit(ctx)
	results, wrong, backErr := c.readBack(ctx, problems)
	c.report.Partitions = results
	switch judge(results, wrong, errors.Join(err, backErr)) {
	case asPlanned:
		return c.finish(ctx)
	case nothingWritten: // for instance because a member has just joined
		if _, err := c.o.cfg.DB.Exec(ctx, undecidedSQL, c.plan.ID, was, c.plan.Before); err != nil {
			return fmt.Errorf("marking plan %s: %w", c.plan.ID, err)
		}
		return refuse(fmt.Sprintf("Kafka refused the offsets of group %s, nothing was written:%s", c.plan.Group, describeResults(results)))
	}
	err = errors.Join(err, backErr, fmt.Errorf("%d of %d partitions of group %s do not stand where the plan puts them:%s", wrong, len(results),
		c.plan.Group, describeResults(results)))
	_, markErr := c.o.cfg.DB.Exec(ctx, failedSQL, c.plan.ID, c.o.cfg.Hide(err.Error()))
	return errors.Join(err, markErr)
}

// verdict is what became of a write.
type verdict byte

const (
	asPlanned verdict = iota
	nothingWritten
	halfWritten // or it is not known
)

// judge says what became of a write. err says that an answer is missing.
func judge(results []Result, wrong int, err error) verdict {
	switch {
	case err == nil && wrong == 0:
		return asPlanned
	case err == nil && !slices.ContainsFunc(results, func(r Result) bool { return !r.refused || !sameOffset(r.Before, r.After) }):
		return nothingWritten
	}
	return halfWritten
}

// commit writes all offsets in one request, of a member of no generation, which Kafka takes of an empty group only. Partitions that
// are to have no commit have it deleted.
func (c *change) commit(ctx context.Context) (problems map[tp]error, err error) {
	problems = map[tp]error{}
	commits, deletes := kadm.Offsets{}, kadm.TopicsSet{}
	for _, w := range c.want {
		if w.Commit == nil {
			deletes.Add(w.Topic, w.Partition)
			continue
		}
		commits.Add(kadm.Offset{
			Topic: w.Topic, Partition: w.Partition, At: w.Commit.Offset, LeaderEpoch: w.Commit.LeaderEpoch, Metadata: w.Commit.Metadata,
		})
	}
	if len(commits) > 0 {
		responses, err := c.o.adm.CommitOffsets(ctx, c.plan.Group, commits)
		if err != nil {
			return problems, fmt.Errorf("committing the offsets of group %s: %w", c.plan.Group, err)
		}
		responses.EachError(func(r kadm.OffsetResponse) { problems[tp{r.Topic, r.Partition}] = r.Err })
	}
	if len(problems) > 0 {
		notDeleted(c.want, problems)
		return problems, nil
	}
	if len(deletes) > 0 {
		responses, err := c.o.adm.DeleteOffsets(ctx, c.plan.Group, deletes)
		if err != nil {
			return problems, fmt.Errorf("deleting offsets of group %s: %w", c.plan.Group, err)
		}
		responses.EachError(func(t string, p int32, err error) { problems[tp{t, p}] = err })
	}
	return problems, nil
}

// notDeleted adds the commits that were not deleted because others were refused.
func notDeleted(want []Position, problems map[tp]error) {
	for _, w := range want {
		if w.Commit == nil {
			problems[tp{w.Topic, w.Partition}] = errors.New("its commit was not deleted, because another offset was refused")
		}
	}
}

// readBack compares what Kafka shows with what was to be written.
func (c *change) readBack(ctx context.Context, problems map[tp]error) (results []Result, wrong int, err error) {
	commits, err := c.o.committed(ctx, c.plan.Group, true)
	if err != nil {
		return nil, len(c.want), fmt.Errorf("reading back: %w", err)
	}
	results, wrong = compare(c.want, c.before, commits, problems)
	return results, wrong, nil
}

// compare says how many partitions do not stand where they are wanted.
func compare(want, before []Position, commits kadm.OffsetResponses, problems map[tp]error) (results []Result, wrong int) {
	for i, w := range want {
		r := Result{Topic: w.Topic, Partition: w.Partition, Before: before[i].Commit, After: commitOf(commits, w.Topic, w.Partition)}
		if problem := problems[tp{w.Topic, w.Partition}]; problem != nil {
			r.Problem, r.refused = problem.Error(), true
		} else if !sameOffset(r.After, w.Commit) {
			r.Problem = fmt.Sprintf("Kafka took offset %s and shows another", w.Commit)
		}
		if r.Problem != "" {
			wrong++
		}
		results = append(results, r)
	}
	return results, wrong
}

// finish takes the cancelled records off the retry topics and writes the plan's new state with its entry of the audit log.
//
// The offsets come first: should the process die in between, the parked records are read again and keep their place. The other way
// round they would be neither parked nor read.
func (c *change) finish(ctx context.Context) error {
	if c.plan.Parked == ParkedCancel && c.action == actionApply {
		n, err := c.o.cancel(ctx, c.plan)
		switch c.report.Cancelled = n; {
		case err != nil && n > 0:
			c.report.Notes = append(c.report.Notes, "it is not known whether the parked records were cancelled: "+err.Error())
		case err != nil:
			c.report.Notes = append(c.report.Notes, "the parked records were kept, not cancelled: "+err.Error())
		}
	}
	after := make([]Position, len(c.report.Partitions))
	for i, r := range c.report.Partitions {
		after[i] = Position{r.Topic, r.Partition, r.After}
	}
	err := pgx.BeginFunc(ctx, c.o.cfg.DB, func(tx pgx.Tx) (err error) {
		if c.action == actionUndo {
			_, err = tx.Exec(ctx, undoneSQL, c.plan.ID, c.op.Name)
		} else {
			_, err = tx.Exec(ctx, appliedSQL, c.plan.ID, c.op.Name, c.before, after, c.report.Cancelled)
		}
		if err != nil {
			return fmt.Errorf("marking plan %s: %w", c.plan.ID, err)
		}
		return audit.Record(ctx, tx, c.entry("finished", nil))
	})
	if err != nil {
		return fmt.Errorf("the offsets are written, but: %w", err)
	}
	p, err := c.o.Get(ctx, c.plan.ID)
	if err != nil {
		return err
	}
	c.report.Plan = p
	return nil
}
