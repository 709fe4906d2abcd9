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

-- One row for each running process and stage, written by it every second or so. seen_at is the database's clock, so that
-- the age of a heartbeat needs no clock of the process.
create table leat_control.processes (
  stage      text not null, -- relay, normalize, publish, index, notify, verify
  instance   text not null,
  group_name text not null default '',
  version    text not null default '',
  started_at timestamptz not null,
  seen_at    timestamptz not null default now(),
  ready      boolean not null,
  problem    text not null default '', -- why it is not ready
  paused_by  text not null default '', -- the pause it obeys
  status     jsonb not null default '{}',
  primary key (stage, instance)
);
comment on table leat_control.processes is 'What runs, by what the processes say of themselves. A row that is old is of a process that ended.';

-- +goose Down
drop table leat_control.processes;
drop table leat_control.breaker_orders;
drop table leat_control.pauses;
