package chinook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// desk does the shop's business transactions. Each takes the row lock of its business record first, by an insert, an
// update or "for update", and then writes the event: so the events of one record are numbered in the order of its
// changes.
type desk struct{ db *pgxpool.Pool }

// errGone says that a record is not in the state that a transaction needs: somebody else was faster.
var errGone = errors.New("the record has changed")

const insertCustomerSQL = `
insert into shop.customers (customer_id, first_name, last_name, company, address, city, state, country, postal_code,
  phone, fax, email, support_rep_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
on conflict do nothing`

// addCustomer inserts a customer; one that exists already is left alone, and reported as false.
func (d desk) addCustomer(ctx context.Context, c customer) (added bool, err error) {
	err = pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, insertCustomerSQL, c.ID, c.FirstName, c.LastName, c.Company, c.Address, c.City, c.State,
			c.Country, c.PostalCode, c.Phone, c.Fax, c.Email, c.SupportRep)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		added = true
		return emit(ctx, tx, Customer, c.ID, c)
	})
	return added, wrap("adding customer", c.ID, err)
}

const updateCustomerSQL = `
update shop.customers set country = $2, email = $3 where customer_id = $1
returning customer_id, first_name, last_name, company, address, city, state, country, postal_code, phone, fax, email,
  support_rep_id`

// correctCustomer changes a customer's country and e-mail address.
func (d desk) correctCustomer(ctx context.Context, id int, country *string, email string) error {
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, updateCustomerSQL, id, country, email)
		if err != nil {
			return err
		}
		c, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[customer])
		if err != nil {
			return err
		}
		return emit(ctx, tx, Customer, c.ID, c)
	})
	return wrap("correcting customer", id, err)
}

const insertInvoiceSQL = `
insert into shop.invoices (invoice_id, customer_id, invoice_date, billing_address, billing_city, billing_state,
  billing_country, billing_postal_code, total, currency, status)
values ($1, $2, $3::text::timestamp, $4, $5, $6, $7, $8, $9::text::numeric, $10, $11)
on conflict do nothing`

const insertLinesSQL = `
insert into shop.invoice_lines (invoice_line_id, invoice_id, track_id, unit_price, quantity)
select id, $1, track, price::numeric, quantity
from unnest($2::integer[], $3::integer[], $4::text[], $5::integer[]) as l(id, track, price, quantity)`

// addInvoice inserts an invoice with its lines; one that exists already is left alone, and reported as false. What it
// says in the outbox is what export makes of the invoice: itself, or a broken record.
func (d desk) addInvoice(ctx context.Context, in invoice, export func(invoice) invoice) (added bool, err error) {
	err = pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, insertInvoiceSQL, in.ID, in.CustomerID, in.Date, in.Address, in.City, in.State, in.Country,
			in.PostalCode, in.Total, in.Currency, in.Status)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		added = true
		var ids, tracks, quantities []int
		var prices []string
		for _, l := range in.Lines {
			ids, tracks = append(ids, l.ID), append(tracks, l.TrackID)
			prices, quantities = append(prices, l.UnitPrice), append(quantities, l.Quantity)
		}
		if _, err := tx.Exec(ctx, insertLinesSQL, in.ID, ids, tracks, prices, quantities); err != nil {
			return err
		}
		return emit(ctx, tx, Invoice, in.ID, export(in))
	})
	return added, wrap("adding invoice", in.ID, err)
}

// changeInvoice locks an invoice, lets change alter it and its rows, and emits what it then is.
func (d desk) changeInvoice(ctx context.Context, id int, change func(tx pgx.Tx, in *invoice) error) error {
	return pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		in, err := lockInvoice(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := change(tx, &in); err != nil {
			return err
		}
		return emit(ctx, tx, Invoice, id, in)
	})
}

// reexport emits an invoice as it is, after a broken export of it.
func (d desk) reexport(ctx context.Context, id int) error {
	err := d.changeInvoice(ctx, id, func(pgx.Tx, *invoice) error { return nil })
	return wrap("exporting again invoice", id, err)
}

