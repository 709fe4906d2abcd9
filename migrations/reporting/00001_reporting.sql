-- +goose Up
create schema if not exists reporting;
comment on schema reporting is
  'Finance records as typed tables, published by Leat from the finance topics. Written by Leat only; read by finance.';

-- Key columns compare by bytes (collate "C"): the order in which publishers lock rows must not depend on a locale, and
-- comparing bytes is cheaper. No foreign keys between tables: an invoice may arrive before its contact, they travel on
-- different topics. Fill factors below 100 leave room on each page, so that an update needs no new index entries.

create table reporting.contacts (
  tenant            text collate "C" not null,
  system            text collate "C" not null,
  source_id         text collate "C" not null,
  kinds             text[] not null check (kinds <@ array['customer', 'vendor']),
  display_name      text not null,
  legal_name        text,
  tax_id            text,
  status            text not null check (status in ('active', 'inactive')),
  email             text,
  phone             text,
  street            text,
  city              text,
  region            text,
  postal_code       text,
  country           char(2),
  source_changed_at timestamptz not null,
  source_epoch      bigint not null check (source_epoch > 0),
  sequence          bigint not null check (sequence > 0),
  published_at      timestamptz not null default now(),
  deleted_at        timestamptz,
  primary key (tenant, system, source_id)
) with (fillfactor = 85);
comment on table reporting.contacts is
  'Customers and vendors, one row for each contact of a source system. Leave out rows with deleted_at when counting.';
comment on column reporting.contacts.tenant is 'Company whose books these are.';
comment on column reporting.contacts.system is 'Source system that the record comes from.';
comment on column reporting.contacts.source_id is 'Id of the contact in its source system.';
comment on column reporting.contacts.kinds is 'What the contact is to the company: customer, vendor, or both.';
comment on column reporting.contacts.display_name is 'Name as people know it.';
comment on column reporting.contacts.legal_name is 'Registered name, where the source knows it.';
comment on column reporting.contacts.tax_id is 'Tax number as the source writes it (CNPJ, CPF, VAT, …); letters are allowed.';
comment on column reporting.contacts.status is 'active or inactive: whether business is still done with the contact.';
comment on column reporting.contacts.country is 'ISO 3166 code of two letters.';
comment on column reporting.contacts.source_changed_at is 'When the source changed the record, by the source''s clock.';
comment on column reporting.contacts.source_epoch is 'With sequence the version of the record; grows when a source moves.';
comment on column reporting.contacts.sequence is 'Number of the change in the source; a higher one is newer.';
comment on column reporting.contacts.published_at is 'When Leat last wrote this row.';
comment on column reporting.contacts.deleted_at is 'When the source deleted the contact; empty while it exists.';

create table reporting.invoices (
  tenant            text collate "C" not null,
  system            text collate "C" not null,
  source_id         text collate "C" not null,
  type              text not null check (type in ('invoice', 'bill', 'credit_note')),
  number            text,
  contact_id        text collate "C" not null,
  issue_date        date not null,
  due_date          date,
  status            text not null
                    check (status in ('draft', 'open', 'partially_paid', 'paid', 'void', 'written_off')),
  currency          char(3) not null,
  subtotal          numeric,
  discount_total    numeric,
  tax_total         numeric,
  total             numeric not null,
  balance           numeric,
  memo              text,
  source_changed_at timestamptz not null,
  source_epoch      bigint not null check (source_epoch > 0),
  sequence          bigint not null check (sequence > 0),
  published_at      timestamptz not null default now(),
  deleted_at        timestamptz,
  primary key (tenant, system, source_id)
) with (fillfactor = 85);
comment on table reporting.invoices is
  'Invoices to customers, bills from vendors and credit notes, one row for each document. The lines are in '
  'reporting.invoice_lines and always belong to the same version as this row. Leave out rows with deleted_at when summing.';
comment on column reporting.invoices.tenant is 'Company whose books these are.';
comment on column reporting.invoices.system is 'Source system that the record comes from.';
comment on column reporting.invoices.source_id is 'Id of the document in its source system.';
comment on column reporting.invoices.type is
  'invoice (we are owed), bill (we owe) or credit_note (takes back part of an invoice; its amounts are positive too).';
comment on column reporting.invoices.number is 'Number printed on the document, where there is one.';
comment on column reporting.invoices.contact_id is
  'Customer or vendor: source_id in reporting.contacts of the same tenant and system. That row may arrive later.';
comment on column reporting.invoices.issue_date is 'Business date of the document; decides its period in control_totals.';
comment on column reporting.invoices.due_date is 'Business date on which payment is due.';
comment on column reporting.invoices.status is
  'draft, open, partially_paid, paid, void or written_off. Overdue is not stored: it is open with due_date in the past.';
