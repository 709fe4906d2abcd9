package reporting

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/topics"
)

func payments() *entity {
	return &entity{
		name:   "payment",
		body:   func() body { return new(payment) },
		upsert: upsertPayments,
		erase:  []string{erasePaymentSQL, eraseAllocationsSQL},
	}
}

type payment struct{ topics.Payment }

func (v *payment) identity() (tenant, system, sourceID string) { return v.Tenant, v.System, v.SourceID }

const upsertPaymentsSQL = `
insert into reporting.payments as t (tenant, system, source_id, direction, contact_id, date, method, status, currency,
       amount, unapplied, reference, source_epoch, sequence, source_changed_at)
select i.tenant, i.system, i.source_id, i.direction, i.contact_id, i.date::date, nullif(i.method, ''), i.status,
       i.currency, i.amount::numeric, nullif(i.unapplied, '')::numeric, nullif(i.reference, ''),
       i.source_epoch, i.sequence, i.source_changed_at
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
              $10::text[], $11::text[], $12::text[], $13::int8[], $14::int8[], $15::timestamptz[])
       as i(tenant, system, source_id, direction, contact_id, date, method, status, currency,
            amount, unapplied, reference, source_epoch, sequence, source_changed_at)
    on conflict (tenant, system, source_id) do update
   set direction = excluded.direction, contact_id = excluded.contact_id, date = excluded.date,
       method = excluded.method, status = excluded.status, currency = excluded.currency, amount = excluded.amount,
       unapplied = excluded.unapplied, reference = excluded.reference,
       source_epoch = excluded.source_epoch, sequence = excluded.sequence,
       source_changed_at = excluded.source_changed_at, published_at = excluded.published_at, deleted_at = null`

// surplusAllocationsSQL is to payments what surplusLinesSQL is to invoices.
const surplusAllocationsSQL = `
delete from reporting.payment_allocations where ctid = any(array(
  select a.ctid
    from unnest($1::text[], $2::text[], $3::text[], $4::int4[]) as i(tenant, system, payment_id, allocations)
   cross join lateral (select a.ctid from reporting.payment_allocations a
                        where a.tenant = i.tenant and a.system = i.system and a.payment_id = i.payment_id
                          and a.allocation_no > i.allocations offset 0) a))`

const upsertAllocationsSQL = `
insert into reporting.payment_allocations as a (tenant, system, payment_id, allocation_no, target_type, target_id,
       amount, currency)
select i.tenant, i.system, i.payment_id, i.allocation_no, i.target_type, i.target_id, i.amount::numeric, i.currency
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int4[])
       as i(tenant, system, payment_id, target_type, target_id, amount, currency, allocation_no)
    on conflict (tenant, system, payment_id, allocation_no) do update
   set target_type = excluded.target_type, target_id = excluded.target_id, amount = excluded.amount,
       currency = excluded.currency, deleted_at = null`

const erasePaymentSQL = `
update reporting.payments
   set deleted_at = $6, source_epoch = $4, sequence = $5, source_changed_at = $6, published_at = now()
 where tenant = $1 and system = $2 and source_id = $3`

// eraseAllocationsSQL names $4 and $5 only because all statements of a deletion take the same parameters.
const eraseAllocationsSQL = `
update reporting.payment_allocations
   set deleted_at = $6
 where tenant = $1 and system = $2 and payment_id = $3 and $4::int8 > 0 and $5::int8 > 0`

func upsertPayments(b *pgx.Batch, records []*record) {
	n, allocations := len(records), 0
	for _, r := range records {
		allocations += len(r.body.(*payment).Allocations)
	}
	head, line := newTable(12, n), newTable(7, allocations)
	count, number, changed := make([]int32, n), make([]int32, 0, allocations), make([]time.Time, n)
	for i, r := range records {
		v := r.body.(*payment)
		changed[i], count[i] = r.envelope.Time, int32(len(v.Allocations)) //nolint:gosec // the contract allows 5000
		head.add(v.Tenant, v.System, v.SourceID, v.Direction, v.ContactID, string(v.Date), v.Method, v.Status,
			v.Amount.Currency, string(v.Amount.Amount), amount(v.Unapplied), v.Reference)
		for j, a := range v.Allocations {
			number = append(number, int32(j+1)) //nolint:gosec // the contract allows 5000
			line.add(v.Tenant, v.System, v.SourceID, a.TargetType, a.TargetID, string(a.Amount.Amount), a.Amount.Currency)
		}
	}
	k := keysOf(records)
	b.Queue(upsertPaymentsSQL, head.args(k.epoch, k.sequence, changed)...)
	b.Queue(surplusAllocationsSQL, k.tenant, k.system, k.sourceID, count)
	if allocations > 0 {
		b.Queue(upsertAllocationsSQL, line.args(number)...)
	}
}
