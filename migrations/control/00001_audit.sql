-- +goose Up
create schema if not exists leat_control;
comment on schema leat_control is 'What Leat keeps about its own operation.';

create table leat_control.audit_log (
  id     bigint generated always as identity primary key,
  at     timestamptz not null default clock_timestamp(),
  actor  text not null check (actor <> ''),
  action text not null check (action <> ''),
  object text not null,
  reason text not null,
  before jsonb,
  after  jsonb
);
comment on table leat_control.audit_log is 'Every change that a person made through Leat. Append only.';
create index audit_log_at on leat_control.audit_log (at);
revoke update, delete, truncate on leat_control.audit_log from public;

-- +goose StatementBegin
create function leat_control.refuse() returns trigger language plpgsql as $$
begin
  raise exception 'leat_control.audit_log is append only: % is refused', tg_op using errcode = 'insufficient_privilege';
end
$$;
-- +goose StatementEnd
create trigger append_only before update or delete or truncate on leat_control.audit_log
  for each statement execute function leat_control.refuse();

-- +goose Down
-- The schema stays: it holds the version table.
drop table leat_control.audit_log;
drop function leat_control.refuse();