comment on column reporting.invoices.currency is 'ISO 4217 code of every amount of the document and its lines.';
comment on column reporting.invoices.subtotal is 'Sum of the lines, before document discount and taxes.';
comment on column reporting.invoices.discount_total is 'Taken off the document as a whole, beyond the discounts of its lines.';
comment on column reporting.invoices.tax_total is 'All taxes added to the subtotal.';
comment on column reporting.invoices.total is 'Amount of the document, exact to the digit the source sent.';
comment on column reporting.invoices.balance is 'What is still unpaid, where the source says it.';
comment on column reporting.invoices.memo is 'Note on the document.';
comment on column reporting.invoices.source_changed_at is 'When the source changed the record, by the source''s clock.';
comment on column reporting.invoices.source_epoch is 'With sequence the version of the record; grows when a source moves.';
comment on column reporting.invoices.sequence is 'Number of the change in the source; a higher one is newer.';
comment on column reporting.invoices.published_at is 'When Leat last wrote this row.';
comment on column reporting.invoices.deleted_at is 'When the source deleted the document; empty while it exists.';

create table reporting.invoice_lines (
  tenant      text collate "C" not null,
  system      text collate "C" not null,
  invoice_id  text collate "C" not null,
  line_no     integer not null check (line_no > 0),
  line_id     text not null,
  description text,
  item        text,
  quantity    numeric not null,
  unit_price  numeric not null,
  discount    numeric,
  tax         numeric,
  total       numeric not null,
  currency    char(3) not null,
  account     text,
  deleted_at  timestamptz,
  primary key (tenant, system, invoice_id, line_no)
) with (fillfactor = 90);
comment on table reporting.invoice_lines is
  'Lines of invoices, bills and credit notes. Replaced together with their document, in one database transaction.';
comment on column reporting.invoice_lines.tenant is 'Company whose books these are.';
comment on column reporting.invoice_lines.system is 'Source system that the record comes from.';
comment on column reporting.invoice_lines.invoice_id is 'The document: source_id in reporting.invoices.';
comment on column reporting.invoice_lines.line_no is 'Position on the document, from 1.';
comment on column reporting.invoice_lines.line_id is 'Id of the line in the source system.';
comment on column reporting.invoice_lines.description is 'What was sold or bought, in words.';
comment on column reporting.invoice_lines.item is 'Code of the product or service in the source system.';
comment on column reporting.invoice_lines.quantity is 'Quantity, up to ten decimal places.';
comment on column reporting.invoice_lines.unit_price is 'Price of one unit, up to ten decimal places.';
comment on column reporting.invoice_lines.discount is 'Discount on this line.';
comment on column reporting.invoice_lines.tax is 'Tax on this line.';
comment on column reporting.invoice_lines.total is 'Amount of the line, as the source states it; never recalculated.';
comment on column reporting.invoice_lines.currency is 'ISO 4217 code; that of the document.';
comment on column reporting.invoice_lines.account is 'Ledger account the source posts the line to.';
comment on column reporting.invoice_lines.deleted_at is 'When the source deleted the document; empty while it exists.';

create table reporting.payments (
  tenant            text collate "C" not null,
  system            text collate "C" not null,
  source_id         text collate "C" not null,
  direction         text not null check (direction in ('received', 'sent')),
  contact_id        text collate "C" not null,
  date              date not null,
  method            text,
  status            text not null check (status in ('posted', 'void')),
  currency          char(3) not null,
  amount            numeric not null,
  unapplied         numeric,
  reference         text,
  source_changed_at timestamptz not null,
  source_epoch      bigint not null check (source_epoch > 0),
  sequence          bigint not null check (sequence > 0),
  published_at      timestamptz not null default now(),
  deleted_at        timestamptz,
  primary key (tenant, system, source_id)
) with (fillfactor = 85);
comment on table reporting.payments is
  'Payments received and sent. What each one pays is in reporting.payment_allocations.';
comment on column reporting.payments.tenant is 'Company whose books these are.';
comment on column reporting.payments.system is 'Source system that the record comes from.';
comment on column reporting.payments.source_id is 'Id of the payment in its source system.';
comment on column reporting.payments.direction is 'received (money in) or sent (money out).';
comment on column reporting.payments.contact_id is
  'Who paid or was paid: source_id in reporting.contacts of the same tenant and system. That row may arrive later.';
