-- +goose Up

-- A process gets what its kind needs and no more. What only the index, the notifier or the verifier writes is theirs; relay, normalize
-- and publish get what every process has. Rights that were granted before stay until they are revoked.
alter table leat_control.rights drop constraint rights_role_check;
alter table leat_control.rights add constraint rights_role_check check (role in ('process', 'index', 'notify', 'verify', 'operator'));

update leat_control.rights set role = 'index'
 where role = 'process' and object ~ '^(function )?leat_control\.(positions|attempts|journal)';

insert into leat_control.rights (role, privileges, object) values
  ('process', 'select, insert, update, delete', 'leat_control.outcomes'), -- delete: they are dropped by age
  ('index', 'select, insert, update, delete', 'leat_control.dead_letters'),
  ('index', 'select', 'leat_control.dead_letter_notes'), -- what people decided is not the index's to change
  ('index', 'select', 'leat_control.redrives'),
  ('index', 'select, update (state, problem, moved_at, retry_offset, settled_at, edited_value)', 'leat_control.redrive_items'),
  ('index', 'select, insert, update, delete', 'leat_control.incidents'),
  ('index', 'select, insert, update, delete', 'leat_control.incident_hours'),
  ('index', 'select, insert, update, delete', 'leat_control.incident_tenants'),
  ('index', 'select, insert, update, delete', 'leat_control.incident_keys'),
  ('index', 'select', 'leat_control.audit_log'), -- to count its entries
  ('notify', 'select, insert, update', 'leat_control.incidents'), -- those of breakers
  ('notify', 'select', 'leat_control.dead_letters'), -- to count those of an incident
  ('notify', 'select', 'leat_control.incident_hours'),
  ('notify', 'select', 'leat_control.incident_tenants'),
  ('notify', 'select, insert, update', 'leat_control.incident_standings'),
  ('notify', 'select, insert, update', 'leat_control.notifications'),
  ('verify', 'select, insert, delete', 'leat_control.verify_reports'), -- delete: they are dropped by age; none is ever changed
  ('verify', 'select', 'leat_control.audit_log'), -- replays by order explain duplicates
  ('operator', 'select, update, delete', 'leat_control.dead_letters'), -- delete: for a rebuild, as of the tables of incidents
  ('operator', 'select, insert, update', 'leat_control.dead_letter_notes'),
  ('operator', 'select, insert, update (records, state, problem, finished_at)', 'leat_control.redrives'),
  ('operator', 'select, insert, update (state, problem, moved_at, retry_offset, settled_at, edit, edited_value)', 'leat_control.redrive_items'),
  ('operator', 'select, delete', 'leat_control.incidents'),
  ('operator', 'select, delete', 'leat_control.incident_hours'),
  ('operator', 'select, delete', 'leat_control.incident_tenants'),
  ('operator', 'select, delete', 'leat_control.incident_keys'),
  ('operator', 'select, insert, update', 'leat_control.incident_standings'),
  ('operator', 'select', 'leat_control.notifications'),
  ('operator', 'select', 'leat_control.outcomes'),
  ('operator', 'select', 'leat_control.verify_reports'),
  ('operator', 'select', 'leat_control.schema_version'); -- leat migrate status

-- +goose StatementBegin
create function leat_control.grant_index(grantee name) returns void language sql set search_path = pg_catalog as $$
  select leat_control.grant_rights('process', grantee), leat_control.grant_rights('index', grantee)
$$;
create function leat_control.grant_notify(grantee name) returns void language sql set search_path = pg_catalog as $$
  select leat_control.grant_rights('process', grantee), leat_control.grant_rights('notify', grantee)
$$;
create function leat_control.grant_verify(grantee name) returns void language sql set search_path = pg_catalog as $$
  select leat_control.grant_rights('process', grantee), leat_control.grant_rights('verify', grantee)
$$;
-- +goose StatementEnd
comment on function leat_control.grant_process(name) is
  'Lets a role run relay, normalize or publish: read orders, write its heartbeat and outcomes. Run it again after each migration.';
comment on function leat_control.grant_index(name) is
  'Lets a role run the index: what a process may, and write what is made from topics. Run it again after each migration.';
comment on function leat_control.grant_notify(name) is
  'Lets a role run the notifier: what a process may, and move incidents and their messages. Run it again after each migration.';
comment on function leat_control.grant_verify(name) is
  'Lets a role run scheduled verifications: what a process may, and file reports. Run it again after each migration.';
revoke execute on function leat_control.grant_index(name), leat_control.grant_notify(name), leat_control.grant_verify(name) from public;
revoke execute on function leat_control.refuse() from public;

-- +goose Down
grant execute on function leat_control.refuse() to public;
drop function leat_control.grant_verify(name);
drop function leat_control.grant_notify(name);
drop function leat_control.grant_index(name);
delete from leat_control.rights where role in ('notify', 'verify')
  or object ~ '^leat_control\.(outcomes|dead_letter_notes|redrives|redrive_items|incident|notifications|verify_reports|schema_version)'
  or (role, object) in (('index', 'leat_control.dead_letters'), ('index', 'leat_control.audit_log'))
  or (role, object, privileges) = ('operator', 'leat_control.dead_letters', 'select, update, delete');
update leat_control.rights set role = 'process' where role = 'index';
alter table leat_control.rights drop constraint rights_role_check;
alter table leat_control.rights add constraint rights_role_check check (role in ('process', 'operator'));
