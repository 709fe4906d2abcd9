-- +goose Up

-- The range partitions and what they hold. The default partition is not among them: it has no bounds.
create view leat.partitions as
select format('%I.%I', n.nspname, c.relname) as partition,
       (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?(\d+)'))[1]::bigint as from_id,
       (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''?(\d+)'))[1]::bigint as to_id, -- exclusive
       pg_total_relation_size(c.oid) as bytes
from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
where i.inhparent = 'leat.outbox'::regclass and pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT';

-- Makes partitions of a million ids until `ahead` of them are empty before the ids in use, and returns their names.
--
-- Each new table is built aside and attached: that takes a lock on leat.outbox that lets writers go on, and an exclusive one on the
-- default partition, which nobody writes to as long as this function runs in time. If rows have reached the default partition, they
-- stay there, and the new partitions begin at the next million.
-- +goose StatementBegin
create function leat.make_partitions(ahead int default 2) returns setof text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  size constant bigint := 1000000;
  used bigint := coalesce((select last_value from leat.outbox_id_seq where is_called), 0);
  stray bigint := coalesce((select max(id) from leat.outbox_default), 0);
  first bigint := greatest(coalesce((select max(to_id) from leat.partitions), 1), (stray + size - 1) / size * size + 1);
  name text;
begin
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

-- Drops partitions whose every row was delivered and is older than `keep`, oldest first, and returns their names.
--
-- delivered_id and delivered are the relay's cursor: its last id and the snapshot of its last batch. A partition goes only if it lies
-- wholly at or below delivered_id, and if no row in it belongs to a transaction that delivered does not see. A transaction that still
-- runs and has written there holds a lock on the partition, so that the drop gives up; a row with a low id that comes after the
-- drop is routed to the default partition, where the relay finds it by its transaction id.
--
-- Dropping takes an exclusive lock on leat.outbox. lock_timeout bounds how long writers wait behind it; the next call tries again.
-- +goose StatementBegin
create function leat.drop_partitions(delivered_id bigint, delivered pg_snapshot, keep interval) returns setof text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
  p record;
  blocked boolean;
  newest timestamptz;
begin
  for p in select * from leat.partitions where to_id - 1 <= delivered_id order by from_id loop
    begin
      execute format('lock table leat.outbox, %s in access exclusive mode', p.partition);
    exception when lock_not_available then
      return;
    end;
    execute format('select exists (select from %s where transaction_id >= pg_snapshot_xmin($1)
      and not pg_visible_in_snapshot(transaction_id, $1))', p.partition) into blocked using delivered;
    execute format('select occurred_at from %s order by id desc limit 1', p.partition) into newest;
    exit when blocked or newest > clock_timestamp() - keep;
    execute format('drop table %s', p.partition);
    return next p.partition;
  end loop;
end
$$;
-- +goose StatementEnd

revoke execute on function leat.make_partitions(int), leat.drop_partitions(bigint, pg_snapshot, interval) from public;
revoke execute on function leat.raise_epoch(bigint), leat.identity() from public;

-- +goose Down
drop function leat.drop_partitions(bigint, pg_snapshot, interval);
drop function leat.make_partitions(int);
drop view leat.partitions;
