-- +goose Up

-- Names that the journal would repeat in every row. A topic that is deleted and made anew gets another row: its offsets mean
-- other records.
create table leat_control.journal_topics (
  id       integer generated always as identity primary key,
  topic    text not null,
  topic_id uuid not null,
  seen_at  timestamptz not null default now(),
  unique (topic, topic_id)
);
create table leat_control.journal_systems (
  id     integer generated always as identity primary key,
  system text not null unique
);

-- Where each event stands on Kafka: one row for each record of a source or finance topic. No primary key: that a record is here
-- once follows from the positions of the index, and an index less is a third less to write. Wide columns stand first, so that none
-- needs padding.
create table leat_control.journal (
  at         timestamptz not null, -- the record's own timestamp
  changed_at timestamptz not null, -- ce_time: when the change occurred, by the source's clock
  event_id   uuid not null,        -- ce_id of this record
  sequence   bigint not null,      -- ce_sequence: the id of the outbox row that it comes from
  epoch      bigint not null,      -- ce_sourceepoch
  "offset"   bigint not null,
  topic      integer not null,     -- of journal_topics
  partition  integer not null,
  system     integer not null,     -- of journal_systems
  deletion   boolean not null,
  key        text collate "C" not null -- the record's key, tenant/system/source id
) partition by range (at);
comment on table leat_control.journal is
  'Where each event stands on Kafka. A source event and all finance records made of it have the same system, epoch and sequence. '
  'Made from the topics by leat index run; partitions of a week are dropped whole.';
create index journal_event on leat_control.journal (event_id);
create index journal_key on leat_control.journal (key, at); -- the newest versions of a record are found without reading the older ones
create index journal_sequence on leat_control.journal (system, epoch, sequence);

-- Makes the partitions of all weeks from now - keep to two weeks ahead, drops those that are wholly older, and returns from when
-- to when rows have a partition. Weeks begin on Monday, in UTC. A drop waits a second for its lock, and is tried again at the next call.
-- +goose StatementBegin
create function leat_control.journal_upkeep(keep interval, out since timestamptz, out till timestamptz)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  week timestamptz;
  old regclass;
begin
  if keep < interval '1 day' then
    raise exception 'the journal must keep rows for a day at least, not for %', keep using errcode = 'invalid_parameter_value';
  end if;
  since := date_trunc('week', now() - keep, 'UTC');
  till := date_trunc('week', now(), 'UTC') + interval '21 days';
  week := since;
  while week < till loop
    if to_regclass('leat_control.journal_' || to_char(week at time zone 'UTC', 'YYYYMMDD')) is null then
      execute format('create table leat_control.%I partition of leat_control.journal for values from (%L) to (%L)',
        'journal_' || to_char(week at time zone 'UTC', 'YYYYMMDD'), week, week + interval '7 days');
    end if;
    week := week + interval '7 days';
  end loop;
  begin
    for old in
      select i.inhrelid::regclass from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'leat_control.journal'::regclass and c.relname ~ '^journal_\d{8}$'
        and right(c.relname, 8) < to_char(since at time zone 'UTC', 'YYYYMMDD')
      order by c.relname
    loop
      execute format('drop table %s', old);
    end loop;
  exception when lock_not_available then
    null; -- somebody reads; the new partitions are made all the same
  end;
end
$$;
-- +goose StatementEnd

-- For a rebuild. The names stay.
-- +goose StatementBegin
create function leat_control.journal_reset() returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$ truncate leat_control.journal $$;
-- +goose StatementEnd
revoke execute on function leat_control.journal_upkeep(interval), leat_control.journal_reset() from public;

insert into leat_control.rights (role, privileges, object) values
  ('process', 'select, insert', 'leat_control.journal'),
  ('process', 'select, insert', 'leat_control.journal_topics'),
  ('process', 'select, insert', 'leat_control.journal_systems'),
  ('process', 'execute', 'function leat_control.journal_upkeep(interval)'),
  ('operator', 'select', 'leat_control.journal'),
  ('operator', 'select', 'leat_control.journal_topics'),
  ('operator', 'select', 'leat_control.journal_systems'),
  ('operator', 'execute', 'function leat_control.journal_reset()');

-- +goose Down
delete from leat_control.rights where object ~ 'leat_control\.journal';
drop function leat_control.journal_reset();
drop function leat_control.journal_upkeep(interval);
drop table leat_control.journal;
drop table leat_control.journal_systems;
drop table leat_control.journal_topics;
