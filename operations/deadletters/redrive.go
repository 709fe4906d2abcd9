package deadletters

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/topics"
)

// Validate reports every problem of r.
func (r Request) Validate() error {
	errs := []error{r.Selection.Validate()}
	if r.Rate < 0 || r.Max < 0 {
		errs = append(errs, errors.New("rate and max are numbers from 0"))
	}
	if r.Selection.Empty() {
		errs = append(errs, errors.New("a redrive of every dead letter is refused: select some, or name them"))
	}
	if r.Edit != nil {
		errs = append(errs, r.Edit.validate())
		if len(r.Selection.IDs) != 1 {
			errs = append(errs, errors.New("an edit is of one dead letter: name it"))
		}
	}
	return errors.Join(errs...)
}

// Redrive hands the open letters that are selected back to the groups that gave them up, each to its group's own retry topic, in the
// order of their originals, as records with attempt 0. The group takes them up as it does any parked record: within its key in the
// order of the source, so one whose key has others parked before it waits for those, and later ones wait for it.
//
// Each letter is moved once, whatever is killed, and whoever else redrives at the same time: it is claimed in the database, and how
// far the job has come is part of the Kafka transactions that move. When ctx ends, the transaction under way is finished and the
// job is stopped; so it is when most of what it has moved fails again. Resume goes on with it and Cancel gives the rest up. The returned job is what is known of it in any case but
// when there is none.
func (o *Office) Redrive(ctx context.Context, op audit.Operator, r Request) (Job, error) {
	if err := errors.Join(op.Validate(), r.Validate()); err != nil {
		return Job{}, err
	}
	if r.Rate == 0 {
		r.Rate = 1000
	}
	c, err := o.claimable(ctx, r.Selection, r.Force)
	if err != nil {
		return Job{}, err
	}
	var edit *edited
	if r.Edit != nil {
		if edit, err = o.prepareEdit(ctx, r, c); err != nil {
			return Job{}, err
		}
	}
	from, err := o.cursorEnd(ctx)
	if err != nil {
		return Job{}, err
	}
	id, err := o.claim(ctx, op, r, c, from, edit)
	if err != nil {
		return Job{}, err
	}
	j, err := o.work(ctx, op, id, r.Force)
	j.NotRedriven = c.refusals
	return j, err
}

// Resume goes on with a redrive that was stopped or killed.
func (o *Office) Resume(ctx context.Context, op audit.Operator, id string) (Job, error) {
	if err := op.Validate(); err != nil {
		return Job{}, err
	}
	if err := o.unfinished(ctx, id); err != nil {
		return Job{}, err
	}
	return o.work(ctx, op, id, false)
}

func (o *Office) unfinished(ctx context.Context, id string) error {
	j, err := o.Job(ctx, id)
	if err == nil && (j.State == "done" || j.State == "cancelled") {
		err = fmt.Errorf("redrive %s is %s: nothing of it is left to move", id, j.State)
	}
	return err
}

const startJob = `update leat_control.redrives set state = 'running', problem = '' where id = $1`

// work moves what is left of a job and writes down how that ended.
func (o *Office) work(ctx context.Context, op audit.Operator, id string, force bool) (j Job, err error) {
	err = o.withMover(ctx, id, func(m *mover, j Job) error {
		m.force = force
		if _, err := o.DB.Exec(ctx, startJob, id); err != nil {
			return fmt.Errorf("starting redrive %s: %w", id, err)
		}
		if err := m.run(ctx, j); err != nil {
			return errors.Join(err, o.finish(ctx, op, id, "stopped", o.problem(err), nil))
		}
		if err := o.finish(ctx, op, id, "done", "", nil); err != nil {
			return err
		}
		m.forget(ctx)
		return nil
	})
	j, jobErr := o.Job(context.WithoutCancel(ctx), id)
	if err != nil {
		err = fmt.Errorf("redrive %s stopped, and can be resumed: %w", id, err)
	}
	return j, errors.Join(err, jobErr)
}

func (o *Office) withMover(ctx context.Context, id string, do func(*mover, Job) error) error {
	unlock, err := o.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	j, err := o.Job(ctx, id)
	if err != nil {
		return err
	}
	m, err := o.newMover(ctx, id)
	if err != nil {
		return err
	}
	defer m.client.Close()
	return do(m, j)
}

const releaseItems = `update leat_control.redrive_items set state = 'released', edited_value = null
 where job = $1 and state = 'claimed' returning topic, partition, "offset"`

// Cancel gives up what a redrive has not moved: those letters are open again. What it has moved stays moved.
func (o *Office) Cancel(ctx context.Context, op audit.Operator, id string) (Job, error) {
	if err := op.Validate(); err != nil {
		return Job{}, err
	}
	if err := o.unfinished(ctx, id); err != nil {
		return Job{}, err
	}
	err := o.withMover(ctx, id, func(m *mover, j Job) error {
		moved, err := o.readCursor(ctx, id, j.cursorFrom) // a killed process may have moved more than it wrote down
		if err != nil {
			return err
		}
		if err := m.mark(ctx, moved, nil); err != nil {
			return err
		}
		err = o.finish(ctx, op, id, "cancelled", "", func(tx pgx.Tx) error {
			if err := claimedItems(ctx, tx, id, 1, math.MaxInt64); err != nil {
				return err
			}
			letters, err := ids(tx.Query(ctx, releaseItems, id))
			if err != nil {
				return err
			}
			return refresh(ctx, tx, letters)
		})
		if err == nil {
			m.forget(ctx)
		}
		return err
	})
	if err != nil {
		return Job{}, fmt.Errorf("cancelling redrive %s: %w", id, err)
	}
	return o.Job(ctx, id)
}

// forget takes the cursor of a job that has ended off its topic. It is tidiness: a cursor that stays harms nobody.
func (m *mover) forget(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if m.client.BeginTransaction() != nil {
		return
	}
	end := kgo.TryCommit
	if m.client.ProduceSync(ctx, &kgo.Record{
		Topic: topics.Cursors, Partition: cursorPartition(m.job, topics.CursorPartitions), Key: []byte(cursorKey(m.job)),
	}).FirstErr() != nil {
		end = kgo.TryAbort
	}
	_ = m.client.EndTransaction(ctx, end)
}
