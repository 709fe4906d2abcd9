package reporting

import (
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/topics"
)

func contacts() *entity {
	return &entity{
		name:   "contact",
		body:   func() body { return new(contact) },
		upsert: upsertContacts,
		erase:  []string{eraseContactSQL},
	}
}

type contact struct{ topics.Contact }

func (v *contact) identity() (tenant, system, sourceID string) { return v.Tenant, v.System, v.SourceID }

const upsertContactsSQL = `
insert into reporting.contacts as t (tenant, system, source_id, kinds, display_name, legal_name, tax_id, status, email,
       phone, street, city, region, postal_code, country, source_epoch, sequence, source_changed_at)
select i.tenant, i.system, i.source_id, string_to_array(i.kinds, ','), i.display_name, nullif(i.legal_name, ''),
       nullif(i.tax_id, ''), i.status, nullif(i.email, ''), nullif(i.phone, ''), nullif(i.street, ''),
       nullif(i.city, ''), nullif(i.region, ''), nullif(i.postal_code, ''), nullif(i.country, ''),
       i.source_epoch, i.sequence, i.source_changed_at
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
              $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
              $16::int8[], $17::int8[], $18::timestamptz[])
       as i(tenant, system, source_id, kinds, display_name, legal_name, tax_id, status, email,
            phone, street, city, region, postal_code, country, source_epoch, sequence, source_changed_at)
    on conflict (tenant, system, source_id) do update
   set kinds = excluded.kinds, display_name = excluded.display_name, legal_name = excluded.legal_name,
       tax_id = excluded.tax_id, status = excluded.status, email = excluded.email, phone = excluded.phone,
       street = excluded.street, city = excluded.city, region = excluded.region,
       postal_code = excluded.postal_code, country = excluded.country,
       source_epoch = excluded.source_epoch, sequence = excluded.sequence,
       source_changed_at = excluded.source_changed_at, published_at = excluded.published_at, deleted_at = null`

const eraseContactSQL = `
update reporting.contacts
   set deleted_at = $6, source_epoch = $4, sequence = $5, source_changed_at = $6, published_at = now()
 where tenant = $1 and system = $2 and source_id = $3`

func upsertContacts(b *pgx.Batch, records []*record) {
	head, changed := newTable(15, len(records)), make([]time.Time, len(records))
	for i, r := range records {
		v := r.body.(*contact)
		var a topics.Address
		if v.Address != nil {
			a = *v.Address
		}
		changed[i] = r.envelope.Time
		head.add(v.Tenant, v.System, v.SourceID, strings.Join(v.Kinds, ","), v.DisplayName, v.LegalName, v.TaxID, v.Status,
			v.Email, v.Phone, a.Street, a.City, a.Region, a.PostalCode, a.Country)
	}
	k := keysOf(records)
	b.Queue(upsertContactsSQL, head.args(k.epoch, k.sequence, changed)...)
}
