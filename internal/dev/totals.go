package dev

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/examples/chinook"
)

const reportingTotalsSQL = `
select coalesce(sum(records) filter (where entity = 'contact'), 0)::integer,
  coalesce(sum(records) filter (where entity = 'invoice'), 0)::integer,
  coalesce(sum(lines) filter (where entity = 'invoice'), 0)::integer,
  coalesce(sum(records) filter (where entity = 'payment'), 0)::integer,
  coalesce(sum(total) filter (where entity = 'invoice'), 0.00)::text,
  coalesce(sum(total) filter (where entity = 'payment'), 0.00)::text
from reporting.control_totals
where tenant = $1 and system = $2 and (currency = 'USD' or currency is null)`

// reportingTotals reads of the reporting tables what chinook.ReadTotals reads of the business tables.
func reportingTotals(ctx context.Context, db *pgxpool.Pool) (chinook.Totals, error) {
	rows, err := db.Query(ctx, reportingTotalsSQL, chinook.Tenant, chinook.System)
	if err != nil {
		return chinook.Totals{}, fmt.Errorf("reading the control totals of reporting: %w", err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[chinook.Totals])
	if err != nil {
		return chinook.Totals{}, fmt.Errorf("reading the control totals of reporting: %w", err)
	}
	return t, nil
}

const outboxRowsSQL = `select count(*) from leat.outbox`

func outboxRows(ctx context.Context, db *pgxpool.Pool) (n int64, err error) {
	if err := db.QueryRow(ctx, outboxRowsSQL).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting outbox rows: %w", err)
	}
	return n, nil
}
