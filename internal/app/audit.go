package app

import (
	"context"
	"io"
	"text/tabwriter"
	"time"

	"github.com/leat-io/leat/operations/audit"
)

// AuditEntries are entries of the audit log, newest first.
type AuditEntries []audit.Entry

// Audit returns what people changed through Leat.
func (a *App) Audit(ctx context.Context, f audit.Filter) (AuditEntries, error) {
	db, err := a.controlDB(ctx)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return audit.List(ctx, db, f)
}

// WriteText prints a paragraph for each entry.
func (es AuditEntries) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	if len(es) == 0 {
		line("no entries")
	}
	for _, e := range es {
		line("%d\t%s\t%s\t%s\t%s", e.ID, e.At.UTC().Format(time.RFC3339), e.Actor, e.Action, e.Object)
		line("\treason\t%s", e.Reason)
		if e.Before != nil {
			line("\tbefore\t%s", e.Before)
		}
		if e.After != nil {
			line("\tafter\t%s", e.After)
		}
	}
	return t.Flush()
}
