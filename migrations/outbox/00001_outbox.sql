-- +goose Up
create schema if not exists leat;
comment on schema leat is 'Outbox of Leat: changes that wait to be delivered to Kafka, written in the transactions that made them.';

-- transaction_id stands before id: defaults are evaluated in the order of the columns, and the transaction must have its id before
-- the sequence value is drawn. The relay's cursor depends on it (docs/relay.md).
-- No foreign key, no trigger, no unique index but the primary key: the writer pays for one insert and two index entries.
create table leat.outbox (
  transaction_id xid8 not null default pg_current_xact_id(),
  id             bigint generated always as identity (cache 1), -- a larger cache would break the order of row locks
  event_id       uuid not null,
  tenant         text not null check (tenant ~ '^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$'),
  entity         text not null check (entity ~ '^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$'),
  key            text not null check (key <> '' and octet_length(key) <= 1024),
  operation      text not null check (operation in ('upsert', 'delete')),
  payload        bytea constraint upsert_has_payload check (payload is not null or operation = 'delete'),
  content_type   text not null default 'application/json',
  schema_version text not null default '1',
  headers        jsonb not null default '{}' constraint headers_are_strings check (
    headers = '{}' or jsonb_typeof(headers) = 'object' and not jsonb_path_exists(headers, 'strict $.* ? (@.type() != "string")')),
  occurred_at    timestamptz not null default clock_timestamp(),
  primary key (id)
) partition by range (id);
comment on table leat.outbox is 'One row for each change. Insert only: rows are never updated, old partitions are dropped as a whole.';
comment on column leat.outbox.key is 'Id of the business record. Lock the record before inserting its event; an UPDATE of it does.';

-- Late committers are found by their transaction id.
create index outbox_transaction_id on leat.outbox (transaction_id);

-- The default partition takes what has no partition of its own, so that a missing one never fails the source's transaction.
create table leat.outbox_default partition of leat.outbox default;
create table leat.outbox_1 partition of leat.outbox for values from (1) to (1000001)
  with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
create table leat.outbox_1000001 partition of leat.outbox for values from (1000001) to (2000001)
  with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

create table leat.source (
  singleton  boolean primary key default true check (singleton),
  epoch      bigint not null default 1 check (epoch > 0),
  changed_at timestamptz not null default now()
);
comment on table leat.source is 'The epoch of this outbox: raised once when the source moves to another database and ids begin anew.';
insert into leat.source default values;

-- Raising the epoch makes every later record newer than all before it, whatever its id.
-- +goose StatementBegin
create function leat.raise_epoch(to_epoch bigint) returns bigint
language sql as $$
  update leat.source set epoch = to_epoch, changed_at = now() where epoch < to_epoch returning epoch
$$;
-- +goose StatementEnd

-- Which database this is, for the relay's cursor. The timeline is the one of the write-ahead log that is being written now.
-- +goose StatementBegin
create function leat.identity(
  out system_identifier bigint, out timeline bigint, out table_oid oid, out epoch bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select c.system_identifier,
         ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint,
         'leat.outbox'::regclass::oid,
         (select s.epoch from leat.source s)
  from pg_control_system() c
$$;
-- +goose StatementEnd

-- UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then random bits. PostgreSQL has its own only since 18.
-- +goose StatementBegin
create function leat.uuid_v7() returns uuid
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select encode(
    set_bit(set_bit(
      overlay(uuid_send(gen_random_uuid())
        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
      52, 1), 53, 1), 'hex')::uuid
$$;
-- +goose StatementEnd

-- Writes one event in the caller's transaction, with the caller's rights. No RETURNING: it needs the right to read, and a writer may
-- only insert.
-- +goose StatementBegin
create function leat.emit(
  tenant text, entity text, key text, operation text, payload jsonb default null,
  headers jsonb default '{}', schema_version text default '1', event_id uuid default null) returns uuid
language sql volatile as $$
  with e as materialized (select coalesce(emit.event_id, leat.uuid_v7()) as id),
  written as (
    insert into leat.outbox (event_id, tenant, entity, key, operation, payload, headers, schema_version)
    select e.id, emit.tenant, emit.entity, emit.key, emit.operation,
           convert_to(emit.payload::text, 'UTF8'), emit.headers, emit.schema_version from e)
  select e.id from e
$$;
-- +goose StatementEnd

-- +goose Down
-- The schema stays: it holds the version table.
drop function leat.emit(text, text, text, text, jsonb, jsonb, text, uuid);
drop function leat.uuid_v7();
drop function leat.identity();
drop function leat.raise_epoch(bigint);
drop table leat.source;
drop table leat.outbox;
