-- +goose Up

-- What should stand still. A row is an order that holds until it is taken back; running processes read all of them every second or
-- so, and at their start before they take up work: an order outlives every process.
create table leat_control.pauses (
  scope  text not null check (scope in ('stage', 'group', 'source', 'tenant', 'target')),
  name   text not null check (name <> ''),
  mode   text not null default 'pause' check (mode in ('pause', 'drain')), -- drain: an orchestrated change, taken back by it
  actor  text not null,
  reason text not null,
  at     timestamptz not null default now(),
  until  timestamptz, -- after which the order is void: for drains, whose author may die
  primary key (scope, name, mode)
);
comment on table leat_control.pauses is 'What an operator has stopped, until it is resumed.';

-- What an operator wants of a breaker; no row: the breaker decides by itself.
create table leat_control.breaker_orders (
  group_name text primary key check (group_name <> ''),
  state      text not null check (state in ('open', 'closed')),
  actor      text not null,
  reason     text not null,
  at         timestamptz not null default now(),
  until      timestamptz
);

-- What an operator wants done with parked records of one partition. The owner of the partition carries it out, in a Kafka
-- transaction in which the id stands too: so the id must never come again, not even in a database made anew.
create table leat_control.parked_orders (
  id         uuid primary key default gen_random_uuid(),
  group_name text not null check (group_name <> ''),
  topic      text not null,      -- that the records were read from
  partition  integer not null,
  offsets    bigint[] not null check (cardinality(offsets) between 1 and 1000), -- there; one transaction
  action     text not null check (action in ('retry', 'cancel', 'dead-letter')),
  actor      text not null,
  reason     text not null,
  at         timestamptz not null default now(),
  done_at    timestamptz,        -- null: waits for a running owner of the partition
  applied    integer,            -- records to which it was applied
  missing    bigint[],           -- offsets at which nothing was parked any more
  problem    text not null default '' -- why it could not be done
);
comment on table leat_control.parked_orders is 'Orders about parked records, carried out once by the owner of the partition.';
-- Every process asks for what is open every second; what is done stays for those who come later.
create index parked_orders_open on leat_control.parked_orders (group_name, at) where done_at is null;

-- One row for each running process and stage, written by it every other second. seen_at is the database's clock, so that
-- the age of a heartbeat needs no clock of the process.
create table leat_control.processes (
  stage      text not null, -- relay, normalize, publish, index, notify, verify
  instance   text not null,
  group_name text not null default '',
  version    text not null default '',
  sources    text[] not null default '{}', -- that it may relay
  targets    text[] not null default '{}', -- that it writes to
  started_at timestamptz not null,
  seen_at    timestamptz not null default now(),
  ready      boolean not null,
  problem    text not null default '', -- why it is not ready
  paused_by  text not null default '', -- the pause it obeys
  status     jsonb not null default '{}',
  primary key (stage, group_name, instance)
);
comment on table leat_control.processes is 'What runs, by what the processes say of themselves. A row that is old is of a process that ended.';

-- What the roles of processes and of operators may do. Each migration adds what its tables need; the functions grant all of it.
create table leat_control.rights (
  role       text not null check (role in ('process', 'operator')),
  privileges text not null,
  object     text not null,
  primary key (role, object, privileges)
);
comment on table leat_control.rights is 'What leat_control.grant_process and leat_control.grant_operator give. Belongs to the owner of the schema alone.';
insert into leat_control.rights (role, privileges, object) values
  ('process', 'select', 'leat_control.pauses'),
  ('process', 'select', 'leat_control.breaker_orders'),
  ('process', 'select, update (done_at, applied, missing, problem)', 'leat_control.parked_orders'),
  ('process', 'select, insert, update, delete', 'leat_control.processes'),
  ('operator', 'select, insert, update, delete', 'leat_control.pauses'),
  ('operator', 'select, insert, update, delete', 'leat_control.breaker_orders'),
  ('operator', 'select, insert', 'leat_control.parked_orders'),
  ('operator', 'select', 'leat_control.processes'),
  ('operator', 'select, insert', 'leat_control.audit_log');

-- +goose StatementBegin
create function leat_control.grant_rights(kind text, grantee name) returns void language plpgsql set search_path = pg_catalog as $$
declare
  r record;
begin
  execute format('grant usage on schema leat_control to %I', grantee);
  for r in select privileges, object from leat_control.rights where role = kind order by object, privileges loop
    execute format('grant %s on %s to %I', r.privileges, r.object, grantee);
  end loop;
end
$$;
create function leat_control.grant_process(grantee name) returns void language sql set search_path = pg_catalog as $$
  select leat_control.grant_rights('process', grantee)
$$;
create function leat_control.grant_operator(grantee name) returns void language sql set search_path = pg_catalog as $$
  select leat_control.grant_rights('operator', grantee)
$$;
-- +goose StatementEnd
comment on function leat_control.grant_process(name) is
  'Lets a role run processes: read orders, write its heartbeat. Run it again after each migration.';
comment on function leat_control.grant_operator(name) is
  'Lets a role give orders, with an audit entry for each. Run it again after each migration.';
revoke execute on function leat_control.grant_rights(text, name), leat_control.grant_process(name), leat_control.grant_operator(name) from public;

-- +goose Down
drop function leat_control.grant_operator(name);
drop function leat_control.grant_process(name);
drop function leat_control.grant_rights(text, name);
drop table leat_control.rights;
drop table leat_control.processes;
drop table leat_control.parked_orders;
drop table leat_control.breaker_orders;
drop table leat_control.pauses;
