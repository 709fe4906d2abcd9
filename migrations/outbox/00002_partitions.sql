-- +goose Up

-- The range partitions and what they hold. The default partition is not among them: it has no bounds.
create view leat.partitions as
select format('%I.%I', n.nspname, c.relname) as partition,
       (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?(\d+)'))[1]::bigint as from_id,
       (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''?(\d+)'))[1]::bigint as to_id, -- exclusive
       pg_total_relation_size(c.oid) as bytes
from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
where i.inhparent = 'leat.outbox'::regclass and pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT';

-- One relay at a time looks after the partitions of an outbox: the others have nothing to do.
create function leat.lock_upkeep() returns boolean language sql volatile set search_path = pg_catalog, pg_temp
return pg_try_advisory_xact_lock(hashtextextended('leat.outbox partitions', 0));

-- Makes partitions of a million ids until `ahead` of them are empty before the ids in use, and returns their names.
--
-- Each new table is built aside and attached: that takes a lock on leat.outbox that lets writers go on, and an exclusive one on the
-- default partition, which nobody writes to as long as this function runs in time. If rows have reached the default partition, they
-- stay there, and the new partitions begin at the next million; attaching reads the default partition through.
-- +goose StatementBegin
create function leat.make_partitions(ahead int default 2) returns setof text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  size constant bigint := 1000000;
  used bigint;
  stray bigint;
  first bigint;
  name text;
begin
  if not leat.lock_upkeep() then
    return;
  end if;
  used := coalesce((select last_value from leat.outbox_id_seq where is_called), 0);
  stray := coalesce((select max(id) from leat.outbox_default), 0);
  first := greatest(coalesce((select max(to_id) from leat.partitions), 1), (stray + size - 1) / size * size + 1);
  while first <= used + ahead * size loop
    name := 'outbox_' || first;
    execute format('create table leat.%I (like leat.outbox including defaults including constraints)
      with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000)', name);
    execute format('alter table leat.outbox attach partition leat.%I for values from (%s) to (%s)', name, first, first + size);
    return next 'leat.' || name;
    first := first + size;
  end loop;
end
$$;
-- +goose StatementEnd

-- Whether all rows of a partition are seen by `delivered` and older than `keep`. Age counts from the writing: occurred_at may tell of
-- years ago (a backfill), so that the time in the event's id counts too if it has one. The last row stands for all.
-- +goose StatementBegin
create function leat.may_drop(partition text, delivered pg_snapshot, keep interval) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  ok boolean;
begin
  -- Not visible means: in the snapshot's list of transactions in progress, or begun after it. Both are walks of the index.
  execute format($q$
    select not exists (select from %1$s where transaction_id = any (array(select pg_snapshot_xip($1))))
       and not exists (select from %1$s where transaction_id >= pg_snapshot_xmax($1))
       and coalesce((
         select greatest(occurred_at, case when substr(event_id::text, 15, 1) = '7' then
           to_timestamp(('x' || substr(replace(event_id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0) end)
         from %1$s order by id desc limit 1) < clock_timestamp() - $2, true)$q$, partition)
    into ok using delivered, keep;
  return ok;
end
$$;
-- +goose StatementEnd

-- Drops the oldest partition if its every row was delivered and is older than `keep`, and returns its name; call it until it returns
-- nothing. When no range partition is left to drop, the default partition is emptied on the same conditions.
--
-- delivered_id and delivered are the relay's cursor: its last id and the snapshot of its last batch. A partition goes only if it lies
-- wholly at or below delivered_id, and if no row in it belongs to a transaction that delivered does not see. A transaction that still
-- runs (or is prepared) and has written there holds a lock on the partition, so that the drop gives up; a row with a low id that
-- comes after the drop is routed to the default partition, where the relay finds it by its transaction id.
--
-- Dropping takes an exclusive lock on leat.outbox. It is asked for only when there is something to drop, for one partition at a time,
-- and lock_timeout bounds how long writers wait behind it; the next call tries again. (DETACH CONCURRENTLY, which would not make
-- them wait at all, is refused by PostgreSQL while there is a default partition.)
-- +goose StatementBegin
create function leat.drop_partitions(delivered_id bigint, delivered pg_snapshot, keep interval) returns setof text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
  p text;
  lowest bigint;
  stray bigint;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    -- The second look below must see what was committed while this waited for the lock.
    raise exception 'leat.drop_partitions needs isolation level read committed' using errcode = 'active_sql_transaction';
  end if;
  if not leat.lock_upkeep() then
    return;
  end if;
  select partition into p from leat.partitions where to_id - 1 <= delivered_id order by from_id limit 1;
  if p is not null then
    if leat.may_drop(p, delivered, keep) then
      execute format('lock table only leat.outbox, %s in access exclusive mode', p); -- only: not the other partitions
      if leat.may_drop(p, delivered, keep) then
        execute format('drop table %s', p);
        return next p;
      end if;
    end if;
    return;
  end if;
  -- A relay tells a cleaned outbox from a restored one by its last row being below every partition.
  lowest := (select min(from_id) from leat.partitions);
  stray := (select max(id) from leat.outbox_default);
  if stray <= delivered_id and stray < lowest and leat.may_drop('leat.outbox_default', delivered, keep) then
    lock table leat.outbox_default in access exclusive mode;
    stray := (select max(id) from leat.outbox_default);
    if stray <= delivered_id and stray < lowest and leat.may_drop('leat.outbox_default', delivered, keep) then
      truncate leat.outbox_default;
      return next 'leat.outbox_default';
    end if;
  end if;
exception when lock_not_available then
  return;
end
$$;
-- +goose StatementEnd

revoke execute on function leat.make_partitions(int), leat.drop_partitions(bigint, pg_snapshot, interval) from public;
revoke execute on function leat.may_drop(text, pg_snapshot, interval), leat.lock_upkeep() from public;
revoke execute on function leat.raise_epoch(bigint), leat.identity() from public;

-- +goose Down
drop function leat.drop_partitions(bigint, pg_snapshot, interval);
drop function leat.may_drop(text, pg_snapshot, interval);
drop function leat.make_partitions(int);
drop function leat.lock_upkeep();
drop view leat.partitions;
