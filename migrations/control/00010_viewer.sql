-- +goose Up

-- People and dashboards that only look: they read what the commands show, and change nothing. Payloads that people edit and the bytes of
-- signed reports are left out; an incident's text has no value of a record, that of a dead letter or an attempt names one.
alter table leat_control.rights drop constraint rights_role_check;
alter table leat_control.rights add constraint rights_role_check
  check (role in ('process', 'index', 'notify', 'verify', 'operator', 'viewer'));

insert into leat_control.rights (role, privileges, object) values
  ('viewer', 'select', 'leat_control.pauses'),
  ('viewer', 'select', 'leat_control.breaker_orders'),
  ('viewer', 'select', 'leat_control.parked_orders'),
  ('viewer', 'select', 'leat_control.processes'),
  ('viewer', 'select', 'leat_control.positions'),
  ('viewer', 'select', 'leat_control.dead_letters'),
  ('viewer', 'select', 'leat_control.dead_letter_notes'),
  ('viewer', 'select', 'leat_control.attempts'),
  ('viewer', 'select', 'leat_control.journal'),
  ('viewer', 'select', 'leat_control.journal_topics'),
  ('viewer', 'select', 'leat_control.journal_systems'),
  ('viewer', 'select', 'leat_control.plans'),
  ('viewer', 'select', 'leat_control.redrives'),
  ('viewer', 'select (job, seq, topic, partition, "offset", at, bytes, retry_topic, original_partition, original_offset, state, problem, moved_at, '
             'retry_offset, settled_at)', 'leat_control.redrive_items'),
  ('viewer', 'select', 'leat_control.incidents'),
  ('viewer', 'select', 'leat_control.incident_hours'),
  ('viewer', 'select', 'leat_control.incident_tenants'),
  ('viewer', 'select', 'leat_control.incident_keys'),
  ('viewer', 'select', 'leat_control.incident_standings'),
  ('viewer', 'select', 'leat_control.notifications'),
  ('viewer', 'select', 'leat_control.outcomes'),
  ('viewer', 'select (id, source, started_at, finished_at, since, until, changes, agrees, differences, waiting)', 'leat_control.verify_reports'),
  ('viewer', 'select', 'leat_control.audit_log'),
  ('viewer', 'select', 'leat_control.schema_version');

-- +goose StatementBegin
create function leat_control.grant_viewer(grantee name) returns void language sql set search_path = pg_catalog, pg_temp as $$
  select leat_control.grant_rights('viewer', grantee)
$$;
-- +goose StatementEnd
comment on function leat_control.grant_viewer(name) is
  'Lets a role read what the commands show, without payloads, and change nothing. Run it again after each migration.';
revoke execute on function leat_control.grant_viewer(name) from public;
alter function leat_control.refuse() set search_path = pg_catalog, pg_temp;

-- +goose Down
alter function leat_control.refuse() reset search_path;
drop function leat_control.grant_viewer(name);
delete from leat_control.rights where role = 'viewer';
alter table leat_control.rights drop constraint rights_role_check;
alter table leat_control.rights add constraint rights_role_check check (role in ('process', 'index', 'notify', 'verify', 'operator'));
