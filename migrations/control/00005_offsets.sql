-- +goose Up

-- A plan says which offsets of a group become which, and what that does. It is made, looked at, and then applied as it is or not at
-- all. Column plan is json, not jsonb: hash is of its very bytes.
create table leat_control.plans (
  id         text primary key check (id <> ''),
  hash       text not null,
  group_name text not null check (group_name <> ''),
  author     text not null check (author <> ''),
  reason     text not null check (reason <> ''),
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  state      text not null default 'planned' check (state in ('planned', 'applied', 'undone', 'expired', 'failed')),
  plan       json not null,
  applied_by text,
  applied_at timestamptz,
  undone_by  text,
  undone_at  timestamptz,
  before     jsonb, -- the commits that apply found, for undo
  after      jsonb, -- the commits that Kafka showed when apply had written
  cancelled  bigint not null default 0, -- parked records that apply took off retry topics; undo cannot bring them back
  problem    text not null default '' -- why it failed
);
comment on table leat_control.plans is
  'Plans to move the offsets of consumer groups. planned: waits for apply; applied, undone: done; expired: was not applied in time; '
  'failed: apply began to write and did not end well, the audit log has what stands in Kafka.';
create index plans_group on leat_control.plans (group_name, created_at);

-- What a plan says is never changed, so nobody gets the right to.
insert into leat_control.rights (role, privileges, object) values
  ('operator', 'select, insert, update (state, applied_by, applied_at, undone_by, undone_at, before, after, cancelled, problem)', 'leat_control.plans'),
  ('operator', 'select', 'leat_control.positions'),
  ('operator', 'select', 'leat_control.dead_letters'),
  ('operator', 'select', 'leat_control.journal'),
  ('operator', 'select', 'leat_control.journal_topics')
on conflict do nothing;

-- +goose Down
delete from leat_control.rights where object = 'leat_control.plans';
drop table leat_control.plans;
