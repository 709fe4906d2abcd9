-- +goose Up

-- How far a projection has read. It moves in the transaction that writes the projection's rows, so they are exactly those of the
-- records before it. topic_id is Kafka's id of the topic: a topic that was made anew begins anew.
create table leat_control.positions (
  projection  text not null,
  topic       text not null,
  topic_id    uuid not null,
  partition   integer not null,
  next_offset bigint not null,
  at          timestamptz not null default now(),
  primary key (projection, topic, partition)
);

-- One row for each record of a dead-letter topic. All of it is derived: from the record itself, and, for the state, from
-- dead_letter_notes, redrive_items and the other letters. So it can be thrown away and read anew from the topics.
create table leat_control.dead_letters (
  topic              text not null,  -- the dead-letter topic
  partition          integer not null,
  "offset"           bigint not null,
  at                 timestamptz not null, -- the dead letter's own timestamp
  format             text not null check (format in ('leat', 'relay', 'spring', 'connect', 'streams', 'unknown')),
  tenant             text not null default '',
  system             text not null default '',
  source_id          text not null default '',
  record_key         bytea,
  event_id           text not null default '',
  group_name         text not null default '',
  stage              text not null default '',
  original_topic     text not null default '',
  original_partition integer,
  original_offset    bigint,
  original_at        timestamptz,
  class              text not null default '',
  code               text not null default '',
  disposition        text not null default '',
  fingerprint        text not null default '',
  message            text not null default '',
  attempts           integer not null default 0,
  first_failed_at    timestamptz,
  last_failed_at     timestamptz,
  replay_count       integer not null default 0,
  replay_id          text not null default '',
  bytes              integer not null default 0, -- of key, value and headers
  state              text not null default 'open'
                     check (state in ('open', 'redriving', 'redriven', 'resolved', 'failed_again', 'discarded')),
  state_at           timestamptz not null,
  job                uuid,    -- the redrive that has or had it
  successor_topic    text,    -- of a letter that failed again: the letter that it became
  successor_partition integer,
  successor_offset   bigint,
  primary key (topic, partition, "offset")
);
comment on table leat_control.dead_letters is
  'Index of all dead letters. open: nobody has decided; redriving, redriven: on its way back, handed to its group; resolved: the group '
  'has handled it; failed_again: it has become the dead letter that successor_* names; discarded: by a person, with a reason.';
create index dead_letters_state on leat_control.dead_letters (state, at);
create index dead_letters_fingerprint on leat_control.dead_letters (fingerprint, at);
create index dead_letters_event on leat_control.dead_letters (event_id);
create index dead_letters_original on leat_control.dead_letters (original_topic, original_partition, original_offset, group_name);
create index dead_letters_record on leat_control.dead_letters (tenant, system, source_id);

-- What people know and decided about a dead letter. It is not derived from a topic, so a reindex keeps it. at is the letter's
-- own timestamp: in a topic that was made anew, another letter has the same offset, and this is not about that one.
create table leat_control.dead_letter_notes (
  topic        text not null,
  partition    integer not null,
  "offset"     bigint not null,
  at           timestamptz not null,
  owner        text not null default '',
  note         text not null default '',
  discarded_by text not null default '',
  discarded_at timestamptz,
  discarded_why text not null default '',
  primary key (topic, partition, "offset", at)
);

-- One row for each failed attempt that stands on a retry or dead-letter topic. settled_at: when the record that waited was taken off
-- the retry topic again, because it was handled, given up, cancelled or discarded; until then the newest attempt is parked.
create table leat_control.attempts (
  topic              text not null,
  partition          integer not null,
  "offset"           bigint not null,
  at                 timestamptz not null,
  event_id           text not null default '',
  tenant             text not null default '',
  system             text not null default '',
  source_id          text not null default '',
  group_name         text not null default '',
  stage              text not null default '',
  original_topic     text not null default '',
  original_partition integer,
  original_offset    bigint,
  attempt            integer not null,
  not_before         timestamptz,
  class              text not null default '',
  code               text not null default '',
  disposition        text not null default '',
  fingerprint        text not null default '',
  message            text not null default '',
  outbox_id          bigint,      -- of the relay's dead letters
  settled_at         timestamptz,
  primary key (topic, partition, "offset")
);
create index attempts_event on leat_control.attempts (event_id);
create index attempts_record on leat_control.attempts (tenant, system, source_id);
create index attempts_fingerprint on leat_control.attempts (fingerprint, at);
create index attempts_at on leat_control.attempts (at); -- old ones are dropped by age
-- A tombstone of a retry topic names the record by its original offset; what waits now is few.
create index attempts_parked on leat_control.attempts (topic, partition, original_offset) where settled_at is null and disposition = 'retry';

insert into leat_control.rights (role, privileges, object) values
  ('process', 'select, insert, update', 'leat_control.positions'),
  ('process', 'select, insert, update, delete', 'leat_control.attempts'),
  ('operator', 'select, delete', 'leat_control.positions'), -- for a rebuild
  ('operator', 'select, delete', 'leat_control.attempts');

-- +goose Down
delete from leat_control.rights where object in ('leat_control.positions', 'leat_control.attempts');
drop table leat_control.attempts;
drop table leat_control.dead_letter_notes;
drop table leat_control.dead_letters;
drop table leat_control.positions;
