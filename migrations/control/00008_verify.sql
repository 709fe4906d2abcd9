-- +goose Up

-- Reports of `leat verify run`, as they were signed. Its processes find here what has been verified and when: whoever holds the advisory
-- lock of a source looks before it begins, so that two at once do not do the same.
create table leat_control.verify_reports (
  id          uuid primary key,
  source      text not null check (source <> ''),
  started_at  timestamptz not null,
  finished_at timestamptz not null default now(),
  since       timestamptz,
  until       timestamptz,
  changes     bigint not null,
  agrees      boolean not null,
  differences bigint not null,
  waiting     bigint not null,
  document    bytea not null -- byte for byte, as the signature is of it
);
comment on table leat_control.verify_reports is 'Reports of scheduled verifications of delivery.';
create index verify_reports_source on leat_control.verify_reports (source, finished_at); -- the latest of each source
create index verify_reports_finished on leat_control.verify_reports (finished_at); -- old ones are removed by age

-- +goose Down
drop table leat_control.verify_reports;
