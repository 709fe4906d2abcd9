-- +goose Up

-- Also functions that run with their caller's rights look their names up where no role can put any: a caller with more rights than others,
-- whose search path has a schema in which these may create, would run their functions else.
alter function leat.emit(text, text, text, text, jsonb, jsonb, text, uuid) set search_path = pg_catalog, pg_temp;
alter function leat.raise_epoch(bigint) set search_path = pg_catalog, pg_temp;
alter function leat.refuse_truncate() set search_path = pg_catalog, pg_temp;

-- +goose Down
alter function leat.refuse_truncate() reset search_path;
alter function leat.raise_epoch(bigint) reset search_path;
alter function leat.emit(text, text, text, text, jsonb, jsonb, text, uuid) reset search_path;
