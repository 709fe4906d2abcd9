-- +goose Up

-- The key of a captured row: its key columns as text, joined by '/'. One column needs no escaping; with several, a '/' in a value is
-- written '~1' and '~' is written '~0', so that two rows never share a key.
-- +goose StatementBegin
create function leat.captured_key(captured jsonb, columns text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case when cardinality(columns) = 1 then captured ->> columns[1]
    else (select string_agg(replace(replace(captured ->> c, '~', '~0'), '/', '~1'), '/' order by n)
          from unnest(columns) with ordinality as u(c, n)) end
$$;
-- +goose StatementEnd

-- A row as JSON. Timestamps with time zone, intervals and bytes look as the session's settings say: they are fixed here and in
-- leat.capture, so that one row has one key and one payload whoever writes it.
-- +goose StatementBegin
create function leat.captured_row(captured anyelement) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set intervalstyle = 'iso_8601' set bytea_output = 'hex' set extra_float_digits = 1 as $$
begin
  return to_jsonb(captured);
end
$$;
-- +goose StatementEnd

-- Row trigger of captured tables; its one argument is a JSON object: entity, tenant or tenant_column, key, omit.
-- It runs with the rights of its owner, so that the application needs none on the outbox.
-- +goose StatementBegin
create function leat.capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set intervalstyle = 'iso_8601' set bytea_output = 'hex' set extra_float_digits = 1 as $$
declare
  spec jsonb := tg_argv[0]::jsonb;
  omit text[] := array(select jsonb_array_elements_text(spec -> 'omit'));
  key_columns text[] := array(select jsonb_array_elements_text(spec -> 'key'));
  was jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) - omit end;
  is_now jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) - omit end;
  old_key text := leat.captured_key(was, key_columns);
  new_key text := leat.captured_key(is_now, key_columns);
  old_tenant text := coalesce(spec ->> 'tenant', to_jsonb(old) ->> (spec ->> 'tenant_column'));
  new_tenant text := coalesce(spec ->> 'tenant', to_jsonb(new) ->> (spec ->> 'tenant_column'));
begin
  if was = is_now and old_tenant = new_tenant then -- jsonb compares numbers by value: 1.0 and 1.00 are no change
    return null;
  end if;
  if tg_op = 'DELETE' or (tg_op = 'UPDATE' and (old_key, old_tenant) is distinct from (new_key, new_tenant)) then
    perform leat.emit(old_tenant, spec ->> 'entity', old_key, 'delete', was);
  end if;
  if tg_op <> 'DELETE' then
    perform leat.emit(new_tenant, spec ->> 'entity', new_key, 'upsert', is_now);
  end if;
  return null;
end
$$;
-- +goose StatementEnd

-- A TRUNCATE fires no row triggers: it would empty the table without a word to finance.
-- +goose StatementBegin
create function leat.refuse_truncate() returns trigger language plpgsql as $$
begin
  raise exception 'table %.% is captured by Leat: TRUNCATE would not be seen; use DELETE, or release the table first '
    '(leat outbox release)', tg_table_schema, tg_table_name using errcode = 'object_not_in_prerequisite_state';
end
$$;
-- +goose StatementEnd

revoke execute on function leat.capture(), leat.refuse_truncate() from public;

-- +goose Down
drop function leat.capture() cascade;
drop function leat.refuse_truncate() cascade;
drop function leat.captured_row(anyelement);
drop function leat.captured_key(jsonb, text[]);
