package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/operations/offsets"
	"github.com/leat-io/leat/processors/normalize"
	"github.com/leat-io/leat/processors/publish/reporting"
	"github.com/leat-io/leat/topics"
)

// withOffsets calls do with what the verbs on offsets share. progress is told of long work.
func (a *App) withOffsets(ctx context.Context, progress io.Writer, do func(*offsets.Offsets) error) error {
	db, err := a.controlDB(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	groups, done, err := a.offsetGroups(ctx)
	if err != nil {
		return err
	}
	defer done()
	return a.withKafka(func(cl *kgo.Client) error {
		o, err := offsets.New(offsets.Config{
			DB: db, Client: cl, Groups: groups, Drains: drains{db}, Hide: a.hider.Told,
			Progress: func(format string, args ...any) { _, _ = fmt.Fprintf(progress, format+"\n", args...) },
		})
		if err != nil {
			return err
		}
		return do(o)
	})
}

// offsetGroups are the groups of this installation whose offsets matter, with what their records do downstream where that can be known
// here. The relay's group is none of them: it spreads sources over processes and reads nothing.
func (a *App) offsetGroups(ctx context.Context) (groups []offsets.Group, done func(), err error) {
	norm := offsets.Group{Name: a.cfg.Normalize.Group}
	for _, s := range a.cfg.Sources {
		for _, e := range s.Entities {
			norm.Reads = append(norm.Reads, topics.Source(s.Name, e))
		}
	}
	pub := offsets.Group{Name: a.cfg.Publish.Group, Reads: reporting.Inputs()}
	if a.cfg.Publish.Reporting.URL.Empty() {
		norm.Blind = "publish.reporting.url is not in the configuration"
		pub.Blind = norm.Blind
		return []offsets.Group{norm, pub}, func() {}, nil
	}
	db, err := a.reportingDB(ctx)
	if err != nil {
		return nil, nil, err
	}
	target, err := a.foresee(db)
	if err != nil {
		db.Close()
		return nil, nil, err
	}
	pub.Forecast = func() offsets.Forecast { return offsets.Direct(target()) }
	if set, err := a.mappingSet(); err != nil {
		norm.Blind = fmt.Sprintf("the mappings cannot be read here: %v", err)
	} else {
		norm.Reads = set.Inputs()
		norm.Forecast = func() offsets.Forecast { return offsets.Through(normalize.New(set), target()) }
	}
	return []offsets.Group{norm, pub}, db.Close, nil
}

// foresee returns what makes the forecasts of the reporting tables.
func (a *App) foresee(db *pgxpool.Pool) (func() offsets.Foresee, error) {
	c := reporting.Config{Publication: a.cfg.Publish.Reporting.Publication}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return func() offsets.Foresee {
		f, err := reporting.NewForecast(db, c)
		if err != nil { // Validate has said that it is none
			panic(err)
		}
		return f.Foresee
	}, nil
}

// OffsetsPlan is a plan for people and for JSON.
type OffsetsPlan struct{ *offsets.Plan }

// OffsetsPlan makes a plan and stores it. from is a CSV file instead of another target, "" for none.
func (a *App) OffsetsPlan(ctx context.Context, r offsets.Request, reason string, progress io.Writer) (p OffsetsPlan, err error) {
	op, err := a.operator(reason)
	if err != nil {
		return p, err
	}
	err = a.withOffsets(ctx, progress, func(o *offsets.Offsets) (err error) {
		p.Plan, err = o.Plan(ctx, op, r)
		return err
	})
	return p, err
}

// OffsetsFile reads a CSV file of offsets.
func OffsetsFile(name string) (rows []offsets.Row, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading --from-file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return offsets.ParseCSV(f)
}

// OffsetsReport is what apply or undo did.
type OffsetsReport struct {
	*offsets.Report
	undo bool
}

// OffsetsApply applies a plan. Without a reason of its own that of the plan holds.
func (a *App) OffsetsApply(ctx context.Context, id, reason string, opt offsets.ApplyOptions, progress io.Writer) (OffsetsReport, error) {
	return a.changeOffsets(ctx, id, reason, progress, func(o *offsets.Offsets, op audit.Operator) (*offsets.Report, error) {
		return o.Apply(ctx, op, id, opt)
	})
}

// OffsetsUndo takes an applied plan back.
func (a *App) OffsetsUndo(ctx context.Context, id, reason string, opt offsets.ApplyOptions, progress io.Writer) (OffsetsReport, error) {
	r, err := a.changeOffsets(ctx, id, reason, progress, func(o *offsets.Offsets, op audit.Operator) (*offsets.Report, error) {
		return o.Undo(ctx, op, id, opt)
	})
	r.undo = true
	return r, err
}

func (a *App) changeOffsets(ctx context.Context, id, reason string, progress io.Writer,
	do func(*offsets.Offsets, audit.Operator) (*offsets.Report, error),
) (r OffsetsReport, err error) {
	err = a.withOffsets(ctx, progress, func(o *offsets.Offsets) error {
		if reason == "" {
			p, err := o.Get(ctx, id)
			if err != nil {
				return err
			}
			reason = p.Reason
		}
		op, err := a.operator(reason)
		if err != nil {
			return err
		}
		r.Report, err = do(o, op)
		return err
	})
	return r, err
}

// OffsetsPlans are plans, the newest first.
type OffsetsPlans []*offsets.Plan

// OffsetsShow returns one plan.
func (a *App) OffsetsShow(ctx context.Context, id string) (p OffsetsPlan, err error) {
	err = a.withOffsets(ctx, io.Discard, func(o *offsets.Offsets) (err error) {
		p.Plan, err = o.Get(ctx, id)
		return err
	})
	return p, err
}

// OffsetsPlans returns the newest plans, of one group if that is given.
func (a *App) OffsetsPlans(ctx context.Context, group string, limit int) (ps OffsetsPlans, err error) {
	err = a.withOffsets(ctx, io.Discard, func(o *offsets.Offsets) (err error) {
		ps, err = o.Plans(ctx, group, limit)
		return err
	})
	return ps, err
}

// OffsetsList is where groups stand.
type OffsetsList []offsets.Listed

// OffsetsList returns where the groups of this installation stand, or those that are named.
func (a *App) OffsetsList(ctx context.Context, groups ...string) (l OffsetsList, err error) {
	err = a.withOffsets(ctx, io.Discard, func(o *offsets.Offsets) (err error) {
		l, err = o.List(ctx, groups...)
		return err
	})
	return l, err
}

// OffsetsRows are offsets as Kafka's tool writes and reads them.
type OffsetsRows []offsets.Row

// OffsetsExport returns the committed offsets of groups, or the targets of a plan, or what its apply found before it wrote them.
func (a *App) OffsetsExport(ctx context.Context, plan string, before bool, groups ...string) (rows OffsetsRows, err error) {
	err = a.withOffsets(ctx, io.Discard, func(o *offsets.Offsets) (err error) {
		if plan == "" {
			rows, err = o.Export(ctx, groups...)
			return err
		}
		p, err := o.Get(ctx, plan)
		switch {
		case err != nil:
		case before:
			rows, err = p.RowsBefore()
		default:
			rows = p.Rows()
		}
		return err
	})
	return rows, err
}

// WriteText writes CSV.
func (rows OffsetsRows) WriteText(w io.Writer) error { return offsets.WriteCSV(w, rows) }

// drains has the running members of a group step aside, by the orders that they read.
type drains struct{ db *pgxpool.Pool }

// Drain implements offsets.Drains.
func (d drains) Drain(ctx context.Context, op audit.Operator, group string, until time.Time) error {
	return control.Drain(ctx, d.db, op, group, until)
}

// EndDrain implements offsets.Drains.
func (d drains) EndDrain(ctx context.Context, op audit.Operator, group string) error {
	return control.EndDrain(ctx, d.db, op, group)
}
