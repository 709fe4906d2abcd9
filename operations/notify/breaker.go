package notify

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/operations/incidents"
)

const selectBreakers = `select stage, group_name, status->'breaker'->>'reason', status->'breaker'->>'sample', (status->'breaker'->>'since')::timestamptz
from leat_control.processes
where seen_at > now() - interval '15 seconds' and status->'breaker'->>'state' in ('open', 'half-open')
  and (status->'breaker'->>'since')::timestamptz < now() - make_interval(secs => $1)
order by stage, group_name, 5`

// An opening counts once: the row is touched every few seconds while it lasts.
const upsertBreaker = `insert into leat_control.incidents as i (fingerprint, systemic, stage, group_names, class, code, message, first_seen, last_seen,
  failures, dead, example)
values ($1, true, $2, array[$3::text], 'systemic', 'breaker_open', $4, $5, now(), 1, 0, '{}')
on conflict (fingerprint) do update set message = excluded.message, last_seen = excluded.last_seen,
  first_seen = case when i.last_seen < now() - interval '1 minute' then excluded.first_seen else i.first_seen end,
  failures = i.failures + case when i.last_seen < now() - interval '1 minute' then 1 else 0 end`

// breakers makes an incident of each breaker that has been open for a while, by what the processes say of themselves: it stands on no
// topic, for a target that is down fails no record.
func (n *Notifier) breakers(ctx context.Context) error {
	rows, err := n.cfg.DB.Query(ctx, selectBreakers, n.cfg.OpenBreaker.Seconds())
	if err != nil {
		return fmt.Errorf("reading the state of breakers: %w", err)
	}
	type breaker struct {
		stage, group   string
		reason, sample *string
		since          time.Time
	}
	open, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b breaker, err error) {
		err = row.Scan(&b.stage, &b.group, &b.reason, &b.sample, &b.since)
		return b, err
	})
	if err != nil {
		return fmt.Errorf("reading the state of breakers: %w", err)
	}
	seen := map[string]bool{}
	for _, b := range open {
		fp := "breaker:" + b.stage + "/" + b.group
		if seen[fp] {
			continue // another process of the group, which waits for the same target; the one that waits longest comes first
		}
		seen[fp] = true
		message := incidents.Describe(b.reason, b.sample)
		if _, err := n.cfg.DB.Exec(ctx, upsertBreaker, fp, b.stage, b.group, message, b.since); err != nil {
			return fmt.Errorf("writing the incident of an open breaker: %w", err)
		}
	}
	return nil
}