const (
	updateLineSQL  = `update shop.invoice_lines set quantity = $2 where invoice_line_id = $1`
	updateTotalSQL = `update shop.invoices set total = $2::text::numeric where invoice_id = $1`
)

// correctInvoice changes the quantity of the invoice's first line. It needs an open invoice without payments.
func (d desk) correctInvoice(ctx context.Context, id, quantity int) (total int, err error) {
	err = d.changeInvoice(ctx, id, func(tx pgx.Tx, in *invoice) error {
		if err := unpaid(ctx, tx, in); err != nil {
			return err
		}
		in.Lines[0].Quantity = quantity
		for _, l := range in.Lines {
			price, err := cents(l.UnitPrice)
			if err != nil {
				return err
			}
			total += price * l.Quantity
		}
		in.Total = amount(total)
		if _, err := tx.Exec(ctx, updateLineSQL, in.Lines[0].ID, quantity); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, updateTotalSQL, id, in.Total)
		return err
	})
	return total, wrap("correcting invoice", id, err)
}

const updateStatusSQL = `update shop.invoices set status = $2 where invoice_id = $1`

// cancelInvoice cancels an open invoice without payments.
func (d desk) cancelInvoice(ctx context.Context, id int) error {
	err := d.changeInvoice(ctx, id, func(tx pgx.Tx, in *invoice) error {
		if err := unpaid(ctx, tx, in); err != nil {
			return err
		}
		in.Status = "cancelled"
		_, err := tx.Exec(ctx, updateStatusSQL, id, in.Status)
		return err
	})
	return wrap("cancelling invoice", id, err)
}

const deleteInvoiceSQL = `delete from shop.invoices where invoice_id = $1`

// deleteInvoice removes an open invoice without payments, as if it had never been.
func (d desk) deleteInvoice(ctx context.Context, id int) error {
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		in, err := lockInvoice(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := unpaid(ctx, tx, &in); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, deleteInvoiceSQL, id); err != nil {
			return err
		}
		return outbox.Write(ctx, tx, outbox.Event{
			Tenant: Tenant, Entity: Invoice, Key: strconv.Itoa(id), Operation: topics.Delete,
		})
	})
	return wrap("deleting invoice", id, err)
}

const insertPaymentSQL = `
insert into shop.payments (payment_id, invoice_id, customer_id, amount, currency, paid_at, method)
values ($1, $2, $3, $4::text::numeric, $5, $6, $7)`

// pay books a payment on an open invoice; the payment that settles it also changes the invoice, in one transaction with
// both events.
func (d desk) pay(ctx context.Context, p payment, settles bool) error {
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		in, err := lockInvoice(ctx, tx, p.InvoiceID)
		if err != nil {
			return err
		}
		if in.Status != "open" {
			return errGone
		}
		if _, err := tx.Exec(ctx, insertPaymentSQL, p.ID, p.InvoiceID, p.CustomerID, p.Amount, p.Currency, p.PaidAt,
			p.Method); err != nil {
			return err
		}
		if err := emit(ctx, tx, Payment, p.ID, p); err != nil || !settles {
			return err
		}
		in.Status = "paid"
		if _, err := tx.Exec(ctx, updateStatusSQL, in.ID, in.Status); err != nil {
			return err
		}
		return emit(ctx, tx, Invoice, in.ID, in)
	})
	return wrap("booking payment", p.ID, err)
}

// emit writes the event of a business record in its transaction.
func emit(ctx context.Context, tx pgx.Tx, entity string, id int, payload any) error {
	text, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("encoding the payload: %w", err)
	}
	return outbox.Write(ctx, tx, outbox.Event{
		Tenant: Tenant, Entity: entity, Key: strconv.Itoa(id), Operation: topics.Upsert, Payload: text,
	})
}

func wrap(what string, id int, err error) error {
	if err != nil {
		return fmt.Errorf("%s %d: %w", what, id, err)
	}
	return nil
}
