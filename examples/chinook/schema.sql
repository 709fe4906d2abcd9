-- The business tables of the sample shop: what a source system looks like before it has heard of Leat.
create schema if not exists shop;

create table if not exists shop.customers (
  customer_id    integer primary key,
  first_name     text not null,
  last_name      text not null,
  company        text,
  address        text,
  city           text,
  state          text,
  country        text,
  postal_code    text,
  phone          text,
  fax            text,
  email          text not null,
  support_rep_id integer
);

create table if not exists shop.invoices (
  invoice_id          integer primary key,
  customer_id         integer not null references shop.customers,
  invoice_date        timestamp not null,
  billing_address     text,
  billing_city        text,
  billing_state       text,
  billing_country     text,
  billing_postal_code text,
  total               numeric(10, 2) not null,
  currency            text not null default 'USD',
  status              text not null default 'open' check (status in ('open', 'paid', 'cancelled'))
);

create table if not exists shop.invoice_lines (
  invoice_line_id integer primary key,
  invoice_id      integer not null references shop.invoices on delete cascade,
  track_id        integer not null,
  unit_price      numeric(10, 2) not null,
  quantity        integer not null
);

create index if not exists invoice_lines_invoice on shop.invoice_lines (invoice_id);

create table if not exists shop.payments (
  payment_id  integer primary key,
  invoice_id  integer not null references shop.invoices,
  customer_id integer not null references shop.customers,
  amount      numeric(10, 2) not null check (amount > 0),
  currency    text not null default 'USD',
  paid_at     timestamptz not null,
  method      text not null
);

create index if not exists payments_invoice on shop.payments (invoice_id);