comment on column reporting.payments.date is 'Business date of the payment; decides its period in control_totals.';
comment on column reporting.payments.method is 'How it was paid (transfer, card, …), in the source''s words.';
comment on column reporting.payments.status is 'posted or void.';
comment on column reporting.payments.currency is 'ISO 4217 code of the amounts.';
comment on column reporting.payments.amount is 'Amount paid; positive whether received or sent.';
comment on column reporting.payments.unapplied is 'Part of the amount not yet allocated to documents, where the source says it.';
comment on column reporting.payments.reference is 'Reference on the bank statement or receipt.';
comment on column reporting.payments.source_changed_at is 'When the source changed the record, by the source''s clock.';
comment on column reporting.payments.source_epoch is 'With sequence the version of the record; grows when a source moves.';
comment on column reporting.payments.sequence is 'Number of the change in the source; a higher one is newer.';
comment on column reporting.payments.published_at is 'When Leat last wrote this row.';
comment on column reporting.payments.deleted_at is 'When the source deleted the payment; empty while it exists.';

create table reporting.payment_allocations (
  tenant        text collate "C" not null,
  system        text collate "C" not null,
  payment_id    text collate "C" not null,
  allocation_no integer not null check (allocation_no > 0),
  target_type   text not null check (target_type in ('invoice', 'bill', 'credit_note')),
  target_id     text collate "C" not null,
  amount        numeric not null,
  currency      char(3) not null,
  deleted_at    timestamptz,
  primary key (tenant, system, payment_id, allocation_no)
) with (fillfactor = 90);
comment on table reporting.payment_allocations is
  'Which document each payment pays, and how much of it. Replaced together with the payment, in one database transaction.';
comment on column reporting.payment_allocations.tenant is 'Company whose books these are.';
comment on column reporting.payment_allocations.system is 'Source system that the record comes from.';
comment on column reporting.payment_allocations.payment_id is 'The payment: source_id in reporting.payments.';
comment on column reporting.payment_allocations.allocation_no is 'Position on the payment, from 1.';
comment on column reporting.payment_allocations.target_type is 'invoice, bill or credit_note.';
comment on column reporting.payment_allocations.target_id is
  'The document: source_id in reporting.invoices of the same tenant and system. That row may arrive later.';
comment on column reporting.payment_allocations.amount is 'Part of the payment that pays this document.';
comment on column reporting.payment_allocations.currency is 'ISO 4217 code of the amount.';
comment on column reporting.payment_allocations.deleted_at is 'When the source deleted the payment; empty while it exists.';

create table reporting.links (
  publication     text collate "C" not null,
  tenant          text collate "C" not null,
  system          text collate "C" not null,
  entity          text collate "C" not null,
  source_id       text collate "C" not null,
  target_id       text not null generated always as (tenant || '/' || system || '/' || source_id) stored,
  source_epoch    bigint not null check (source_epoch > 0),
  sequence        bigint not null check (sequence > 0),
  revision        bigint not null default 0 check (revision >= 0),
  content_hash    bytea not null check (length(content_hash) = 16),
  deleted         boolean not null,
  event_id        uuid not null,
  topic           text not null,
  topic_partition integer not null,
  topic_offset    bigint not null,
  published_at    timestamptz not null default now(),
  -- The id comes first because it tells rows apart: behind four columns that are nearly always equal, each step down the index
  -- compares all five.
  primary key (source_id, entity, tenant, system, publication)
) with (fillfactor = 80);
comment on table reporting.links is
  'One row for every record that ever reached these tables, also for deleted ones: which event wrote it, from where on Kafka, '
  'and which version. The publisher decides by this row whether a record is new. Removing a row makes it forget.';
comment on column reporting.links.publication is 'Name of the publication that writes these tables.';
comment on column reporting.links.entity is 'contact, invoice (also bills and credit notes) or payment.';
comment on column reporting.links.source_id is 'Id of the record in its source system.';
comment on column reporting.links.target_id is
  'The row in the table of the entity, as tenant/system/source_id. It is also the key of the record on Kafka.';
comment on column reporting.links.source_epoch is 'With sequence the version last applied; grows when a source moves.';
comment on column reporting.links.sequence is 'Number of the change in the source (the id of its outbox row).';
comment on column reporting.links.revision is 'Grows when the same change was normalized again, for instance by a corrected mapping.';
comment on column reporting.links.content_hash is
  'First 16 bytes of a SHA-256 of the content. Same version and same hash: nothing to do. Same version, other hash: applied.';
comment on column reporting.links.deleted is 'The last change applied was a deletion.';
comment on column reporting.links.event_id is 'Id of the event on the finance topic (ce_id).';
comment on column reporting.links.topic is 'Kafka topic, with topic_partition and topic_offset the place of the event.';
comment on column reporting.links.published_at is 'When the event was applied here.';

