package app

import (
	"context"
	"io"
	"time"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/processors/publish/reporting"
)

// DLQJob is a redrive.
type DLQJob struct{ deadletters.Job }

// DLQRedrive hands dead letters back to the groups that gave them up. The job is what is known of it, also with an error.
func (a *App) DLQRedrive(ctx context.Context, reason string, r deadletters.Request, progress func(deadletters.Progress)) (*DLQJob, error) {
	return a.job(ctx, reason, func(o *deadletters.Office, op audit.Operator) (deadletters.Job, error) {
		o.Progress = progress
		return o.Redrive(ctx, op, r)
	})
}

// DLQResume goes on with a redrive.
func (a *App) DLQResume(ctx context.Context, reason, id string, progress func(deadletters.Progress)) (*DLQJob, error) {
	return a.job(ctx, reason, func(o *deadletters.Office, op audit.Operator) (deadletters.Job, error) {
		o.Progress = progress
		return o.Resume(ctx, op, id)
	})
}

// DLQCancel gives up what a redrive has not moved.
func (a *App) DLQCancel(ctx context.Context, reason, id string) (*DLQJob, error) {
	return a.job(ctx, reason, func(o *deadletters.Office, op audit.Operator) (deadletters.Job, error) { return o.Cancel(ctx, op, id) })
}

// job returns nil if there is no job.
func (a *App) job(ctx context.Context, reason string, do func(*deadletters.Office, audit.Operator) (deadletters.Job, error)) (j *DLQJob, err error) {
	err = a.withOperator(ctx, reason, func(o *deadletters.Office, op audit.Operator) error {
		job, err := do(o, op)
		if job.ID != "" {
			j = &DLQJob{job}
		}
		return err
	})
	return j, err
}

// WriteText prints what became of it, and what comes next.
func (j *DLQJob) WriteText(w io.Writer) error {
	p := &printer{w: w}
	p.line("redrive %s is %s: %d of %d letters moved", j.ID, j.State, j.Moved, j.Letters)
	p.job(&j.Job)
	p.refusals(j.NotRedriven)
	switch {
	case j.State == "stopped" || j.State == "running":
		p.line("go on:    leat dlq redrive --resume %s --reason ...", j.ID)
		p.line("give up:  leat dlq redrive --cancel %s --reason ...", j.ID)
	case j.State == "done" && j.Moved > j.Resolved+j.Failed:
		p.line("what becomes of them: leat dlq jobs %s", j.ID)
	}
	return p.err
}

func (p *printer) job(j *deadletters.Job) {
	if j.Problem != "" {
		p.line("  problem   %s", oneLine(j.Problem, 86))
	}
	if j.Moved > 0 {
		p.line("  moved     %d, of them resolved %d, failed again %d, not handled yet %d", j.Moved, j.Resolved, j.Failed, j.Moved-j.Resolved-j.Failed)
	}
	if n := j.Waiting; n > 0 {
		p.line("  waiting   %d", n)
	}
	if n := j.Refused; n > 0 {
		p.line("  refused   %d: could not be moved, and are open again; leat dlq show tells why", n)
	}
	if n := j.Released; n > 0 {
		p.line("  released  %d: given up, and open again", n)
	}
}

func (p *printer) refusals(refusals []deadletters.Refusal) {
	for _, r := range refusals {
		p.line("not redriven: %d, such as %s", r.Letters, r.Example)
		p.line("  because %s", r.Reason)
		p.line("  remedy: %s", r.Remedy)
	}
}

// DLQJobs are redrives, newest first.
type DLQJobs []deadletters.Job

// DLQJobs lists redrives, or the one that is named.
func (a *App) DLQJobs(ctx context.Context, id string, limit int) (jobs DLQJobs, err error) {
	db, err := a.controlDB(ctx)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	o := &deadletters.Office{DB: db}
	if id == "" {
		return o.Jobs(ctx, limit)
	}
	j, err := o.Job(ctx, id)
	return DLQJobs{j}, err
}

// WriteText prints a paragraph for each job.
func (js DLQJobs) WriteText(w io.Writer) error {
	p := &printer{w: w}
	if len(js) == 0 {
		p.line("no redrives")
	}
	for i := range js {
		j := &js[i]
		p.line("%s  %s  %s  %s", j.ID, j.At.UTC().Format(time.DateTime), j.State, j.Actor)
		p.line("  of        %s", oneLine(j.Selection.String(), 86))
		p.line("  reason    %s", oneLine(j.Reason, 86))
		p.job(j)
	}
	return p.err
}

// DLQDryRun says what a redrive would come to.
type DLQDryRun struct{ deadletters.DryRun }

// DLQDryRun hands dead letters to the handlers of now, without any effect.
func (a *App) DLQDryRun(ctx context.Context, r deadletters.Request, progress func(deadletters.Progress)) (d DLQDryRun, err error) {
	err = a.withOffice(ctx, func(o *deadletters.Office) (err error) {
		o.Progress = progress
		d.DryRun, err = o.DryRun(ctx, r.Selection, r.Force, r.Max)
		return err
	})
	return d, err
}

// WriteText prints outcomes, then failures by cause, then what a redrive would leave.
func (d DLQDryRun) WriteText(w io.Writer) error {
	p := &printer{w: w}
	p.line("dry run, nothing was changed: of %d letters %d would succeed, %d would fail", d.Letters, d.Succeed, d.Fail)
	for _, g := range d.Outcomes {
		p.line("  %7d  %s in group %s", g.Letters, g.Outcome, g.Group)
		for _, t := range g.Then {
			p.line("           then %d %s%s", t.Records, t.Outcome, meaning(t.Outcome))
		}
	}
	for _, f := range d.Failures {
		p.line("  %7d  fail in group %s: %s (%s)  %s", f.Letters, f.Group, f.Code, f.Class, f.Fingerprint)
		p.line("           %s", oneLine(f.Message, 88))
		for _, id := range f.Examples {
			p.line("           %s", id)
		}
	}
	if d.Missing > 0 {
		p.line("  %7d  are no longer on their topics and cannot be redriven", d.Missing)
	}
	p.refusals(d.NotRedriven)
	for _, n := range d.Notes {
		p.line("note: %s", n)
	}
	return p.err
}

// meaning explains the outcomes of a publisher under which a redrive changes nothing.
func meaning(outcome string) string {
	switch outcome {
	case reporting.OutcomeSuperseded:
		return ": a newer version of the record is there already"
	case reporting.OutcomeUnchanged:
		return ": it is there already"
	}
	return ""
}
