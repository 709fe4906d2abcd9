-- +goose Up

-- One row for each fingerprint: all failures of one cause. Derived from the failure headers of retry and dead-letter topics, and so
-- rebuildable, but for systemic ones (a breaker that stays open), which the notifier takes from the processes.
create table leat_control.incidents (
  fingerprint  text primary key check (fingerprint <> ''),
  systemic     boolean not null default false, -- the target or a dependency, not records
  stage        text not null,
  group_names  text[] not null,
  class        text not null,
  code         text not null,
  message      text not null,     -- parameterized: no value of any record
  first_seen   timestamptz not null,
  last_seen    timestamptz not null,
  failures     bigint not null,   -- attempts that failed
  dead         bigint not null,   -- records that were given up
  keys         bigint not null default 0, -- distinct keys in incident_keys
  more_keys    boolean not null default false, -- there are more than are counted
  example      jsonb not null     -- of the last failure: event, tenant, and where the record was read first
);
comment on table leat_control.incidents is 'Failures by cause. What people and the notifier decided about them is in incident_standings.';
create index incidents_last_seen on leat_control.incidents (last_seen);

create table leat_control.incident_hours (
  fingerprint text not null,
  hour        timestamptz not null,
  failures    bigint not null,
  dead        bigint not null,
  primary key (fingerprint, hour)
);

create table leat_control.incident_tenants (
  fingerprint text not null,
  tenant      text not null,
  failures    bigint not null,
  dead        bigint not null,
  keys        bigint not null default 0,
  last_seen   timestamptz not null,
  primary key (fingerprint, tenant)
);
create index incident_tenants_tenant on leat_control.incident_tenants (tenant);

-- The keys of an incident, up to a bound: they are counted exactly up to it, and show where to look.
create table leat_control.incident_keys (
  fingerprint text not null,
  key         text not null,
  tenant      text not null,
  primary key (fingerprint, key)
);

-- What was decided about an incident, by people and by the rules. Not derived from topics: a rebuild keeps it. version makes a change
-- of one who has read an older row impossible.
create table leat_control.incident_standings (
  fingerprint   text primary key,
  state         text not null check (state in ('new', 'ongoing', 'escalating', 'regressed', 'resolved', 'muted')),
  since         timestamptz not null, -- of the state
  why           text not null,        -- the rule that moved it, with its numbers, or the person's reason
  episode       integer not null,     -- 1, and one more each time it comes back
  opened_at     timestamptz not null, -- of the episode
  escalations   integer not null default 0, -- of the episode
  severity      text not null check (severity in ('warning', 'error', 'critical')), -- the worst of the episode
  resolved_at   timestamptz,          -- a failure after this is a regression
  base_failures bigint not null default 0, -- at the end of the episode before
  base_dead     bigint not null default 0,
  seen_at       timestamptz not null, -- the last failure known: counts may be smaller for a while, during a rebuild
  muted_until   timestamptz,
  muted_until_escalating boolean not null default false,
  owner         text not null default '',
  note          text not null default '',
  told          boolean not null default true, -- false: the notifier has not looked at this change yet
  version       bigint not null default 1
);
create index incident_standings_open on leat_control.incident_standings (fingerprint) where state <> 'resolved' or not told;

-- The notifier's outbox. A row is made in the transaction that moves the incident, once for each receiver, episode and kind; it
-- is sent while it is locked, so an id comes twice only if its sender dies between the answer and its commit.
create table leat_control.notifications (
  id          uuid primary key,
  seq         bigint generated always as identity unique, -- the order of a receiver
  receiver    text not null,
  fingerprint text not null,
  episode     integer not null,
  kind        text not null check (kind in ('opened', 'escalated', 'regressed', 'closed')),
  number      integer not null default 0, -- of escalations in one episode
  document    jsonb not null,             -- what is said
  state       text not null default 'pending' check (state in ('pending', 'sent', 'failed')),
  created_at  timestamptz not null default now(),
  due         timestamptz not null default now(),
  attempts    integer not null default 0,
  error       text not null default '',
  sent_at     timestamptz,
  message     uuid,                       -- the message it went in; several share one in a digest
  unique (fingerprint, episode, receiver, kind, number)
);
create index notifications_pending on leat_control.notifications (receiver, seq) where state = 'pending';
create index notifications_sent on leat_control.notifications (receiver, sent_at) where state = 'sent';

-- What became of records, by tenant: business outcomes, which are too many for labels of metrics.
create table leat_control.outcomes (
  hour    timestamptz not null,
  tenant  text not null,
  stage   text not null,
  entity  text not null,
  outcome text not null, -- normalized, filtered, applied, unchanged, superseded, dead_letter, ...
  detail  text not null, -- the filter, the code of the refusal
  count   bigint not null,
  primary key (hour, tenant, stage, entity, outcome, detail)
);
create index outcomes_tenant on leat_control.outcomes (tenant, hour);

-- +goose Down
drop table leat_control.outcomes;
drop table leat_control.notifications;
drop table leat_control.incident_standings;
drop table leat_control.incident_keys;
drop table leat_control.incident_tenants;
drop table leat_control.incident_hours;
drop table leat_control.incidents;
