package chinook

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The lock comes before the event, and before the lines are read: their change takes it too.
const lockInvoiceSQL = `
select invoice_id, customer_id, to_char(invoice_date, 'YYYY-MM-DD HH24:MI:SS'), billing_address, billing_city, billing_state,
  billing_country, billing_postal_code, total::text, currency, status
from shop.invoices where invoice_id = $1 for update`

const readLinesSQL = `
select invoice_line_id, invoice_id, track_id, unit_price::text, quantity
from shop.invoice_lines where invoice_id = $1 order by invoice_line_id`

func lockInvoice(ctx context.Context, tx pgx.Tx, id int) (in invoice, err error) {
	err = tx.QueryRow(ctx, lockInvoiceSQL, id).Scan(&in.ID, &in.CustomerID, &in.Date, &in.Address, &in.City, &in.State,
		&in.Country, &in.PostalCode, &in.Total, &in.Currency, &in.Status)
	if errors.Is(err, pgx.ErrNoRows) {
		return in, errGone
	}
	if err != nil {
		return in, err
	}
	rows, err := tx.Query(ctx, readLinesSQL, id)
	if err != nil {
		return in, err
	}
	in.Lines, err = pgx.CollectRows(rows, pgx.RowToStructByPos[line])
	return in, err
}

const paymentsOfSQL = `select count(*) from shop.payments where invoice_id = $1`

// unpaid asks for an open invoice on which nothing has been paid.
func unpaid(ctx context.Context, tx pgx.Tx, in *invoice) error {
	var n int
	if err := tx.QueryRow(ctx, paymentsOfSQL, in.ID).Scan(&n); err != nil {
		return err
	}
	if n > 0 || in.Status != "open" {
		return errGone
	}
	return nil
}

// Totals are the control totals of the business tables.
type Totals struct {
	Customers int    `json:"customers"`
	Invoices  int    `json:"invoices"`
	Lines     int    `json:"lines"`
	Payments  int    `json:"payments"`
	Invoiced  string `json:"invoiced"` // sum of the invoices, USD
	Paid      string `json:"paid"`     // sum of the payments, USD
}

// One statement is one snapshot: the numbers fit each other while the shop lives.
const totalsSQL = `
select (select count(*) from shop.customers), i.n, (select count(*) from shop.invoice_lines), p.n, i.total::text, p.total::text
from (select count(*) as n, coalesce(sum(total), 0.00) as total from shop.invoices) as i,
  (select count(*) as n, coalesce(sum(amount), 0.00) as total from shop.payments) as p`

// ReadTotals counts and sums the business tables.
func ReadTotals(ctx context.Context, db *pgxpool.Pool) (Totals, error) {
	rows, err := db.Query(ctx, totalsSQL)
	if err != nil {
		return Totals{}, fmt.Errorf("reading the shop's totals: %w", err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Totals])
	if err != nil {
		return Totals{}, fmt.Errorf("reading the shop's totals: %w", err)
	}
	return t, nil
}
