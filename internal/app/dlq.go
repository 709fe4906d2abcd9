package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/processors/normalize"
	"github.com/leat-io/leat/processors/publish/reporting"
)

// withOffice calls do with the office of dead letters.
func (a *App) withOffice(ctx context.Context, do func(*deadletters.Office) error) error {
	if err := a.cfg.Require(config.NeedKafka, config.NeedControl); err != nil {
		return err
	}
	kafka, err := a.KafkaOptions()
	if err != nil {
		return err
	}
	db, err := a.controlDB(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	trial := &trials{a: a}
	defer trial.close()
	return do(&deadletters.Office{
		DB: db, Kafka: kafka, Stage: trial.stage, MaxReplays: a.cfg.Redrive.MaxReplays, AllowEdit: a.cfg.Redrive.AllowEdit,
		Hide: a.hider.Told,
	})
}

// withOperator is withOffice for what a person decides.
func (a *App) withOperator(ctx context.Context, reason string, do func(*deadletters.Office, audit.Operator) error) error {
	op, err := a.operator(reason)
	if err != nil {
		return err
	}
	return a.withOffice(ctx, func(o *deadletters.Office) error { return do(o, op) })
}

// trials are the stages as a dry run tries them: the handlers of this configuration, without effects.
type trials struct {
	a         *App
	db        *pgxpool.Pool
	reporting deadletters.Stage
}

func (t *trials) close() {
	if t.db != nil {
		t.db.Close()
	}
}

func (t *trials) stage(ctx context.Context, group string) (deadletters.Stage, error) {
	cfg := t.a.cfg
	switch group {
	case cfg.Normalize.Group:
		set, err := t.a.mappingSet()
		if err != nil {
			return deadletters.Stage{}, err
		}
		s := deadletters.Stage{Handler: normalize.New(set)}
		if !cfg.Publish.Reporting.URL.Empty() { // then it can also be said what its outputs would change
			next, err := t.publish(ctx)
			if err != nil {
				return deadletters.Stage{}, err
			}
			s.Next = next.Handler
		}
		return s, nil
	case cfg.Publish.Group:
		return t.publish(ctx)
	}
	return deadletters.Stage{}, fmt.Errorf("this configuration has no such group; it has %s and %s", cfg.Normalize.Group, cfg.Publish.Group)
}

// publish is the publisher whose transactions are all rolled back.
func (t *trials) publish(ctx context.Context) (deadletters.Stage, error) {
	if t.db != nil {
		return t.reporting, nil
	}
	db, err := t.a.reportingDB(ctx)
	if err != nil {
		return deadletters.Stage{}, err
	}
	t.db = db
	h, err := reporting.New(db, reporting.Config{Publication: t.a.cfg.Publish.Reporting.Publication, DryRun: true})
	t.reporting = deadletters.Stage{Handler: h}
	return t.reporting, err
}

// DLQList is what was selected of the dead letters.
type DLQList struct{ deadletters.List }

// DLQList lists dead letters, newest first.
func (a *App) DLQList(ctx context.Context, s deadletters.Selection, limit int) (l DLQList, err error) {
	db, err := a.controlDB(ctx)
	if err != nil {
		return l, err
	}
	defer db.Close()
	l.List, err = (&deadletters.Office{DB: db}).List(ctx, s, limit)
	return l, err
}

// DLQDetails is everything that is known of a dead letter.
type DLQDetails struct{ deadletters.Details }

// DLQShow shows one dead letter: by its id, or by the id of its event if that has only one.
func (a *App) DLQShow(ctx context.Context, which string, payload bool) (d DLQDetails, err error) {
	err = a.withOffice(ctx, func(o *deadletters.Office) error {
		id, err := o.Find(ctx, which)
		if err == nil {
			d.Details, err = o.Show(ctx, id, payload)
		}
		return err
	})
	return d, err
}

// DLQExported says what was exported.
type DLQExported struct{ deadletters.Export }

// DLQExport writes dead letters to a new file.
func (a *App) DLQExport(ctx context.Context, reason string, s deadletters.Selection, file string, progress func(deadletters.Progress)) (e DLQExported, err error) {
	err = a.withOperator(ctx, reason, func(o *deadletters.Office, op audit.Operator) error {
		o.Progress = progress
		// Payloads of finance: for nobody else to read. An earlier export is never written over.
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%s exists: an export does not write over a file; name another one", file)
		}
		if err != nil {
			return fmt.Errorf("creating the export: %w", err)
		}
		e.Export, err = o.Export(ctx, op, s, f)
		e.File = file
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return errors.Join(err, os.Remove(file))
		}
		return nil
	})
	return e, err
}

// WriteText says what was written, and what was not.
func (e DLQExported) WriteText(w io.Writer) error {
	p := &printer{w: w}
	p.line("%d dead letters written to %s", e.Letters, e.File)
	for i, id := range e.Missing {
		if i == 10 {
			p.line("  and %d others", len(e.Missing)-i)
			break
		}
		p.line("  not %s: its topic no longer has the record", id)
	}
	return p.err
}

// DLQDecided says what a decision did.
type DLQDecided struct{ deadletters.Decided }

// DLQAssign gives dead letters an owner or a note.
func (a *App) DLQAssign(ctx context.Context, reason string, s deadletters.Selection, as deadletters.Assignment) (d DLQDecided, err error) {
	err = a.withOperator(ctx, reason, func(o *deadletters.Office, op audit.Operator) (err error) {
		d.Decided, err = o.Assign(ctx, op, s, deadletters.Assignment{Owner: a.told(as.Owner), Note: a.told(as.Note)})
		return err
	})
	return d, err
}

// DLQDiscard puts open dead letters aside, or takes discarded ones out again.
func (a *App) DLQDiscard(ctx context.Context, reason string, s deadletters.Selection, undo bool) (d DLQDecided, err error) {
	err = a.withOperator(ctx, reason, func(o *deadletters.Office, op audit.Operator) (err error) {
		if undo {
			d.Decided, err = o.Restore(ctx, op, s)
		} else {
			d.Decided, err = o.Discard(ctx, op, s)
		}
		return err
	})
	return d, err
}

// WriteText prints one line.
func (d DLQDecided) WriteText(w io.Writer) error {
	p := &printer{w: w}
	done := map[string]string{
		"assign": "assigned", "discard": "discarded; their records stay on the topics", "restore": "open again",
	}[d.Action]
	p.line("%d dead letters are %s", d.Letters, done)
	if d.Left > 0 {
		p.line("%d others were selected, but are in another state: left alone", d.Left)
	}
	return p.err
}

// DLQReindex has the index of dead letters made anew.
func (a *App) DLQReindex(ctx context.Context, reason string) (IndexRebuilt, error) {
	return a.IndexRebuild(ctx, reason, deadletters.NewProjection(nil).Name())
}
