-- +goose Up

-- A redrive moves dead letters back to the retry topics of the groups that gave them up. How far it has come stands in Kafka, in the
-- transactions that move them (topic leat.cursors, key "redrive/<id>"); its items say what is known of that here.
create table leat_control.redrives (
  id          uuid primary key,
  at          timestamptz not null default now(),
  actor       text not null,
  reason      text not null,
  selection   jsonb not null,
  state       text not null check (state in ('running', 'stopped', 'done', 'cancelled')),
  problem     text not null default '', -- why it stopped
  rate        integer not null,         -- records a second
  records     bigint not null,          -- to be moved
  cursor_from bigint not null,          -- the end of its partition of leat.cursors when it was made: how far it has come stands behind
  finished_at timestamptz
);
comment on table leat_control.redrives is
  'running: also after its process was killed; stopped: can be resumed; cancelled: what it had not moved is open again.';

-- The letters of a redrive, in the order in which they are moved. Letters of one original record share a seq: one record is moved for
-- all of them, since on a retry topic a record replaces itself. An item is never deleted: it is how the state of its letter
-- survives a reindex, after compaction has taken the records off the retry topic.
create table leat_control.redrive_items (
  job                uuid not null references leat_control.redrives,
  seq                bigint not null, -- from 1, without gaps
  topic              text not null,   -- the letter
  partition          integer not null,
  "offset"           bigint not null,
  at                 timestamptz not null,
  bytes              integer not null,
  retry_topic        text not null,   -- where it goes; with the next two what its record is known by there
  original_partition integer not null,
  original_offset    bigint not null,
  state              text not null default 'claimed' check (state in ('claimed', 'moved', 'settled', 'refused', 'released')),
  problem            text not null default '', -- of a refused one
  moved_at           timestamptz,
  retry_offset       bigint,      -- of its record on the retry topic, once known
  settled_at         timestamptz, -- when its group was done with it
  edit               jsonb,       -- what a person changed in it
  edited_value       bytea,       -- until it is moved: then the retry topic has it
  primary key (job, seq, topic, partition, "offset")
);
-- A letter is moved once in its life: what fails again is another letter. This is what two redrives at once run into.
create unique index redrive_items_once on leat_control.redrive_items (topic, partition, "offset", at)
  where state not in ('released', 'refused');
-- Every record and tombstone of a retry topic is looked up here while the index reads it.
create index redrive_items_parked on leat_control.redrive_items (retry_topic, original_partition, original_offset);

-- +goose Down
drop table leat_control.redrive_items;
drop table leat_control.redrives;