create view reporting.control_totals as
  select i.tenant, i.system, 'invoice'::text as entity, i.type, i.currency,
         date_trunc('month', i.issue_date::timestamp)::date as period, i.status,
         count(*) as records, coalesce(sum(l.lines), 0)::bigint as lines,
         sum(i.total) as total, sum(l.total) as lines_total, sum(i.balance) as open_total
    from reporting.invoices i
    left join (select tenant, system, invoice_id, count(*) as lines, sum(total) as total
                 from reporting.invoice_lines where deleted_at is null group by tenant, system, invoice_id) l
      on l.tenant = i.tenant and l.system = i.system and l.invoice_id = i.source_id
   where i.deleted_at is null
   group by 1, 2, 4, 5, 6, 7
  union all
  select p.tenant, p.system, 'payment', p.direction, p.currency,
         date_trunc('month', p.date::timestamp)::date, p.status,
         count(*), coalesce(sum(a.lines), 0)::bigint, sum(p.amount), sum(a.total), sum(p.unapplied)
    from reporting.payments p
    left join (select tenant, system, payment_id, count(*) as lines, sum(amount) as total
                 from reporting.payment_allocations where deleted_at is null group by tenant, system, payment_id) a
      on a.tenant = p.tenant and a.system = p.system and a.payment_id = p.source_id
   where p.deleted_at is null
   group by 1, 2, 4, 5, 6, 7
  union all
  select c.tenant, c.system, 'contact', 'contact', null, null, c.status, count(*), 0, null, null, null
    from reporting.contacts c
   where c.deleted_at is null
   group by 1, 2, 7;
comment on view reporting.control_totals is
  'What is in the tables now, without deleted records, by company, system, kind of document, currency, month and status. '
  'Compare with the same figures of the source system. Sums are exact.';
comment on column reporting.control_totals.type is
  'invoice, bill or credit_note; for payments received or sent; for contacts contact.';
comment on column reporting.control_totals.period is 'First day of the month of the business date; empty for contacts.';
comment on column reporting.control_totals.records is 'Number of documents, payments or contacts.';
comment on column reporting.control_totals.lines is 'Number of invoice lines or payment allocations, counted in their own table.';
comment on column reporting.control_totals.total is 'Sum of total (documents) or amount (payments).';
comment on column reporting.control_totals.lines_total is 'Sum of the lines'' totals or of the allocated amounts; empty without lines.';
comment on column reporting.control_totals.open_total is 'Sum of balance (documents) or unapplied (payments), where the source gives it.';

create view reporting.source_totals as
  select tenant, system, entity, currency, sum(records)::bigint as records, sum(lines)::bigint as lines,
         sum(total) as total, sum(lines_total) as lines_total
    from reporting.control_totals
   group by tenant, system, entity, currency;
comment on view reporting.source_totals is
  'control_totals of all months, types and statuses together: one row for each company, system, entity and currency.';

create view reporting.source_progress as
  select publication, tenant, system, entity, count(*) filter (where not deleted) as live,
         count(*) filter (where deleted) as deleted, max(source_epoch) as source_epoch,
         max(published_at) as last_published_at
    from reporting.links
   group by publication, tenant, system, entity;
comment on view reporting.source_progress is
  'For each source: how many records live here, how many were deleted, and when the last change arrived.';

-- Roles belong to the whole cluster, so the schema's owner makes them and these functions give them what they need.

-- +goose StatementBegin
create function reporting.grant_publisher(role name) returns void language plpgsql set search_path = pg_catalog as $$
begin
  execute format('grant usage on schema reporting to %I', role);
  execute format('grant select, insert, update on reporting.links, reporting.contacts, reporting.invoices, '
                 'reporting.payments to %I', role);
  -- Only lines are ever removed, when a newer version of their document has fewer.
  execute format('grant select, insert, update, delete on reporting.invoice_lines, '
                 'reporting.payment_allocations to %I', role);
end $$;
-- +goose StatementEnd
comment on function reporting.grant_publisher(name) is
  'Gives a role what the publisher needs and no more: it cannot remove documents, change tables or truncate.';

-- +goose StatementBegin
create function reporting.grant_reader(role name) returns void language plpgsql set search_path = pg_catalog as $$
begin
  execute format('grant usage on schema reporting to %I', role);
  execute format('grant select on reporting.contacts, reporting.invoices, reporting.invoice_lines, reporting.payments, '
                 'reporting.payment_allocations, reporting.links, reporting.control_totals, reporting.source_totals, '
                 'reporting.source_progress to %I', role);
end $$;
-- +goose StatementEnd
comment on function reporting.grant_reader(name) is 'Lets a role read all reporting tables and views.';
revoke execute on function reporting.grant_publisher(name), reporting.grant_reader(name) from public;

-- +goose Down
drop function reporting.grant_reader(name);
drop function reporting.grant_publisher(name);
drop view reporting.source_progress;
drop view reporting.source_totals;
drop view reporting.control_totals;
drop table reporting.links;
drop table reporting.payment_allocations;
drop table reporting.payments;
drop table reporting.invoice_lines;
drop table reporting.invoices;
drop table reporting.contacts;
