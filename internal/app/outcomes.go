package app

import (
	"context"
	"io"
	"text/tabwriter"

	"github.com/leat-io/leat/operations/outcomes"
)

// countOutcomes keeps the outcomes that the runners of this process report.
func (a *App) countOutcomes(ctx context.Context) error {
	if a.cfg.Control.URL.Empty() {
		return a.outcomes.Run(ctx, nil)
	}
	db, err := a.controlDB(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	return a.outcomes.Run(ctx, db)
}

// Outcomes are sums of business outcomes.
type Outcomes []outcomes.Row

// Outcomes sums up what became of records.
func (a *App) Outcomes(ctx context.Context, f outcomes.Filter) (Outcomes, error) {
	db, err := a.controlDB(ctx)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return outcomes.List(ctx, db, f)
}

// WriteText prints a line for each outcome.
func (rs Outcomes) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	if len(rs) == 0 {
		line("no outcomes in this time")
	}
	for _, r := range rs {
		tenant := r.Tenant
		if tenant == "" {
			tenant = "(none)"
		}
		line("%s\t%s\t%s\t%s %s\t%d", tenant, r.Stage, r.Entity, r.Outcome, r.Detail, r.Count)
	}
	return t.Flush()
}
