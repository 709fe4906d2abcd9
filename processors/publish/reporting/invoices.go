package reporting

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/topics"
)

func invoices() *entity {
	return &entity{
		name:   "invoice",
		body:   func() body { return new(invoice) },
		upsert: upsertInvoices,
		erase:  []string{eraseInvoiceSQL, eraseInvoiceLinesSQL},
	}
}

type invoice struct{ topics.Invoice }

func (v *invoice) identity() (tenant, system, sourceID string) { return v.Tenant, v.System, v.SourceID }

// upsertInvoicesSQL needs no guard of its own: it gets only records whose link row this transaction has just written, and
// holds the locks of those.
const upsertInvoicesSQL = `
insert into reporting.invoices as t (tenant, system, source_id, type, number, contact_id, issue_date, due_date, status,
       currency, subtotal, discount_total, tax_total, total, balance, memo, source_epoch, sequence, source_changed_at)
select i.tenant, i.system, i.source_id, i.type, nullif(i.number, ''), i.contact_id, i.issue_date::date,
       nullif(i.due_date, '')::date, i.status, i.currency, nullif(i.subtotal, '')::numeric,
       nullif(i.discount_total, '')::numeric, nullif(i.tax_total, '')::numeric, i.total::numeric,
       nullif(i.balance, '')::numeric, nullif(i.memo, ''), i.source_epoch, i.sequence, i.source_changed_at
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
              $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
              $17::int8[], $18::int8[], $19::timestamptz[])
       as i(tenant, system, source_id, type, number, contact_id, issue_date, due_date, status,
            currency, subtotal, discount_total, tax_total, total, balance, memo, source_epoch, sequence, source_changed_at)
    on conflict (tenant, system, source_id) do update
   set type = excluded.type, number = excluded.number, contact_id = excluded.contact_id,
       issue_date = excluded.issue_date, due_date = excluded.due_date, status = excluded.status,
       currency = excluded.currency, subtotal = excluded.subtotal, discount_total = excluded.discount_total,
       tax_total = excluded.tax_total, total = excluded.total, balance = excluded.balance, memo = excluded.memo,
       source_epoch = excluded.source_epoch, sequence = excluded.sequence,
       source_changed_at = excluded.source_changed_at, published_at = excluded.published_at, deleted_at = null`

// surplusLinesSQL removes the lines that the new version no longer has; the others are overwritten by position. It goes by
// row address, which nobody else can change while the link row is locked, for the sake of the plan: see sameSQL.
const surplusLinesSQL = `
delete from reporting.invoice_lines where ctid = any(array(
  select l.ctid
    from unnest($1::text[], $2::text[], $3::text[], $4::int4[]) as i(tenant, system, invoice_id, lines)
   cross join lateral (select l.ctid from reporting.invoice_lines l
                        where l.tenant = i.tenant and l.system = i.system and l.invoice_id = i.invoice_id
                          and l.line_no > i.lines offset 0) l))`

// upsertLinesSQL leaves a line alone that is the same already: most changes of an invoice are those of its status and
// balance.
const upsertLinesSQL = `
insert into reporting.invoice_lines as l (tenant, system, invoice_id, line_no, line_id, description, item, quantity,
       unit_price, discount, tax, total, currency, account)
select i.tenant, i.system, i.invoice_id, i.line_no, i.line_id, nullif(i.description, ''), nullif(i.item, ''),
       i.quantity::numeric, i.unit_price::numeric, nullif(i.discount, '')::numeric, nullif(i.tax, '')::numeric,
       i.total::numeric, i.currency, nullif(i.account, '')
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
              $10::text[], $11::text[], $12::text[], $13::text[], $14::int4[])
       as i(tenant, system, invoice_id, line_id, description, item, quantity, unit_price, discount, tax, total,
            currency, account, line_no)
    on conflict (tenant, system, invoice_id, line_no) do update
   set line_id = excluded.line_id, description = excluded.description, item = excluded.item,
       quantity = excluded.quantity, unit_price = excluded.unit_price, discount = excluded.discount,
       tax = excluded.tax, total = excluded.total, currency = excluded.currency, account = excluded.account,
       deleted_at = null
 where (l.line_id, l.description, l.item, l.quantity, l.unit_price, l.discount, l.tax, l.total, l.currency,
        l.account, l.deleted_at)
       is distinct from
       (excluded.line_id, excluded.description, excluded.item, excluded.quantity, excluded.unit_price, excluded.discount,
        excluded.tax, excluded.total, excluded.currency, excluded.account, null)`

const eraseInvoiceSQL = `
update reporting.invoices
   set deleted_at = $6, source_epoch = $4, sequence = $5, source_changed_at = $6, published_at = now()
 where tenant = $1 and system = $2 and source_id = $3`

// eraseInvoiceLinesSQL names $4 and $5 only because all statements of a deletion take the same parameters.
const eraseInvoiceLinesSQL = `
update reporting.invoice_lines
   set deleted_at = $6
 where tenant = $1 and system = $2 and invoice_id = $3 and $4::int8 > 0 and $5::int8 > 0`

func upsertInvoices(b *pgx.Batch, records []*record) {
	n, lines := len(records), 0
	for _, r := range records {
		lines += len(r.body.(*invoice).Lines)
	}
	head, line := newTable(16, n), newTable(13, lines)
	count, number, changed := make([]int32, n), make([]int32, 0, lines), make([]time.Time, n)
	for i, r := range records {
		v := r.body.(*invoice)
		changed[i], count[i] = r.envelope.Time, int32(len(v.Lines)) //nolint:gosec // the contract allows 5000
		head.add(v.Tenant, v.System, v.SourceID, v.Type, v.Number, v.ContactID, string(v.IssueDate), string(v.DueDate),
			v.Status, v.Currency, amount(v.Subtotal), amount(v.DiscountTotal), amount(v.TaxTotal),
			string(v.Total.Amount), amount(v.Balance), v.Memo)
		for j := range v.Lines {
			l := &v.Lines[j]
			number = append(number, int32(j+1)) //nolint:gosec // the contract allows 5000
			line.add(v.Tenant, v.System, v.SourceID, l.ID, l.Description, l.Item, string(l.Quantity),
				string(l.UnitPrice.Amount), amount(l.Discount), amount(l.Tax), string(l.Total.Amount),
				v.Currency, l.Account)
		}
	}
	k := keysOf(records)
	b.Queue(upsertInvoicesSQL, head.args(k.epoch, k.sequence, changed)...)
	b.Queue(surplusLinesSQL, k.tenant, k.system, k.sourceID, count)
	if lines > 0 {
		b.Queue(upsertLinesSQL, line.args(number)...)
	}
}
